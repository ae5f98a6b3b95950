"""QK-Video: what users did with videos, of the Tenrec benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfmtl.data.csv_files import csv_files
from tfmtl.data.encode import check_tasks
from tfmtl.data.files import Path, find_file
from tfmtl.data.rows import Splits
from tfmtl.data.stream import Stream

#: Each task's column.
TASKS = {"click": "click", "like": "like", "follow": "follow", "share": "share"}
# Inputs are listed one by one: how often a video was watched is an outcome and not named here.
CATEGORICAL = ("user_id", "item_id", "video_category", "gender", "age")


def qk_video(
    path: Path,
    *,
    tasks: Sequence[str] = ("click", "like"),
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    width: int | Mapping[str, int] = 8,
) -> Splits[Stream]:
    r"""QK-Video of Tenrec (Yuan et al., NeurIPS 2022): ``QK-video.csv`` or a part of it.

    The parts are random rows of the one file, 8 : 1 : 1 as in the paper. ``watching_times`` is an
    outcome and never an input; columns that are not named here, such as ``hist_1``, are passed
    over. ``\N`` is a missing value.

    Args:
        path: the file.
        tasks: some of ``"click"``, ``"like"``, ``"follow"`` and ``"share"``.
        validation_fraction: which share of the rows is for validation, in (0, 1).
        test_fraction: and for testing.
        seed: chooses these rows.
        width: width of the embeddings, one for all or one per categorical column.

    Returns:
        Splits of streams with 5 categorical columns.

    Raises:
        ValueError: an unknown task, or what :func:`tfmtl.data.csv_files` rejects.
    """
    tasks = check_tasks(tasks, TASKS)
    return csv_files(
        {"train": find_file(path)},
        labels={task: TASKS[task] for task in tasks},
        categorical=CATEGORICAL,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        seed=seed,
        width=width,
    )
