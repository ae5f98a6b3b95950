"""The toy problem of PUB's Figure 2 and EMTL's Figure 1: every balancer from five starts.

Two losses over two numbers (Navon et al., 2022, appendix B; the first one scaled by 0.1 as there),
Adam, five starts. Writes `toy.png`, the trajectories in the space of the two losses, and `toy.csv`,
how many starts each method brings to the lowest mean loss that any of them found.

    python examples/toy.py [--out FOLDER] [--steps N] [--methods PUB,EMTL]
"""

import argparse
import csv
import pathlib

import keras
import matplotlib
import numpy as np
import tensorflow as tf
from rich.progress import track

import tfmtl
from tfmtl import balancers, compat

matplotlib.use("Agg")
from matplotlib import pyplot

STARTS = [(-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0)]
RATE, STEPS, EPOCH, EVERY = 0.02, 4000, 200, 50
#: A mean loss this near to the best one counts as the best.
NEAR = 0.1


def losses(theta):
    """The two losses at `[..., 2]`."""
    x, y = theta[..., 0], theta[..., 1]
    up, down = tf.nn.relu(tf.tanh(0.5 * y)), tf.nn.relu(tf.tanh(-0.5 * y))
    valley = [
        tf.math.log(tf.maximum(tf.abs(0.5 * (-x - 7) - tf.tanh(-y)), 5e-6)) + 6,
        tf.math.log(tf.maximum(tf.abs(0.5 * (-x + 3) - tf.tanh(-y) + 2), 5e-6)) + 6,
    ]
    bowl = [((-x + 7 * s) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20 for s in (1, -1)]
    first, second = (up * a + down * b for a, b in zip(valley, bowl, strict=True))
    return 0.1 * first, second


class Toy(keras.Model):
    """A network that is nothing but two numbers."""

    def __init__(self):
        super().__init__()
        self.theta = self.add_weight(name="theta", shape=(2,), initializer="zeros")

    def call(self, inputs):
        found = losses(tf.convert_to_tensor(self.theta))
        rows = 0 * inputs["x"]
        return {task: rows + loss for task, loss in zip(("first", "second"), found, strict=True)}


def trajectories(method, epochs):
    """`[starts, readings, 2]`: the losses every `EVERY` steps and at the end."""
    x = {"x": np.zeros((EPOCH, 1), "float32")}
    y = {task: np.zeros((EPOCH, 1), "float32") for task in ("first", "second")}
    row = ({"x": x["x"][:1]}, {task: each[:1] for task, each in y.items()})  # what NMT reads
    model = tfmtl.MultiTaskModel(Toy())
    model({"x": x["x"][:1]})
    itself = {task: lambda y_true, y_pred: y_pred for task in y}
    model.compile(
        keras.optimizers.Adam(RATE), loss=itself, balancer=method(), steps_per_execution=EVERY
    )
    state = [*model.variables, *compat.optimizer_variables(model.optimizer)]
    fresh = [tf.identity(variable) for variable in state]
    found = []
    for start in STARTS:
        for variable, value in zip(state, fresh, strict=True):
            variable.assign(value)
        model.net.set_weights([np.array(start)])
        seen = [np.array(start)]
        note = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs, seen=seen: seen.append(
                model.net.get_weights()[0]
            )
        )
        model.fit(
            x,
            y,
            batch_size=1,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            validation_data=row if isinstance(model.balancer, balancers.NMT) else None,
            callbacks=[note],
        )
        seen.append(model.net.get_weights()[0])  # NMT goes back to its best reading
        found.append(np.stack(losses(tf.constant(np.array(seen), tf.float32)), axis=1))
    return np.stack(found)


METHODS = {
    **{name: kind for name, kind in balancers.BALANCERS.items() if name != "FixedWeights"},
    "NMT": lambda: balancers.NMT(["first", "second"], patience=100),
    "PUB (letter)": lambda: balancers.PUB(update_every=1, bargain="update", rescale=None),
}


def main(folder, steps, names):
    found = {
        name: trajectories(METHODS[name], max(1, steps // EPOCH))
        for name in track(names, "methods")
    }
    best = min(path[-1].mean() for paths in found.values() for path in paths)
    rows = [
        {
            "method": name,
            "starts at the best": sum(path[-1].mean() <= best + NEAR for path in paths),
            "mean loss": f"{np.mean([path[-1].mean() for path in paths]):.3f}",
        }
        for name, paths in found.items()
    ]
    rows.sort(key=lambda row: (-row["starts at the best"], float(row["mean loss"])))
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "toy.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    draw(found, [row["method"] for row in rows], folder / "toy.png")
    for row in rows:
        print(f"{row['method']:<18}{row['starts at the best']} of 5   {row['mean loss']:>8}")


def draw(found, order, path):
    """A panel for each method, the starts as black dots, the ends as stars."""
    columns = 5
    lines = -(-len(order) // columns)
    figure, panels = pyplot.subplots(
        lines, columns, figsize=(3 * columns, 2.7 * lines), sharex=True, sharey=True, squeeze=False
    )
    for axes, name in zip(panels.flat, order, strict=False):
        for i, points in enumerate(found[name]):
            axes.plot(*points.T, color=pyplot.cm.plasma(0.1 + 0.17 * i), linewidth=1.2)
            axes.plot(*points[0], "ko", markersize=4)
            axes.plot(*points[-1], "*", color="black", markersize=9)
        axes.set_title(name, fontsize=9)
    for axes in panels.flat[len(order) :]:
        axes.set_visible(False)
    figure.supxlabel("first loss")
    figure.supylabel("second loss")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/toy"))
    parser.add_argument("--steps", type=int, default=STEPS, help=f"a multiple of {EPOCH}")
    parser.add_argument("--methods", default=",".join(METHODS), help="all by default")
    chosen = parser.parse_args()
    wanted = [name.strip() for name in chosen.methods.split(",")]
    if unknown := sorted(set(wanted) - set(METHODS)):
        parser.error(f"--methods must name some of {list(METHODS)}. Received: {unknown}")
    main(chosen.out, chosen.steps, wanted)
