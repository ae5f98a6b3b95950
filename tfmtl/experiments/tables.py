"""Results as Markdown, and the positions that the text states."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from tfmtl.experiments.statistics import Difference


def by_method(records: Sequence[Mapping], column: str) -> dict[str, np.ndarray]:
    """The values of a column of every method, in the order of the records."""
    found: dict[str, list[float]] = {}
    for record in records:
        found.setdefault(record["method"], []).append(float(record[column]))
    return {method: np.array(values) for method, values in found.items()}


def spread(values: np.ndarray, digits: int = 4) -> str:
    """Mean and standard deviation over seeds."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"


def label(method: str) -> str:
    """A method as a reader says it."""
    kind, _, argument = method.partition(":")
    names = {"nmt": "NMT", "nmt-paper": "NMT, the paper's letter"}
    if kind == "single":
        return f"{argument} alone"
    if kind == "sum":
        return f"weighted sum, {argument} on the primary"
    return names[method]


def results_table(
    records: Sequence[Mapping],
    tasks: Sequence[str],
    held: Mapping[str, Difference] | None = None,
) -> str:
    """A row for each method: AUC of every task, the primary's difference, wall time.

    Args:
        records: of the runs.
        tasks: in priority order.
        held: the primary's AUC against single-task training, by method.
    """
    head = ["method", *(f"{task} AUC" for task in tasks)]
    head += [f"{tasks[0]} against alone [95 %]"] if held else []
    head += ["seconds a run"]
    lines = [head, ["---"] * len(head)]
    seconds = by_method(records, "seconds")
    columns = {task: by_method(records, f"auc_{task}") for task in tasks}
    for method, times in seconds.items():
        only = method.partition(":")[2] if method.startswith("single:") else None
        row = [label(method)]
        row += [spread(columns[task][method]) if only in (None, task) else "–" for task in tasks]
        if held:
            row.append(_interval(held[method]) if only in (None, tasks[0]) else "–")
        lines.append([*row, f"{times.mean():.0f}"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def coverage(records: Sequence[Mapping], task: str, method: str = "nmt") -> float:
    """How far a method's mean AUC comes from 0.5 to the task's own single-task AUC."""
    values = by_method(records, f"auc_{task}")
    return float((values[method].mean() - 0.5) / (values[f"single:{task}"].mean() - 0.5))


def against_curve(records: Sequence[Mapping], tasks: Sequence[str], method: str = "nmt") -> str:
    """Where a method lies against the weighted sums, by the means over seeds.

    ``"above"``: no point of the line through the weighted sums is at least as good in both tasks,
    and some weighted sum is beaten in both. ``"below"``: some weighted sum beats it in both.
    ``"beyond"`` otherwise: it trades the tasks in a way that no weighted sum did.
    """
    points = [by_method(records, f"auc_{task}") for task in tasks[:2]]
    own = np.array([each[method].mean() for each in points])
    sums = [m for m in points[0] if m.startswith("sum:")]
    curve = np.array([[each[m].mean() for each in points] for m in sums])
    if (curve >= own).all(axis=1).any():
        return "below"
    steps = np.linspace(0, 1, 1001)[:, None]
    line = np.concatenate([a + steps * (b - a) for a, b in itertools.pairwise(curve)] or [curve])
    if (line >= own - 1e-4).all(axis=1).any():  # to the digits that the table shows
        return "on"
    return "above" if (curve <= own).all(axis=1).any() else "beyond"


def _interval(difference: Difference) -> str:
    return f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
