"""What a profile says, as tables."""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
import os
import pathlib
from collections.abc import Callable, Iterable

from tfmtl import files
from tfmtl.profiling.parts import INPUT, OTHER, PARTS, Scopes
from tfmtl.profiling.trace import Op, Trace

#: How many rows the tables of ops have.
TOP = 15


@dataclasses.dataclass(frozen=True)
class Memory:
    """Resident memory of the process, MB (2**20 bytes).

    Args:
        before: when training began, the model built and nothing traced.
        settled: after the warm-up.
        peak: the largest during the steps that were timed without the profiler.
    """

    before: float
    settled: float
    peak: float


@dataclasses.dataclass(frozen=True)
class Row:
    """Ops that are counted together.

    Args:
        name: of the ops, of their type, or of the part of the step.
        type: the ops', empty where they are of several.
        part: the part of the step they belong to, empty where to several.
        origin: the node in TensorFlow's graph that they come from, empty where from several.
        milliseconds: a step.
        share: of the step, 0 to 1.
        calls: how often they run in a step.
    """

    name: str
    type: str
    part: str
    origin: str
    milliseconds: float
    share: float
    calls: float


class Profile:
    """Where the time of a training step goes.

    Every moment of a step is given to the ops that run in it, in equal parts where several run side
    by side, so that ops, types and parts each add up to the step. What runs other ops, as a
    compiled program does, is given a moment only if nothing inside is seen to run. A moment in
    which no op runs is ``idle``: Python, callbacks and the runtime between ops.

    An op counts as running while it waits for cores that others have. A kernel that goes on in
    other threads when its call has returned, as some of XLA's do, is not seen there. Nor are ops on
    other devices than the CPU.

    ``print(profile)`` shows the tables; :meth:`write` leaves them in a folder.

    Args:
        trace: of some steps.
        steps: how many.
        scopes: what the parts of a step are called.
        unprofiled: milliseconds a step took without the profiler.
        cpu: of CPU time, all threads of the process together, which others' load hardly reaches.
        memory: ``None`` where it is not known.
        title: what was profiled.
    """

    def __init__(
        self,
        trace: Trace,
        steps: int,
        scopes: Scopes,
        *,
        unprofiled: float,
        cpu: float,
        memory: Memory | None = None,
        title: str = "",
    ):
        self.steps = steps
        #: Milliseconds a step under the profiler, and without it.
        self.milliseconds = (trace.end - trace.start) / 1e9 / steps
        self.unprofiled = unprofiled
        self.cpu = cpu
        self.memory = memory
        self.title = title
        #: Whether XLA compiled the step and its ops are seen.
        self.has_xla = trace.has_xla
        times, idle = _divide(trace)
        #: Milliseconds a step in which no op runs.
        self.idle = idle / 1e9 / steps
        self._ops = [
            (op, INPUT if op.in_input else scopes.part_of(op.origin), time)
            for op, time in zip(trace.ops, times, strict=True)
        ]

    @property
    def parts(self) -> list[Row]:
        """The parts of the step, in its order."""
        rows = self._sum(lambda op, part: (part, "", part, ""))
        return sorted(rows, key=lambda row: PARTS.index(row.name))

    @property
    def types(self) -> list[Row]:
        """The types of the ops, the longest first."""
        return self._sum(lambda op, part: (op.type, op.type, "", ""))

    @property
    def ops(self) -> list[Row]:
        """All ops by name, the longest first."""
        return self._sum(lambda op, part: (op.name, op.type, part, op.origin))

    @property
    def products(self) -> float:
        """The share of the step that is matrix products, or fusions that hold one: 0 to 1."""
        return self._share(lambda op: op.is_product)

    def _share(self, chosen: Callable[[Op], bool]) -> float:
        time = sum(time for op, _, time in self._ops if chosen(op))
        return time / 1e9 / self.steps / self.milliseconds

    def _sum(self, key: Callable[[Op, str], tuple[str, str, str, str]]) -> list[Row]:
        times: dict[tuple[str, str, str, str], float] = collections.defaultdict(float)
        calls: dict[tuple[str, str, str, str], int] = collections.Counter()
        for op, part, time in self._ops:
            times[key(op, part)] += time / 1e9 / self.steps
            calls[key(op, part)] += 1
        rows = [
            Row(*names, time, time / self.milliseconds, calls[names] / self.steps)
            for names, time in times.items()
        ]
        return sorted(rows, key=lambda row: -row.milliseconds)

    # Shown

    def lines(self) -> list[str]:
        """What stands above the tables."""
        found = [
            f"{self.unprofiled:,.1f} ms a step, {self.cpu:,.1f} ms of CPU time; "
            f"{self.milliseconds:,.1f} ms under the profiler (means of {self.steps} steps)",
            f"matrix products: {self.products:.1%} of the step under the profiler",
        ]
        if self.memory is not None:
            memory = self.memory
            found.append(
                f"resident memory at its peak in the steps: {memory.peak:,.0f} MB, "
                f"{memory.peak - memory.before:,.0f} more than before training and "
                f"{memory.peak - memory.settled:,.0f} more than after the warm-up"
            )
        hidden = self._share(lambda op: op.contains)
        if hidden > 0.02:
            found.append(f"{hidden:.1%} is inside branches or programs whose ops are not traced")
        other = sum(row.share for row in self.parts if row.name == OTHER)
        if other > hidden + 0.02:
            found.append(
                f"`{OTHER}` is under none of the name scopes `forward`, `backward`, `weights`, "
                "`optimizer`, nor in a layer"
            )
        return found

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, heads and rows of each table, as text."""
        figures = ["ms", "share", "calls"]
        idle = ["idle", f"{self.idle:,.2f}", f"{self.idle / self.milliseconds:.1%}", ""]
        types, ops = self.types, self.ops
        tables = [
            ("Parts of the step", ["part", *figures], [*_cells(self.parts), idle]),
            ("Types of ops", ["type", *figures], _cells(types[:TOP])),
            (
                "Ops that take longest",
                ["op", "type", "part", *figures],
                _cells(ops[:TOP], "type", "part"),
            ),
        ]
        if self.has_xla:
            made = [row for row in ops if row.type in ("fusion", "custom-call")]
            tables.append(
                (
                    "XLA's fusions and custom calls",
                    ["op", "origin", "part", *figures],
                    _cells(made[:TOP], "origin", "part"),
                )
            )
        return tables

    def __rich__(self):
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        shown: list = [Text(line) for line in (self.title, *self.lines()) if line]
        for title, heads, rows in self.tables():
            table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
            for head in heads:
                figure = head in ("ms", "share", "calls")
                table.add_column(head, justify="right" if figure else "left", overflow="fold")
            for row in rows:
                table.add_row(*(Text(cell) for cell in row))
            shown.append(table)
        return Group(*shown)

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        Console(file=text, width=110).print(self)
        return text.getvalue().rstrip()

    def markdown(self) -> str:
        """The tables in Markdown."""
        blocks = [f"# {self.title}"] if self.title else []
        blocks.append("\n".join(f"- {line}" for line in self.lines()))
        for title, heads, rows in self.tables():
            ends = ["---:" if head in ("ms", "share", "calls") else "---" for head in heads]
            lines = ["| " + " | ".join(cells) + " |" for cells in (heads, ends, *rows)]
            blocks.append("\n".join([f"## {title}", "", *lines]))
        return "\n\n".join(blocks) + "\n"

    def write(self, folder: str | os.PathLike) -> list[str]:
        """Write ``profile.md`` (the tables) and ``ops.csv`` (every op).

        Returns:
            The names of the files.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(field.name for field in dataclasses.fields(Row))
        writer.writerows(dataclasses.astuple(row) for row in self.ops)
        files = {"profile.md": self.markdown().encode(), "ops.csv": text.getvalue().encode()}
        place = pathlib.Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_whole(place / name, content)
        return list(files)


def write_whole(file: pathlib.Path, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    with files.written(file) as beside:
        pathlib.Path(beside).write_bytes(content)


def _cells(rows: Iterable[Row], *more: str) -> list[list[str]]:
    return [
        [
            row.name,
            *(getattr(row, name) for name in more),
            f"{row.milliseconds:,.2f}",
            f"{row.share:.1%}",
            f"{row.calls:,.4g}",
        ]
        for row in rows
    ]


def _divide(trace: Trace) -> tuple[list[float], float]:
    """Each op's part of the time between a trace's ends, and the rest, picoseconds."""
    edges = sorted(
        (min(max(at, trace.start), trace.end), begins, i)
        for i, op in enumerate(trace.ops)
        for at, begins in ((op.start, True), (op.end, False))
    )
    running = [0, 0]  # ops, and those that contain others
    passed = [0.0, 0.0]  # what an op that ran from the start would have been given so far
    found = [0.0] * len(trace.ops)
    idle, now = 0.0, trace.start
    for at, begins, i in edges:
        kind = 0 if running[0] else 1
        if running[kind]:
            passed[kind] += (at - now) / running[kind]
        else:
            idle += at - now
        now = at
        kind = int(trace.ops[i].contains)
        found[i] += -passed[kind] if begins else passed[kind]
        running[kind] += 1 if begins else -1
    return found, idle + trace.end - now
