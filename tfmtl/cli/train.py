"""``tfmtl train``, ``tfmtl export`` and ``tfmtl predict``."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Collection, Iterator

import click

from tfmtl.cli.common import (
    BALANCERS,
    FILE,
    MODELS,
    OUT,
    STAGED,
    Command,
    completes,
    console,
    names,
    names_option,
    say,
)


@click.command(cls=Command)
@click.argument("file", required=False, type=FILE)
@click.option("--data", type=FILE, help="A CSV file with a header.")
@click.option("--tasks", help="Comma-separated: its columns of labels, the most important first.")
@click.option("--ignore", help="Comma-separated: columns that are no inputs.")
@click.option("--groups", help="A column that says whose rows they are: a user, a search.")
@click.option("--time", help="A column of dates or numbers: the last rows are for the test.")
@click.option("--model", type=click.Choice(MODELS), help="The backbone.  [default: mmoe]")
@click.option(
    "--balancer",
    shell_complete=completes(*STAGED, *BALANCERS, "sum:"),
    help="One of `tfmtl balancers`, with its options as in PUB:update_every=1; nmt for the tasks "
    "in their order; or a weighted sum, sum:0.9.  [default: EqualWeights]",
)
@click.option("--epochs", type=click.IntRange(min=1), help="At most so many.  [default: 10]")
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Rows, or lists, a step.  [default: 512]"
)
@click.option(
    "--learning-rate", type=click.FloatRange(min=0, min_open=True), help="[default: 0.001]"
)
@click.option("--seed", type=int, help="Of initial weights and the rows' order.  [default: 0]")
@click.option("--alone", is_flag=True, help="Also train each task alone: which one suffers?")
@click.option("--out", type=OUT, help="Output folder.  [default: runs/FILE, or runs/DATA]")
def train(file, data, tasks, ignore, alone, out, **given):
    """Train a model on a table, from FILE or from options.

    FILE is YAML with the keys data, model, loss, balancer, optimizer and training; see
    docs/training.md. With options alone, columns are looked at and a share of the rows is held
    out. Options beside FILE take the place of what it says.

    Leaves the recipe with everything that was found (train it again, or change it), the weights,
    the history, logs for TensorBoard, and model/1, a SavedModel that takes the table's columns as
    they are. A killed run goes on with the same command.
    """
    options = {name: value for name, value in given.items() if value is not None}
    chosen = {"ignore": ignore, "tasks": tasks}
    options.update({name: names(text) for name, text in chosen.items() if text is not None})
    from tfmtl import training

    with _names_given("FILE" if file else "options", options):
        try:
            if file is not None:
                if file.suffix not in (".yaml", ".yml"):
                    raise click.BadParameter(
                        f"must be YAML; a table goes to --data. Received: {file}", param_hint="FILE"
                    )
                recipe = training.read(file)
                if data is not None:
                    options["file"] = str(data)
                recipe = dataclasses.replace(recipe, **options)
            elif data is None or tasks is None:
                raise click.UsageError("Give FILE, or --data and --tasks.")
            else:
                recipe = training.Recipe(str(data), **options)
        except ImportError as error:
            raise click.ClickException(str(error)) from error
    folder = out or pathlib.Path("runs") / pathlib.Path(file or data).stem
    with _names_given("FILE" if file else "--data", options):
        splits = _load(recipe, folder)
    _train(recipe, folder, splits, alone)


@contextlib.contextmanager
def _names_given(otherwise: str, options: Collection[str]) -> Iterator[None]:
    """Errors are those of the option they name, if it was given."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        named = re.match(r"`(\w+)`", str(error))
        given = named is not None and named[1] in options
        option = f"--{named[1].replace('_', '-')}" if given else otherwise  # type: ignore[index]
        raise click.BadParameter(str(error), param_hint=option) from error


def _load(recipe, folder: pathlib.Path):
    """The recipe's rows, where there is room for what comes of them."""
    from tfmtl.training import run

    with names_option("--out", FileExistsError):
        run.check_untrained(folder)
    try:
        return run.load(recipe)
    except ImportError as error:
        raise click.ClickException(str(error)) from error


def _train(recipe, folder: pathlib.Path, splits, alone: bool) -> None:
    import tensorflow as tf

    from tfmtl.training import run, show

    tf.get_logger().setLevel("ERROR")  # of functions that are traced anew for each model
    out = console()
    out.print(show.columns(splits))
    out.print(show.labels(recipe, splits))
    recipe = dataclasses.replace(recipe, columns=splits.preprocessor.columns)
    with names_option("--out", FileExistsError):
        run.check_free(folder, recipe)
    # Keras' bar is for terminals; elsewhere it writes a line an epoch.
    verbose = "auto" if out.is_terminal else 2
    others = {}
    if alone:
        for task in recipe.tasks:
            out.print(f"{task} alone")
            others[task] = run.alone(recipe, splits, task, verbose=verbose)
    behind = run.epochs_done(folder)
    if behind:
        out.print(f"{folder} holds a killed run: it goes on after epoch {behind}", markup=False)
    try:
        found = run.train(recipe, folder, splits=splits, verbose=verbose)
    except KeyboardInterrupt:
        if run.epochs_done(folder):
            click.echo(f"\nThe same command goes on from what {folder} holds.", err=True)
        raise
    out.print(show.results(recipe, splits, found, others))
    say(folder, [run.RECIPE, run.COLUMNS, run.WEIGHTS, run.HISTORY, "logs/", f"{run.SERVED}/"])


@click.command(cls=Command)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=pathlib.Path))
@click.option(
    "--to", type=OUT, required=True, help="The model's folder on the server: gets the next version."
)
@click.option(
    "--score",
    help="One more output: product:TASK=EXPONENT,... or sum:TASK=WEIGHT,...",
)
@click.option("--warm-up", is_flag=True, help="Add a request that warms the server up.")
def export(folder, to, score, warm_up):
    """Write what `train` left as the next version of a served model.

    FOLDER is the output folder of `tfmtl train`. The SavedModel takes the table's columns as they
    are.
    """
    from tfmtl import serving
    from tfmtl.training import run

    with names_option("--score", ValueError):
        fused = None if score is None else serving.score_of(score)
    try:
        with names_option("FOLDER", ValueError, FileNotFoundError):
            recipe, splits, model = run.load_trained(folder)
        if warm_up:
            serving.protocols()  # before there is a version without one
        place = serving.next_version(to)
        with names_option("--score", ValueError):
            run.export(model, splits, place, fused)
        written = ["saved_model.pb"]
        if warm_up:
            serving.write_warm_up(place, run.some_raw(recipe, splits))
            written.append(serving.WARM_UP)
    except ImportError as error:
        raise click.ClickException(str(error)) from error
    say(place, written)


@click.command(cls=Command)
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=pathlib.Path))
@click.argument("rows", type=FILE)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, writable=True, path_type=pathlib.Path),
    help="A CSV file for the predictions.  [default: to the terminal]",
)
@click.option("--keep", help="Comma-separated: columns of ROWS to write in front of them.")
def predict(model, rows, out, keep):
    """Print or write a SavedModel's predictions for a file of rows.

    MODEL is a SavedModel's folder, or one with versions, of which the newest is taken, as `tfmtl
    train` and `tfmtl export` leave them; ROWS a CSV file or a TFRecord file of tf.train.Example.
    """
    import io

    from tfmtl import training

    model = _model_in(model)
    if out is not None and not out.parent.is_dir():
        raise click.BadParameter(f"there is no folder {out.parent}", param_hint="--out")
    try:
        with _names_given("ROWS", ("keep",)):
            found = training.scores(model, rows, keep=() if keep is None else names(keep))
    except ImportError as error:
        raise click.ClickException(str(error)) from error
    if out is None:
        text = io.StringIO()
        training.write_scores(text, found)
        click.echo(text.getvalue(), nl=False)
    else:
        training.write_scores(out, found)
        click.echo(f"Wrote {out}: {len(next(iter(found.values()))):,} rows of {', '.join(found)}")


def _model_in(folder: pathlib.Path) -> pathlib.Path:
    """The SavedModel in a folder: itself, its newest version, or that of a trained model."""
    if (folder / "saved_model.pb").exists():
        return folder
    for place in (folder, folder / "model"):
        versions = [each.parent for each in place.glob("*/saved_model.pb")]
        numbered = [each for each in versions if each.name.isdecimal()]
        if numbered:
            return max(numbered, key=lambda each: int(each.name))
    raise click.BadParameter(f"{folder} holds no SavedModel", param_hint="MODEL")
