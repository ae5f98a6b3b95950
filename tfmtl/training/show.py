"""What a training run says of itself in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from tfmtl.data import Splits
from tfmtl.data.table import labels_of
from tfmtl.preprocessing import Category, Column, Cross, Number
from tfmtl.statistics import differences
from tfmtl.training.recipe import Recipe
from tfmtl.training.run import losses, measure
from tfmtl.training.single import auc

#: A column by itself that reaches this AUC of a label is asked about.
SUSPICIOUS = 0.9
_DATE = r"^\s*(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[/.]\d{1,2}[/.]\d{2,4})"


def columns(splits: Splits) -> Table:
    """The columns of a table as they were taken."""
    table = Table("column", "is", "ids", "note", title=f"{len(splits.train):,} rows to train on")
    words = splits.preprocessor.vocabularies()
    for name, column in splits.preprocessor.columns.items():
        size = splits.features.categorical.get(name)
        outcome = {str(word) for word in words.get(name, ()) if word is not None} == {"0", "1"}
        hint = "0 or 1, a label? known when it is served? else --ignore it" if outcome else ""
        table.add_row(name, said(column), "–" if size is None else f"{size:,}", hint)
    return table


def described(frame: Any, found: Mapping[str, Column | None], tasks: Sequence[str] = ()) -> Table:
    """The columns of a DataFrame as they would be taken; with tasks, what each tells of them by
    itself, and those that tell most first.

    Raises:
        ValueError: a task's labels are no numbers.
    """
    targets = {task: labels_of(task, frame[task]) for task in tasks}
    told = {
        name: [auc(frame[name], values) for values in targets.values()]
        for name in found
        if name not in targets
    }
    heads = [f"AUC of {task} by it alone" for task in tasks]
    table = Table(
        "column", "values", "missing", "would be", *heads, "note", title=f"{len(frame):,} rows"
    )
    for name in sorted(told, key=lambda name: -max(np.nan_to_num(told[name]), default=0.0)):
        column, values = found[name], frame[name]
        tells = [task for task, each in zip(tasks, told[name], strict=True) if each >= SUSPICIOUS]
        hint = _hint(values)
        if tells:
            hint = f"tells {', '.join(tells)}: known when it is served? else ignore it"
        table.add_row(
            str(name),
            f"{values.nunique():,}",
            _share(float(values.isna().mean())),
            "left out" if column is None else said(column),
            *("–" if np.isnan(each) else f"{each:.3f}" for each in told[name]),
            hint,
        )
    return table


def _share(share: float) -> str:
    return "<1%" if 0 < share < 0.01 else f"{share:.0%}"


def _hint(values: Any) -> str:
    """What someone who knows the table may want to say of a column."""
    known = values.dropna()
    if known.dtype.kind in "biuf":
        return "a label? then a task, or to be ignored" if known.isin((0, 1)).all() else ""
    words = known.astype(str)
    for separator in "|;":
        if words.str.contains(separator, regex=False).mean() > 0.1:
            return f'several values? {{kind: category, pooling: mean, separator: "{separator}"}}'
    if words.str.match(_DATE).mean() > 0.9:
        return "dates? part rows by it (time); as an input take its hour or weekday, or ignore it"
    return ""


def labels(recipe: Recipe, splits: Splits) -> Table:
    """How many labels each task has, how many are 1 where they are 0 or 1, and the loss."""
    parts = {"training": splits.train, "validation": splits.validation, "test": splits.test}
    table = Table("labels", *parts, "loss")
    for task, loss in losses(recipe, splits).items():
        cells = []
        for rows in parts.values():
            known = rows.labels[task][~np.isnan(rows.labels[task])]
            ones = f", {int(known.sum()):,} are 1" if np.isin(known, (0, 1)).all() else ""
            cells.append(f"{len(known):,}{ones}")
        table.add_row(task, *cells, loss)
    return table


def said(column: Column | Cross) -> str:
    """A column in words."""
    if isinstance(column, Cross):
        return f"a cross of {', '.join(column.columns)}"
    if isinstance(column, Number):
        kind = "a number" if column.bins is None else "a number in bins"
        return f"{kind}, log(1 + x)" if column.log else kind
    assert isinstance(column, Category)
    kind = "strings" if column.dtype == "string" else "integers"
    return f"{kind} as ids{', several a row' if column.pooling else ''}"


def results(
    recipe: Recipe,
    splits: Splits,
    found: Mapping[str, np.ndarray],
    alone: Mapping[str, np.ndarray],
) -> Table:
    """Test figures of each task, beside those of training it alone where that was done.

    Args:
        recipe: what was trained.
        splits: its rows.
        found: predictions of the test rows by task.
        alone: the same of training each task alone.
    """
    measures = [measure(recipe, splits.test, task, values) for task, values in found.items()]
    names = dict.fromkeys(name for name, _ in measures)
    table = Table(title=f"{len(splits.test):,} test rows")
    for head in ("task", *(names if len(names) == 1 else ("measure", "value"))):
        table.add_column(head)
    if alone:
        table.add_column("alone")
        table.add_column("difference [95 %]")
    for (task, values), (name, value) in zip(found.items(), measures, strict=True):
        cells = [task, *([name] if len(names) > 1 else []), f"{value:.4f}"]
        if alone:
            _, other = measure(recipe, splits.test, task, alone[task])
            cells += [
                f"{other:.4f}",
                _difference(splits, task, name, values, alone[task], value - other),
            ]
        table.add_row(*cells)
    return table


def _difference(splits, task, name, values, alone, plain) -> str:
    if name != "AUC":
        return f"{plain:+.4f}"
    labels, groups = splits.test.labels[task], splits.test.groups
    both = {"joint": [values], "alone": [alone]}
    try:
        d = differences(labels, both, "alone", groups=groups)["joint"]
    except ValueError:  # too few rows of one label
        return f"{plain:+.4f}"
    verdict = " suffers" if d.high < 0 else " gains" if d.low > 0 else " cannot be told apart"
    return f"{d.mean:+.4f} [{d.low:+.4f}, {d.high:+.4f}]{verdict}"
