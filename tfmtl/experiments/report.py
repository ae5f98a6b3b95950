"""What a comparison leaves for its readers: a README or a report beside tables and plots."""

from __future__ import annotations

import pathlib
import platform
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from tfmtl import files
from tfmtl.data import Rows
from tfmtl.experiments import plots, tables
from tfmtl.experiments.runs import Run, read_csv, write_csv
from tfmtl.experiments.settings import LEARNT_SHARE, weighted_sums
from tfmtl.experiments.sources import SOURCES, load
from tfmtl.experiments.statistics import Difference, differences

Against = Mapping[str, Mapping[str, Difference]]

_FILES = {
    "results.csv": "every run: test and validation AUC of each task, epochs, steps, seconds",
    "differences.csv": "each method against each task alone: mean, interval, deviation over seeds",
    "tradeoff.png": "primary against secondary test AUC, bars: deviation over seeds",
    "traces.png": "λ and held-out losses over the steps of NMT's first seed",
    "model/1": "the SavedModel of NMT's first seed, as a model server wants it",
    "runs/": "each run with its test predictions, NMT's traces and SavedModels",
}
_PLACES = {
    "above": "above the line through the weighted sums",
    "on": "on the line through the weighted sums",
    "below": "below the line through the weighted sums",
    "beyond": "off the line through the weighted sums: a trade between the tasks that none of "
    "them made",
}


def write_demo(records: Sequence[dict], plan: Sequence[Run], folder: pathlib.Path) -> list[str]:
    """Print the demo's table; write plots, the SavedModel ``model/1`` and ``README.md``.

    Returns:
        The names of what is in the folder for a reader.
    """
    tasks = plan[0].settings.tasks
    _print_table(records, tasks)
    _draw(records, plan, folder)
    model = _first(plan, folder, "nmt")
    shutil.rmtree(folder / "model", ignore_errors=True)
    if model is not None:
        shutil.copytree(model / "model", folder / "model" / "1")
    text = [
        f"# {' ≻ '.join(tasks)} on {plan[0].data}\n",
        _made_by(records, plan),
        tables.results_table(records, tasks),
        f"Test rows. Mean{_deviation(plan)}.\n",
        _files(folder),
    ]
    _write(folder / "README.md", text)
    return ["README.md", *_present(folder)]


def write_comparison(
    records: Sequence[dict],
    plan: Sequence[Run],
    folder: pathlib.Path,
    path: pathlib.Path | None,
    draws: int,
) -> list[str]:
    """Write plots, ``differences.csv`` and ``report.md`` with intervals against each task alone.

    Returns:
        The names of what is in the folder for a reader.
    """
    settings = plan[0].settings
    tasks = settings.tasks
    _print_table(records, tasks)
    _draw(records, plan, folder)
    where = None if path is None else str(path)
    test = load(plan[0].data, where, tasks, settings.embedding_width).test
    with Console().status(f"{draws} draws of the test rows"):
        against = _against_alone(plan, folder, test, draws)
    if against:
        write_csv(folder / "differences.csv", tables.difference_rows(against))
    resampled = "rows" if test.groups is None else f"{len(np.unique(test.groups)):,} users"
    positives = ", ".join(f"{int(np.nansum(test.labels[t])):,} of {t}" for t in tasks)
    text = [
        f"## {plan[0].data}: {' ≻ '.join(tasks)}\n",
        _made_by(records, plan),
        tables.results_table(records, tasks, against),
        f"{len(test):,} test rows; positives: {positives}. Mean{_deviation(plan)}; in brackets "
        f"the 95 % interval of the mean difference, paired by seed, over {draws} bootstrap draws "
        f"of the test {resampled}.\n",
        "".join(f"- {line}\n" for line in verdicts(plan[0].data, records, tasks, against)),
        _files(folder),
    ]
    _write(folder / "report.md", text)
    return ["report.md", *_present(folder)]


def verdicts(
    data: str, records: Sequence[Mapping], tasks: Sequence[str], against: Against
) -> list[str]:
    """Was the primary task held, were the others learnt, and what did weighted sums do?

    Args:
        data: the data set, whose margin counts.
        records: of the runs.
        tasks: in priority order.
        against: as in :func:`tfmtl.experiments.tables.results_table`.
    """
    methods = {record["method"] for record in records}
    margin = SOURCES[data].held_margin
    lines = []
    for method in ("nmt", "nmt-paper"):
        if method not in methods:
            continue
        name = tables.label(method)
        if tasks[0] in against:
            d = against[tasks[0]][method]
            held = d.mean >= -margin and d.high >= 0
            side = "above" if d.low > 0 else "below" if d.high < 0 else "around"
            lines.append(
                f"{name}: {tasks[0]} is {'held' if held else '**not held**'}: {d.mean:+.4f} "
                f"against training it alone (at least {-margin} is asked for), with an interval "
                f"that lies {side} 0."
            )
        for task in tasks[1:]:
            if f"single:{task}" in methods:
                covered = tables.coverage(records, task, method)
                learnt = "learnt" if covered >= LEARNT_SHARE else "**not learnt**"
                lines.append(
                    f"{name}: {task} is {learnt}: {covered:.1%} of the way from 0.5 to its own "
                    f"single-task AUC (at least {LEARNT_SHARE:.0%} is asked for)."
                )
        if len(tasks) == 2 and weighted_sums(methods):
            place = _PLACES[tables.against_curve(records, tasks, method)]
            lines.append(f"{name} lies, by the means over seeds, {place}.")
    return lines


def _against_alone(
    plan: Sequence[Run], folder: pathlib.Path, test: Rows, draws: int
) -> dict[str, dict[str, Difference]]:
    """Every task's differences to its single-task training, where that was run."""
    against = {}
    for task in plan[0].settings.tasks:
        reference = f"single:{task}"
        if not any(run.method == reference for run in plan):
            continue
        scores: dict[str, list] = {}
        for run in plan:
            if tables.trains(run.method, task):
                with np.load(folder / "runs" / run.key / "test.npz") as found:
                    scores.setdefault(run.method, []).append(found[task])
        against[task] = differences(
            test.labels[task], scores, reference, groups=test.groups, draws=draws
        )
    return against


def _made_by(records: Sequence[Mapping], plan: Sequence[Run]) -> str:
    s = plan[0].settings
    return (
        f"`{command_line(sys.argv[1:])}`\n\n"
        f"MMoE, {s.experts} experts of {list(s.expert_units)}, towers of {list(s.tower_units)}, "
        f"embeddings of {s.embedding_width}; {s.optimizer} {s.learning_rate:g}, batches of "
        f"{s.batch_size}; "
        f"at most {s.epochs} epochs (for NMT: a stage), early stopping on 4 held-out readings an "
        f"epoch with a patience of 5; seeds 0 to {_seeds(plan) - 1}. {_versions(records)}\n"
    )


def command_line(arguments: Sequence[str]) -> str:
    """The command as others would type it: where a folder of data lies is nobody's business."""
    shown = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if before in ("--path", "--out"):
            argument = pathlib.PurePath(argument).name
        for option in ("--path", "--out"):
            if argument.startswith(f"{option}="):
                argument = f"{option}={pathlib.PurePath(argument).name}"
        shown.append(argument)
    return shlex.join(["tfmtl", *shown])


def _versions(records: Sequence[Mapping]) -> str:
    """Those the runs were made with, which need not be those of this process."""
    found = sorted({(str(r["tensorflow"]), str(r["keras"])) for r in records if "tensorflow" in r})
    stacks = [f"TensorFlow {tensorflow}, Keras {keras}" for tensorflow, keras in found]
    if any("tensorflow" not in record for record in records):
        stacks.append("some runs did not record their versions")
    return f"Python {platform.python_version()}; {'; '.join(stacks)}."


def _seeds(plan: Sequence[Run]) -> int:
    return len({run.seed for run in plan})


def _deviation(plan: Sequence[Run]) -> str:
    return f" ± standard deviation over {_seeds(plan)} seeds" if _seeds(plan) > 1 else " of 1 seed"


def _draw(records, plan, folder) -> None:
    tasks = plan[0].settings.tasks
    plots.tradeoff(records, tasks, folder / "tradeoff.png")
    traced = _first(plan, folder, "nmt")
    (folder / "traces.png").unlink(missing_ok=True)
    if traced is not None:
        plots.traces(read_csv(traced / "trace.csv"), tasks, folder / "traces.png")


def _first(plan: Sequence[Run], folder: pathlib.Path, method: str) -> pathlib.Path | None:
    """The folder of a method's first run."""
    return next((folder / "runs" / run.key for run in plan if run.method == method), None)


def _present(folder: pathlib.Path) -> list[str]:
    return [name for name in _FILES if (folder / name).exists()]


def _files(folder: pathlib.Path) -> str:
    rows = [f"| `{name}` | {_FILES[name]} |" for name in _present(folder)]
    return "\n".join(["| file | what |", "| --- | --- |", *rows]) + "\n"


def _write(path: pathlib.Path, parts: Sequence[str]) -> None:
    with files.written(path) as beside:
        pathlib.Path(beside).write_text("\n".join(part for part in parts if part).rstrip() + "\n")


def _print_table(records: Sequence[dict], tasks: Sequence[str]) -> None:
    table = Table(title=f"Test AUC, {' ≻ '.join(tasks)}")
    table.add_column("method")
    for task in tasks:
        table.add_column(task, justify="right")
    table.add_column("seconds a run", justify="right")
    columns = {task: tables.by_method(records, f"auc_{task}") for task in tasks}
    for method, seconds in tables.by_method(records, "seconds").items():
        cells = [
            tables.spread(columns[t][method]) if tables.trains(method, t) else "–" for t in tasks
        ]
        style = "bold" if method == "nmt" else None
        table.add_row(tables.label(method), *cells, f"{seconds.mean():.0f}", style=style)
    Console().print(table)
