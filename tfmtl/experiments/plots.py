"""The two pictures of a comparison: the trade-off plane and NMT's traces."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from tfmtl.experiments.tables import by_method

# Okabe and Ito's colours, told apart by everyone.
LINE, STAR, LETTER, GREY = "#0072B2", "#D55E00", "#009E73", "#7F7F7F"


def tradeoff(records: Sequence[Mapping], tasks: Sequence[str], path: pathlib.Path) -> None:
    """Primary against secondary test AUC, as in NMT's Figure 2; bars are deviations over seeds."""
    primary, secondary = (by_method(records, f"auc_{task}") for task in tasks[:2])
    figure, axes = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
    sums = [method for method in primary if method.startswith("sum:")]
    if sums:
        x = [secondary[m].mean() for m in sums]
        y = [primary[m].mean() for m in sums]
        axes.plot(x, y, color=LINE, alpha=0.5, zorder=1)
        for method in sums:
            _point(axes, secondary[method], primary[method], "o", LINE)
            axes.annotate(
                method.partition(":")[2],
                (secondary[method].mean(), primary[method].mean()),
                xytext=(6, 5),
                textcoords="offset points",
                fontsize=8,
                color=LINE,
            )
        axes.plot([], [], "o-", color=LINE, label=f"weighted sums (weight on {tasks[0]})")
    for method, marker, colour, name in (
        ("nmt-paper", "D", LETTER, "NMT, the paper's letter"),
        ("nmt", "*", STAR, "NMT"),
    ):
        if method in primary:
            _point(axes, secondary[method], primary[method], marker, colour)
            axes.plot([], [], marker, color=colour, label=name)
    for task, values, draw in (
        (tasks[0], primary, axes.axhline),
        (tasks[1], secondary, axes.axvline),
    ):
        if f"single:{task}" in values:
            draw(values[f"single:{task}"].mean(), color=GREY, linestyle="--", linewidth=1)
    axes.plot([], [], "--", color=GREY, linewidth=1, label="each task alone")
    axes.set_xlabel(f"{tasks[1]}: test AUC")
    axes.set_ylabel(f"{tasks[0]}: test AUC (primary)")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.2)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def traces(rows: Sequence[Mapping], tasks: Sequence[str], path: pathlib.Path) -> None:
    """λ, the primary on held-out rows, and the last task's loss over steps (NMT, Figure 3).

    Args:
        rows: of ``NMT.trace()``, numbers or their text.
        tasks: in priority order.
        path: of the PNG.
    """
    rows = [{key: _number(value) for key, value in row.items()} for row in rows]
    steps = np.array([row["step"] for row in rows])
    stage = np.array([row["stage"] for row in rows])
    figure, (top, middle, bottom) = plt.subplots(
        3, 1, sharex=True, figsize=(6.4, 6.4), layout="constrained"
    )
    for i, task in enumerate(tasks[:-1]):
        multiplier = np.array([row[f"lambda_{task}"] for row in rows])
        top.plot(steps, multiplier, color=(STAR, LETTER, LINE)[i % 3], label=f"λ of {task}")
    top.set_ylabel("λ")
    top.legend(fontsize=8)
    loss = np.array([row[f"loss_{tasks[0]}"] for row in rows])
    auc = np.array([row[f"auc_{tasks[0]}"] for row in rows])
    first = stage == 1
    best = int(np.argmax(np.where(first, auc, -1))) if np.isfinite(auc).all() else None
    best = int(np.argmin(np.where(first, loss, np.inf))) if best is None else best
    middle.plot(steps, loss, color=STAR, label=f"{tasks[0]}: held-out loss")
    middle.axhline(loss[best], color=GREY, linestyle="--", linewidth=1, label="its baseline")
    middle.set_ylabel("loss")
    if np.isfinite(auc).all():
        right = middle.twinx()
        right.plot(steps, auc, color=LINE)
        right.axhline(auc[best], color=LINE, linestyle="--", linewidth=1)
        right.set_ylabel("AUC", color=LINE)
    middle.legend(fontsize=8)
    bottom.plot(
        steps,
        [row[f"loss_{tasks[-1]}"] for row in rows],
        color=LETTER,
        label=f"{tasks[-1]}: held-out loss",
    )
    bottom.set_ylabel("loss")
    bottom.set_xlabel("step")
    bottom.legend(fontsize=8)
    for axes in (top, middle, bottom):
        axes.grid(alpha=0.2)
        for begin in steps[np.flatnonzero(np.diff(stage)) + 1]:
            axes.axvline(begin, color=GREY, linewidth=1, linestyle=":")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _point(axes, x: np.ndarray, y: np.ndarray, marker: str, colour: str) -> None:
    bars = {} if len(x) < 2 else {"xerr": x.std(ddof=1), "yerr": y.std(ddof=1)}
    axes.errorbar(
        x.mean(),
        y.mean(),
        fmt=marker,
        color=colour,
        markersize=14 if marker == "*" else 6,
        elinewidth=0.8,
        capsize=2,
        zorder=3,
        **bars,
    )


def _number(value) -> float:
    return float(value == "True") if value in ("True", "False") else float(value)
