"""A balancer of your own, in twenty lines: every task pulls as hard as every other one.

    python examples/custom_balancer.py                 # census-income: income and marriage
    python examples/custom_balancer.py --path FOLDER   # KuaiRand: like and click

Prints its weights and the length of the tasks' gradients by epoch, and the AUCs on the test rows.
"""

import argparse

import keras
import tensorflow as tf

import tfmtl
from tfmtl import balancers, data, models, solvers
from tfmtl.balancers.gramian import GramianBalancer


@keras.saving.register_keras_serializable("examples")
class SameLength(GramianBalancer):
    """Divides each task's gradient by its length, to a power.

    Reads the Gram matrix, whose diagonal holds the squared lengths; the base class brings
    `update_every`, `combine`, what is logged, replicas, and saving.
    """

    def __init__(self, power=1.0, **kwargs):
        super().__init__(**kwargs)
        self.power = power

    def weigh(self, losses, gramian):
        lengths = tf.sqrt(tf.linalg.diag_part(gramian))
        weights = tf.math.divide_no_nan(tf.ones_like(lengths), lengths**self.power)
        return len(self.tasks) * solvers.shares(weights)

    def get_config(self):
        return {**super().get_config(), "power": self.power}


def main(path, epochs):
    splits = data.kuairand(path, tasks=("like", "click")) if path else data.census_income()
    keras.utils.set_random_seed(1)
    model = tfmtl.MultiTaskModel(models.SharedBottom(splits.tasks, splits.features, seed=1))
    model.compile(
        optimizer=keras.optimizers.Adam(2e-3),
        loss=dict.fromkeys(splits.tasks, "binary_crossentropy"),
        metrics={t: [keras.metrics.AUC(2000, name="auc")] for t in splits.tasks},
        balancer=SameLength(power=0.5, update_every=10),
    )
    history = model.fit(
        splits.train.batches(1024, shuffle=True, seed=1), epochs=epochs, verbose=0
    ).history
    for task in splits.tasks:
        weights, lengths = (
            " ".join(f"{value:.3f}" for value in history[f"{name}_{task}"])
            for name in ("weight", "gradient_norm")
        )
        print(f"{task}: weights {weights}, gradient norms {lengths}")
    found = model.evaluate(splits.test.batches(4096), return_dict=True, verbose=0)
    print("test:", ", ".join(f"{task} AUC {found[f'{task}_auc']:.4f}" for task in splits.tasks))
    # It stands alone too, and beside those that are built in.
    jacobian = tf.constant([[3.0, 0.0], [0.0, 1.0]])  # [tasks, parameters]
    for balancer in (SameLength(), balancers.MGDA()):
        print(f"{type(balancer).__name__}: {balancer.combine(jacobian).numpy()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", help="the folder of KuaiRand's files")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    main(options.path, options.epochs)
