"""What the demo adds to a comparison: a table in the terminal, and a model for a server."""

from __future__ import annotations

import pathlib
import shutil

from rich.console import Console
from rich.table import Table

from tfmtl.experiments import tables
from tfmtl.experiments.panel import Panel


def show(panel: Panel) -> None:
    """Print the test AUC of every method."""
    table = Table(title=f"Test AUC, {' ≻ '.join(panel.tasks)}")
    table.add_column("method")
    for task in panel.tasks:
        table.add_column(task, justify="right")
    table.add_column("seconds a run", justify="right")
    for method, values in panel.values.items():
        name = tables.label(method)
        cells = [tables.spread(values[:, i]) for i in range(len(panel.tasks))]
        seconds = f"{panel.seconds[method][:, 0].mean():.0f}"
        table.add_row(name, *cells, seconds, style="bold" if method == "nmt" else None)
    Console().print(table)


def copy_model(panel: Panel, folder: pathlib.Path) -> list[str]:
    """Put the SavedModel of NMT's first seed where a model server looks for it.

    Returns:
        Its name in the folder, if there is one.
    """
    shutil.rmtree(folder / "model", ignore_errors=True)
    made = folder / "runs" / panel.key("nmt", 0) / "model"
    if not (panel.key("nmt", 0) and made.exists()):
        return []
    shutil.copytree(made, folder / "model" / "1")
    return ["model/1"]
