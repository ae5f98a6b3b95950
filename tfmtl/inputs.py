"""What ``fit`` may be given, as batches that can be read once more: specs, splits, sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmtl import compat


class Source:
    """The rows of a ``fit`` or ``evaluate`` call.

    Args:
        x: a ``tf.data.Dataset``, a Keras ``PyDataset``/``Sequence``, or arrays in any structure.
        y: labels by task, where ``x`` is arrays.
        sample_weight: likewise.
        batch_size: rows a batch, where ``x`` is arrays; 32 as in Keras.
        steps: batches in one pass; all by default.
    """

    def __init__(self, x, y=None, sample_weight=None, batch_size=None, steps=None):
        self._x = x
        self._arrays = (x, y, sample_weight)
        self._batch_size = batch_size or 32
        self._steps = steps
        self._from_arrays: tf.data.Dataset | None = None

    @classmethod
    def of(cls, data, batch_size=None, steps=None) -> Source | None:
        """The source that ``validation_data`` means."""
        if data is None:
            return None
        if isinstance(data, (tuple, list)):
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(tuple(data))
            return cls(x, y, sample_weight, batch_size, steps)
        return cls(data, batch_size=batch_size, steps=steps)

    @property
    def _is_batched(self) -> bool:
        return isinstance(self._x, (tf.data.Dataset, compat.PyDataset))

    @property
    def is_dataset(self) -> bool:
        """Whether a pass over it draws from a ``tf.data`` pipeline (and its shuffling seed)."""
        return isinstance(self._x, tf.data.Dataset)

    def dataset(self):
        """One pass over the batches, an iterable of ``(x, y)`` or ``(x, y, sample_weight)``."""
        x = self._x
        if self.is_dataset:
            return x.take(self._steps) if self._steps else x
        if isinstance(x, compat.PyDataset):
            return (x[i] for i in range(self._steps or len(x)))
        if hasattr(x, "__next__") or isinstance(x, tf.distribute.DistributedDataset):
            raise ValueError(
                "`x` must be a tf.data.Dataset, a PyDataset or arrays, which can be read more "
                f"than once. Received: {type(x).__name__}"
            )
        if self._from_arrays is not None:
            return self._from_arrays
        parts = tuple(part for part in self._arrays if part is not None)
        lengths = {len(leaf) for leaf in tf.nest.flatten(parts)}
        if len(lengths) != 1:
            raise ValueError(
                f"`x`, `y` and `sample_weight` must have equally many rows. Received: {lengths}"
            )
        dataset = tf.data.Dataset.from_tensor_slices(parts).batch(self._batch_size)
        self._from_arrays = dataset.take(self._steps) if self._steps else dataset
        return self._from_arrays

    def first_batch(self) -> tuple:
        """The first ``(x, y, sample_weight)``.

        Raises:
            ValueError: there is none.
        """
        if self._arrays[1] is None and not self._is_batched:
            raise ValueError("`y` must be given as {task: labels} where `x` is arrays.")
        batch = self._first()
        if isinstance(batch, (tuple, list)) and len(batch) > 1:
            return keras.utils.unpack_x_y_sample_weight(tuple(batch))
        raise ValueError(
            "Training data must give (x, {task: labels}), optionally with sample weights. "
            f"Received batches of {type(batch).__name__}"
        )

    def first_inputs(self):
        """The first batch of ``x``, where there may be no labels."""
        batch = self._first()
        return batch[0] if isinstance(batch, tuple) else batch

    def _first(self):
        batches = self.dataset()
        for batch in batches.take(1) if isinstance(batches, tf.data.Dataset) else batches:
            return batch
        raise ValueError("The data set is empty. Expected at least one batch.")


def split(x, y, sample_weight, fraction: float):
    """Arrays cut in two: the last ``fraction`` of the rows is held out, as Keras does."""
    if isinstance(x, (tf.data.Dataset, compat.PyDataset)):
        raise ValueError(
            "`validation_split` needs arrays. For a data set pass `validation_data`. "
            f"Received: {type(x).__name__}"
        )
    if not 0 < fraction < 1:
        raise ValueError(f"`validation_split` must lie between 0 and 1. Received: {fraction}")
    rows = len(tf.nest.flatten(x)[0])
    cut = int(rows * (1 - fraction))
    if not 0 < cut < rows:
        raise ValueError(f"`validation_split={fraction}` leaves one part of the {rows} rows empty.")
    whole = (x, y, sample_weight)

    def part(which: slice) -> tuple:
        return tuple(
            None if piece is None else tf.nest.map_structure(lambda a: a[which], piece)
            for piece in whole
        )

    return part(slice(None, cut)), part(slice(cut, None))


def for_every_task(sample_weight, labels):
    """Weights by task, of 1 where a task has none: Keras 3 wants as many as labels."""
    if not isinstance(sample_weight, Mapping) or not isinstance(labels, Mapping):
        return sample_weight
    ones = {task: np.ones(len(each), "float32") for task, each in labels.items()}
    return {**ones, **sample_weight}


def with_weights(validation_data):
    """``validation_data`` with weights for every task, where it is arrays with some."""
    if not isinstance(validation_data, (tuple, list)) or len(validation_data) < 3:
        return validation_data
    x, y, sample_weight = validation_data
    return x, y, for_every_task(sample_weight, y)


def known_spec(net) -> Any:
    """``TensorSpec`` of a backbone's inputs where it tells, else ``None``."""
    if hasattr(net, "input_spec_by_column"):
        return net.input_spec_by_column()
    return compat.input_specs(net)


def spec_of(value) -> tf.TensorSpec:
    """The spec of a batch of values, open in the batch dimension."""
    value = value if tf.is_tensor(value) else np.asarray(value)
    return tf.TensorSpec([None, *value.shape[1:]], value.dtype)


def zeros(spec: tf.TensorSpec) -> tf.Tensor:
    """One row of zeros (empty strings) of a spec; open dimensions become 1."""
    return tf.zeros([1 if size is None else size for size in spec.shape], spec.dtype)


def spec_to_config(spec) -> Any:
    """A JSON-serialisable form of a structure of specs."""
    if spec is None:
        return None
    if isinstance(spec, dict):
        return {"dict": {key: spec_to_config(value) for key, value in spec.items()}}
    if isinstance(spec, (list, tuple)):
        return {"list": [spec_to_config(value) for value in spec]}
    return {"shape": list(spec.shape), "dtype": spec.dtype.name}


def spec_from_config(config) -> Any:
    """The structure that :func:`spec_to_config` described."""
    if "dict" in config:
        return {key: spec_from_config(value) for key, value in config["dict"].items()}
    if "list" in config:
        return [spec_from_config(value) for value in config["list"]]
    return tf.TensorSpec(config["shape"], config["dtype"])
