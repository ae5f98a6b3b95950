"""Do tables train as well by the rows of a batch as whole? LazyAdam against Adam on KuaiRand.

Keras' Adam moves every row of an embedding table in every step, on what is left of its moments;
`tfmtl.optimizers.LazyAdam` moves the rows that the batch names. Same network, seeds and budget.
Each optimizer has the learning rate that validation rows speak for: the one of the highest AUC in
the mean over tasks and seeds. Differences are paired by seed, intervals over resampled users.

    python examples/lazy_rows.py --path FOLDER

Writes `lazy-rows.csv` (each run) and `lazy-rows.md` (the tables). Goes on where it was interrupted.
"""

import argparse
import dataclasses
import os
import pathlib

import numpy as np
from rich.progress import track

from tfmtl.experiments.compare import compare
from tfmtl.experiments.runs import Run
from tfmtl.experiments.sources import SOURCES, load
from tfmtl.experiments.tables import label, spread
from tfmtl.files import write_csv
from tfmtl.names import check_methods
from tfmtl.statistics import differences

TASKS = ("like", "click")
ADAM, LAZY = "Adam", "LazyAdam"
METHODS = ("EqualWeights", "nmt", "MGDA")


def plans(methods, rates, seeds, epochs):
    """Runs by method, optimizer and learning rate, one for each seed."""
    base = dataclasses.replace(SOURCES["kuairand"].settings, tasks=TASKS)
    found = {}
    for method in methods:
        for optimizer in (ADAM, LAZY):
            for rate in rates:
                settings = dataclasses.replace(
                    base, optimizer=optimizer, learning_rate=rate, epochs=epochs or base.epochs
                )
                runs = [Run("kuairand", method, seed, settings) for seed in range(seeds)]
                found[method, optimizer, rate] = runs
    return found


def scores(runs, task, folder):
    """The test rows' scores of each run."""
    found = []
    for run in runs:
        with np.load(folder / "runs" / run.key / "test.npz") as file:
            found.append(file[task])
    return found


def table(lines):
    lines = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(path, methods, rates, seeds, epochs, workers, folder):
    check_methods(methods, TASKS)
    every = plans(methods, rates, seeds, epochs)
    flat = [run for runs in every.values() for run in runs]
    records = iter(compare(flat, folder, path=path, workers=workers))
    records = {each: [next(records) for _ in runs] for each, runs in every.items()}
    auc = {
        each: {
            name: np.array([float(record[name]) for record in found])
            for task in TASKS
            for name in (f"auc_{task}", f"validation_auc_{task}")
        }
        for each, found in records.items()
    }

    def on_validation(each):
        return np.mean([auc[each][f"validation_auc_{task}"] for task in TASKS])

    best = {
        (method, optimizer): max(rates, key=lambda rate: on_validation((method, optimizer, rate)))
        for method in methods
        for optimizer in (ADAM, LAZY)
    }
    lines = [["method", "optimizer", "learning rate", *(f"{task} AUC" for task in TASKS)]]
    for (method, optimizer, rate), found in auc.items():
        shown = f"**{rate:g}**" if rate == best[method, optimizer] else f"{rate:g}"
        values = [spread(found[f"auc_{task}"]) for task in TASKS]
        lines.append([label(method), optimizer, shown, *values])
    text = table(lines) + "\n"
    lines = [["method", *(f"{task}, {LAZY} − {ADAM} [95 %]" for task in TASKS)]]
    test = load("kuairand", path, TASKS, SOURCES["kuairand"].settings.embedding_width).test
    for method in track(methods, "bootstrap"):
        line = [label(method)]
        for task in TASKS:
            both = {
                o: scores(every[method, o, best[method, o]], task, folder) for o in (ADAM, LAZY)
            }
            found = differences(test.labels[task], both, ADAM, groups=test.groups)[LAZY]
            line.append(f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]")
        lines.append(line)
    text += table(lines)
    rows = [
        {"optimizer": optimizer, "learning_rate": rate, **record}
        for (_, optimizer, rate), found in records.items()
        for record in found
    ]
    write_csv(folder / "lazy-rows.csv", rows)
    (folder / "results.csv").unlink()
    (folder / "lazy-rows.md").write_text(text)
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", required=True, help="the folder of KuaiRand's files")
    parser.add_argument("--methods", default=",".join(METHODS), help="as `tfmtl compare` has them")
    parser.add_argument("--rates", default="0.001,0.003,0.01", help="learning rates to choose from")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="at most so many a stage")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/lazy-rows"))
    asked = parser.parse_args()
    main(
        asked.path,
        tuple(asked.methods.split(",")),
        tuple(map(float, asked.rates.split(","))),
        asked.seeds,
        asked.epochs,
        asked.workers,
        asked.out,
    )
