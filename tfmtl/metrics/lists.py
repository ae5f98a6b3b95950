"""Rows as ranked lists: sorted by list and by score, summed by list."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class Lists(NamedTuple):
    """Rows by list; within a list the best score first and absent rows last.

    Every figure of a list stands at the list's number in a tensor of ``[rows]``, since no batch has
    more lists than rows: shapes stay static where the batch's is.

    Attributes:
        labels: float32 ``[rows]``, -1 where the row is absent.
        present: bool ``[rows]``.
        index: int32 ``[rows]``, the number of the row's list.
        ties: int32 ``[rows]``, the number of the row's tie: the rows of its list with its score.
        weights: float64, of each list.
        broken: bool scalar, whether a present row's score is NaN.
    """

    labels: tf.Tensor
    present: tf.Tensor
    index: tf.Tensor
    ties: tf.Tensor
    weights: tf.Tensor
    broken: tf.Tensor

    def sums(self, values) -> tf.Tensor:
        """Sums by list, float64."""
        return _sums(tf.cast(values, tf.float64), self.index)

    def running(self, flags) -> tf.Tensor:
        """For each row how many rows of its list are flagged, up to it and with it; int32."""
        flags = tf.cast(flags, tf.int32)
        before = tf.cumsum(_sums(flags, self.index), exclusive=True)
        return tf.cumsum(flags) - tf.gather(before, self.index)

    def at_tie_end(self, running) -> tf.Tensor:
        """For each row what a running count has come to at the end of its tie."""
        ends = tf.math.unsorted_segment_max(running, self.ties, tf.size(self.ties))
        return tf.gather(ends, self.ties)


def arrange(labels, scores, weights=None, queries=None) -> Lists:
    """Sort rows into lists.

    Args:
        labels: ``[batch, list]``, or ``[rows]`` or ``[rows, 1]`` with ``queries``. Below 0 or NaN
            where there is no item or no label.
        scores: like ``labels``; compared as float32, or as they are where they are int32 (above
            the lowest).
        weights: a number, or of the first dimension alone, or like ``labels``; 1 by default. Rows
            whose weight is not above 0 are absent; a list weighs the mean weight of the others.
        queries: integers, ``[rows]`` or ``[rows, 1]``: rows of one number are one list.

    Raises:
        ValueError: shapes disagree or are of neither layout, or ``queries`` are not integers.
    """
    labels = tf.cast(labels, tf.float32)
    scores = tf.convert_to_tensor(scores)
    if scores.dtype != tf.int32:
        scores = tf.cast(scores, tf.float32)
    weights = tf.ones([], tf.float64) if weights is None else tf.cast(weights, tf.float64)
    if queries is None:
        _check_padded(labels, scores)
        _check_weights(weights, scores)
        if weights.shape.rank == 1:
            weights = weights[:, tf.newaxis]
        shape = tf.shape(scores)
        index = tf.broadcast_to(tf.range(shape[0])[:, tf.newaxis], shape)
    else:
        queries = tf.convert_to_tensor(queries)
        _check_flat(labels, scores, queries)
        _check_weights(weights, scores)
        weights = tf.reshape(weights, [-1]) if weights.shape.rank else weights
        shape = tf.size(scores)[tf.newaxis]
        index = _dense(tf.reshape(queries, [-1]))
    weights = tf.reshape(tf.broadcast_to(weights, shape), [-1])
    labels, scores, index = (tf.reshape(each, [-1]) for each in (labels, scores, index))

    present = (labels >= 0) & (weights > 0)  # False for NaN
    labels = tf.where(present, labels, -tf.ones_like(labels))
    keys = tf.where(present, ordered(scores), tf.zeros([], tf.int64))
    order = order_of(index, falling(keys))
    labels, present, weights, keys, scores, index = (
        tf.gather(each, order) for each in (labels, present, weights, keys, scores, index)
    )
    weights = tf.where(present, weights, tf.zeros_like(weights))
    means = tf.math.divide_no_nan(_sums(weights, index), _sums(tf.cast(present, tf.float64), index))
    broken = tf.reduce_any(present & (scores != scores))
    return Lists(labels, present, index, runs(index, keys), means, broken)


def ordered(values) -> tf.Tensor:
    """Float32 or int32 as int64 above 0 and below 2³², in the same order; -0.0 equals 0.0."""
    low = -(2**31)
    if values.dtype.is_floating:
        bits = tf.cast(tf.bitcast(values, tf.int32), tf.int64)
        values = tf.where(bits < 0, low - bits, bits)
    return tf.cast(values, tf.int64) - low


def falling(keys) -> tf.Tensor:
    """What ``ordered`` returned, the other way round."""
    return 2**32 - 1 - keys


def order_of(major, minor) -> tf.Tensor:
    """The rows by rising ``major``, then by rising ``minor``; both in 0 to 2³² - 1.

    Rows that are equal in both come in any order: TensorFlow's sort is stable under XLA alone.
    """
    return tf.argsort(tf.cast(major, tf.int64) * 2**32 + tf.cast(minor, tf.int64))


def runs(*columns) -> tf.Tensor:
    """The number of each row's run of rows that agree in all columns; int32."""
    changed = tf.zeros_like(columns[0][1:], tf.bool)
    for column in columns:
        changed |= column[1:] != column[:-1]
    return tf.cumsum(tf.cast(tf.concat([[False], changed], 0)[: tf.size(columns[0])], tf.int32))


def sums_of(index, values) -> tf.Tensor:
    """For each row the sum of the values of all rows with its index, float64."""
    return tf.gather(_sums(tf.cast(values, tf.float64), index), index)


def inverse(order) -> tf.Tensor:
    """The place of each row in an order."""
    return tf.scatter_nd(order[:, tf.newaxis], tf.range(tf.size(order)), tf.shape(order))


def _sums(values, index):
    return tf.math.unsorted_segment_sum(values, index, tf.size(index))


def _dense(queries):
    """Numbers from 0 for queries of any value."""
    order = tf.argsort(queries)
    return tf.gather(runs(tf.gather(queries, order)), inverse(order))


def _check_padded(labels, scores) -> None:
    if labels.shape.rank != 2 or scores.shape.rank != 2:
        raise ValueError(
            "`y_true` and `y_pred` must be [batch, list] where no `queries` are given. "
            f"Received: {labels.shape} and {scores.shape}"
        )
    if not labels.shape.is_compatible_with(scores.shape):
        raise ValueError(
            "`y_true` and `y_pred` must have one shape, [batch, list]. "
            f"Received: {labels.shape} and {scores.shape}"
        )
    if scores.shape[1] == 1:
        raise ValueError(
            "`queries` must say which rows are one list where `y_pred` has one score a row. "
            f"Received: queries=None and scores of shape {scores.shape}"
        )


def _check_flat(labels, scores, queries) -> None:
    if not queries.dtype.is_integer:
        raise ValueError(f"`queries` must be integers. Received: {queries.dtype.name}")
    shapes = [each.shape for each in (labels, scores, queries)]
    single = all(each.rank == 1 or (each.rank == 2 and each[1] == 1) for each in shapes)
    if not single or len({each[0] for each in shapes if each[0] is not None}) > 1:
        raise ValueError(
            "`y_true`, `y_pred` and `queries` must be [rows] or [rows, 1], of as many rows. "
            f"Received: {', '.join(str(each) for each in shapes)}"
        )


def _check_weights(weights, scores) -> None:
    shape = scores.shape
    allowed = (tf.TensorShape([]), shape[:1], shape[:1].concatenate(1), shape)
    if not any(weights.shape.is_compatible_with(each) for each in allowed):
        raise ValueError(
            "`sample_weight` must be a number, one for each row of `y_pred`, or like `y_pred`, "
            f"{shape}. Received: {weights.shape}"
        )
