"""Encoded rows in memory, and the batches a model trains on."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfmtl.features import FeatureSpec


@dataclasses.dataclass(frozen=True)
class Rows:
    """Input columns and labels of the same ``n`` rows.

    Args:
        columns: ``{column: array [n]}``; integers (ids) become int32, floats become float32.
        labels: ``{task: array [n]}``, become float32; NaN says that a row has no label of
            this task.
        groups: ``[n]``, whose rows they are (a user, a query), for statistics that resample
            groups instead of rows; ``None`` when rows are independent.

    Raises:
        ValueError: an array that is not one-dimensional, lengths that differ, no column, or a
            column that holds neither integers nor floats.
    """

    columns: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    groups: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError("`columns` must hold at least one column. Received: {}")
        columns = {name: _as_column(name, values) for name, values in self.columns.items()}
        labels = {task: np.asarray(values, "float32") for task, values in self.labels.items()}
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "labels", labels)
        if self.groups is not None:
            object.__setattr__(self, "groups", np.asarray(self.groups))
        parts = {f"columns[{name!r}]": values for name, values in columns.items()}
        parts |= {f"labels[{task!r}]": values for task, values in labels.items()}
        if self.groups is not None:
            parts["groups"] = self.groups
        for name, values in parts.items():
            if values.shape != (len(self),):
                raise ValueError(
                    f"`{name}` must have shape [{len(self)}], as the first column has. "
                    f"Received shape: {list(values.shape)}"
                )

    def __len__(self) -> int:
        return next(iter(self.columns.values())).shape[0]

    def take(self, indices: Any) -> Rows:
        """The rows at ``indices`` (integers ``[m]``, a boolean mask ``[n]``, or a slice)."""
        return Rows(
            {name: values[indices] for name, values in self.columns.items()},
            {task: values[indices] for task, values in self.labels.items()},
            None if self.groups is None else self.groups[indices],
        )

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int | None = None,
        drop_remainder: bool = False,
        first_epoch: int = 0,
    ) -> tf.data.Dataset:
        """A data set of ``({column: [batch]}, {task: [batch]})`` for ``fit`` and ``evaluate``.

        Args:
            batch_size: rows a batch; the last batch may be smaller.
            shuffle: whether each pass over the data set visits the rows in a new order.
            seed: makes the sequence of orders a function of this number alone. Without it,
                NumPy's global generator chooses one.
            drop_remainder: leave the last batch out when it is smaller.
            first_epoch: how many orders of the sequence to skip, so that a run resumed at that
                epoch meets the orders it would have met. A pass counts once its first batch is
                read. Without effect unless shuffled.

        Returns:
            A data set of known length; int32 ids, float32 numbers and labels.

        Raises:
            ValueError: ``batch_size`` below 1, ``first_epoch`` below 0, no rows, or fewer rows
                than one batch with ``drop_remainder``.
        """
        n = len(self)
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1. Received: {batch_size}")
        if first_epoch < 0:
            raise ValueError(f"`first_epoch` must be at least 0. Received: {first_epoch}")
        if n == 0:
            raise ValueError("`batches` needs at least one row. Received: Rows of length 0")
        if drop_remainder and n < batch_size:
            raise ValueError(
                "`batch_size` must be at most the number of rows with `drop_remainder`, or no "
                f"batch is left. Received: {batch_size} for {n} rows"
            )
        n_batches = n // batch_size if drop_remainder else -(-n // batch_size)
        # A gather per column costs a kernel launch per column: gather from one matrix per dtype.
        ids = [name for name, values in self.columns.items() if values.dtype == np.int32]
        numbers = [name for name in self.columns if name not in ids]
        matrices = [
            _stack([self.columns[name] for name in ids], n, np.int32),
            _stack([self.columns[name] for name in numbers], n, np.float32),
            _stack(list(self.labels.values()), n, np.float32),
        ]

        def gather(indices: tf.Tensor) -> tuple[dict, dict]:
            parts = [tf.unstack(tf.gather(matrix, indices), axis=1) for matrix in matrices]
            values = dict(zip(ids, parts[0])) | dict(zip(numbers, parts[1]))
            return {name: values[name] for name in self.columns}, dict(zip(self.labels, parts[2]))

        # `Dataset.shuffle` moves rows one by one, which takes longer than all the rest: draw a
        # permutation a pass and cut it into batches instead.
        def cut(epoch: tf.Tensor) -> tf.data.Dataset:
            order = tf.range(n, dtype=tf.int64)
            if shuffle:
                order = tf.random.experimental.stateless_shuffle(order, tf.stack([key, epoch]))
            starts = tf.data.Dataset.range(0, n_batches * batch_size, batch_size)
            size = batch_size if drop_remainder else None
            return starts.map(
                lambda start: tf.ensure_shape(order[start : start + batch_size], [size])
            )

        epochs = tf.data.Dataset.from_tensors(tf.constant(0, tf.int64))
        if shuffle:
            # Keras makes iterators that it never reads, two an epoch in version 3. What counts
            # is the first batch that is read, and that is when this generator runs.
            key = tf.constant(np.random.randint(2**31) if seed is None else seed, tf.int64)
            count = itertools.count(first_epoch)
            epochs = tf.data.Dataset.from_generator(
                lambda: iter([next(count)]), output_signature=tf.TensorSpec([], tf.int64)
            )
        dataset = epochs.flat_map(cut).map(gather)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(n_batches))
        options = tf.data.Options()
        options.deterministic = True
        return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)


@dataclasses.dataclass(frozen=True)
class Splits:
    """A data set as a loader returns it.

    Args:
        train: rows to learn from; vocabularies and scales were learnt on them alone.
        validation: rows to stop and to choose by.
        test: rows to report on.
        features: the input columns, for the models of :mod:`tfmtl.models`.
        tasks: the tasks, in the order they were asked for.
        vocabularies: the raw value of every id of each categorical column, so that
            ``vocabularies[column][id]`` is what was read; id 0 is ``None``: anything that the
            training rows do not hold.
        scales: how each numeric column was scaled.
    """

    train: Rows
    validation: Rows
    test: Rows
    features: FeatureSpec
    tasks: tuple[str, ...]
    vocabularies: Mapping[str, tuple]
    scales: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            if len(getattr(self, name)) == 0:
                raise ValueError(f"`{name}` must hold at least one row. Received: none")


def _as_column(name: str, values: Any) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype.kind in "iu":
        return values.astype(np.int32, copy=False)
    if values.dtype.kind == "f":
        return values.astype(np.float32, copy=False)
    raise ValueError(f"`columns[{name!r}]` must hold integers or floats. Received: {values.dtype}")


def _stack(arrays: list[np.ndarray], n: int, dtype: type) -> tf.Tensor:
    return tf.constant(np.stack(arrays, axis=1) if arrays else np.zeros((n, 0), dtype), dtype)
