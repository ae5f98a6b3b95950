"""``tfmtl data`` and ``tfmtl balancers``: what there is."""

from __future__ import annotations

import inspect
import pathlib

import click

from tfmtl.cli.common import DATA, PATH, check_path, check_rows, names_option


@click.command()
@click.argument("name", required=False)
@PATH
def data(name, path):
    """What a data set is, where to get it, and whether a local copy is whole.

    NAME is one of the known data sets or a CSV file of your own, of which the columns are shown as
    `tfmtl train` would take them. Without NAME all known ones are listed.
    """
    from rich.console import Console
    from rich.table import Table

    from tfmtl.experiments.sources import SOURCES

    console = Console()
    if not console.is_terminal:
        console.width = 120
    if name is None:
        table = Table("data set", "tasks", "what it is", "--path")
        for key, source in SOURCES.items():
            table.add_row(
                key, ", ".join(source.tasks), _first_line(source.load), source.path or "–"
            )
        console.print(table)
        return
    if name not in DATA:
        from tfmtl.data.table import described, read
        from tfmtl.training import show

        try:
            with names_option("NAME", ValueError, FileNotFoundError):
                if not pathlib.Path(name).exists():
                    raise ValueError(f"expected one of {list(DATA)} or a file. Received: {name!r}")
                frame = read(name)
        except ImportError as error:
            raise click.ClickException(str(error)) from error
        console.print(show.described(frame, described(frame)))
        return
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


@click.command()
def balancers():
    """The balancers, a line each."""
    from rich.console import Console
    from rich.table import Table

    from tfmtl import balancers as every

    console = Console()
    if not console.is_terminal:
        console.width = 120
    table = Table("balancer", "what it does", "reads")
    for name, kind in every.BALANCERS.items():
        table.add_row(name, _first_line(kind), kind.reads)
    console.print(table)


def _first_line(thing) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]
