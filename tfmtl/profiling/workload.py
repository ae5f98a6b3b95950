"""A model and rows to profile it on, from a few numbers."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tfmtl import balancers, models, optimizers
from tfmtl.features import FeatureSpec
from tfmtl.model import MultiTaskModel

#: What :func:`network` makes.
MODELS = ("mmoe", "ple", "shared_bottom")

#: Distinct batches of :func:`synthetic`.
BATCHES = 4


def spec(columns: int, rows: int, width: int, numbers: int) -> FeatureSpec:
    """So many columns of so many ids each, embedded in ``width``, and so many numbers."""
    return FeatureSpec(
        {f"id_{i}": rows for i in range(columns)},
        tuple(f"number_{i}" for i in range(numbers)),
        width,
    )


def synthetic(tasks: tuple[str, ...], features: FeatureSpec, batch: int) -> tf.data.Dataset:
    """Random rows, uniform ids and fair labels, held in memory so that reading costs nothing."""
    rng = np.random.default_rng(0)
    shape = (BATCHES, batch)
    columns: dict[str, np.ndarray] = {
        name: rng.integers(0, size, shape, dtype="int32")
        for name, size in features.categorical.items()
    }
    columns |= {name: rng.normal(size=shape).astype("float32") for name in features.numeric}
    labels = {task: rng.integers(0, 2, shape).astype("float32") for task in tasks}
    return tf.data.Dataset.from_tensor_slices((columns, labels)).cache()


def network(
    kind: str, tasks: tuple[str, ...], features: FeatureSpec, experts: int, units: int
) -> keras.Model:
    """One of :data:`MODELS`.

    Args:
        kind: which.
        tasks: their names.
        features: the input columns.
        experts: of MMoE; PLE has two levels with so many in each group, a task's or the shared one.
        units: the width of an expert, or of the shared bottom.
    """
    if kind == "shared_bottom":
        return models.SharedBottom(tasks, features, bottom_units=(units,), seed=0)
    if kind == "ple":
        return models.PLE(
            tasks,
            features,
            task_experts=experts,
            shared_experts=experts,
            expert_units=(units,),
            seed=0,
        )
    return models.MMoE(tasks, features, experts=experts, expert_units=(units,), seed=0)


def compiled(
    net: keras.Model, balancer: balancers.Balancer, by: str, jit: bool | None
) -> MultiTaskModel:
    """A network of :func:`network`, ready to train.

    Args:
        net: the network.
        balancer: of its tasks.
        by: the optimizer's name.
        jit: whether XLA compiles the step; ``None`` for Keras' default.
    """
    model = MultiTaskModel(net)
    model.compile(
        optimizers.named(by),
        loss=dict.fromkeys(net.tasks, "binary_crossentropy"),
        balancer=balancer,
        jit_compile=jit,
    )
    return model
