"""``tfmtl demo`` and ``tfmtl compare``."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys

import click

from tfmtl.cli.common import (
    BALANCERS,
    DATA,
    FILE,
    MODELS,
    OUT,
    PATH,
    STAGED,
    Command,
    check_path,
    check_rows,
    completes,
    names,
    names_option,
    needs_matplotlib,
    say,
)


def _options(command):
    """The options that `demo` and `compare` share."""
    options = [
        click.option(
            "--data",
            type=click.Choice((*DATA, "table")),
            default="census",
            show_default=True,
            help="The data set. Census-income comes with the extra `demo`; `table` is yours: with "
            "--path a CSV file, or a recipe of `tfmtl train`.",
        ),
        PATH,
        click.option("--tasks", help="Comma-separated, the most important first."),
        click.option(
            "--epochs", type=click.IntRange(min=1), help="At most so many a stage; stops early."
        ),
        click.option(
            "--methods",
            shell_complete=completes(*STAGED, *BALANCERS, "clippy", "sum:", "single:"),
            help="Comma-separated: nmt, nmt-paper, sum:W (weight of the primary; or of every task, "
            "sum:W:W:W), single:TASK, or one of `tfmtl balancers` with its options as in "
            "PUB:rescale=sum+update_every=1.",
        ),
        click.option(
            "--optimizer",
            default="Adam",
            show_default=True,
            help="One of Keras' or tfmtl's, by name.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            default=os.cpu_count() or 1,
            help="Processes to train in; all cores by default.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command(cls=Command)
@_options
@click.option(
    "--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each method."
)
@click.option("--out", type=OUT, help="Output folder.  [default: runs/demo-DATA]")
def demo(data, path, tasks, epochs, methods, optimizer, workers, seeds, out):
    """See NMT hold a primary task on real rows.

    Trains each task alone, weighted sums and NMT on the same network and budget, prints their test
    AUCs and leaves results.csv, plots, a SavedModel and a README in the output folder. An
    interrupted demo goes on where it stopped.
    """
    needs_matplotlib()
    plan = _plan(data, path, tasks, ("mmoe",), epochs, methods, optimizer, seeds, demo=True)
    from tfmtl.experiments import demo
    from tfmtl.experiments.panel import Panel

    folder = out or pathlib.Path("runs") / f"demo-{_stem(data, path)}"
    runs, records = _train(plan, folder, path, workers)
    written = _write(plan, runs, records, folder, path, "README.md")
    (panel,) = Panel.of(plan, runs, records)
    demo.show(panel)
    say(folder, ["results.csv", *written, *demo.copy_model(panel, folder)])


@click.command(cls=Command)
@click.argument("file", required=False, type=FILE)
@_options
@click.option(
    "--models",
    default="mmoe",
    show_default=True,
    shell_complete=completes(*MODELS[:-1]),
    help="Backbones, comma-separated.",
)
@click.option(
    "--seeds", type=click.IntRange(min=1), default=5, show_default=True, help="Runs of each method."
)
@click.option(
    "--results",
    type=click.Path(dir_okay=False, writable=True, path_type=pathlib.Path),
    help="A CSV that grows by a row with each run; what it holds is not run again.  "
    "[default: results.csv in the output folder]",
)
@click.option("--quick", is_flag=True, help="An epoch of few rows, one model, two seeds.")
@click.option(
    "--out", type=OUT, help="Output folder.  [default: runs/FILE, or runs/compare-DATA-TASKS]"
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
    """Compare methods over models and seeds, with tests and intervals.

    What is compared stands in FILE, a YAML file as those in experiments/, or in options. Leaves
    report.md (tables with tests against a reference, ranks and Δm%; with NMT also whether the
    primary task was held and the others learnt), pictures, and a CSV of the runs. An interrupted
    comparison goes on where it stopped.
    """
    needs_matplotlib()
    if file is None:
        kinds = names(models)
        plan = _plan(data, path, tasks, kinds, epochs, methods, optimizer, seeds, demo=False)
        stem = f"compare-{_stem(data, path)}-{'-'.join(plan.tasks[0])}"
    else:
        plan, stem = _plan_of(context, file, path), file.stem
    if quick:
        plan = plan.quick()
    if context.get_parameter_source("seeds") is click.core.ParameterSource.COMMANDLINE:
        plan = dataclasses.replace(plan, seeds=seeds)
    folder = out or pathlib.Path("runs") / f"{stem}{'-quick' * quick}"
    runs, records = _train(plan, folder, path, workers, results)
    say(folder, _write(plan, runs, records, folder, path, "report.md"))


def _stem(data, path) -> str:
    """How reports and folders call the data."""
    return path.stem if data == "table" else data


def _plan_of(context, file, path):
    """What a file says is compared."""
    for name in ("data", "tasks", "models", "epochs", "methods", "optimizer"):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} is for FILE to say.")
    from tfmtl.experiments import plan as plans
    from tfmtl.experiments.sources import identified

    try:
        with names_option("FILE", ValueError):
            plan = plans.read(file)
    except ImportError as error:
        raise click.ClickException(str(error)) from error
    check_path(plan.data, path)
    check_rows(plan.data, path, plan.tasks[0], plan.settings.embedding_width)
    return dataclasses.replace(plan, data=identified(plan.data, path))


def _plan(data, path, tasks, models, epochs, methods, optimizer, seeds, *, demo: bool):
    """What the options say is compared, or an error that names the option."""
    from tfmtl import optimizers
    from tfmtl.experiments.plan import Plan
    from tfmtl.experiments.sources import SOURCES, check_tasks, identified
    from tfmtl.names import MODELS, check_methods, default_methods, weighted_sums

    with names_option("--optimizer", ValueError):
        optimizers.named(optimizer)
    settings = dataclasses.replace(SOURCES[data].settings, optimizer=optimizer)
    if epochs is None and demo:
        epochs = SOURCES[data].demo_epochs
    if epochs is not None:
        settings = dataclasses.replace(settings, epochs=epochs)
    check_path(data, path)
    if tasks is not None:
        settings = dataclasses.replace(settings, tasks=names(tasks))
    with names_option("--tasks", ValueError):
        check_tasks(data, settings.tasks)
    with names_option("--models", ValueError):
        if len(set(models)) < len(models) or not set(models) <= set(MODELS):
            raise ValueError(
                f"expected some of {list(MODELS)}, each once. Received: {list(models)}"
            )
    chosen = default_methods(settings.tasks)
    if methods is not None:
        chosen = names(methods)
        with names_option("--methods", ValueError):
            check_methods(chosen, settings.tasks)
    elif not demo:
        chosen = (*chosen, "nmt-paper")
    check_rows(data, path, settings.tasks, settings.embedding_width)
    sums = weighted_sums(chosen)
    return Plan(
        title=f"{' ≻ '.join(settings.tasks)} on {_stem(data, path)}",
        data=identified(data, path),
        tasks=(settings.tasks,),
        models=models,
        methods=chosen,
        seeds=seeds,
        reference=sums[len(sums) // 2] if sums else chosen[0],
        settings=settings,
    )


def _train(plan, folder, path, workers, results=None) -> tuple[list, list]:
    """All of a plan: its runs and their records."""
    from tfmtl.experiments.compare import compare

    given = {"path": None if path is None else str(path), "workers": workers, "results": results}
    try:
        with names_option("--results", ValueError):
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
