"""Do tables train as well by the rows of a batch as whole? LazyAdam against Adam on KuaiRand.

Keras' Adam moves every row of an embedding table in every step, on what is left of its moments;
`tfmtl.optimizers.LazyAdam` moves the rows that the batch names. Same network, seeds and budget,
differences paired by seed, intervals over resampled users.

    python examples/lazy_rows.py --path FOLDER

Writes `lazy-rows.csv` (each run) and `lazy-rows.md` (the table). Goes on where it was interrupted.
"""

import argparse
import dataclasses
import os
import pathlib

import numpy as np

from tfmtl.experiments.compare import compare
from tfmtl.experiments.runs import Run, write_csv
from tfmtl.experiments.settings import SETTINGS, check_methods, load
from tfmtl.experiments.statistics import differences
from tfmtl.experiments.tables import by_method, label, spread

TASKS = ("like", "click")
ADAM, LAZY = "Adam", "LazyAdam"
METHODS = ("EqualWeights", "nmt", "PUB", "MGDA")


def plan_of(optimizer, methods, seeds, epochs):
    """Every method with every seed under an optimizer."""
    base = SETTINGS["kuairand"]
    settings = dataclasses.replace(
        base, tasks=TASKS, optimizer=optimizer, epochs=epochs or base.epochs
    )
    return [Run("kuairand", method, seed, settings) for method in methods for seed in range(seeds)]


def main(path, methods, seeds, epochs, workers, folder):
    check_methods(methods, TASKS)
    plans = {by: plan_of(by, methods, seeds, epochs) for by in (ADAM, LAZY)}
    records = compare([*plans[ADAM], *plans[LAZY]], folder, path=path, workers=workers)
    records = dict(zip(plans, np.array_split(records, 2), strict=True))
    test = load("kuairand", path, TASKS, SETTINGS["kuairand"].embedding_width).test
    head = ["method", *(f"{t}, {by}" for t in TASKS for by in plans)]
    head += [f"{task}, {LAZY} − {ADAM} [95 %]" for task in TASKS]
    lines = [head, ["---"] * len(head)]
    for method in methods:
        line = [label(method)]
        for task in TASKS:
            line += [spread(by_method(records[by], f"auc_{task}")[method]) for by in plans]
        for task in TASKS:
            scores = {by: [] for by in plans}
            for by, plan in plans.items():
                for run in plan:
                    if run.method == method:
                        with np.load(folder / "runs" / run.key / "test.npz") as found:
                            scores[by].append(found[task])
            found = differences(test.labels[task], scores, ADAM, groups=test.groups)[LAZY]
            line.append(f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]")
        lines.append(line)
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    rows = [{"optimizer": by, **record} for by in plans for record in records[by]]
    write_csv(folder / "lazy-rows.csv", rows)
    (folder / "lazy-rows.md").write_text(text)
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", required=True, help="the folder of KuaiRand's files")
    parser.add_argument("--methods", default=",".join(METHODS), help="as `tfmtl compare` has them")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="at most so many a stage")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/lazy-rows"))
    asked = parser.parse_args()
    chosen = tuple(asked.methods.split(","))
    main(asked.path, chosen, asked.seeds, asked.epochs, asked.workers, asked.out)
