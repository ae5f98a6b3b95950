"""Rows of a table: gradients that name the rows they change, each once, and the table's own rows.

What a batch does to a table costs by the rows it touches. Nothing here makes a tensor of the
table's size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfmtl import compat


class MergedSlices(tf.IndexedSlices):
    """``tf.IndexedSlices`` that name each row once.

    Under XLA, where shapes are static, there are as many rows as there were ids before equal ones
    were merged. Ids ascend there, and those left over, at the end, repeat the largest id with
    zeros. So whoever adds up the values of equal ids, as ``tf.IndexedSlices`` are meant, finds the
    same gradient.
    """


def merge(slices: tf.IndexedSlices) -> MergedSlices:
    """Row-sparse values with those of equal ids added up."""
    if isinstance(slices, MergedSlices):
        return slices
    ids, places = _distinct(slices.indices)
    return MergedSlices(_add_up(slices.values, places, ids), ids, slices.dense_shape)


def merge_all(columns: Sequence[tf.IndexedSlices | None]) -> tuple[tf.Tensor, list]:
    """Several row-sparse gradients of one table over one set of rows.

    Args:
        columns: the gradients; ``None`` stays ``None``. Those that come from the same lookups, as
            the gradients of several tasks of a model do, share their ids, which are merged once.

    Returns:
        The ids ``[rows]`` as :class:`MergedSlices` has them; for each gradient its values
        ``[rows, ...]``.
    """
    origins: list = []
    group = []
    for column in columns:
        if column is None:
            group.append(-1)
            continue
        known = [i for i, each in enumerate(origins) if _same(each, column.indices)]
        if not known:
            origins.append(column.indices)
        group.append(known[0] if known else len(origins) - 1)
    ids, places = _distinct(tf.concat(origins, 0) if len(origins) > 1 else origins[0])
    parts = tf.split(places, [tf.size(each) for each in origins]) if len(origins) > 1 else [places]
    values = [
        None if column is None else _add_up(column.values, parts[which], ids)
        for column, which in zip(columns, group, strict=True)
    ]
    return ids, values


def at(merged: MergedSlices, ids: tf.Tensor) -> tf.Tensor:
    """The values of some ids, each of which is among those of the gradient."""
    if compat.compiled_by_xla():
        # The first of equal ids is the one that is not padding.
        return tf.gather(merged.values, tf.searchsorted(merged.indices, ids))
    order = tf.argsort(merged.indices)
    places = tf.searchsorted(tf.gather(merged.indices, order), ids)
    return tf.gather(merged.values, tf.gather(order, places))


def named_once(ids: tf.Tensor, rank: int = 2) -> tf.Tensor:
    """1 for each of :class:`MergedSlices`' ids, 0 for the padding; ``[rows, 1, ...]``, float32."""
    if compat.compiled_by_xla():
        first = tf.concat([tf.ones_like(ids[:1], tf.bool), ids[1:] != ids[:-1]], 0)
    else:
        first = tf.ones_like(ids)
    return tf.reshape(tf.cast(first, tf.float32), [-1] + [1] * (rank - 1))


def read(variable: tf.Variable, ids: tf.Tensor) -> tf.Tensor:
    """Some rows of a table, ``[rows, ...]``."""
    return tf.gather(variable, ids)


def filled(values: tf.Tensor, ids: tf.Tensor, axis: int = 0) -> tf.Tensor:
    """Values of :class:`MergedSlices`' ids in which padding is the row it repeats the id of."""
    if not compat.compiled_by_xla():
        return values
    last = tf.cast(tf.reduce_sum(named_once(ids, 1)), tf.int32) - 1
    return tf.gather(values, tf.minimum(tf.range(tf.size(ids)), last), axis=axis)


def put(variable: tf.Variable, ids: tf.Tensor, values: tf.Tensor) -> None:
    """Set some rows of a table; the values of equal ids must be equal.

    To add takes longer outside of XLA: TensorFlow's kernel for it is the slower one.
    """
    variable.scatter_update(tf.IndexedSlices(tf.cast(values, variable.dtype), ids))


def _distinct(ids):
    """The ids as :class:`MergedSlices` has them, and for each given one its place among them."""
    if not compat.compiled_by_xla():
        # A hash table takes a third of the time of what follows, which XLA has no table for.
        return tf.unique(ids)
    order = tf.argsort(ids)
    ordered = tf.gather(ids, order)
    fresh = tf.cast(ordered[1:] != ordered[:-1], tf.int32)
    ranks = tf.cumsum(tf.concat([tf.zeros_like(order[:1]), fresh], 0))
    size = tf.size(ids)
    distinct = tf.math.unsorted_segment_max(ordered, ranks, size)
    # Where no id is left the maximum is that of nothing, below 0.
    distinct = tf.where(distinct < 0, tf.reduce_max(ids), distinct)
    return distinct, tf.scatter_nd(order[:, None], ranks, tf.shape(ids))


def _add_up(values, places, ids):
    found = tf.math.unsorted_segment_sum(values, places, tf.size(ids))
    return tf.ensure_shape(found, [ids.shape[0], *values.shape[1:]])


def _same(one: tf.Tensor, other: tf.Tensor) -> bool:
    """Whether two tensors of ids are known to be equal, without a look at them in a graph."""
    symbolic = [tf.is_symbolic_tensor(each) for each in (one, other)]
    if any(symbolic):
        return all(symbolic) and _sources(one) == _sources(other)
    return np.array_equal(one, other)


def _sources(ids) -> list:
    """Where the ids of a gradient come from: what the lookups were given."""
    kind = ids.op.type if tf.is_symbolic_tensor(ids) else ""
    if kind in ("Reshape", "Identity"):
        return _sources(ids.op.inputs[0])
    if kind == "ConcatV2":  # several lookups of one table
        return [source for each in ids.op.inputs[:-1] for source in _sources(each)]
    return [ids.ref()]
