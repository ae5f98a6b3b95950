"""One script for one device, several devices of a machine, and several machines.

    python examples/distributed/train.py --folder runs/distributed

Every GPU of the machine is used, or with ``--cpus N`` as many logical CPUs. On several machines the
environment variable ``TF_CONFIG`` says who they are, and each of them runs the same command; the
folder is one that all of them see. A run that was killed goes on from its last whole epoch.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil

import keras
import numpy as np
import tensorflow as tf

import tfmtl
from tfmtl import balancers, callbacks, data, models

BALANCERS = {
    "equal": lambda: None,
    "nmt": lambda: balancers.NMT(priority=["like", "click"], patience=100),
    "pub": lambda: balancers.PUB(update_every=10),
}


def strategy_of(cpus: int) -> tf.distribute.Strategy:
    """The machine's devices, or several machines'. To be asked for before anything else."""
    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if cpus > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration()] * cpus
        tf.config.set_logical_device_configuration(cpu, logical)
        return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(cpus)])
    return tf.distribute.MirroredStrategy()


def rows(n: int = 1200, seed: int = 0) -> data.Rows:
    """Clicks and likes that pull one item feature in opposite directions."""
    rng = np.random.default_rng(seed)
    item = rng.integers(0, 40, n)
    user = rng.normal(size=n)
    taste = rng.normal(size=40)[item]
    click = taste + 0.5 * user + rng.normal(size=n) > 0
    like = user - 0.5 * taste + rng.normal(size=n) > 1
    return data.Rows({"item": item, "user": user}, {"like": like, "click": click})


def build(balancer: str) -> tfmtl.MultiTaskModel:
    """The model; to be called in the strategy's scope."""
    spec = tfmtl.FeatureSpec(categorical={"item": 40}, numeric=["user"], width=4)
    net = models.MMoE(
        ["like", "click"], spec, experts=2, expert_units=(8,), tower_units=(4,), seed=1
    )
    model = tfmtl.MultiTaskModel(net)
    model.compile(
        optimizer=tfmtl.optimizers.LazyAdam(0.01),
        loss={"like": "binary_crossentropy", "click": "binary_crossentropy"},
        metrics={"like": [keras.metrics.AUC()], "click": [keras.metrics.AUC()]},
        balancer=BALANCERS[balancer](),
    )
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="runs/distributed")
    parser.add_argument("--balancer", choices=BALANCERS, default="nmt")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--cpus", type=int, default=1)
    options = parser.parse_args()

    strategy = strategy_of(options.cpus)
    keras.utils.set_random_seed(1)
    # Every worker reads all rows, in the same order, and takes its part of each batch.
    everything = rows()
    train, held_out = everything.take(slice(0, 900)), everything.take(slice(900, None))
    with strategy.scope():
        model = build(options.balancer)
    chief = tfmtl.distributed.is_chief(strategy)

    def report(epoch: int, logs: dict) -> None:
        figures = {"stage": logs.get("stage", 1.0), "auc": logs["val_like_auc"]}
        print(f"epoch {epoch + 1}", *(f"{k} {v:.3g}" for k, v in figures.items()), flush=True)

    folder = pathlib.Path(options.folder)
    model.fit(
        train.batches(50, shuffle=True, seed=1),
        validation_data=held_out.batches(300),
        epochs=options.epochs,
        verbose=0,
        callbacks=[
            callbacks.BackupAndRestore(folder / "backup", delete_checkpoint=False),
            keras.callbacks.LambdaCallback(on_epoch_end=report),
        ],
    )
    model.save_weights(folder / "final.weights.h5")
    if chief:
        np.savez(folder / "final.npz", *model.net.get_weights())
        shutil.rmtree(folder / "backup")  # not before what was trained is safe


if __name__ == "__main__":
    main()
