"""The command ``tfmtl``."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import sys
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
    _needs_matplotlib()
    plan = _plan(data, path, tasks, ("mmoe",), epochs, methods, optimizer, seeds, demo=True)
    from tfmtl.experiments import demo
    from tfmtl.experiments.panel import Panel

    folder = out or pathlib.Path("runs") / f"demo-{data}"
    runs, records = _train(plan, folder, path, workers)
    names = _write(plan, runs, records, folder, path, "README.md")
    (panel,) = Panel.of(plan, runs, records)
    demo.show(panel)
    _say(folder, ["results.csv", *names, *demo.copy_model(panel, folder)])


@main.command()
@click.argument(
    "file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=pathlib.Path)
)
@_options
@click.option("--models", default="mmoe", show_default=True, help="Comma-separated.")
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--results",
    type=click.Path(dir_okay=False, writable=True, path_type=pathlib.Path),
    help="A CSV that grows by a row with each run; what it holds is not run again.  "
    "[default: results.csv in the output folder]",
)
@click.option("--quick", is_flag=True, help="An epoch of few rows, one model, two seeds.")
@click.option(
    "--out", type=_OUT, help="Output folder.  [default: runs/FILE, or runs/compare-DATA-TASKS]"
)
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
    models,
    seeds,
    results,
    quick,
    out,
):
    """Compare methods over models and seeds, with paired tests and intervals.

    What is compared stands in FILE, a YAML file as those in experiments/, or in options. Leaves
    report.md (tables with tests against a reference, ranks and Δm%; with NMT also whether the
    primary task was held and the others learnt), pictures, and a CSV of the runs. An interrupted
    comparison goes on where it stopped.
    """
    _needs_matplotlib()
    if file is None:
        names = _names(models)
        plan = _plan(data, path, tasks, names, epochs, methods, optimizer, seeds, demo=False)
        stem = f"compare-{data}-{'-'.join(plan.tasks[0])}"
    else:
        plan, stem = _plan_of(context, file, path), file.stem
    if quick:
        plan = plan.quick()
    if context.get_parameter_source("seeds") is click.core.ParameterSource.COMMANDLINE:
        plan = dataclasses.replace(plan, seeds=seeds)
    folder = out or pathlib.Path("runs") / f"{stem}{'-quick' * quick}"
    runs, records = _train(plan, folder, path, workers, results)
    _say(folder, _write(plan, runs, records, folder, path, "report.md"))


def _plan_of(context, file, path):
    """What a file says is compared."""
    for name in ("data", "tasks", "models", "epochs", "methods", "optimizer"):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} is for FILE to say.")
    from tfmtl.experiments import plan as plans

    try:
        with _names_option("FILE", ValueError):
            plan = plans.read(file)
    except ImportError as error:
        raise click.ClickException(str(error)) from error
    _check_path(plan.data, path)
    _check_rows(plan.data, path, plan.tasks[0], plan.settings.embedding_width)
    return plan


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


def _plan(data, path, tasks, models, epochs, methods, optimizer, seeds, *, demo: bool):
    """What the options say is compared, or an error that names the option."""
    from tfmtl import optimizers
    from tfmtl.experiments.plan import Plan
    from tfmtl.experiments.settings import MODELS, check_methods, default_methods, weighted_sums
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
    with _names_option("--models", ValueError):
        if len(set(models)) < len(models) or not set(models) <= set(MODELS):
            raise ValueError(
                f"expected some of {list(MODELS)}, each once. Received: {list(models)}"
            )
    chosen = default_methods(settings.tasks)
    if methods is not None:
        chosen = _names(methods)
        with _names_option("--methods", ValueError):
            check_methods(chosen, settings.tasks)
    elif not demo:
        chosen = (*chosen, "nmt-paper")
    _check_rows(data, path, settings.tasks, settings.embedding_width)
    sums = weighted_sums(chosen)
    return Plan(
        title=f"{' ≻ '.join(settings.tasks)} on {data}",
        data=data,
        tasks=(settings.tasks,),
        models=models,
        methods=chosen,
        seeds=seeds,
        reference=sums[len(sums) // 2] if sums else chosen[0],
        settings=settings,
    )


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


def _needs_matplotlib() -> None:
    """Asked before hours of training: the pictures need it."""
    from tfmtl.data.encode import require

    try:
        require("matplotlib")
    except ImportError as error:
        raise click.ClickException(
            'The plots need matplotlib, which does not import. Try: pip install "tfmtl[demo]"'
        ) from error


def _train(plan, folder, path, workers, results=None) -> tuple[list, list]:
    """All of a plan: its runs and their records."""
    from tfmtl.experiments.compare import compare

    given = {"path": None if path is None else str(path), "workers": workers, "results": results}
    try:
        with _names_option("--results", ValueError):
            tried = compare(plan.first(), folder, **given) if plan.trials else []
            runs = plan.chosen({str(record["key"]): record for record in tried})
            return runs, compare(runs, folder, **given)
    except RuntimeError as error:
        raise click.ClickException(str(error)) from error


def _write(plan, runs, records, folder, path, name) -> list[str]:
    from tfmtl.experiments import papers

    where = None if path is None else str(path)
    arguments = sys.argv[1:]
    return papers.write(plan, runs, records, folder, path=where, arguments=arguments, name=name)


def _say(folder: pathlib.Path, names: list[str]) -> None:
    click.echo(f"Wrote {folder}/: {', '.join(names)}")
