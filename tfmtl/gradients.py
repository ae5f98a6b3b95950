"""Gradients of several tasks over the same variables: sums over replicas, Gram matrix, mixing."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def sum_over_replicas(value):
    """The sum over all replicas of a tensor or rows, or of each in a structure of them.

    ``None`` stays ``None``. Where there is one replica, the value itself.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    flat = tf.nest.flatten(value)
    present = [each for each in flat if each is not None]
    summed = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, present))
    return tf.nest.pack_sequence_as(value, [None if g is None else next(summed) for g in flat])


def replicas() -> int:
    """How many replicas run in sync."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def assign(variable: tf.Variable, value) -> None:
    """Put a value, the same on every replica, into a variable."""
    if replicas() == 1:
        variable.assign(value)
        return

    def update(strategy, variable, value):
        return strategy.extended.update(variable, lambda v, new: v.assign(new), args=(value,))

    tf.distribute.get_replica_context().merge_call(update, args=(variable, value))


def gramian(task_gradients: Sequence[Sequence]) -> tf.Tensor:
    """Inner products of the tasks' gradients.

    Args:
        task_gradients: for each task its gradients over the same variables, dense, row-sparse
            (``tf.IndexedSlices``) or ``None`` where the task does not reach the variable.

    Returns:
        ``[tasks, tasks]``, float32, of this replica.
    """
    tasks = len(task_gradients)
    total = tf.zeros([tasks, tasks], tf.float32)
    for gradients in zip(*task_gradients, strict=True):
        flat = [_flatten(gradient) for gradient in gradients]
        size = next(tf.size(vector) for vector in flat if vector is not None)
        rows = tf.stack([tf.zeros([size]) if vector is None else vector for vector in flat])
        total += tf.matmul(rows, rows, transpose_b=True)
    return total


def weighted_sum(gradients: Sequence, weights: tf.Tensor):
    """``sum_i weights[i] * gradients[i]`` for one variable; ``None`` where all are ``None``.

    Row-sparse gradients stay row-sparse.
    """
    present = [(each, weights[i]) for i, each in enumerate(gradients) if each is not None]
    if not present:
        return None
    if all(isinstance(gradient, tf.IndexedSlices) for gradient, _ in present):
        return tf.IndexedSlices(
            tf.concat([tf.cast(w, g.dtype) * g.values for g, w in present], axis=0),
            tf.concat([g.indices for g, _ in present], axis=0),
            present[0][0].dense_shape,
        )
    return tf.add_n([tf.cast(w, g.dtype) * tf.convert_to_tensor(g) for g, w in present])


def stack(gradients: Sequence) -> tf.Tensor:
    """The tasks' gradients of one variable, dense, ``[tasks, ...]``; zeros for a task without."""
    dense = [None if each is None else tf.convert_to_tensor(each) for each in gradients]
    like = next(each for each in dense if each is not None)
    return tf.stack([tf.zeros_like(like) if each is None else each for each in dense])


def _flatten(gradient):
    if gradient is None:
        return None
    return tf.reshape(tf.cast(tf.convert_to_tensor(gradient), tf.float32), [-1])
