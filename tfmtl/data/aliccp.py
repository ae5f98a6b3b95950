"""Ali-CCP: clicks on Taobao's recommendations, and purchases after them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfmtl.data.csv_files import csv_files
from tfmtl.data.encode import check_tasks
from tfmtl.data.files import Path, find_parts
from tfmtl.data.rows import Splits
from tfmtl.data.stream import Stream

#: Each task's column.
TASKS = {"click": "click", "purchase": "purchase"}
USER = ("101", "121", "122", "124", "125", "126", "127", "128", "129")
ITEM = ("205", "206", "207", "210", "216")
# Of user and item together, and the scenario (301).
COMBINATION = ("508", "509", "702", "853", "301", "109_14", "110_14", "127_14", "150_14")
CATEGORICAL = (*USER, *ITEM, *COMBINATION)
NUMERIC = ("D109_14", "D110_14", "D127_14", "D150_14", "D508", "D509", "D702", "D853")


def aliccp(
    path: Path | Mapping[str, Path],
    *,
    tasks: Sequence[str] = ("click", "purchase"),
    validation_fraction: float = 0.1,
    seed: int = 0,
    width: int | Mapping[str, int] = 8,
) -> Splits[Stream]:
    """Ali-CCP (Ma et al., SIGIR 2018) as the CSV files into which it is usually preprocessed.

    These hold one column a field, integers for ids and the weights of some fields as numbers
    (``D...``). ``purchase`` is buying after a click, counted over all impressions (CTCVR). Test
    and validation rows are the files made for them. Without a file for validation a random share
    of the training rows is held out.

    Args:
        path: a folder with ``ali_ccp_train.csv``, ``ali_ccp_test.csv`` and perhaps
            ``ali_ccp_val.csv`` (or other names that hold these words), or the files as
            ``{"train": ..., "test": ...}``.
        tasks: one or both of ``"click"`` and ``"purchase"``.
        validation_fraction: which share of the training rows is for validation where there is no
            file for it, in (0, 1).
        seed: chooses these rows.
        width: width of the embeddings, one for all or one per categorical column.

    Returns:
        Splits of streams with 23 categorical and 8 numeric columns.

    Raises:
        ValueError: an unknown task, or what :func:`tfmtl.data.csv_files` rejects.
    """
    tasks = check_tasks(tasks, TASKS)
    return csv_files(
        find_parts(path, [".csv"]),
        labels={task: TASKS[task] for task in tasks},
        categorical=CATEGORICAL,
        numeric=NUMERIC,
        validation_fraction=validation_fraction,
        seed=seed,
        width=width,
    )
