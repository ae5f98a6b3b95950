"""Where each balancer ends on a Pareto front that is known: one score for two tasks that disagree.

    python examples/front.py [--conflict 0.5] [--scales 1,100] [--out FOLDER]

`tfmtl.data.synthetic` draws a search log and tells its front (its docstring says how). Writes
`front.md` and `front.csv`, the expected cross-entropies of each method and how far behind the front
it is, and `front.png`.
"""

import argparse
import pathlib

import keras
import matplotlib
import numpy as np
from rich.progress import track

import tfmtl
from tfmtl import balancers, data, models
from tfmtl.experiments.tables import markdown, spread
from tfmtl.files import write_csv
from tfmtl.plots import COLOURS, GREY

matplotlib.use("Agg")
from matplotlib import pyplot

METHODS = {
    "EqualWeights": balancers.EqualWeights,
    "NMT, relevance first": lambda: balancers.NMT(("relevance", "click")),
    "NMT, click first": lambda: balancers.NMT(("click", "relevance")),
    **{
        name: balancers.BALANCERS[name]
        for name in (
            *("MGDA", "NashMTL", "IMTLG", "PCGrad", "CAGrad", "GradNorm", "Uncertainty", "DWA"),
            *("FAMO", "BanditMTL", "PUB", "EMTL"),
        )
    },
}


def train(rows, balancer, seed, epochs):
    """Predictions of the test rows, probabilities."""
    keras.utils.set_random_seed(seed)
    net = models.LTRTower(rows.features, units=(64, 32), seed=seed)
    model = tfmtl.MultiTaskModel(net, outputs=dict.fromkeys(rows.tasks, "score"))
    model.compile(keras.optimizers.Adam(0.003), loss=rows.losses(), balancer=balancer)
    model.fit(
        rows.train.batches(512, shuffle=True, seed=seed),
        validation_data=rows.validation.batches(4096),
        epochs=epochs,
        verbose=0,
    )
    odds = np.asarray(next(iter(model.predict(rows.test.batches(4096), verbose=0).values())))
    return 1 / (1 + np.exp(-odds.astype(float).ravel()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--conflict", type=float, default=0.5)
    parser.add_argument("--scales", default="1,1", help="of the losses of relevance and click")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default=";".join(METHODS), help="separated by ;")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/front"))
    options = parser.parse_args()
    scales = tuple(float(scale) for scale in options.scales.split(","))
    rows = data.synthetic(options.rows, conflict=options.conflict, loss_scales=scales)
    options.out.mkdir(parents=True, exist_ok=True)
    methods = options.methods.split(";")
    records = []
    for method, seed in track([(m, s) for s in range(options.seeds) for m in methods], "runs"):
        found = train(rows, METHODS[method](), seed, options.epochs)
        losses = dict(zip(rows.tasks, rows.expected(found).tolist(), strict=True))
        records.append({"method": method, "seed": seed, **losses, "gap": rows.gap(found)})
    write_csv(options.out / "front.csv", records)
    lines = [["method", *(f"{task} loss" for task in rows.tasks), "behind the front"], ["---"] * 4]
    for method in methods:
        own = [record for record in records if record["method"] == method]
        columns = (np.array([record[key] for record in own]) for key in (*rows.tasks, "gap"))
        lines.append([method, *map(spread, columns)])
    text = markdown(lines)
    (options.out / "front.md").write_text(text)
    draw(rows, records, methods, options.out / "front.png")
    print(text)


def draw(rows, records, methods, path):
    """The front, and each method's mean over seeds."""
    figure, axes = pyplot.subplots(figsize=(8.6, 5.4), layout="constrained")
    front = rows.front()
    axes.plot(front[:, 0], front[:, 1], color=GREY, label="Pareto front")
    for i, method in enumerate(methods):
        own = [
            [record[task] for task in rows.tasks]
            for record in records
            if record["method"] == method
        ]
        x, y = np.mean(own, axis=0)
        marker = "os^D*Pv"[i // len(COLOURS)]
        axes.plot(x, y, marker, color=COLOURS[i % len(COLOURS)], markersize=8, label=method)
    axes.set_xlabel(f"{rows.tasks[0]}: expected cross-entropy")
    axes.set_ylabel(f"{rows.tasks[1]}: expected cross-entropy")
    axes.grid(alpha=0.2)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
