"""The command ``tfmtl``."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator

import click

# TensorFlow takes seconds to import: each command imports what needs it when it runs.

_OUT = click.Path(file_okay=False, writable=True, path_type=pathlib.Path)
#: The names of `tfmtl.experiments.sources.SOURCES`.
DATA = ("census", "kuairand", "aliexpress", "tiktok", "qk_video", "aliccp")
_PATH = click.option(
    "--path",
    type=click.Path(exists=True, path_type=pathlib.Path),
    help="Where the data set's published files are: their folder, or the file if it is one.",
)


def _options(command):
    """The options that `demo` and `compare` share."""
    options = [
        click.option(
            "--data",
            type=click.Choice(DATA),
            default="census",
            show_default=True,
            help="The data set. Census-income comes with the extra `demo`.",
        ),
        _PATH,
        click.option("--tasks", help="Comma-separated, the most important first."),
        click.option(
            "--epochs", type=click.IntRange(min=1), help="At most so many a stage; stops early."
        ),
        click.option(
            "--methods",
            help="Comma-separated: nmt, nmt-paper, sum:W (weight of the primary; or of every task, "
            "sum:W:W:W), single:TASK, or a balancer with its options as in "
            "PUB:rescale=sum+update_every=1.",
        ),
        click.option(
            "--optimizer",
            default="Adam",
            show_default=True,
            help="The name of Keras' or tfmtl's.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            default=os.cpu_count() or 1,
            help="Processes; all cores by default.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Multi-task ranking with TensorFlow and Keras."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@main.command()
@_options
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--out", type=_OUT, help="Output folder.  [default: runs/demo-DATA]")
def demo(data, path, tasks, epochs, methods, optimizer, workers, seeds, out):
    """See NMT hold a primary task on real rows.

    Trains each task alone, weighted sums and NMT on the same network and budget, prints their test
    AUCs and leaves results.csv, plots, a SavedModel and a README in the output folder. An
    interrupted demo goes on where it stopped.
    """
    plan = _plan(data, path, tasks, epochs, methods, optimizer, seeds, demo=True)
    report = _report()
    folder = out or pathlib.Path("runs") / f"demo-{data}"
    records = _compare(plan, folder, path, workers)
    _say(folder, report.write_demo(records, plan, folder))


@main.command()
@click.argument(
    "file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=pathlib.Path)
)
@_options
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--draws", type=click.IntRange(min=100), default=1000, show_default=True)
@click.option(
    "--results",
    type=click.Path(dir_okay=False, writable=True, path_type=pathlib.Path),
    help="With FILE: a CSV that grows by a row with each run; what it holds is not run again.  "
    "[default: results.csv in the output folder]",
)
@click.option("--quick", is_flag=True, help="With FILE: an epoch of few rows, two seeds.")
@click.option("--out", type=_OUT, help="Output folder.  [default: runs/compare-DATA-TASKS]")
@click.pass_context
def compare(
    context,
    file,
    data,
    path,
    tasks,
    epochs,
    methods,
    optimizer,
    workers,
    seeds,
    draws,
    results,
    quick,
    out,
):
    """Compare methods with paired differences and intervals.

    With FILE, a YAML file of models, methods, seeds and settings as those in experiments/: tables
    with tests against a reference, ranks and Δm%, a picture, and a CSV of the runs. Without it the
    options say what is compared: as the demo, with the paper's letter beside NMT and a report.md
    that says whether the primary task was held, the secondary learnt, and where NMT lies against
    the weighted sums.
    """
    if file is not None:
        _compare_file(context, file, path, workers, seeds, results, quick, out)
        return
    if results is not None or quick:
        raise click.UsageError("--results and --quick go with FILE.")
    plan = _plan(data, path, tasks, epochs, methods, optimizer, seeds, demo=False)
    report = _report()
    names = "-".join(plan[0].settings.tasks)
    folder = out or pathlib.Path("runs") / f"compare-{data}-{names}"
    records = _compare(plan, folder, path, workers)
    _say(folder, report.write_comparison(records, plan, folder, path, draws))


def _compare_file(context, file, path, workers, seeds, results, quick, out) -> None:
    for name in ("data", "tasks", "epochs", "methods", "optimizer", "draws"):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} is for FILE to say.")
    from tfmtl.experiments import plan as plans

    _report()  # the pictures need matplotlib
    from tfmtl.experiments import papers

    try:
        with _names_option("FILE", ValueError):
            plan = plans.read(file)
    except ImportError as error:
        raise click.ClickException(str(error)) from error
    _check_path(plan.data, path)
    _check_rows(plan.data, path, plan.tasks[0], plan.settings.embedding_width)
    if quick:
        plan = plan.quick()
    if context.get_parameter_source("seeds") is click.core.ParameterSource.COMMANDLINE:
        plan = dataclasses.replace(plan, seeds=seeds)
    folder = out or pathlib.Path("runs") / f"{file.stem}{'-quick' * quick}"
    folder.mkdir(parents=True, exist_ok=True)
    results = results or folder / "results.csv"
    where = None if path is None else str(path)
    first = _compare(plan.first(), folder, path, workers, results)
    runs = plan.chosen({str(record["key"]): record for record in first})
    records = _compare(runs, folder, path, workers, results)
    _say(folder, papers.write(plan, runs, records, folder, file.stem, where))


@main.command()
@click.option(
    "--data",
    type=click.Choice(("synthetic", *DATA)),
    default="synthetic",
    show_default=True,
    help="Random rows of the shape that the options give, or a data set's.",
)
@_PATH
@click.option(
    "--model",
    "kind",
    type=click.Choice(["mmoe", "ple", "shared_bottom"]),
    default="mmoe",
    show_default=True,
)
@click.option(
    "--balancer",
    default="EqualWeights",
    show_default=True,
    help="With its options as in PUB:rescale=sum+update_every=1.",
)
@click.option(
    "--optimizer", default="adam", show_default=True, help="The name of Keras' or tfmtl's."
)
@click.option("--batch", type=click.IntRange(min=1), default=4096, show_default=True)
@click.option("--tasks", type=click.IntRange(min=2), default=2, show_default=True, help="How many.")
@click.option(
    "--columns", type=click.IntRange(min=1), default=16, show_default=True, help="Of ids."
)
@click.option(
    "--rows", type=click.IntRange(min=1), default=10_000, show_default=True, help="Ids a column."
)
@click.option(
    "--width", type=click.IntRange(min=1), default=16, show_default=True, help="Of embeddings."
)
@click.option(
    "--numbers", type=click.IntRange(min=0), default=63, show_default=True, help="Columns of them."
)
@click.option(
    "--experts",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Of MMoE; in PLE of each group.",
)
@click.option(
    "--units",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Of an expert, or of the shared bottom.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="To time, and to profile.",
)
@click.option("--warm-up", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--jit/--no-jit", default=None, help="Whether XLA compiles the step.  [default: Keras' choice]"
)
@click.option("--out", type=_OUT, help="Folder for the tables and the trace.")
def profile(
    data,
    path,
    kind,
    balancer,
    optimizer,
    batch,
    tasks,
    columns,
    rows,
    width,
    numbers,
    experts,
    units,
    steps,
    warm_up,
    jit,
    out,
):
    """Show where the time of a training step goes.

    Trains a few steps under TensorFlow's profiler and prints milliseconds by part of the step, by
    type of op and by op. The default is a backbone of the papers' size. With another --data
    the data set says what the columns are.
    """
    from rich.console import Console

    from tfmtl import optimizers
    from tfmtl.experiments.settings import BALANCED, balancer_of
    from tfmtl.experiments.sources import SOURCES, load
    from tfmtl.profiling import profile, workload

    with _names_option("--balancer", ValueError):
        if balancer.partition(":")[0] not in BALANCED:
            raise ValueError(f"expected one of {list(BALANCED)}. Received: {balancer!r}")
        weighing = balancer_of(balancer, ())
    with _names_option("--optimizer", ValueError):
        optimizers.named(optimizer)
    _check_path(data, path)
    names = tuple(f"task_{i}" for i in range(tasks))
    if data in SOURCES:
        names = tuple(t for t in SOURCES[data].tasks if t not in SOURCES[data].regression)
    if len(names) < tasks:
        raise click.BadParameter(
            f"expected at most {len(names)}, the tasks of {data}. Received: {tasks}",
            param_hint="--tasks",
        )
    names = names[:tasks]
    if data == "synthetic":
        features = workload.spec(columns, rows, width, numbers)
        dataset = workload.synthetic(names, features, batch)
    else:
        try:
            with _names_option("--path", ValueError, OSError):
                splits = load(data, None if path is None else str(path), names, width)
        except ImportError as error:
            raise click.ClickException(str(error)) from error
        features = splits.features
        with _names_option("--batch", ValueError):
            dataset = splits.train.batches(batch, shuffle=True, seed=0, drop_remainder=True)
    net = workload.network(kind, names, features, experts, units)
    found = profile(
        workload.compiled(net, weighing, optimizer, jit),
        dataset,
        steps,
        warm_up=warm_up,
        folder=out,
        title=f"{kind}, {balancer}, {optimizer}, {tasks} tasks, {data} rows, batch {batch:,}",
        verbose=True,
    )
    console = Console()
    if not console.is_terminal:
        console.width = 120  # of a file or a pipe Rich would take 80
    console.print(found)
    if out is not None:
        _say(out, ["profile.md", "ops.csv", "plugins/profile/"])


def _plan(data, path, tasks, epochs, methods, optimizer, seeds, *, demo: bool) -> list:
    """The runs that the options mean, or an error that names the option."""
    from tfmtl import optimizers
    from tfmtl.experiments.runs import Run
    from tfmtl.experiments.settings import check_methods, default_methods
    from tfmtl.experiments.sources import SOURCES, check_tasks

    with _names_option("--optimizer", ValueError):
        optimizers.named(optimizer)
    settings = dataclasses.replace(SOURCES[data].settings, optimizer=optimizer)
    if epochs is None and demo:
        epochs = SOURCES[data].demo_epochs
    if epochs is not None:
        settings = dataclasses.replace(settings, epochs=epochs)
    _check_path(data, path)
    if tasks is not None:
        settings = dataclasses.replace(settings, tasks=_names(tasks))
        with _names_option("--tasks", ValueError):
            check_tasks(data, settings.tasks)
    chosen = default_methods(settings.tasks)
    if methods is not None:
        chosen = _names(methods)
        with _names_option("--methods", ValueError):
            check_methods(chosen, settings.tasks)
    elif not demo:
        chosen = (*chosen, "nmt-paper")
    _check_rows(data, path, settings.tasks, settings.embedding_width)
    return [Run(data, method, seed, settings) for seed in range(seeds) for method in chosen]


def _check_rows(data, path, tasks, width) -> None:
    """Load the rows once: before hours of training, not in a worker, and not after it."""
    from tfmtl.experiments.sources import load

    try:
        with _names_option("--path", ValueError, OSError):
            load(data, None if path is None else str(path), tasks, width)
    except ImportError as error:
        raise click.ClickException(str(error)) from error


def _check_path(data: str, path: pathlib.Path | None) -> None:
    from tfmtl.experiments.sources import SOURCES

    wanted = SOURCES[data].path if data in SOURCES else None
    if (path is None) != (wanted is None):
        expected = wanted if path is None else f"nothing with {data}"
        received = "nothing" if path is None else repr(str(path))
        raise click.BadParameter(f"expected {expected}. Received: {received}", param_hint="--path")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


@contextlib.contextmanager
def _names_option(option: str, *kinds: type[Exception]) -> Iterator[None]:
    """Errors of these kinds are the option's."""
    try:
        yield
    except kinds as error:
        raise click.BadParameter(str(error), param_hint=option) from error


def _report():
    """What writes the results, asked for before hours of training: it needs matplotlib."""
    from tfmtl.data.encode import require

    try:
        require("matplotlib")
    except ImportError as error:
        raise click.ClickException(
            'The plots need matplotlib, which does not import. Try: pip install "tfmtl[demo]"'
        ) from error
    from tfmtl.experiments import report

    return report


def _compare(plan, folder, path, workers, results=None) -> list[dict]:
    from tfmtl.experiments.compare import compare

    where = None if path is None else str(path)
    try:
        return compare(plan, folder, path=where, workers=workers, results=results)
    except RuntimeError as error:
        raise click.ClickException(str(error)) from error


def _say(folder: pathlib.Path, names: list[str]) -> None:
    click.echo(f"Wrote {folder}/: {', '.join(names)}")
