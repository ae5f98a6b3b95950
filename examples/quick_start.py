"""Equal weights beside NMT on real rows: which of them keeps the first task?

    python examples/quick_start.py                 # census-income: income before marriage
    python examples/quick_start.py --path FOLDER   # KuaiRand: like before click

Prints where NMT stands and both tasks' AUC on the test rows. What NMT did is drawn into
`runs/quick-start/nmt.png`, and logged beside it: `tensorboard --logdir runs/quick-start/logs`. On
KuaiRand equal weights starve like; on census-income they do hardly any harm, and NMT has little to
hold.
"""

import argparse
import pathlib

import keras

import tfmtl
from tfmtl import balancers, callbacks, data, models, plots


def train(splits, balancer, epochs, used):
    """Test metrics, and the history of a training with this balancer."""
    keras.utils.set_random_seed(1)
    net = models.MMoE(splits.tasks, splits.features, experts=4, seed=1)
    model = tfmtl.MultiTaskModel(net)
    model.compile(
        optimizer=keras.optimizers.Adam(2e-3),
        loss=dict.fromkeys(splits.tasks, "binary_crossentropy"),
        metrics={t: [keras.metrics.AUC(2000, name="auc")] for t in splits.tasks},
        balancer=balancer,
    )
    history = model.fit(
        splits.train.batches(1024, shuffle=True, seed=1),
        validation_data=splits.validation.batches(4096),
        epochs=epochs,
        verbose=0,
        callbacks=used,
    )
    return model.evaluate(splits.test.batches(4096), return_dict=True, verbose=0), history


def main(path, epochs, folder):
    splits = data.kuairand(path, tasks=("like", "click")) if path else data.census_income()
    stop = callbacks.BestReading(dict.fromkeys(splits.tasks, 1.0))  # NMT stops by itself
    equal, _ = train(splits, balancers.EqualWeights(), epochs, [stop])
    watch = [callbacks.StageProgress(), callbacks.TaskBoard(folder / "logs", 10, similarity=True)]
    # Each of NMT's two stages may take as long.
    held, history = train(splits, balancers.NMT(splits.tasks), 2 * epochs, watch)
    for name, found in {"equal weights": equal, "NMT": held}.items():
        aucs = (f"{task} AUC {found[f'{task}_auc']:.4f}" for task in splits.tasks)
        print(f"{name}: {', '.join(aucs)}")
    shown = ["auc", "lambda", "violation"]
    plots.history(history, folder / "nmt.png", groups=shown, tasks=splits.tasks)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", help="the folder of KuaiRand's files")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/quick-start"))
    options = parser.parse_args()
    main(options.path, options.epochs, options.out)
