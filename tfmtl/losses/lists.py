"""Items in lists: two layouts, sorted so that the items below another are one range."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class Layout(NamedTuple):
    """Which items are one list.

    In every order that ``sort`` gives, a list holds the same range of positions.

    Attributes:
        sort: float32 keys ``[items]`` to an order, int32 ``[items]``: list by list, and within
            one from the highest key to the lowest, equal keys as they came.
        ids: int32 ``[items]``, the list of each sorted position, from 0 to ``lists`` - 1.
        starts: int32 ``[items]``, the first position of the list of each sorted position.
        lists: how many ids there are; some may have no item.
    """

    sort: Callable[[tf.Tensor], tf.Tensor]
    ids: tf.Tensor
    starts: tf.Tensor
    lists: int | tf.Tensor


def padded_layout(labels) -> Layout:
    """The layout of ``[batch, list]``: one list a row, row after row."""
    batch, size = size_of(labels, 0), size_of(labels, 1)
    ids = tf.reshape(tf.repeat(tf.range(batch)[:, tf.newaxis], size, axis=1), [-1])
    starts = ids * size

    def sort(keys):
        order = _from_highest(tf.reshape(keys, [batch, size]))
        return tf.reshape(order, [-1]) + starts

    return Layout(sort, ids, starts, batch)


def row_layout(queries) -> Layout:
    """The layout of rows with int64 query ids ``[rows]``: one list an id, wherever its rows are."""
    rows = size_of(queries, 0)
    grouped = tf.gather(queries, tf.argsort(queries, stable=True))
    positions = tf.range(rows)
    starts = first(
        tf.zeros_like(positions), positions, lambda at: tf.equal(tf.gather(grouped, at), grouped)
    )

    def sort(keys):
        order = _from_highest(keys)
        return tf.gather(order, tf.argsort(tf.gather(queries, order), stable=True))

    # A number of lists that the shape tells: a list is known by where it starts.
    return Layout(sort, starts, starts, rows)


def _from_highest(keys):
    # XLA ranks 0.0 above -0.0, but they are equal.
    keys = tf.where(tf.equal(keys, 0.0), tf.zeros_like(keys), keys)
    return tf.argsort(keys, direction="DESCENDING", stable=True)


class Pairs(NamedTuple):
    """The pairs of sorted items: with each higher item a range of lower ones.

    Attributes:
        order: int32 ``[items]``, where each sorted item came from.
        begins: int32 ``[items]``, the first position below an item's label.
        ends: int32 ``[items]``, behind the last one; equal to ``begins`` where there is none.
    """

    order: tf.Tensor
    begins: tf.Tensor
    ends: tf.Tensor


def find_pairs(layout: Layout, labels, margin: float, cap: int | None) -> Pairs:
    """The pairs whose labels differ by more than ``margin``.

    Args:
        layout: which items are one list.
        labels: float32 ``[items]``; negative or NaN where there is no label.
        margin: at least 0.
        cap: how many items of a list may be the higher one, from the highest label on.
    """
    labels = tf.where(labels >= 0, labels, tf.constant(float("-inf")))
    order = layout.sort(labels)
    labels = tf.gather(labels, order)
    present = labels >= 0
    positions = tf.range(size_of(labels, 0))
    counts = tf.math.unsorted_segment_sum(tf.cast(present, tf.int32), layout.ids, layout.lists)
    ends = layout.starts + tf.gather(counts, layout.ids)
    # Where an item has no label, it stands behind the others and there is nothing to search.
    begins = first(
        tf.minimum(positions, ends), ends, lambda at: labels - tf.gather(labels, at) > margin
    )
    higher = present if cap is None else present & (positions - layout.starts < cap)
    return Pairs(order, tf.where(higher, begins, ends), ends)


def first(low, high, holds: Callable[[tf.Tensor], tf.Tensor]):
    """The first position from ``low`` on at which ``holds``, elementwise; ``high`` if none does.

    Args:
        low: int32 ``[items]``.
        high: int32 ``[items]``; ``holds`` is asked below it only.
        holds: positions to booleans; once true, it is true up to ``high``.
    """
    # Strides of falling powers of two, as long as everything before them fails: fewer operations
    # than halving intervals.
    farthest = tf.reduce_max(tf.concat([high - low, [0]], axis=0))
    stride = tf.constant(1)
    stride = tf.while_loop(
        lambda stride: stride <= farthest, lambda stride: (2 * stride,), [stride]
    )

    def leap(stride, low):
        reached = low + stride
        fails = (reached <= high) & ~holds(tf.maximum(tf.minimum(reached, high) - 1, 0))
        return tf.bitwise.right_shift(stride, 1), select(fails, reached, low)

    return tf.while_loop(lambda stride, low: stride > 0, leap, [stride[0], low])[1]


def select(condition, values, others):
    """``tf.where`` for equal shapes, in a third of its time."""
    return tf.raw_ops.Select(condition=condition, x=values, y=others)


def size_of(tensor, axis: int):
    """A dimension, as a number where the shape tells it."""
    size = tensor.shape[axis]
    return tf.shape(tensor)[axis] if size is None else size
