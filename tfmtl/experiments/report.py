"""What a comparison leaves for its readers: a README or a report beside tables and plots."""

from __future__ import annotations

import pathlib
import platform
import shutil
import sys
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from tfmtl.experiments import plots, tables
from tfmtl.experiments.runs import Run, read_csv
from tfmtl.experiments.settings import load
from tfmtl.experiments.statistics import differences

_FILES = """\
| file | what |
| --- | --- |
| `results.csv` | every run: test AUC of each task, epochs, seconds |
| `tradeoff.png` | primary against secondary test AUC |
| `traces.png` | λ and held-out losses over the steps of NMT's first seed |
| `runs/` | each run with its test predictions, NMT's traces and SavedModels |
"""


def write_demo(records: Sequence[dict], plan: Sequence[Run], folder: pathlib.Path) -> None:
    """Print the demo's table; write plots, the SavedModel ``model/1`` and ``README.md``."""
    tasks = plan[0].settings.tasks
    _print_table(records, tasks)
    _draw(records, plan, folder)
    files = _FILES
    model = _first(plan, folder, "nmt")
    if model is not None:
        shutil.rmtree(folder / "model", ignore_errors=True)
        shutil.copytree(model / "model", folder / "model" / "1")
        files += "| `model/1` | the SavedModel of NMT's first seed, as a model server wants it |\n"
    text = [
        f"# {' ≻ '.join(tasks)} on {plan[0].data}",
        _made_by(plan),
        tables.results_table(records, tasks),
        "Mean ± standard deviation over seeds, test rows.\n",
        files,
    ]
    _write(folder / "README.md", text)


def write_comparison(
    records: Sequence[dict],
    plan: Sequence[Run],
    folder: pathlib.Path,
    path: pathlib.Path | None,
    draws: int,
) -> None:
    """Write plots and ``report.md`` with intervals against single-task training."""
    settings = plan[0].settings
    tasks = settings.tasks
    _draw(records, plan, folder)
    where = None if path is None else str(path)
    test = load(plan[0].data, where, tasks, settings.embedding_width).test
    reference = f"single:{tasks[0]}"
    held = None
    text = [f"## {plan[0].data}: {' ≻ '.join(tasks)}", _made_by(plan)]
    if any(run.method == reference for run in plan):
        scores: dict[str, list] = {}
        for run in plan:
            if not run.method.startswith("single:") or run.method == reference:
                with np.load(folder / "runs" / run.key / "test.npz") as found:
                    scores.setdefault(run.method, []).append(found[tasks[0]])
        held = differences(
            test.labels[tasks[0]], scores, reference, groups=test.groups, draws=draws
        )
    text.append(tables.results_table(records, tasks, held))
    resampled = "test rows" if test.groups is None else "test users"
    text.append(
        f"Mean ± standard deviation over {_seeds(plan)} seeds; in brackets the 95 % bootstrap "
        f"interval of the mean difference over {draws} draws of {resampled}, paired by seed. "
        f"The test rows hold {int(test.labels[tasks[0]].sum()):,} positives of {tasks[0]}.\n"
    )
    text += [f"- {line}" for line in _verdicts(records, tasks, held)]
    _write(folder / "report.md", text)


def _verdicts(records, tasks, held) -> list[str]:
    methods = {record["method"] for record in records}
    lines = []
    for method in ("nmt", "nmt-paper"):
        if method not in methods:
            continue
        name = tables.label(method)
        if held is not None:
            d = held[method]
            side = "above" if d.low > 0 else "below" if d.high < 0 else "around"
            lines.append(
                f"{name}, held: {tasks[0]} {d.mean:+.4f} against single-task training; "
                f"the interval lies {side} 0."
            )
        for task in tasks[1:]:
            if f"single:{task}" in methods:
                covered = tables.coverage(records, task, method)
                lines.append(
                    f"{name}, learnt: {task} covers {covered:.0%} of the way from 0.5 to its own "
                    "single-task AUC."
                )
        if len(tasks) == 2 and any(each.startswith("sum:") for each in methods):
            lines.append(
                f"{name}, compared: by the means, {tables.against_curve(records, tasks, method)}."
            )
    return lines


def _made_by(plan: Sequence[Run]) -> str:
    s = plan[0].settings
    return (
        f"`tfmtl {' '.join(sys.argv[1:])}`\n\n"
        f"MMoE, {s.experts} experts of {list(s.expert_units)}, towers of {list(s.tower_units)}, "
        f"embeddings of {s.embedding_width}; Adam {s.learning_rate:g}, batches of {s.batch_size}; "
        f"at most {s.epochs} epochs (for NMT: a stage), early stopping on 4 held-out readings an "
        f"epoch with a patience of 5; seeds 0 to {_seeds(plan) - 1}. Python "
        f"{platform.python_version()}, TensorFlow {tf.__version__}, Keras {keras.__version__}.\n"
    )


def _seeds(plan: Sequence[Run]) -> int:
    return len({run.seed for run in plan})


def _draw(records, plan, folder) -> None:
    tasks = plan[0].settings.tasks
    plots.tradeoff(records, tasks, folder / "tradeoff.png")
    traced = _first(plan, folder, "nmt")
    if traced is not None:
        plots.traces(read_csv(traced / "trace.csv"), tasks, folder / "traces.png")


def _first(plan: Sequence[Run], folder: pathlib.Path, method: str) -> pathlib.Path | None:
    """The folder of a method's first run."""
    return next((folder / "runs" / run.key for run in plan if run.method == method), None)


def _write(path: pathlib.Path, parts: Sequence[str]) -> None:
    beside = path.with_name(f".{path.name}")
    beside.write_text("\n".join(parts).rstrip() + "\n")
    beside.replace(path)


def _print_table(records: Sequence[dict], tasks: Sequence[str]) -> None:
    table = Table(title=f"Test AUC, {' ≻ '.join(tasks)}")
    table.add_column("method")
    for task in tasks:
        table.add_column(task, justify="right")
    table.add_column("seconds a run", justify="right")
    columns = {task: tables.by_method(records, f"auc_{task}") for task in tasks}
    for method, seconds in tables.by_method(records, "seconds").items():
        only = method.partition(":")[2] if method.startswith("single:") else None
        cells = [tables.spread(columns[t][method]) if only in (None, t) else "–" for t in tasks]
        style = "bold" if method == "nmt" else None
        table.add_row(tables.label(method), *cells, f"{seconds.mean():.0f}", style=style)
    Console().print(table)
