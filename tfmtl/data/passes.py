"""What every data set that can be read pass by pass has in common."""

from __future__ import annotations

import itertools

import numpy as np
import tensorflow as tf

from tfmtl import distributed


def check(batch_size: int, first_epoch: int, n: int, drop_remainder: bool, unit: str) -> int:
    """The number of batches in a pass over ``n`` units (``"rows"``, ``"lists"``).

    Raises:
        ValueError: ``batch_size`` below 1, ``first_epoch`` below 0, nothing to read, or less than
            one batch with ``drop_remainder``.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1. Received: {batch_size}")
    if first_epoch < 0:
        raise ValueError(f"`first_epoch` must be at least 0. Received: {first_epoch}")
    if n == 0:
        raise ValueError("`batches` and `lists` need at least one row. Received: none")
    if drop_remainder and n < batch_size:
        raise ValueError(
            f"`batch_size` must be at most the number of {unit} with `drop_remainder`, or no "
            f"batch is left. Received: {batch_size} for {n} {unit}"
        )
    return n // batch_size if drop_remainder else -(-n // batch_size)


def check_list_size(list_size: int | None) -> None:
    """Raise ``ValueError`` unless this is ``None`` or at least 1."""
    if list_size is not None and list_size < 1:
        raise ValueError(f"`list_size` must be at least 1 or None. Received: {list_size}")


def key(seed: int | None) -> int:
    """The seed of a sequence of orders; without one NumPy's global generator chooses it."""
    return int(np.random.randint(2**31)) if seed is None else seed


def epochs(first_epoch: int) -> tf.data.Dataset:
    """The number of the pass, ``first_epoch`` in the first, as one int64 scalar.

    Keras makes iterators that it never reads, two an epoch in version 3. What counts is the
    first batch that is read, and that is when this generator runs.
    """
    count = itertools.count(first_epoch)
    return tf.data.Dataset.from_generator(
        lambda: iter([next(count)]), output_signature=tf.TensorSpec([], tf.int64)
    )


def finish(dataset: tf.data.Dataset, n_batches: int) -> tf.data.Dataset:
    """The data set with its length known, in order, read ahead.

    Several workers read all of it, and each takes its part of every batch.
    """
    options = tf.data.Options()
    options.deterministic = True
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(n_batches))
    dataset = distributed.shared_out(dataset.with_options(options))
    return dataset.prefetch(tf.data.AUTOTUNE)
