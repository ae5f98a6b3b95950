"""Which weights does a balancer give, step by step? A picture, and a table by epoch, on KuaiRand.

    python examples/weights.py EMTL --path FOLDER [--tasks click,like] [--rate 0.003]

The method is written as in a plan: `PUB`, or with options `PUB:bargain=update+rescale=None`. Writes
`weights.png` and `weights.md`, and the event files that they are drawn from.
"""

import argparse
import pathlib

import keras
import matplotlib
import numpy as np

import tfmtl
from tfmtl import callbacks, data, events, figures, plots
from tfmtl.data.kuairand import REGRESSION_TASKS
from tfmtl.experiments.settings import Settings, network
from tfmtl.experiments.tables import markdown
from tfmtl.names import BALANCED, balancer_of

matplotlib.use("Agg")

#: Those that have weights which change.
METHODS = [name for name in BALANCED if name not in ("EqualWeights", "GradDrop")]


def train(splits, tasks, method, rate, epochs, seed, folder):
    """Train one model, every step's figures into a folder; the optimizer's steps an epoch."""
    keras.utils.set_random_seed(seed)
    settings = Settings(tasks, epochs, experts=8)
    numbers = [task for task in tasks if task in REGRESSION_TASKS]
    model = tfmtl.MultiTaskModel(network(settings, splits.features, seed, numbers))
    loss = {task: "mse" if task in numbers else "binary_crossentropy" for task in tasks}
    model.compile(keras.optimizers.Adam(rate), loss=loss, balancer=balancer_of(method, tasks))
    batches = splits.train.batches(2048, shuffle=True, seed=seed)
    model.fit(batches, epochs=epochs, verbose=0, callbacks=[callbacks.TaskBoard(folder, every=1)])
    return model.steps_taken // epochs


def table(series, tasks, steps):
    """Of each epoch, the medians and quartiles of weights and gradients' lengths."""
    tags = [f"{group}/{task}" for group in ("weight", "gradient_norm") for task in tasks]
    tags = [tag for tag in tags if tag in series]
    lines = [["epoch", *(tag.replace("/", ", ") for tag in tags)], ["---"] * (len(tags) + 1)]
    for epoch, start in enumerate(range(0, int(series[tags[0]][0][-1]), steps), 1):
        cells = []
        for tag in tags:
            step, value = series[tag]
            own = value[(step > start) & (step <= start + steps)]
            low, middle, high = np.quantile(own, (0.25, 0.5, 0.75))
            cells.append(f"{middle:.3g} [{low:.3g}, {high:.3g}]")
        lines.append([str(epoch), *cells])
    return markdown(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", help="a balancer, with options or without")
    parser.add_argument("--path", required=True, help="the folder of KuaiRand's files")
    parser.add_argument("--tasks", default="click,like")
    parser.add_argument("--rate", type=float, default=0.003, help="Adam's")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/weights"))
    asked = parser.parse_args()
    if asked.method.partition(":")[0] not in METHODS:
        parser.error(f"the method must be one of {METHODS}. Received: {asked.method!r}")
    tasks = tuple(asked.tasks.split(","))
    splits = data.kuairand(asked.path, tasks=tasks, width=8)
    folder = asked.out / asked.method
    steps = train(splits, tasks, asked.method, asked.rate, asked.epochs, asked.seed, folder)
    series = events.read_scalars(str(folder))
    groups = [group for group in ("loss", *figures.BY_TASK) if f"{group}/{tasks[0]}" in series]
    plots.history(str(folder), folder / "weights.png", groups, tasks)
    text = table(series, tasks, steps)
    (folder / "weights.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
