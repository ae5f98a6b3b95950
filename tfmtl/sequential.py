"""The Gram matrix of the tasks' gradients, with one task's gradients in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfmtl import gradients, rows


def gramian(tape: tf.GradientTape, losses: tf.Tensor, variables: Sequence) -> tf.Tensor:
    r"""Inner products of the gradients of losses, row by row.

    The gradient of :math:`\sum_j u_j L_j` is linear in :math:`u`, so that its product with task i's
    gradient has the slope :math:`\langle g_j, g_i\rangle` in :math:`u_j`: a row of the matrix for a
    backward pass, which gives :math:`g_i`, and a pass through the backward pass. The rows are found
    one after the other, and what a row took is free for the next.

    Args:
        tape: persistent, holds how the losses were computed.
        losses: ``[tasks]``.
        variables: at which the gradients are taken.

    Returns:
        ``[tasks, tasks]``, float32, over all replicas.
    """
    tasks = losses.shape[0]
    seeds = tf.ones_like(losses)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as backward:
        backward.watch(seeds)
        total = tape.gradient(losses, variables, output_gradients=seeds)
        # Tapes go on from tensors.
        reached = [i for i, each in enumerate(total) if each is not None]
        ends = [_values(total[i]) for i in reached]
    found: list = []
    for i in range(tasks):
        with tf.control_dependencies(found[-1:]):
            seed = tf.one_hot(i, tasks, dtype=losses.dtype)
            own = tape.gradient(losses, variables, output_gradients=seed)
            own = gradients.sum_over_replicas([_zeros_for_none(own[i], total[i]) for i in reached])
            along = [_at(total[i], each) for i, each in zip(reached, own, strict=True)]
            slopes = backward.gradient(ends, seeds, output_gradients=along)
            found.append(tf.cast(slopes, tf.float32))
    return gradients.sum_over_replicas(tf.stack(found))


def _values(gradient):
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient


def _zeros_for_none(gradient, like):
    if gradient is not None:
        return gradient
    if isinstance(like, tf.IndexedSlices):
        return tf.IndexedSlices(tf.zeros_like(like.values), like.indices, like.dense_shape)
    return tf.zeros_like(like)


def _at(total, gradient):
    """A gradient where another one, of one replica, has its values: of a table, at each id."""
    if not isinstance(total, tf.IndexedSlices):
        return tf.convert_to_tensor(gradient)
    if not isinstance(gradient, tf.IndexedSlices):
        return tf.gather(gradient, total.indices)
    return rows.at(rows.merge(gradient), total.indices)
