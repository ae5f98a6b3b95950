"""A classification beside a regression, whose losses are hundreds of times apart.

    python examples/mixed_losses.py                 # census-income: income, and the age in years
    python examples/mixed_losses.py --path FOLDER   # KuaiRand: like, and the time watched

Trains equal weights, SI (one pass backward) and EMTL (one for each task where it searches). Prints
the classification's AUC and the regression's mean absolute error on the test rows.
"""

import argparse

import keras

import tfmtl
from tfmtl import balancers, data, models

METHODS = {
    "equal weights": balancers.EqualWeights,
    "SI": balancers.SI,
    # With MGDA below it, the default, EMTL stays with the task of the smaller gradient.
    "EMTL": lambda: balancers.EMTL(base=balancers.NashMTL(), update_every=10),
}


def main(path, epochs):
    tasks = ("like", "play_time") if path else ("income", "age")
    splits = data.kuairand(path, tasks=tasks) if path else data.census_income(tasks=tasks)
    event, amount = tasks
    # The activation belongs to the task, as the loss does.
    activations = {event: "sigmoid", amount: "softplus"}
    for name, balancer in METHODS.items():
        keras.utils.set_random_seed(1)
        net = models.SharedBottom(tasks, splits.features, output_activation=activations, seed=1)
        model = tfmtl.MultiTaskModel(net)
        model.compile(
            optimizer=keras.optimizers.Adam(2e-3),
            loss={event: "binary_crossentropy", amount: "mse"},
            metrics={event: [keras.metrics.AUC(2000, name="auc")], amount: ["mae"]},
            balancer=balancer(),
        )
        model.fit(splits.train.batches(1024, shuffle=True, seed=1), epochs=epochs, verbose=0)
        found = model.evaluate(splits.test.batches(4096), return_dict=True, verbose=0)
        print(
            f"{name}: {event} AUC {found[f'{event}_auc']:.4f}, "
            f"{amount} mean absolute error {found[f'{amount}_mae']:.3f}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", help="the folder of KuaiRand's files")
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    main(options.path, options.epochs)
