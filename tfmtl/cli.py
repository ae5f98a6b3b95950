"""The command ``tfmtl``."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import click

# TensorFlow takes seconds to import: each command imports it when it runs, `--help` never does.

_PATH = click.Path(path_type=pathlib.Path)


def _options(command):
    """The options that `demo` and `compare` share."""
    options = [
        click.option(
            "--data",
            type=click.Choice(["census", "kuairand"]),
            default="census",
            show_default=True,
            help="The data set. Census-income comes with the extra `demo`.",
        ),
        click.option(
            "--path",
            type=click.Path(exists=True, file_okay=False, path_type=pathlib.Path),
            help="The folder of KuaiRand's files.",
        ),
        click.option("--tasks", help="Comma-separated, the most important first."),
        click.option(
            "--epochs", type=click.IntRange(min=1), help="At most so many a stage; stops early."
        ),
        click.option(
            "--methods",
            help="Comma-separated: nmt, nmt-paper, sum:W (weight of the primary), single:TASK.",
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
@click.option("--out", type=_PATH, help="Output folder.  [default: runs/demo-DATA]")
def demo(data, path, tasks, epochs, methods, workers, seeds, out):
    """See NMT hold a primary task on real rows.

    Trains each task alone, weighted sums and NMT on the same network and budget, prints their test
    AUCs and leaves results.csv, plots, a SavedModel and a README in the output folder. An
    interrupted demo goes on where it stopped.
    """
    plan = _plan(data, path, tasks, epochs, methods, seeds, demo=True)
    from tfmtl.experiments import report

    folder = out or pathlib.Path("runs") / f"demo-{data}"
    records = _compare(plan, folder, path, workers)
    report.write_demo(records, plan, folder)
    click.echo(f"Wrote {folder}/: README.md, results.csv, tradeoff.png, traces.png, model/1")


@main.command()
@_options
@click.option("--seeds", type=click.IntRange(min=2), default=5, show_default=True)
@click.option("--draws", type=click.IntRange(min=100), default=1000, show_default=True)
@click.option("--out", type=_PATH, help="Output folder.  [default: runs/compare-DATA-TASKS]")
def compare(data, path, tasks, epochs, methods, workers, seeds, draws, out):
    """Compare methods with paired differences and bootstrap intervals.

    As the demo, with the paper's letter beside NMT and a report.md that says whether the primary
    task was held, the secondary learnt, and where NMT lies against the weighted sums.
    """
    plan = _plan(data, path, tasks, epochs, methods, seeds, demo=False)
    from tfmtl.experiments import report

    names = "-".join(plan[0].settings.tasks)
    folder = out or pathlib.Path("runs") / f"compare-{data}-{names}"
    records = _compare(plan, folder, path, workers)
    report.write_comparison(records, plan, folder, path, draws)
    click.echo(f"Wrote {folder}/: report.md, results.csv, tradeoff.png, traces.png")


def _plan(data, path, tasks, epochs, methods, seeds, *, demo: bool) -> list:
    """The runs that the options mean, or an error that names the option."""
    from tfmtl.experiments.runs import Run
    from tfmtl.experiments.settings import (
        DEMO_EPOCHS,
        SETTINGS,
        check_methods,
        default_methods,
        load,
    )

    settings = SETTINGS[data]
    if tasks:
        settings = dataclasses.replace(settings, tasks=tuple(t.strip() for t in tasks.split(",")))
    if len(settings.tasks) < 2 or len(set(settings.tasks)) != len(settings.tasks):
        raise click.BadParameter(
            f"expected at least two different tasks. Received: {tasks!r}", param_hint="--tasks"
        )
    if epochs:
        settings = dataclasses.replace(settings, epochs=epochs)
    elif demo:
        settings = dataclasses.replace(settings, epochs=DEMO_EPOCHS[data])
    if data == "kuairand" and path is None:
        raise click.BadParameter(
            "expected the folder of KuaiRand's files. Received: nothing", param_hint="--path"
        )
    chosen = default_methods(settings.tasks)
    if methods:
        chosen = tuple(method.strip() for method in methods.split(","))
    elif not demo:
        chosen = (*chosen, "nmt-paper")
    try:
        check_methods(chosen, settings.tasks)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--methods") from error
    try:
        load(data, None if path is None else str(path), settings.tasks, settings.embedding_width)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--tasks") from error
    except (ImportError, OSError) as error:
        raise click.ClickException(str(error)) from error
    return [Run(data, method, seed, settings) for seed in range(seeds) for method in chosen]


def _compare(plan, folder, path, workers) -> list[dict]:
    from tfmtl.experiments.compare import compare

    try:
        return compare(plan, folder, path=None if path is None else str(path), workers=workers)
    except RuntimeError as error:
        raise click.ClickException(str(error)) from error
