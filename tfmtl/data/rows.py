"""Encoded rows in memory, and the batches a model trains on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import tensorflow as tf

from tfmtl.data import passes
from tfmtl.features import FeatureSpec

#: :class:`Rows`, or a :class:`tfmtl.data.Stream` where a file is not read into memory.
Part = TypeVar("Part")


@dataclasses.dataclass(frozen=True)
class Rows:
    """Input columns and labels of the same ``n`` rows.

    Args:
        columns: ``{column: array [n]}``; integers (ids) become int32, floats become float32. Of a
            pooled column ``[n, ids]``, padded with -1.
        labels: ``{task: array [n]}``, become float32; NaN says that a row has no label of
            this task.
        groups: ``[n]``, whose rows they are (a user, a query), for statistics that resample
            groups instead of rows; ``None`` when rows are independent.

    Raises:
        ValueError: an array of other dimensions, lengths that differ, no column, or a column that
            holds neither integers nor floats.
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
            pooled = values.ndim == 2 and name.startswith("columns") and values.dtype == np.int32
            if values.shape[: values.ndim - pooled] != (len(self),):
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
        n_batches = passes.check(batch_size, first_epoch, n, drop_remainder, "rows")
        gather = self._gather(slice(None))

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
            key = tf.constant(passes.key(seed), tf.int64)
            epochs = passes.epochs(first_epoch)
        return passes.finish(epochs.flat_map(cut).map(gather), n_batches)

    def lists(
        self,
        batch_size: int,
        list_size: int | None = None,
        *,
        shuffle: bool = False,
        seed: int | None = None,
        drop_remainder: bool = False,
        first_epoch: int = 0,
    ) -> tf.data.Dataset:
        """A data set of ``({column: [batch, list]}, {task: [batch, list]})``, a list a group.

        The rows of a group make one list, wherever they stand, in the order in which they stand.
        Lists come in the order of their first rows unless shuffled. All are of one width, so that
        a compiled step is traced once: short lists are padded at their end with id 0, number 0.0
        and label NaN, which is no label for losses and metrics. Long lists are cut: to their first
        rows, or, where lists are shuffled, to a random subset that is drawn anew in each pass.

        Args:
            batch_size: lists a batch; the last batch may be smaller.
            list_size: rows a list; ``None`` for as many as the longest list has.
            shuffle: whether each pass visits the lists in a new order.
            seed: makes orders and subsets a function of this number alone, as in :meth:`batches`.
            drop_remainder: leave the last batch out when it is smaller.
            first_epoch: how many passes of the sequence to skip, as in :meth:`batches`.

        Raises:
            ValueError: as :meth:`batches`; or there are no ``groups``; or ``list_size`` is below 1.
        """
        passes.check_list_size(list_size)
        if self.groups is None:
            raise ValueError("`lists` needs `groups`, whose rows make a list each. Received: None")
        order, lengths = _by_group(self.groups)
        n, longest = len(lengths), int(lengths.max(initial=1))
        n_batches = passes.check(batch_size, first_epoch, n, drop_remainder, "lists")
        width = longest if list_size is None else list_size
        starts = tf.constant(np.cumsum(lengths) - lengths, tf.int64)
        sizes = tf.constant(lengths, tf.int64)
        gather = self._gather(order, padding=True)
        key = tf.constant(passes.key(seed) if shuffle else 0, tf.int64)

        def rows_of(groups: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
            """The rows ``[batch, width]`` of groups ``[batch]``; padding is row ``len(self)``."""
            size = tf.gather(sizes, groups)[:, None]
            places = tf.range(width, dtype=tf.int64)[None]
            if shuffle and width < longest:
                noise = tf.random.stateless_uniform([tf.shape(groups)[0], longest], seeds)
                # Places behind the end come last, and stay behind the end when sorted.
                noise = tf.where(tf.range(longest, dtype=tf.int64) < size, noise, 2.0)
                chosen = tf.math.top_k(-noise, width).indices
                places = tf.cast(tf.sort(chosen, axis=1), tf.int64)
            rows = tf.gather(starts, groups)[:, None] + places
            return tf.where(places < size, rows, len(self))

        def cut(epoch: tf.Tensor) -> tf.data.Dataset:
            groups = tf.range(n, dtype=tf.int64)
            seeds = tf.stack([key, epoch])
            if shuffle:
                groups = tf.random.experimental.stateless_shuffle(groups, seeds)
            size = batch_size if drop_remainder else None

            def batch(start: tf.Tensor) -> tf.Tensor:
                each = tf.random.experimental.stateless_fold_in(seeds, start)
                rows = rows_of(groups[start : start + batch_size], each)
                return tf.ensure_shape(rows, [size, width])

            return tf.data.Dataset.range(0, n_batches * batch_size, batch_size).map(batch)

        epochs = tf.data.Dataset.from_tensors(tf.constant(0, tf.int64))
        if shuffle:
            epochs = passes.epochs(first_epoch)
        return passes.finish(epochs.flat_map(cut).map(gather), n_batches)

    def _gather(self, order: Any, padding: bool = False) -> Callable[[tf.Tensor], tuple]:
        """From indices into the rows, taken in this order, to columns and labels.

        A gather per column costs a kernel launch per column: gather from one matrix per dtype.
        With ``padding`` index ``len(self)`` is id 0, number 0.0, label NaN.
        """
        ids = [name for name, values in self.columns.items() if values.dtype == np.int32]
        numbers = [name for name in self.columns if name not in ids]
        matrices = [
            _stack([values[order] for values in arrays], len(self), dtype, pad if padding else None)
            for arrays, dtype, pad in (
                ([self.columns[name] for name in ids], np.int32, 0),
                ([self.columns[name] for name in numbers], np.float32, 0.0),
                (list(self.labels.values()), np.float32, np.nan),
            )
        ]
        widths = {n: self.columns[n].shape[1] for n in ids if self.columns[n].ndim == 2}
        structure = Structure(tuple(self.columns), ids, numbers, tuple(self.labels), widths)
        return lambda indices: structure(*(tf.gather(matrix, indices) for matrix in matrices))


@dataclasses.dataclass(frozen=True)
class Structure:
    """From one tensor per dtype ``[..., columns]`` to ``({column: [...]}, {task: [...]})``.

    Args:
        columns: all columns, in the order in which they are given out.
        ids: those of the first tensor, in its order.
        numbers: those of the second.
        tasks: the labels of the third.
        widths: of the columns with several ids a row how many they have: ``[..., ids]``.
    """

    columns: Sequence[str]
    ids: Sequence[str]
    numbers: Sequence[str]
    tasks: Sequence[str]
    widths: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __call__(self, ids: tf.Tensor, numbers: tf.Tensor, labels: tf.Tensor) -> tuple[dict, dict]:
        each = iter(tf.unstack(ids, axis=-1))
        values = {
            name: tf.stack([next(each) for _ in range(self.widths[name])], axis=-1)
            if name in self.widths
            else next(each)
            for name in self.ids
        }
        values |= dict(zip(self.numbers, tf.unstack(numbers, axis=-1)))
        return (
            {name: values[name] for name in self.columns},
            dict(zip(self.tasks, tf.unstack(labels, axis=-1))),
        )


@dataclasses.dataclass(frozen=True)
class Splits(Generic[Part]):
    """A data set as a loader returns it: parts that are :class:`Rows` or :class:`Stream`.

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
        preprocessor: what made the columns of raw ones, where the loader used one; an exported
            model takes raw columns with it.
    """

    train: Part
    validation: Part
    test: Part
    features: FeatureSpec
    tasks: tuple[str, ...]
    vocabularies: Mapping[str, Sequence]
    scales: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    preprocessor: Any = None

    def __repr__(self) -> str:
        sizes = ", ".join(
            f"{name}={len(getattr(self, name)):,} rows" for name in ("train", "validation", "test")
        )
        return f"Splits({sizes}, tasks={self.tasks}, features={self.features})"

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


def _stack(arrays: list[np.ndarray], n: int, dtype: type, padding: float | None) -> tf.Tensor:
    """``[n, values of all arrays]``, with a last row of padding (-1 where there are several values)
    unless that is ``None``.
    """
    columns = [values if values.ndim == 2 else values[:, None] for values in arrays]
    width = sum(values.shape[1] for values in columns)
    matrix: np.ndarray = np.empty((n + (padding is not None), width), dtype)
    at = 0
    for given, values in zip(arrays, columns, strict=True):
        matrix[:n, at : at + values.shape[1]] = values
        if padding is not None:
            matrix[n, at : at + values.shape[1]] = padding if given.ndim == 1 else -1
        at += values.shape[1]
    return tf.constant(matrix)


def _by_group(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows ``[n]`` group after group, groups by their first rows; rows in each ``[groups]``."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    place = np.empty(len(first), "int64")
    place[np.argsort(first)] = np.arange(len(first))
    group = place[group.reshape(-1)]
    return np.argsort(group, kind="stable"), np.bincount(group, minlength=len(first))
