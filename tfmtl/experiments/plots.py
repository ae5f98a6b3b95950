"""The pictures of comparisons."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from tfmtl.balancers.readings import level
from tfmtl.experiments.panel import ALONE, MODELS, Panel
from tfmtl.experiments.tables import label
from tfmtl.names import weighted_sums
from tfmtl.plots import COLOURS, GREY, legend_above, mark_stages

LINE, STAR, LETTER, OTHER = COLOURS[:4]
_SIZES = {"*": 14, "D": 7, "P": 8, "o": 5}


def traces(rows: Sequence[Mapping], tasks: Sequence[str], path: pathlib.Path) -> None:
    """λ, the primary on held-out rows, and the last task's loss over steps (NMT, Figure 3).

    Args:
        rows: of ``NMT.trace()``, numbers or their text.
        tasks: in priority order.
        path: of the PNG.

    A stage of the default variant starts anew, so its lines are not joined to the previous one's.
    Filled points of the last panel are readings at which every constraint holds.
    """
    rows = [{key: _number(value) for key, value in row.items()} for row in rows]
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    stage = columns["stage"]
    parts = [np.flatnonzero(stage == k) for k in np.unique(stage)]
    figure = Figure(figsize=(7.2, 7.2), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True)

    def draw(axes, name: str, colour: str, label: str | None = None) -> None:
        for part in parts:
            axes.plot(columns["step"][part], columns[name][part], color=colour, label=label)
            label = None  # once

    for i, task in enumerate(tasks[:-1]):
        draw(top, f"lambda_{task}", (STAR, LETTER, LINE, OTHER)[i % 4], f"λ of {task}")
    top.set_ylabel("λ")

    loss, auc = columns[f"loss_{tasks[0]}"], columns[f"auc_{tasks[0]}"]
    ranked = bool(np.isfinite(auc[parts[0]]).all())
    first_loss, first_auc = loss[parts[0]], auc[parts[0]]
    best = int(np.argmax(first_auc) if ranked else np.argmin(first_loss))
    draw(middle, f"loss_{tasks[0]}", STAR, f"{tasks[0]}: held-out loss")
    middle.axhline(
        level(first_loss, best), color=STAR, linestyle="--", linewidth=1, label="its baseline"
    )
    middle.set_ylabel(f"{tasks[0]}: loss", color=STAR)
    handles = middle.get_legend_handles_labels()
    if ranked:
        right = middle.twinx()
        draw(right, f"auc_{tasks[0]}", LINE, "held-out AUC")
        right.axhline(
            -level(-first_auc, best), color=LINE, linestyle="--", linewidth=1, label="its baseline"
        )
        right.set_ylabel(f"{tasks[0]}: AUC", color=LINE)
        handles = tuple(a + b for a, b in zip(handles, right.get_legend_handles_labels()))

    last = f"loss_{tasks[-1]}"
    draw(bottom, last, LETTER, f"{tasks[-1]}: held-out loss")
    held = np.flatnonzero((stage == stage.max()) & (columns["feasible"] > 0))
    if len(parts) > 1 and len(held):
        bottom.plot(
            columns["step"][held],
            columns[last][held],
            "o",
            color=LETTER,
            markersize=4,
            label="a reading that satisfies the constraints",
        )
    bottom.set_ylabel(f"{tasks[-1]}: loss")
    bottom.set_xlabel("step")

    for axes, labelled in (
        (top, top.get_legend_handles_labels()),
        (middle, handles),
        (bottom, bottom.get_legend_handles_labels()),
    ):
        legend_above(axes, *labelled)
        axes.grid(alpha=0.2)
    top.set_xlim(left=0)
    mark_stages((top, middle, bottom), columns["step"], stage)
    figure.savefig(path, dpi=130)


def boxes(panels: Sequence[Panel], reference: str, path: pathlib.Path) -> None:
    """Each method's overall measure over seeds, a panel for each model; a dashed line at the
    reference's mean.
    """
    rows = max(len(panel.values) for panel in panels)
    figure = Figure(figsize=(4.2 * len(panels) + 1, 1.2 + 0.26 * rows), layout="constrained")
    every = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(every, panels, strict=True):
        for place, (method, values) in enumerate(panel.overall.items()):
            colour = GREY if method in (reference, ALONE) else LINE
            axes.plot(values, np.full(len(values), place), "o", color=colour, markersize=3)
            low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
            axes.plot([low, high], [place, place], color=colour, linewidth=7, alpha=0.3)
            axes.plot(middle, place, "|", color=colour, markersize=12, markeredgewidth=2)
        names = [label(method) for method in panel.overall]
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.invert_yaxis()
        axes.axvline(
            panel.overall[reference].mean(), color=GREY, linewidth=1, linestyle="--", zorder=0
        )
        axes.set_title(panel.title, fontsize=9)
        axes.set_xlabel("mean test AUC" if panel.ranked else "−Δm%", fontsize=9)
        axes.grid(axis="x", alpha=0.2)
    figure.savefig(path, dpi=120)


def planes(panels: Sequence[Panel], path: pathlib.Path) -> None:
    """The two tasks' test AUC of every weighted sum, joined, and of NMT (NMT, Figure 2).

    Bars are deviations over seeds. With one model sums carry their weight, and dashed lines are
    each task alone.
    """
    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    axes = figure.subplots()
    single = len(panels) == 1
    shown = {}
    for panel, colour in zip(panels, COLOURS, strict=False):
        sums = weighted_sums(panel.values)
        line = np.array([panel.values[method].mean(axis=0)[:2] for method in sums]).reshape(-1, 2)
        axes.plot(line[:, 1], line[:, 0], "--", color=colour, alpha=0.6)
        for method in sums:
            _point(axes, panel.values[method], "o", colour, bars=single)
            if single:
                axes.annotate(
                    method.partition(":")[2],
                    panel.values[method].mean(axis=0)[[1, 0]],
                    xytext=(6, 5),
                    textcoords="offset points",
                    fontsize=9,
                    color=colour,
                )
        for method, marker in (("nmt", "*"), ("nmt-famo", "P"), ("nmt-paper", "D")):
            if method in panel.values:
                _point(axes, panel.values[method], marker, STAR if single else colour)
                shown[marker] = label(method)
        sums_called = f"{MODELS[panel.model]}{', weighted sums' * bool(sums)}"
        axes.plot([], [], "o--", color=colour, markersize=_SIZES["o"], label=sums_called)
    for marker, text in shown.items():
        colour = STAR if single else GREY
        axes.plot([], [], marker, color=colour, markersize=_SIZES[marker], label=text)
    tasks = panels[0].tasks
    if single:
        for task, draw in ((0, axes.axhline), (1, axes.axvline)):
            if panels[0].alone(tasks[task]):
                at = panels[0].values[ALONE][:, task].mean()
                draw(at, color=GREY, linestyle=":", linewidth=1, zorder=0)
        if panels[0].alone(tasks[0]) or panels[0].alone(tasks[1]):
            axes.plot([], [], ":", color=GREY, linewidth=1, label="each task alone")
    axes.set_xlabel(f"{tasks[1]}: test AUC")
    axes.set_ylabel(f"{tasks[0]} (primary): test AUC")
    axes.margins(0.08)
    axes.grid(alpha=0.2)
    # Above the axes, where nothing can lie beneath it.
    figure.legend(
        loc="outside upper left", ncols=min(4, len(panels) + 2), fontsize=8, frameon=False
    )
    figure.savefig(path, dpi=130)


def similarity(panels: Sequence[Panel], path: pathlib.Path) -> None:
    """Diff (PUB, equation 1) against the mean AUC, a point for each run of each method."""
    figure = Figure(figsize=(3.6 * len(panels), 3.4), layout="constrained")
    every = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(every, panels, strict=True):
        for run, record in zip(panel.runs, panel.records, strict=True):
            if len(run.trained) == len(panel.tasks):
                y = panel.overall[run.method][run.seed]
                axes.plot(float(record["difference"]), y, "o", color=LINE, markersize=3, alpha=0.6)
        axes.set_title(panel.title, fontsize=9)
        axes.set_xlabel("Diff", fontsize=9)
        axes.grid(alpha=0.2)
    every[0].set_ylabel("mean test AUC", fontsize=9)
    figure.savefig(path, dpi=120)


def _point(axes, values: np.ndarray, marker: str, colour: str, bars: bool = True) -> None:
    """A method's mean over seeds ``[seeds, tasks]``, the first task upwards."""
    y, x = values.mean(axis=0)[:2]
    deviations = {}
    if bars and len(values) > 1:
        deviations = dict(zip(("yerr", "xerr"), values.std(axis=0, ddof=1)[:2], strict=True))
    axes.errorbar(
        x,
        y,
        fmt=marker,
        color=colour,
        markersize=_SIZES[marker],
        elinewidth=0.8,
        capsize=2,
        zorder=3,
        **deviations,
    )


def _number(value) -> float:
    return float(value == "True") if value in ("True", "False") else float(value)
