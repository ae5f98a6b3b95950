"""What Keras calls for a batch, where several replicas train.

A step is made in parts (:class:`tfmtl.steps.Step`) that each run on all replicas. Between the
parts, where the replicas are together, the graph branches: whether weights are searched, and
whether the step is made at all. Inside of a replica it could not, as replicas meet there to add up
what they have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import tensorflow as tf

from tfmtl import compat, distributed
from tfmtl.steps import Step, takes_turns

if TYPE_CHECKING:
    from tfmtl.model import MultiTaskModel


def train_function(model: MultiTaskModel) -> Callable:
    """What Keras calls with an iterator of batches to make as many steps as an execution has.

    It returns the logs of the last one: of each figure what the first replica of this worker has.
    Those of an epoch, which Keras reads from the metrics, are over all replicas.
    """
    return _function(model, lambda data: _train(model, data), "_train_counter")


def test_function(model: MultiTaskModel) -> Callable:
    """The same of evaluation."""
    strategy = model.distribute_strategy

    def step(data):
        return distributed.first(strategy, strategy.run(model.test_step, (data,)))

    return _function(model, step, "_test_counter")


def _function(model: MultiTaskModel, step: Callable, counter: str) -> Callable:
    counted = getattr(model, counter, None)  # Keras 2.15 counts batches
    steps = compat.steps_per_execution(model)

    def one(data):
        logs = step(data)
        if counted is not None:
            counted.assign_add(1)
        return logs

    def execute(iterator):
        if steps is not None:
            tf.while_loop(
                lambda done: done < tf.cast(steps, tf.int64) - 1,
                lambda done: (_after(one(next(iterator)), done + 1),),
                (tf.zeros([], tf.int64),),
            )
        return one(next(iterator))

    if not model.run_eagerly:
        execute = tf.function(execute, reduce_retracing=True, autograph=False)

    def function(iterator):
        if isinstance(iterator, (tf.data.Iterator, tf.distribute.DistributedIterator)):
            return execute(iterator)
        # Keras 3's `train_on_batch` and `test_on_batch`.
        return execute(iter(_distributed(model.distribute_strategy, next(iterator))))

    return function


def _distributed(strategy, batch: tuple):
    """A batch of arrays, shared out among the replicas."""
    parts = tuple(part for part in batch if part is not None)
    rows = len(tf.nest.flatten(parts)[0])
    dataset = tf.data.Dataset.from_tensor_slices(parts).batch(rows)
    return strategy.experimental_distribute_dataset(distributed.shared_out(dataset))


def _train(model: MultiTaskModel, data):
    """One step of all replicas; its logs."""
    strategy = model.distribute_strategy

    def step(searching: bool | None):
        steps: dict[int, Step] = {}

        def mine() -> Step:
            return steps[distributed.replica()]

        def find(data):
            step = steps[distributed.replica()] = Step(model, data, searching)
            return step.find()

        def finish():
            mine().finish()
            return model.get_metrics_result()

        sound = distributed.first(strategy, distributed.run(strategy, find, data))
        tf.cond(sound, lambda: distributed.run(strategy, lambda: mine().apply()), lambda: None)
        return distributed.first(strategy, distributed.run(strategy, finish))

    if not takes_turns(model.balancer):
        return step(None)
    return tf.cond(model.balancer.due(), lambda: step(True), lambda: step(False))


def _after(logs, value):
    """A value once a step has been made."""
    with tf.control_dependencies(tf.nest.flatten(logs)):
        return tf.identity(value)
