"""The short videos of the ICME 2019 challenge (ByteDance)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfmtl.data.csv_files import csv_files
from tfmtl.data.encode import check_tasks
from tfmtl.data.files import Path, find_file
from tfmtl.data.rows import Splits
from tfmtl.data.stream import Stream

#: The columns of the file, in its order; it has no header.
FILE_COLUMNS = (
    "uid",
    "user_city",
    "item_id",
    "author_id",
    "item_city",
    "channel",
    "finish",
    "like",
    "music_id",
    "did",
    "create_time",
    "video_duration",
)
#: Each task's column.
TASKS = {"finish": "finish", "like": "like"}
CATEGORICAL = (
    "uid",
    "user_city",
    "item_id",
    "author_id",
    "item_city",
    "channel",
    "music_id",
    "did",
)
NUMERIC = ("video_duration",)


def tiktok(
    path: Path,
    *,
    tasks: Sequence[str] = ("finish", "like"),
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    width: int | Mapping[str, int] = 8,
) -> Splits[Stream]:
    """Short video understanding, ICME 2019 grand challenge: ``final_track1_train.txt`` or track 2.

    The challenge's test labels were not published and the file holds no time of the view, so the
    parts are random rows of the one file. -1 (not known) is a value like any other. The video's
    time of creation is no input.

    Args:
        path: the tab-separated file, without a header.
        tasks: one or both of ``"finish"`` and ``"like"``.
        validation_fraction: which share of the rows is for validation, in (0, 1).
        test_fraction: and for testing.
        seed: chooses these rows.
        width: width of the embeddings, one for all or one per categorical column.

    Returns:
        Splits of streams with 8 categorical and 1 numeric columns.

    Raises:
        ValueError: an unknown task, or what :func:`tfmtl.data.csv_files` rejects.
    """
    tasks = check_tasks(tasks, TASKS)
    return csv_files(
        {"train": find_file(path)},
        labels={task: TASKS[task] for task in tasks},
        categorical=CATEGORICAL,
        numeric=NUMERIC,
        log=NUMERIC,
        names=FILE_COLUMNS,
        delimiter="\t",
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        seed=seed,
        width=width,
    )
