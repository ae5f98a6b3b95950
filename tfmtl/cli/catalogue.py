"""``tfmtl data`` and ``tfmtl balancers``: what there is."""

from __future__ import annotations

import inspect
import pathlib

import click

from tfmtl.cli.common import (
    DATA,
    PATH,
    Command,
    check_path,
    check_rows,
    completes,
    console,
    names,
    names_option,
)


def _names(context, parameter, incomplete):
    """Completes to a data set, or leaves it to the shell to find a file."""
    found = completes(*DATA)(context, parameter, incomplete)
    return found or click.Path().shell_complete(context, parameter, incomplete)


@click.command(cls=Command)
@click.argument("name", required=False, shell_complete=_names)
@PATH
@click.option(
    "--tasks",
    help="Comma-separated: a CSV file's columns of labels. Shows what each other column tells of "
    "them by itself: does one give the answer away?",
)
def data(name, path, tasks):
    """List data sets, check a copy, or look at a CSV file's columns.

    NAME is one of the known data sets: what it is and where to get it, and with --path whether a
    local copy is whole. Or NAME is a CSV file of your own, of which the columns are shown as
    `tfmtl train` would take them. Without NAME all known data sets are listed.
    """
    from rich.table import Table

    from tfmtl.experiments.sources import SOURCES

    if name is None:
        table = Table("data set", "tasks", "what it is", "--path")
        for key, source in SOURCES.items():
            table.add_row(
                key, ", ".join(source.tasks), _first_line(source.load), source.path or "–"
            )
        console().print(table)
        return
    if name not in DATA:
        from tfmtl.data.table import check_columns, described, read
        from tfmtl.training import show

        try:
            with names_option("NAME", ValueError, FileNotFoundError):
                if not pathlib.Path(name).exists():
                    raise ValueError(f"expected one of {list(DATA)} or a file. Received: {name!r}")
                frame = read(name)
        except ImportError as error:
            raise click.ClickException(str(error)) from error
        chosen = () if tasks is None else names(tasks)
        with names_option("--tasks", ValueError):
            check_columns("tasks", chosen, frame)
            console().print(show.described(frame, described(frame), chosen))
        return
    if tasks is not None:
        raise click.BadParameter(f"goes with a CSV file. Received: {name}", param_hint="--tasks")
    source = SOURCES[name]
    click.echo(inspect.cleandoc(source.load.__doc__ or "").partition("\nArgs:")[0].strip() + "\n")
    click.echo(f"Tasks: {', '.join(source.tasks)}.")
    if source.path is not None and path is None:
        click.echo(f"`tfmtl data {name} --path` checks a copy: {source.path}.")
        return
    check_path(name, path)
    tasks = tuple(source.settings.tasks)
    splits = check_rows(name, path, tasks, source.settings.embedding_width)
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    counts = ", ".join(f"{len(part):,} for {part_name}" for part_name, part in parts.items())
    click.echo(
        f"It is whole: rows {counts}; {len(splits.features.categorical)} categorical and "
        f"{len(splits.features.numeric)} numeric columns."
    )


@click.command(cls=Command)
def balancers():
    """List the balancers, a line each.

    docs/balancers.md says which one to take. The commands take them by name, with options as in
    PUB:rescale=sum+update_every=1.
    """
    from rich.table import Table

    from tfmtl import balancers as every

    table = Table("balancer", "what it does", "reads")
    for name, kind in every.BALANCERS.items():
        table.add_row(name, _first_line(kind), kind.reads)
    console().print(table)


def _first_line(thing) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]
