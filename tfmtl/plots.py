"""Pictures of a training run. They need matplotlib: ``pip install "tfmtl[demo]"``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np

from tfmtl import events, figures
from tfmtl.data.encode import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, told apart by everyone, and a grey for what surrounds the lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
GREY = "#7F7F7F"

_TITLES = {"gradient_norm": "gradient norm", "lambda": "λ", "alpha": "α", "total": "total loss"}
# From here on the lines themselves say where the points lie.
_MANY_POINTS = 20


class _Line(NamedTuple):
    """A figure's values ``[points]`` over steps or epochs ``[points]``."""

    panel: str
    name: str
    held_out: bool
    x: np.ndarray
    y: np.ndarray


def history(
    source: keras.callbacks.History | Mapping[str, Sequence[float]] | str | os.PathLike,
    path: str | os.PathLike | None = None,
    groups: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
) -> Figure:
    """Draw what a run showed: a panel for each group of figures, a line for each task.

    A task has one colour in all panels, a figure of two tasks has both, and figures of held-out
    rows are dashed. Dotted verticals part the stages of NMT.

    Args:
        source: what ``fit`` returns or its dict, over epochs; or the folder of a
            :class:`tfmtl.callbacks.TaskBoard`, over steps. Figures that a dict has for fewer epochs
            than others are spread evenly.
        path: also write the picture here, as PNG, PDF or SVG by its ending.
        groups: which panels, in this order: ``"loss"``, ``"weight"``, ``"gradient_norm"``,
            ``"cosine"``, ``"lambda"``, ``"violation"``, ``"p"``, ``"alpha"``, ``"similarity"``,
            ``"difference"``, ``"total"`` for the total loss, a metric as ``"auc"``, or any other
            figure by its name. By default all.
        tasks: their names in the order of their colours; by default those that have a loss, sorted.

    Returns:
        A figure that no window or notebook knows of until it is shown or saved.

    Raises:
        ValueError: ``source`` is nothing of that kind, or holds no figure; ``groups`` names one
            that it does not hold; ``tasks`` is no list of names.
        ImportError: matplotlib is missing.
    """
    if tasks is not None and (isinstance(tasks, str) or not all(isinstance(t, str) for t in tasks)):
        raise ValueError(f"`tasks` must be a list of names. Received: {tasks!r}")
    over_steps = isinstance(source, (str, os.PathLike))
    if isinstance(source, (str, os.PathLike)):
        series = events.read_scalars(os.fspath(source))
        found = (tag[len("loss/") :] for tag in series if tag.startswith("loss/"))
        tasks = tuple(tasks or sorted(found))
    else:
        named, epochs = _epochs(source)
        tasks = tuple(tasks or figures.tasks_of(named))
        series = {figures.tag(name, tasks): _spread(y, epochs) for name, y in named.items()}
    stages = series.pop("stage", None)
    lines = list(_lines(series))
    unit = "step" if over_steps else "epoch"
    figure = _draw(lines, _panels(lines, groups), tasks, unit, stages)
    if path is not None:
        figure.savefig(os.fspath(path), dpi=130)
    return figure


def legend_above(axes: Axes, *entries) -> None:
    """A legend above the panel, where nothing can lie beneath it.

    Args:
        axes: the panel.
        *entries: handles and labels, where not all that are labelled are meant.
    """
    axes.legend(
        *entries,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        borderaxespad=0.2,
        ncols=4,
        fontsize=8,
        handlelength=2.8,
        frameon=False,
    )


def mark_stages(panels: Sequence[Axes], x: np.ndarray, stage: np.ndarray) -> None:
    """Dotted verticals at the last point of each stage but the last; numbers in the first panel.

    Args:
        panels: the panels.
        x: ``[points]``, increasing.
        stage: ``[points]``, the number of the stage at each.
    """
    ends = np.flatnonzero(np.diff(stage) != 0)
    panels[0].margins(y=0.15)  # for the numbers
    for axes in panels:
        for end in ends:
            axes.axvline(x[end], color=GREY, linewidth=1, linestyle=":")
    for number, begin in zip(stage[[0, *(ends + 1)]], [panels[0].get_xlim()[0], *x[ends]]):
        panels[0].annotate(
            f"stage {number:.0f}",
            (begin, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -11),
            textcoords="offset points",
            fontsize=8,
            color=GREY,
        )


def _epochs(source) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The scalars of a History by name, and its epochs, 1 first."""
    found = source.history if isinstance(source, keras.callbacks.History) else source
    if not isinstance(found, Mapping) or not found:
        raise ValueError(
            "`source` must be what `fit` returns, its dict, or a folder of event files. "
            f"Received: {source!r}"
        )
    series = {name: np.asarray(values, float) for name, values in found.items()}
    length = max(len(values) for values in series.values())
    epochs = np.arange(1, length + 1)
    if isinstance(source, keras.callbacks.History) and len(source.epoch) == length:
        epochs = np.asarray(source.epoch) + 1
    return {name: values for name, values in series.items() if values.ndim == 1}, epochs


def _spread(y: np.ndarray, epochs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values at the epochs they are of, if these are every second or every third."""
    every = max(1, len(epochs) // max(1, len(y)))
    return epochs[every - 1 :: every][: len(y)], y


def _lines(series: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Iterator[_Line]:
    """The figures that are drawn, those of held-out rows in the panel of their training rows."""
    for tag, (x, y) in series.items():
        group, _, name = tag.partition("/")
        held_out = group.startswith("val_")
        group = group.removeprefix("val_")
        # Figures of another size than the rest of their group.
        if tag == "similarity/difference":
            group, name = "difference", ""
        if group == "loss" and not name:
            group = "total"
        yield _Line(group, name, held_out, x, y)


def _panels(lines: Sequence[_Line], groups: Sequence[str] | None) -> list[str]:
    """The groups to draw, in order."""
    there = list(dict.fromkeys(line.panel for line in lines))
    if groups is None:
        order = (*figures.GROUPS, "difference")
        metrics = [group for group in there if group not in (*order, "total")]
        groups = [g for g in (order[0], "total", *metrics, *order[1:]) if g in there]
    unknown = [groups] if isinstance(groups, str) else [g for g in groups if g not in there]
    if unknown or not groups:
        raise ValueError(
            f"`groups` must be a list of some of: {sorted(there)}. Received: {groups!r}"
        )
    return list(groups)


def _draw(
    lines: Sequence[_Line],
    panels: Sequence[str],
    tasks: Sequence[str],
    unit: str,
    stages: tuple[np.ndarray, np.ndarray] | None,
) -> Figure:
    """One panel below the other, or two columns of them."""
    require("matplotlib", "Drawing")
    from matplotlib.figure import Figure

    columns = 1 if len(panels) < 4 else 2
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.4 * columns + 1.8, 2.1 * rows + 0.5), layout="constrained")
    all_axes = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    for unused in all_axes[len(panels) :]:
        unused.remove()
    all_axes = all_axes[: len(panels)].tolist()
    legend: dict = {}  # of the tasks, which is that of every panel
    for axes, panel in zip(all_axes, panels):
        _draw_panel(axes, [line for line in lines if line.panel == panel], tasks, legend)
        axes.set_ylabel(_TITLES.get(panel, panel))
        axes.grid(alpha=0.2)
    for axes in all_axes[-columns:]:
        axes.set_xlabel(unit)
        axes.tick_params(labelbottom=True)
        axes.xaxis.get_major_locator().set_params(integer=True)
    if stages is not None:
        mark_stages(all_axes, *stages)
    legend = {task: legend[task] for task in tasks if task in legend}
    if any(line.held_out and line.panel in panels for line in lines):
        from matplotlib.lines import Line2D

        legend["held-out rows"] = Line2D([], [], color=GREY, linestyle="--")
    figure.align_ylabels()
    figure.legend(
        legend.values(), legend, loc="outside upper left", ncols=8, fontsize=9, frameon=False
    )
    return figure


def _draw_panel(axes: Axes, lines: Sequence[_Line], tasks: Sequence[str], legend: dict) -> None:
    """The lines of a panel, with a legend of its own for those that are no task's."""
    colours = {task: COLOURS[i % len(COLOURS)] for i, task in enumerate(tasks)}
    pairs = figures.pairs(tasks) if lines[0].panel == "cosine" else {}
    others = iter(["black", GREY] * len(lines))
    own = []
    for line in lines:
        name = line.name
        style: dict = {"linestyle": "--" if line.held_out else "-"}
        if name in pairs:
            first, second = pairs[name]
            name = f"{first}, {second}"
            style = {"color": colours[first], "gapcolor": colours[second], "linestyle": (0, (4, 4))}
        elif name in colours and line.panel != "similarity":
            style["color"] = colours[name]
        else:
            style["color"] = "black" if line.held_out else next(others)
        if len(line.x) < _MANY_POINTS:
            style["marker"] = "."
        (handle,) = axes.plot(line.x, line.y, **style)
        if line.held_out:
            continue
        if line.panel != "similarity" and name in colours:
            legend.setdefault(name, handle)
        elif name:
            own.append((handle, name))
    if own:
        legend_above(axes, *zip(*own))
    if lines[0].panel == "gradient_norm":
        found = np.concatenate([line.y[np.isfinite(line.y)] for line in lines])
        if found.size and 0 < 10 * found.min() < found.max():
            axes.set_yscale("log")
