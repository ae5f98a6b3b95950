"""A table that nobody has described: what its columns are, and its rows for models."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfmtl import words
from tfmtl.data.encode import require
from tfmtl.data.files import check_fraction, find_file
from tfmtl.data.rows import Rows, Splits
from tfmtl.preprocessing import Category, Column, Cross, Number, Preprocessor

#: A column of integers with at most so many values is a category.
FEW = 1_000
#: A column of numbers whose largest value is so many times the median has a long tail.
LONG_TAIL = 20.0
#: Words at the end of a name that say that its integers are no quantities.
IDS = ("id", "ids", "code", "type", "category")


def table(
    source: str | os.PathLike | Any,
    *,
    tasks: Sequence[str],
    columns: Mapping[str, Column | Cross] | None = None,
    ignore: Sequence[str] = (),
    groups: str | None = None,
    time: str | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    width: int = 8,
) -> Splits:
    """Rows of a CSV file or a DataFrame that fit in memory, with columns as they are.

    Columns that are not described are looked at (:func:`described`). Vocabularies, scales and bins
    are learnt on the training rows alone.

    Args:
        source: a CSV file with a header (plain or compressed, as pandas reads it; semicolons and
            tabs part columns as well), or a pandas DataFrame.
        tasks: columns of labels, the most important first. Numbers; empty where there is no label.
            True and false count as 1 and 0.
        columns: what some or all columns are; a :class:`~tfmtl.preprocessing.Cross` adds one.
        ignore: columns that are no inputs.
        groups: a column that says whose rows they are (a user, a search): rows of one group go to
            one part, and ``lists`` makes a list of them. It is an input only if ``columns`` says
            so.
        time: a column of dates, times or numbers by which rows are parted: the last ones are for
            testing, those before them for validation, as a model that is served meets rows of a
            later day. Rows of one time are taken in the table's order, a group by its last row. It
            is an input only if ``columns`` says so. By default the parts are drawn by lot.
        validation_fraction: the share of rows (of groups) held out for validation, in (0, 1).
        test_fraction: likewise for testing.
        seed: chooses them, without ``time``.
        width: of the embeddings of columns that are not described.

    Returns:
        Splits with a :class:`~tfmtl.preprocessing.Preprocessor`.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: pandas is not installed.
        ValueError: a column that is named and not there, a task that is an input, whose labels are
            no numbers, or all of whose training labels are the same, a time that is none or is
            missing, no column left, or fractions that leave no rows.
    """
    frame = read(source)
    tasks = (tasks,) if isinstance(tasks, str) else tuple(tasks)
    ignore = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    given = dict(columns or {})
    raw = [name for name, column in given.items() if not isinstance(column, Cross)]
    named = {"tasks": tasks, "columns": raw, "ignore": ignore}
    named |= {"groups": [groups] if groups else [], "time": [time] if time else []}
    for argument, names in named.items():
        check_columns(argument, names, frame)
    if not tasks or len(set(tasks)) < len(tasks) or set(tasks) & set(raw):
        raise ValueError(
            "`tasks` must name one or more columns, each once, that are no inputs. "
            f"Received: {list(tasks)}"
        )
    left = [n for n in frame.columns if n not in {*tasks, *ignore, *raw, groups, time}]
    kinds = {**{n: c for n, c in described(frame[left], width).items() if c is not None}, **given}
    labels = {task: labels_of(task, frame[task]) for task in tasks}
    preprocessor = Preprocessor(kinds)
    inputs = columns_of(frame, preprocessor.signature())
    owners = None if groups is None else frame[groups].factorize()[0]
    times = None if time is None else _times(frame[time])
    part = _parts(len(frame), owners, times, validation_fraction, test_fraction, seed)
    for task, values in labels.items():
        known = values[(part == 0) & ~np.isnan(values)]
        if len(np.unique(known)) < 2:
            raise ValueError(
                f"`tasks` must have labels that differ. Received: {task!r}, whose training rows "
                f"have {f'{known[0]:g} alone' if len(known) else 'none'}"
            )
    preprocessor.adapt({name: values[part == 0] for name, values in inputs.items()})
    tensors = {name: tf.convert_to_tensor(values) for name, values in inputs.items()}
    encoded = {name: values.numpy() for name, values in preprocessor(tensors).items()}
    rows = Rows(encoded, labels, owners)
    train, validation, test = (rows.take(part == i) for i in range(3))
    return Splits(
        train,
        validation,
        test,
        preprocessor.spec,
        tasks,
        preprocessor.vocabularies(),
        preprocessor=preprocessor,
    )


def check_columns(argument: str, names: Sequence[str], frame: Any) -> None:
    """Raise ``ValueError`` where an argument names columns that a DataFrame does not have."""
    missing = sorted(set(names) - set(frame.columns))
    if missing:
        raise ValueError(
            f"`{argument}` must name columns of the table. Received: {missing}"
            f"{words.hint(missing[0], frame.columns)}. There are: {list(frame.columns)}"
        )


def read(source: str | os.PathLike | Any, rows: int | None = None) -> Any:
    """A CSV file, or its first rows, as a DataFrame; a DataFrame as it is.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: pandas is not installed.
        ValueError: the file is no table with a header and rows.
    """
    pandas = require("pandas", "Reading a table")
    if isinstance(source, pandas.DataFrame):
        return source
    file = find_file(source)
    try:
        frame = pandas.read_csv(file, low_memory=False, nrows=rows)
        if len(frame.columns) == 1:
            separators = {each: frame.columns[0].count(each) for each in ";\t|"}
            separator = max(separators, key=lambda each: separators[each])
            if separators[separator]:
                frame = pandas.read_csv(file, sep=separator, low_memory=False, nrows=rows)
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{file.name}: not a CSV file with a header: {error}") from error
    if not len(frame):
        raise ValueError(f"{file.name}: a header and no rows")
    return frame


def described(frame: Any, width: int = 8) -> dict[str, Column | None]:
    """What the columns of a DataFrame seem to be; ``None`` for one that tells nothing, as it has
    one value throughout or another in every row.

    Strings, and integers of at most 1,000 values or named like ids, are categories, true and false
    counting as 1 and 0; of a category that half of the rows have to themselves, values met once are
    unknown. Other numbers are scaled, after ``log(1 + x)`` where they are not negative and have a
    long tail.
    """
    return {name: _described(str(name), frame[name], width) for name in frame.columns}


def _truth_as_numbers(column: Any) -> Any:
    """A column of true and false, and what is missing, as 1, 0 and NaN; others as they are."""
    if require("pandas").api.types.infer_dtype(column, skipna=True) != "boolean":
        return column
    return column.map({True: 1.0, False: 0.0}).astype("float64")


def _described(name: str, column: Any, width: int) -> Column | None:
    known = _truth_as_numbers(column).dropna()
    distinct = known.nunique()
    of_numbers = known.dtype.kind in "iuf"
    whole = of_numbers and bool(np.isfinite(known).all()) and bool((known % 1 == 0).all())
    words = name.lower().replace("-", "_").split("_")
    like_ids = whole and (words[-1] in IDS or name.endswith(("Id", "ID")))
    if distinct < 2 or (distinct == len(column) and not (of_numbers and not like_ids)):
        return None
    rare = distinct > len(known) / 2
    if not of_numbers:
        return Category(width=width, least=1 + rare)
    if whole and (like_ids or distinct <= min(FEW, len(known) / 10)) and known.min() >= 0:
        return Category(width=width, least=1 + rare, dtype="int64")
    long = known.min() >= 0 and known.max() > LONG_TAIL * max(float(known.median()), 1e-9)
    return Number(log=bool(long))


def columns_of(frame: Any, specs: Mapping[str, tf.TensorSpec]) -> dict[str, np.ndarray]:
    """Columns of a DataFrame as a signature with these specs takes them, ``{name: [rows]}``."""
    return {name: values_of(frame[name], spec.dtype.name) for name, spec in specs.items()}


def values_of(column: Any, dtype: str) -> np.ndarray:
    """A column of a DataFrame as raw values for a preprocessor or a served model.

    Args:
        column: a pandas Series.
        dtype: ``"string"``, ``"int64"`` or ``"float32"``; what is missing becomes an empty string,
            -1 or NaN. So does what is not of that kind, with a warning.
    """
    if dtype == "string":
        return column.astype(object).where(column.notna(), "").astype(str).to_numpy(object)
    numbers = require("pandas").to_numeric(_truth_as_numbers(column), errors="coerce")
    if dtype == "int64":
        numbers = numbers.where(numbers % 1 == 0)
    odd = column[numbers.isna() & column.notna()]
    if len(odd):
        kind = "whole numbers" if dtype == "int64" else "numbers"
        warnings.warn(
            f"Column {column.name!r} has values that are no {kind} and count as missing: "
            f"{len(odd):,}, {str(odd.iloc[0])!r} for one.",
            stacklevel=2,
        )
    if dtype == "int64":
        return numbers.fillna(-1).to_numpy("int64")
    return numbers.to_numpy("float32")


def labels_of(task: str, column: Any) -> np.ndarray:
    """A column of labels, ``[rows]`` float32; raises ``ValueError`` where it holds no numbers."""
    pandas = require("pandas")
    numbers = pandas.to_numeric(column, errors="coerce").astype("float32")
    wrong = column[numbers.isna() & column.notna()]
    if len(wrong) or numbers.isna().all():
        shown = "no label at all" if not len(wrong) else repr(wrong.iloc[0])
        raise ValueError(
            f"`tasks` must name columns of numbers. Received: {task!r}, which holds {shown}"
        )
    return numbers.to_numpy("float32")


def _times(column: Any) -> np.ndarray:
    """A column of dates, times or numbers as numbers that grow with time, ``[rows]`` float64."""
    pandas = require("pandas")
    if pandas.api.types.is_numeric_dtype(column):
        values = column.astype("float64").to_numpy()
    else:
        dates = pandas.to_datetime(column, errors="coerce", format="mixed", utc=True)
        values = (dates - pandas.Timestamp(0, tz="UTC")).dt.total_seconds().to_numpy()
    if np.isnan(values).any():
        wrong = column[np.isnan(values)]
        raise ValueError(
            "`time` must name a column of dates, times or numbers, one in each row. Received: "
            f"{column.name!r}, which has {len(wrong):,} others, {str(wrong.iloc[0])!r} for one"
        )
    return values


def _parts(n: int, owners, times, validation: float, test: float, seed: int) -> np.ndarray:
    """For each row 0, 1 or 2: training, validation, test."""
    check_fraction("validation_fraction", validation)
    check_fraction("test_fraction", test)
    members = np.arange(n) if owners is None else np.unique(owners, return_inverse=True)[1]
    count = int(members.max()) + 1
    held, tested = (max(1, round(share * count)) for share in (validation, test))
    if held + tested >= count:
        raise ValueError(
            "`validation_fraction` and `test_fraction` must leave rows to train on. "
            f"Received: {validation} and {test} of {count} {'rows' if owners is None else 'groups'}"
        )
    if times is None:
        order = np.random.default_rng(seed).permutation(count)
    else:
        last = np.full(count, -np.inf)
        np.maximum.at(last, members, times)
        order = np.argsort(last, kind="stable")[::-1]
    place = np.empty(count, int)
    place[order] = np.arange(count)
    return np.where(place < tested, 2, np.where(place < tested + held, 1, 0))[members]
