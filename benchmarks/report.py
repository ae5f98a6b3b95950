"""Readings into tables, limits and plots."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.plan import TITLES, Against, Comparison, Contender, Heat, Readings


@dataclasses.dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    low: float
    middle: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        low, middle, high = np.percentile(values, [25, 50, 75]).tolist()
        return cls(low, middle, high, len(values))

    def __str__(self) -> str:
        if self.count == 1:
            return number(self.middle)
        return f"{number(self.middle)} ({number(self.low)}–{number(self.high)})"


def number(value: float) -> str:
    """Three digits, or all of an integer's."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 4
    return f"{value:,.{digits}f}" if value != int(value) else f"{int(value):,}"


def figure(readings: Readings, key: tuple[str, str], name: str) -> Spread | None:
    """A figure of a contender, or ``None`` where it has none."""
    reading = readings.get(key)
    if reading is None or reading.error or not reading.figures.get(name):
        return None
    return Spread.of(reading.figures[name])


def ratio(readings: Readings, mine: Contender, other: Against, name: str) -> Spread | None:
    """The ratios of two contenders' figures, round by round."""
    key = other.environment or mine.environment, other.label
    if figure(readings, mine.key, name) is None or figure(readings, key, name) is None:
        return None
    above, below = (np.array(readings[each].figures[name]) for each in (mine.key, key))
    return Spread.of(above / below)


@dataclasses.dataclass(frozen=True)
class Limit:
    """What must hold, and what was measured."""

    comparison: str
    what: str
    environment: str
    measured: Spread | None
    limit: float

    @property
    def verdict(self) -> str:
        """By the median."""
        if self.measured is None:
            return "not measured"
        return "holds" if self.measured.middle <= self.limit else "**does not hold**"


def limits(comparison: Comparison, readings: Sequence[Readings]) -> Iterator[Limit]:
    """All that must hold in a comparison."""
    for heat, found in zip(comparison.heats, readings):
        for each in heat.contenders:
            where = f"{heat.title}: " if heat.title else ""
            judged = [
                (other.column, ratio(found, each, other, heat.figure), other.limit)
                for other in each.against
            ]
            judged.append((heat.figure, figure(found, each.key, heat.figure), each.limit))
            for column, measured, limit in judged:
                if limit is not None:
                    what = f"{where}{each.label}, {column}"
                    yield Limit(comparison.name, what, each.environment, measured, limit)


def columns(heat: Heat) -> list[str]:
    """The headings of a heat's ratios."""
    return list(dict.fromkeys(o.column for each in heat.contenders for o in each.against))


def table(heat: Heat, readings: Readings) -> list[str]:
    """A heat as Markdown: a line for each contender."""
    ratios = columns(heat)
    lines = [
        " | ".join(["| contender", "environment", *heat.shown, *ratios]) + " |",
        "| --- | --- |" + " ---: |" * (len(heat.shown) + len(ratios)),
    ]
    for each in heat.contenders:
        cells: list[Spread | None] = [figure(readings, each.key, name) for name in heat.shown]
        by_column = {o.column: ratio(readings, each, o, heat.figure) for o in each.against}
        cells += [by_column.get(column) for column in ratios]
        words = ["–" if cell is None else str(cell) for cell in cells]
        lines.append(" | ".join([f"| {each.label}", TITLES[each.environment], *words]) + " |")
    lines += [
        f"\n{TITLES[r.contender.environment]}, {r.contender.label}: did not run. `{r.error}`"
        for r in readings.values()
        if r.error
    ]
    return lines


def limit_table(found: Sequence[Limit]) -> list[str]:
    """Limits as Markdown."""
    lines = [
        "| comparison | what | environment | measured | limit | |",
        "| --- | --- | --- | ---: | ---: | --- |",
    ]
    for each in found:
        measured = "–" if each.measured is None else str(each.measured)
        cells = [each.comparison, each.what, TITLES[each.environment], measured]
        lines.append("| " + " | ".join([*cells, f"{each.limit:g}", each.verdict]) + " |")
    return lines


def section(comparison: Comparison, readings: Sequence[Readings], image: str | None) -> list[str]:
    """A comparison as Markdown."""
    lines = [f"## {comparison.title}", "", comparison.text, ""]
    for heat, found in zip(comparison.heats, readings):
        if heat.title:
            lines += [f"**{heat.title}**", ""]
        lines += [*table(heat, found), ""]
    for note in comparison.notes(readings) if comparison.notes else []:
        lines += [note, ""]
    if image:
        lines += [f"![{comparison.title}]({image})", ""]
    return lines


def plot(comparison: Comparison, readings: Sequence[Readings], file: pathlib.Path) -> None:
    """A panel for each column of ratios, and for the figure of heats without ratios.

    Medians and quartiles; a black tick is the limit.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    panels: dict[str, list[tuple]] = {}
    for heat, found in zip(comparison.heats, readings):
        for column, *point in points(heat, found):
            panels.setdefault(column, []).append(point)
    if not panels:
        return
    labels = [list(dict.fromkeys(label for label, *_ in each)) for each in panels.values()]
    heights = [len(each) + 2.5 for each in labels]
    canvas, axes = pyplot.subplots(
        len(panels),
        figsize=(9, 0.22 * sum(heights)),
        gridspec_kw={"height_ratios": heights},
        squeeze=False,
        layout="constrained",
    )
    colours = {"tf221": "tab:blue", "tf215": "tab:orange", "peers": "tab:green"}
    apart = {"tf221": -0.2, "tf215": 0.2, "peers": 0.0}
    used = set()
    for axis, column, names in zip(axes[:, 0], panels, labels):
        for label, environment, spread, limit in panels[column]:
            y = names.index(label) + apart[environment]
            arms = [[spread.middle - spread.low], [spread.high - spread.middle]]
            axis.errorbar(spread.middle, y, xerr=arms, fmt="o", ms=3.5, color=colours[environment])
            if limit is not None:
                axis.plot([limit, limit], [y - 0.18, y + 0.18], color="black", lw=1.5)
            used.add(environment)
        middles = [spread.middle for _, _, spread, _ in panels[column]]
        if max(middles) > 30 * min(middles):
            axis.set_xscale("log")
        else:
            axis.set_xlim(left=0)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.tick_params(axis="x", labelsize=8)
        axis.grid(alpha=0.3)
        axis.set_title(column, fontsize=9, loc="left")
    handles = [
        pyplot.Line2D([], [], marker="o", ls="", color=colours[each], label=TITLES[each])
        for each in colours
        if each in used
    ]
    canvas.legend(handles=handles, loc="outside upper right", ncols=len(handles), fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(file, dpi=110)
    pyplot.close(canvas)


def points(heat: Heat, readings: Readings) -> Iterator[tuple]:
    """Column, label, environment, spread and limit of what a heat gives to the plot."""
    where = f"{heat.title}: " if heat.title else ""
    ratios = columns(heat)
    for each in heat.contenders:
        found = [(o.column, ratio(readings, each, o, heat.figure), o.limit) for o in each.against]
        if not ratios:
            found = [(heat.figure, figure(readings, each.key, heat.figure), each.limit)]
        for column, spread, limit in found:
            if spread is not None:
                yield column, f"{where}{each.label}", each.environment, spread, limit
