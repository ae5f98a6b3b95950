"""AliExpress: what users of a shop did with search results."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

from tfmtl.data.csv_files import csv_files
from tfmtl.data.encode import check_tasks
from tfmtl.data.files import Path, find_parts
from tfmtl.data.rows import Splits
from tfmtl.data.stream import Stream

#: Each task's column.
TASKS = {"click": "click", "conversion": "conversion"}
CATEGORICAL = tuple(f"categorical_{i}" for i in range(1, 17))
NUMERIC = tuple(f"numerical_{i}" for i in range(1, 64))
COUNTRIES = ("ES", "FR", "NL", "RU", "US")


def aliexpress(
    path: Path | Mapping[str, Path],
    country: str | None = None,
    *,
    tasks: Sequence[str] = ("click", "conversion"),
    validation_fraction: float = 0.1,
    seed: int = 0,
    width: int | Mapping[str, int] = 8,
) -> Splits[Stream]:
    """AliExpress search logs (Li et al., CIKM 2020), one set a country.

    Labels are per impression, as published: ``conversion`` is buying after a click (CTCVR), not
    buying given a click. Test rows are the published test file; validation rows are those of a
    share of the training file's *searches*. ``search_id`` groups rows and is no input.

    Args:
        path: a folder with ``train.csv`` and ``test.csv`` (or names that hold these words), or
            the files as ``{"train": ..., "test": ...}``, with ``"validation"`` if there is one.
        country: one of ``"ES"``, ``"FR"``, ``"NL"``, ``"RU"`` and ``"US"`` where ``path`` is the
            folder above ``AliExpress_ES`` and the others; ``None`` if it is one of these itself.
        tasks: one or both of ``"click"`` and ``"conversion"``.
        validation_fraction: which share of the training searches is for validation, in (0, 1).
        seed: chooses these searches.
        width: width of the embeddings, one for all or one per categorical column.

    Returns:
        Splits of streams with 16 categorical and 63 numeric columns, grouped by search.

    Raises:
        ValueError: an unknown country or task, or what :func:`tfmtl.data.csv_files` rejects.
    """
    tasks = check_tasks(tasks, TASKS)
    if country is not None:
        if country not in COUNTRIES or isinstance(path, Mapping):
            raise ValueError(
                f"`country` must be one of {COUNTRIES}, below a folder as `path`, or None. "
                f"Received: {country!r}"
            )
        path = pathlib.Path(path) / f"AliExpress_{country}"
    return csv_files(
        find_parts(path, [".csv"]),
        labels={task: TASKS[task] for task in tasks},
        categorical=CATEGORICAL,
        numeric=NUMERIC,
        groups="search_id",
        validation_fraction=validation_fraction,
        seed=seed,
        width=width,
    )
