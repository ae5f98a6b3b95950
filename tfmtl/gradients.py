"""Gradients of several tasks over the same variables: sums over replicas, Gram matrix, mixing."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def sum_over_replicas(value):
    """The sum of a tensor over all replicas; the tensor itself where there is one replica."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def replicas() -> int:
    """How many replicas run in sync."""
    return tf.distribute.get_strategy().num_replicas_in_sync


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
    """``sum_i weights[i] * gradients[i]`` for one variable; ``None`` where all are ``None``."""
    present = [
        (tf.convert_to_tensor(gradient), weights[i])
        for i, gradient in enumerate(gradients)
        if gradient is not None
    ]
    if not present:
        return None
    return tf.add_n([tf.cast(weight, gradient.dtype) * gradient for gradient, weight in present])


def _flatten(gradient):
    if gradient is None:
        return None
    return tf.reshape(tf.cast(tf.convert_to_tensor(gradient), tf.float32), [-1])
