"""PUB and Clippy at a learning rate that Adam does not survive.

    python examples/pub_clippy.py                 # census-income: income and marriage
    python examples/pub_clippy.py --path FOLDER   # KuaiRand: like and click

Trains equal weights and PUB with Adam, and PUB with Clippy: each task's update is clipped before
the bargain, and the step that follows from it too. Prints losses in training and the AUCs on the
test rows. At a usual rate (`--rate 0.001`) nothing is clipped, and Clippy is Adam.
"""

import argparse

import keras

import tfmtl
from tfmtl import balancers, data, models, optimizers

METHODS = {
    "equal weights, Adam": (balancers.EqualWeights, keras.optimizers.Adam),
    "PUB, Adam": (balancers.PUB, keras.optimizers.Adam),
    "PUB, Clippy": (lambda: balancers.PUB(manipulation="clippy"), optimizers.Clippy),
}


def main(path, epochs, rate):
    splits = data.kuairand(path, tasks=("like", "click")) if path else data.census_income()
    for name, (balancer, optimizer) in METHODS.items():
        keras.utils.set_random_seed(1)
        model = tfmtl.MultiTaskModel(models.MMoE(splits.tasks, splits.features, seed=1))
        model.compile(
            optimizer=optimizer(rate),
            loss=dict.fromkeys(splits.tasks, "binary_crossentropy"),
            metrics={t: [keras.metrics.AUC(2000, name="auc")] for t in splits.tasks},
            balancer=balancer(),
        )
        history = model.fit(
            splits.train.batches(1024, shuffle=True, seed=1), epochs=epochs, verbose=0
        ).history
        found = model.evaluate(splits.test.batches(4096), return_dict=True, verbose=0)
        print(name)
        for task in splits.tasks:
            losses = " ".join(f"{loss:.4f}" for loss in history[f"{task}_loss"])
            print(f"  {task}: loss by epoch {losses}, test AUC {found[f'{task}_auc']:.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", help="the folder of KuaiRand's files")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rate", type=float, default=0.2)
    options = parser.parse_args()
    main(options.path, options.epochs, options.rate)
