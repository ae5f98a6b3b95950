"""Results as Markdown, and the positions that the text states."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from tfmtl.experiments.settings import weighted_sums
from tfmtl.experiments.statistics import Difference

#: Differences of less than the digits that the tables show.
SHOWN = 1e-4


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
    names = {
        "nmt": "NMT",
        "nmt-paper": "NMT, the paper's letter",
        "nmt-famo": "NMT with FAMO",
        "clippy": "ClippyAdam",
    }
    if kind == "single":
        return f"{argument} alone"
    if kind == "sum" and ":" in argument:
        return f"weighted sum, {argument.replace(':', ' : ')}"
    if kind == "sum":
        return f"weighted sum, {argument} on the primary"
    name = names.get(kind, kind)
    return f"{name}, {argument.replace('+', ', ')}" if argument else name


def results_table(
    records: Sequence[Mapping],
    tasks: Sequence[str],
    against: Mapping[str, Mapping[str, Difference]] | None = None,
) -> str:
    """A row for each method: AUC of every task, differences to each task alone, wall time.

    Args:
        records: of the runs.
        tasks: in priority order.
        against: ``{task: {method: difference of the task's AUC to its single-task training}}``.
    """
    against = {task: against[task] for task in tasks if task in against} if against else {}
    head = ["method", *(f"{task} AUC" for task in tasks)]
    head += [*(f"{task} against alone [95 %]" for task in against), "seconds a run"]
    lines = [head, ["---"] * len(head)]
    seconds = by_method(records, "seconds")
    columns = {task: by_method(records, f"auc_{task}") for task in tasks}
    for method, times in seconds.items():
        row = [spread(columns[t][method]) if trains(method, t) else "–" for t in tasks]
        for found in against.values():
            shown = method in found and not method.startswith("single:")
            row.append(_interval(found[method]) if shown else "–")
        lines.append([label(method), *row, f"{times.mean():.0f}"])
    return markdown(lines)


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table of cells, its head and the rule below it first."""
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def trains(method: str, task: str) -> bool:
    """Whether a method trains a task at all: single-task training leaves the others at rest."""
    return not method.startswith("single:") or method == f"single:{task}"


def difference_rows(against: Mapping[str, Mapping[str, Difference]]) -> list[dict]:
    """What :func:`results_table` is given, as rows for a CSV file."""
    return [
        {"task": task, "method": method, **dataclasses.asdict(difference)}
        for task, found in against.items()
        for method, difference in found.items()
    ]


def coverage(records: Sequence[Mapping], task: str, method: str = "nmt") -> float:
    """How far a method's mean AUC comes from 0.5 to the task's own single-task AUC."""
    values = by_method(records, f"auc_{task}")
    return float((values[method].mean() - 0.5) / (values[f"single:{task}"].mean() - 0.5))


def against_curve(records: Sequence[Mapping], tasks: Sequence[str], method: str = "nmt") -> str:
    """Where a method lies against the line through the weighted sums, by the means over seeds.

    ``"below"``: a weighted sum is as good in one task and better in the other, or a point of the
    line better in both. ``"on"``: neither, but a point of the line is as good in both. ``"above"``:
    no point of the line is, and some weighted sum is beaten in both.
    ``"beyond"`` otherwise: it trades the tasks in a way that no weighted sum did.

    Raises:
        ValueError: no weighted sum among the records.
    """
    points = [by_method(records, f"auc_{task}") for task in tasks[:2]]
    own = np.array([each[method].mean() for each in points])
    sums = weighted_sums(points[0])
    if not sums:
        raise ValueError(f"`records` must hold a weighted sum. Received: {sorted(points[0])}")
    curve = np.array([[each[m].mean() for each in points] for m in sums])
    steps = np.linspace(0, 1, 1001)[:, None]
    line = np.concatenate([a + steps * (b - a) for a, b in itertools.pairwise(curve)] or [curve])
    beaten = (curve >= own).all(axis=1) & (curve > own + SHOWN).any(axis=1)
    lead = float((line - own).min(axis=1).max())  # of the best point, in its worse task
    if beaten.any() or lead > SHOWN:
        return "below"
    if lead >= -SHOWN:
        return "on"
    return "above" if (curve <= own).all(axis=1).any() else "beyond"


def _interval(difference: Difference) -> str:
    return f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
