"""What does a grid search of loss weights cost, and what does NMT reach in its place?

Every weighting of a grid (9 for two tasks, 9 x 9 for three) is trained, the one to keep is chosen
on validation rows, and NMT is trained once with its defaults. Test AUCs, training seconds and
their ratio, mean and deviation over seeds.

    python examples/grid_search.py --path FOLDER --tasks like,click
    python examples/grid_search.py --path FOLDER --tasks like,long_view,click --seeds 2

Chosen is, as one who puts the first task first would: among the weightings whose first task's
validation AUC is at most --margin below the grid's best, the one with the highest mean AUC of the
others. Writes `grid.csv` (each run), `grid.md` (the table) and `grid.png` (the trade-off). Goes on
where it was interrupted.
"""

import argparse
import dataclasses
import os
import pathlib

import numpy as np
from matplotlib.figure import Figure

from tfmtl.experiments.compare import compare
from tfmtl.experiments.panel import Panel
from tfmtl.experiments.priority import chosen
from tfmtl.experiments.runs import Run
from tfmtl.experiments.sources import SOURCES, check_tasks
from tfmtl.experiments.tables import spread
from tfmtl.files import write_csv
from tfmtl.plots import COLOURS

SHARES = tuple(round(0.1 * i, 1) for i in range(1, 10))


def weightings(tasks, shares):
    """The grid: the first task's share, and with three tasks how the rest is split."""
    if len(tasks) == 2:
        return [f"sum:{first}" for first in shares]
    return [
        f"sum:{first}:{(1 - first) * split:.2f}:{(1 - first) * (1 - split):.2f}"
        for first in shares
        for split in shares
    ]


def column(records, task):
    """Test AUCs of a task."""
    return np.array([float(record[f"auc_{task}"]) for record in records])


def main(path, data, tasks, shares, seeds, epochs, margin, workers, folder):
    check_tasks(data, tasks)
    base = SOURCES[data].settings
    settings = dataclasses.replace(base, tasks=tasks, epochs=epochs or base.epochs)
    grid = weightings(tasks, shares)
    runs = [Run(data, m, seed, settings) for seed in range(seeds) for m in (*grid, "nmt")]
    records = compare(runs, folder, path=path, workers=workers)
    picks = chosen(Panel(tasks, settings.model, runs, records), margin)
    found = {f"grid of {len(grid)}, chosen on validation": [], "NMT": []}
    seconds = {name: [] for name in found}
    for seed in range(seeds):
        own = {r["method"]: r for r, run in zip(records, runs, strict=True) if run.seed == seed}
        spent = {method: float(record["seconds"]) for method, record in own.items()}
        costs = (sum(spent.values()) - spent["nmt"], spent["nmt"])
        for name, method, cost in zip(found, (picks[seed], "nmt"), costs, strict=True):
            found[name].append(own[method])
            seconds[name].append(cost)
    head = ["", *(f"{task} AUC" for task in tasks), "seconds", "chosen weights by seed"]
    lines = [head, ["---"] * len(head)]
    for name, kept in found.items():
        aucs = [spread(column(kept, task)) for task in tasks]
        weights = ", ".join(r["method"][4:] for r in kept if r["method"] != "nmt") or "–"
        lines.append([name, *aucs, spread(np.array(seconds[name]), 0), weights])
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    ratios = np.divide(*seconds.values())
    text += f"\nThe grid's training took {spread(ratios, 1)} times NMT's.\n"
    write_csv(folder / "grid.csv", records)  # in this order, not that in which they ended
    (folder / "results.csv").unlink()
    (folder / "grid.md").write_text(text)
    draw(records, found, tasks, folder / "grid.png")
    print(text)


def draw(records, found, tasks, path):
    """Test AUC of the first task against the mean of the others, every run."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    sums = [record for record in records if record["method"] != "nmt"]
    clouds = {"weightings": sums, **found}
    for (name, kept), marker, colour in zip(clouds.items(), "os*", COLOURS, strict=False):
        x = np.mean([column(kept, task) for task in tasks[1:]], axis=0)
        y = column(kept, tasks[0])
        size = {"o": 12, "s": 60, "*": 150}[marker]
        axes.scatter(x, y, size, colour, marker, alpha=0.4 if marker == "o" else 1, label=name)
    axes.set_xlabel(f"{' and '.join(tasks[1:])}: test AUC{' (mean)' * (len(tasks) > 2)}")
    axes.set_ylabel(f"{tasks[0]} (primary): test AUC")
    axes.grid(alpha=0.2)
    figure.legend(loc="outside upper left", ncols=3, fontsize=9, frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["census", "kuairand"], default="kuairand")
    parser.add_argument("--path", help="the folder of KuaiRand's files")
    parser.add_argument("--tasks", default="like,click", help="two or three, the first one first")
    parser.add_argument("--shares", help="of the grid; 0.1,0.2,...,0.9 by default")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="at most so many a stage")
    parser.add_argument("--margin", type=float, default=0.005)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/grid"))
    asked = parser.parse_args()
    shares = tuple(map(float, asked.shares.split(","))) if asked.shares else SHARES
    main(
        asked.path,
        asked.data,
        tuple(asked.tasks.split(",")),
        shares,
        asked.seeds,
        asked.epochs,
        asked.margin,
        asked.workers,
        asked.out / asked.tasks.replace(",", "-"),
    )
