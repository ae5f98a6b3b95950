"""What the commands share."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

# TensorFlow takes seconds to import: each command imports what needs it when it runs, and names
# that a shell is to complete stand here once more. Tests compare them.

OUT = click.Path(file_okay=False, writable=True, path_type=pathlib.Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=pathlib.Path)
#: The names of `tfmtl.experiments.sources.SOURCES`, but for a table of one's own.
DATA = ("census", "kuairand", "aliexpress", "tiktok", "qk_video", "aliccp")
#: Those of `tfmtl.names.BALANCED`.
BALANCERS = (
    "AdaTask",
    "BanditMTL",
    "CAGrad",
    "DWA",
    "EMTL",
    "EqualWeights",
    "FAMO",
    "GradDrop",
    "GradNorm",
    "IMTLG",
    "IMTLL",
    "MGDA",
    "NashMTL",
    "PCGrad",
    "PUB",
    "RLW",
    "SI",
    "Uncertainty",
)
#: Those of `tfmtl.names.NAMED` that are balancers.
STAGED = ("nmt", "nmt-paper", "nmt-famo")
#: The names of `tfmtl.training.recipe.MODELS`.
MODELS = ("mmoe", "ple", "omoe", "shared_bottom", "ltr_tower")
PATH = click.option(
    "--path",
    type=click.Path(exists=True, path_type=pathlib.Path),
    help="Where the data set's published files are: their folder, or the file if it is one.",
)


class Command(click.Command):
    """A command that needs TensorFlow, which comes when all that was asked has been read."""

    def invoke(self, context):
        import_tensorflow()
        return super().invoke(context)


def import_tensorflow() -> None:
    """Import TensorFlow without the lines that its runtime writes to the terminal as it starts,
    unless ``TF_CPP_MIN_LOG_LEVEL`` says what is wanted of them.
    """
    if "tensorflow" in sys.modules:
        return
    silent = "TF_CPP_MIN_LOG_LEVEL" not in os.environ
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    kept = os.dup(2)
    if silent:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow

        tensorflow.config.list_physical_devices()
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def completes(*words: str) -> Callable:
    """What completes an option to one of these words, or to several with commas between them."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        found = (word for word in words if word.lower().startswith(last.lower()))
        return [f"{before}{comma}{word}" for word in found]

    return complete


def console() -> Console:
    """Where tables are printed."""
    from rich.console import Console

    found = Console()
    if not found.is_terminal:
        found.width = 120  # of a file or a pipe Rich would take 80
    return found


def check_rows(data, path, tasks, width):
    """The rows, loaded once: before hours of training, not in a worker, and not after it."""
    from tfmtl.experiments.sources import load

    try:
        with names_option("--path", ValueError, OSError):
            return load(data, None if path is None else str(path), tasks, width)
    except ImportError as error:
        raise click.ClickException(str(error)) from error


def check_path(data: str, path: pathlib.Path | None) -> None:
    """Whether there is a path where the data set needs one, and none where not."""
    from tfmtl.experiments.sources import SOURCES

    wanted = SOURCES[data].path if data in SOURCES else None
    if (path is None) != (wanted is None):
        expected = wanted if path is None else f"nothing with {data}"
        received = "nothing" if path is None else repr(str(path))
        raise click.BadParameter(f"expected {expected}. Received: {received}", param_hint="--path")


def names(text: str) -> tuple[str, ...]:
    """Names with commas between them."""
    return tuple(name.strip() for name in text.split(","))


@contextlib.contextmanager
def names_option(option: str, *kinds: type[Exception]) -> Iterator[None]:
    """Errors of these kinds are the option's."""
    try:
        yield
    except kinds as error:
        raise click.BadParameter(str(error), param_hint=option) from error


def needs_matplotlib() -> None:
    """Asked before hours of training: the pictures need it."""
    from tfmtl.data.encode import require

    try:
        require("matplotlib")
    except ImportError as error:
        raise click.ClickException(
            'The plots need matplotlib, which does not import. Try: pip install "tfmtl[demo]"'
        ) from error


def say(folder: pathlib.Path, written: Sequence[str]) -> None:
    """What a command leaves."""
    click.echo(f"Wrote {folder}/: {', '.join(written)}")
