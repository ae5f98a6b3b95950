"""Several replicas, on one machine or on several: which strategies there are, and who is who."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

#: Strategies that a model may be trained under, beside TensorFlow's default one.
SUPPORTED = (
    tf.distribute.OneDeviceStrategy,
    tf.distribute.MirroredStrategy,
    tf.distribute.MultiWorkerMirroredStrategy,
)


def check_strategy() -> None:
    """Raise ``ValueError`` in the scope of a strategy that cannot train a multi-task model."""
    strategy = tf.distribute.get_strategy()
    if tf.distribute.has_strategy() and not isinstance(strategy, SUPPORTED):
        expected = [each.__name__ for each in SUPPORTED]
        raise ValueError(
            f"A MultiTaskModel trains under one of {expected}, whose replicas step together. "
            f"Received: {type(strategy).__name__}"
        )


def is_distributed(strategy: tf.distribute.Strategy) -> bool:
    """Whether a strategy's replicas meet, be there but one of them here."""
    several = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)
    return isinstance(strategy, several)


def workers(strategy: tf.distribute.Strategy) -> int:
    """How many processes train together."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    return strategy.num_replicas_in_sync // len(strategy.extended.worker_devices)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes files."""
    return strategy.extended.should_checkpoint


def of_chief(strategy: tf.distribute.Strategy, value: np.ndarray) -> np.ndarray:
    """What the first worker has, on every worker; all must call this.

    Workers that decide by what they measured decide alike only if they measured the same, to the
    last bit.

    Args:
        strategy: the running one.
        value: float32 or float64, of the same shape on every worker.
    """
    if workers(strategy) == 1:
        return value
    return strategy.experimental_local_results(_meeting(strategy)(tf.constant(value)))[0].numpy()


@functools.cache
def _meeting(strategy: tf.distribute.Strategy) -> Callable:
    def meet(value):
        # Either is on this replica's device, where the sum is to be.
        mine = tf.identity(value) if replica() == 0 else tf.zeros_like(value)
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

    return tf.function(lambda value: run(strategy, meet, value), autograph=False)


def shared_out(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """A data set that every worker reads whole, in the same order, to take its part of each batch.

    Without it TensorFlow guesses by the kind of pipeline, and gives each worker files of its own
    where it finds files.

    Args:
        dataset: its batches are the global ones. Where it shuffles, it needs a seed.
    """
    options = tf.data.Options()
    policy = tf.data.experimental.AutoShardPolicy.DATA
    options.experimental_distribute.auto_shard_policy = policy
    return dataset.with_options(options)


def replica() -> int:
    """Within :func:`run`, the number of this replica among all."""
    context = tf.distribute.get_replica_context()
    return int(tf.get_static_value(context.replica_id_in_sync_group))


def run(strategy: tf.distribute.Strategy, function: Callable, *arguments):
    """What a function gives on each replica."""
    # Nothing in a step is for AutoGraph to convert, and looking takes it seconds.
    return strategy.run(tf.autograph.experimental.do_not_convert(function), arguments)


def first(strategy: tf.distribute.Strategy, values):
    """What the first replica of this worker has."""
    return tf.nest.map_structure(lambda v: strategy.experimental_local_results(v)[0], values)
