"""Gradients of several tasks over the same variables: sums over replicas, Gram matrix, mixing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from tfmtl import compat, distributed, rows


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
    """Put a value, the same on every replica, into a variable, or rows into a table."""

    def put(variable, value):
        if isinstance(value, tf.IndexedSlices):
            rows.put(variable, value.indices, value.values)
        else:
            variable.assign(tf.cast(value, variable.dtype))

    def update(strategy, variable, value):
        return strategy.extended.update(variable, put, args=(value,))

    if not distributed.is_distributed(tf.distribute.get_strategy()):
        put(variable, value)
    else:
        tf.distribute.get_replica_context().merge_call(update, args=(variable, value))


class Column:
    """The gradients of several tasks over one variable.

    Attributes:
        values: for each task a dense tensor, or ``None`` where the task does not reach the
            variable. Of a table to which all gradients are row-sparse they hold the rows
            ``[rows, ...]`` that the batch touches.
        ids: which rows, as :class:`tfmtl.rows.MergedSlices` has them; else ``None``.
    """

    def __init__(self, values: Sequence, ids=None, dense_shape=None):
        self.values = list(values)
        self.ids = ids
        self.dense_shape = dense_shape

    @classmethod
    def of(cls, gradients: Sequence) -> Column:
        """From a variable's gradients as tapes give them."""
        present = [each for each in gradients if each is not None]
        if present and all(isinstance(each, tf.IndexedSlices) for each in present):
            ids, values = rows.merge_all(gradients)
            return cls(values, ids, present[0].dense_shape)
        return cls([None if each is None else tf.convert_to_tensor(each) for each in gradients])

    def map(self, function: Callable) -> Column:
        """With another tensor in the place of each."""
        found = [None if each is None else function(each) for each in self.values]
        return Column(found, self.ids, self.dense_shape)

    def dense(self) -> Column:
        """With every row of the table."""
        if self.ids is None:
            return self
        return Column(self.map(lambda each: tf.convert_to_tensor(self.put(each))).values)

    def stack(self, axis: int = 0) -> tf.Tensor:
        """``[tasks, ...]`` or ``[tasks, rows, ...]``; zeros for a task without a gradient."""
        like = self._any()
        whole = [tf.zeros_like(like) if each is None else each for each in self.values]
        return tf.stack(whole, axis)

    def weighted(self, weights):
        """The sum of the tasks' gradients times their weights; ``None`` where all are ``None``."""
        present = [i for i, each in enumerate(self.values) if each is not None]
        if not present:
            return None
        parts = [tf.cast(weights[i], self.values[i].dtype) * self.values[i] for i in present]
        return self.put(parts[0] if len(parts) == 1 else tf.add_n(parts))

    def put(self, value):
        """A tensor like any of the values, as a gradient of the variable."""
        return value if self.ids is None else rows.MergedSlices(value, self.ids, self.dense_shape)

    def without_padding(self, stacked):
        """What is laid out as :meth:`stack` has it, with 0 in rows that are padding."""
        if self.ids is None or not compat.compiled_by_xla():
            return stacked
        return stacked * rows.named_once(self.ids, self._any().shape.rank)

    def _any(self):
        return next(each for each in self.values if each is not None)


def summed(columns: Sequence[Column]) -> list[Column]:
    """The columns of all replicas together; tables' rows are passed round as rows."""
    if replicas() == 1:
        return list(columns)
    local = [c.values if c.ids is None else _tasks_behind(c) for c in columns]
    return [
        Column(whole) if column.ids is None else _tasks_in_front(rows.merge(whole), column)
        for column, whole in zip(columns, sum_over_replicas(local), strict=True)
    ]


def _tasks_behind(column: Column) -> tf.IndexedSlices:
    """A table's column as one gradient with rows ``[tasks, ...]``."""
    return tf.IndexedSlices(column.stack(axis=1), column.ids)


def _tasks_in_front(merged: rows.MergedSlices, like: Column) -> Column:
    values = tf.unstack(merged.values, num=len(like.values), axis=1)
    return Column(values, merged.indices, like.dense_shape)


def gramian(columns: Sequence[Column]) -> tf.Tensor:
    """Inner products of the tasks' gradients over all variables, ``[tasks, tasks]``, float32."""
    return tf.add_n([inner_products(tf.cast(each.stack(), tf.float32)) for each in columns])


def inner_products(stacked) -> tf.Tensor:
    """Inner products ``[tasks, tasks]`` of what a tensor ``[tasks, ...]`` holds of each task."""
    flat = tf.reshape(stacked, [stacked.shape[0], -1])
    # Row by row: a product of two such flat matrices stays on one core.
    return tf.stack([tf.linalg.matvec(flat, each) for each in tf.unstack(flat)])


def finite(values):
    """Values with 0 for what is not finite: such a step is not taken."""
    return tf.where(tf.math.is_finite(values), values, tf.zeros_like(values))


def scaled(gradient, factor):
    """A gradient of a variable, dense, row-sparse or ``None``, times a scalar."""
    if gradient is None:
        return None
    if isinstance(gradient, tf.IndexedSlices):
        values = gradient.values * tf.cast(factor, gradient.values.dtype)
        return type(gradient)(values, gradient.indices, gradient.dense_shape)
    return gradient * tf.cast(factor, gradient.dtype)


def add(one, other):
    """The sum of two gradients of one variable, dense, row-sparse or ``None``."""
    if one is None or other is None:
        return other if one is None else one
    if isinstance(one, tf.IndexedSlices) and isinstance(other, tf.IndexedSlices):
        values = tf.concat([one.values, other.values], 0)
        indices = tf.concat([one.indices, other.indices], 0)
        return tf.IndexedSlices(values, indices, one.dense_shape)
    return tf.convert_to_tensor(one) + tf.convert_to_tensor(other)
