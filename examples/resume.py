"""A training run that may be killed at any moment and is started again with the same command.

    python examples/resume.py FOLDER [EPOCHS]

The backup holds everything: weights, optimizer, NMT's stage, multipliers, baselines and best
weights, and how far the seeded shuffling has come. The end is the same as without a kill.
"""

from __future__ import annotations

import pathlib
import shutil
import sys

import keras
import numpy as np

import tfmtl
from tfmtl import balancers, callbacks, data, files, models


def rows(n: int = 1200, seed: int = 0) -> data.Rows:
    """Clicks and likes that pull one item feature in opposite directions."""
    rng = np.random.default_rng(seed)
    item = rng.integers(0, 40, n)
    user = rng.normal(size=n)
    taste = rng.normal(size=40)[item]
    click = taste + 0.5 * user + rng.normal(size=n) > 0
    like = user - 0.5 * taste + rng.normal(size=n) > 1
    return data.Rows({"item": item, "user": user}, {"like": like, "click": click})


def main(folder: str, epochs: int = 8) -> None:
    """Train, resuming from ``folder`` if it holds a backup, and leave ``final.npz`` in it."""
    path = pathlib.Path(folder)
    if (path / "final.npz").exists():
        return
    everything = rows()
    train, held_out = everything.take(slice(0, 900)), everything.take(slice(900, None))
    keras.utils.set_random_seed(1)
    spec = tfmtl.FeatureSpec(categorical={"item": 40}, numeric=["user"], width=4)
    net = models.MMoE(
        ["like", "click"], spec, experts=2, expert_units=(8,), tower_units=(4,), seed=1
    )
    model = tfmtl.MultiTaskModel(net)
    model.compile(
        optimizer=keras.optimizers.Adam(0.01),
        loss={"like": "binary_crossentropy", "click": "binary_crossentropy"},
        balancer=balancers.NMT(priority=["like", "click"], patience=100),
    )

    def report(epoch: int, logs: dict) -> None:
        print(f"epoch {epoch + 1} stage {logs['stage']:.0f}", flush=True)

    model.fit(
        train.batches(50, shuffle=True, seed=1),
        validation_data=held_out.batches(300),
        epochs=epochs,
        verbose=0,
        callbacks=[
            callbacks.BackupAndRestore(path / "backup", delete_checkpoint=False),
            keras.callbacks.LambdaCallback(on_epoch_end=report),
        ],
    )
    with files.written(path / "final.npz") as beside:
        np.savez(beside, *model.net.get_weights())
    shutil.rmtree(path / "backup")  # not before what was trained is safe


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
