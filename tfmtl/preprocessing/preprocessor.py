"""All raw columns of a model together."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tfmtl import files
from tfmtl.features import FeatureSpec
from tfmtl.preprocessing.columns import (
    KINDS,
    MISSING,
    Category,
    Column,
    Cross,
    Learner,
    options_of,
)


@keras.saving.register_keras_serializable("tfmtl")
class Preprocessor(tf.Module):
    """Makes what a model reads of raw columns, in the input pipeline and inside a SavedModel.

    It is made of Keras' preprocessing layers. What has to be learnt (vocabularies, scales,
    quantiles) is learnt in one pass by :meth:`adapt`.

    Args:
        columns: :class:`Category`, :class:`Number` or :class:`Cross` by name. A cross has a name of
            its own; the others are called as the raw column is.

    Call: raw columns ``{name: [batch] or [batch, list]}``, with one more dimension where a column
    has several values that are not one string → ids (int32) and numbers (float32) of the same
    shapes; several values ``[..., values]``, padded with -1.

    Raises:
        ValueError: no column, or a cross of a column that is not there or has several values.
    """

    def __init__(self, columns: Mapping[str, Column | Cross]):
        super().__init__()
        if not columns:
            raise ValueError("`columns` must hold at least one column. Received: {}")
        for name, column in columns.items():
            if not isinstance(column, (Column, Cross)):
                raise ValueError(
                    f"`columns[{name!r}]` must be a Category, a Number or a Cross. "
                    f"Received: {column!r}"
                )
        self._raw = {n: c for n, c in columns.items() if isinstance(c, Column)}
        self._crosses = {n: c for n, c in columns.items() if isinstance(c, Cross)}
        for name, cross in self._crosses.items():
            for part in cross.columns:
                if part not in self._raw or getattr(self._raw[part], "pooling", None):
                    raise ValueError(
                        f"`columns[{name!r}]` must cross columns of one value a row. "
                        f"Received: {part!r}"
                    )
        self._order = list(columns)
        self._learnt: dict[str, dict] = {}
        self._layers: dict[str, keras.layers.Layer | None] = {}
        self._hashing = {
            n: keras.layers.HashedCrossing(c.buckets) for n, c in self._crosses.items()
        }
        if not self._learners():
            self._make_layers()

    @property
    def columns(self) -> dict[str, Column | Cross]:
        """By name, as they were given."""
        every: dict[str, Column | Cross] = {**self._raw, **self._crosses}
        return {name: every[name] for name in self._order}

    def adapt(self, data) -> Preprocessor:
        """Learn what there is to learn from the training rows.

        Args:
            data: a ``tf.data.Dataset`` of dicts of batched raw columns, or of tuples that begin
                with one; or a dict of arrays.

        Returns:
            Itself.

        Raises:
            ValueError: a column that is missing or of another dtype, or no rows.
        """
        if isinstance(data, Mapping):
            data = [{name: tf.convert_to_tensor(values) for name, values in data.items()}]
        learners = self._learners()
        rows = False
        for batch in data:
            inputs = batch[0] if isinstance(batch, tuple) else batch
            self._check(inputs)
            for name, learner in learners.items():
                learner.add(self._raw[name].prepare(inputs[name]).numpy().ravel())
            rows = True
        if learners and not rows:
            raise ValueError("`data` must hold at least one batch of rows. Received: none")
        self._learnt = {name: learner.found(name) for name, learner in learners.items()}
        self._make_layers()
        return self

    @property
    def spec(self) -> FeatureSpec:
        """What it gives, for the models.

        Raises:
            ValueError: ``adapt`` has to be called first.
        """
        self._check_adapted()
        columns, sizes = self.columns, {}
        for name in columns:
            size = self._crosses[name].buckets if name in self._crosses else self._size(name)
            if size is not None:
                sizes[name] = size
        return FeatureSpec(
            sizes,
            tuple(name for name in columns if name not in sizes),
            {name: columns[name].width for name in sizes},
            {n: c.pooling for n, c in columns.items() if isinstance(c, Category) and c.pooling},
        )

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        self._check_adapted()
        self._check(inputs)
        prepared = {name: column.prepare(inputs[name]) for name, column in self._raw.items()}
        found = {
            name: column.encode(self._layers[name], prepared[name])
            for name, column in self._raw.items()
        }
        for name, cross in self._crosses.items():
            parts = []
            for part in cross.columns:
                # A number by its bin, if it has some; all else as it is written.
                binned = not isinstance(self._raw[part], Category) and self._size(part) is not None
                values = found[part] if binned else prepared[part]
                text = values if values.dtype == tf.string else tf.strings.as_string(values)
                parts.append(tf.reshape(text, [-1]))
            like = found[cross.columns[0]]
            ids = tf.cast(self._hashing[name](parts), tf.int32)
            found[name] = tf.ensure_shape(tf.reshape(ids, tf.shape(like)), like.shape)
        return {name: found[name] for name in self._order}

    def vocabularies(self) -> dict[str, list]:
        """The value of every id of the columns that have a vocabulary; id 0 is ``None``."""
        self._check_adapted()
        return {
            name: [None, *column.known(self._learnt.get(name, {}))]
            for name, column in self._raw.items()
            if isinstance(column, Category) and column.buckets is None
        }

    def signature(self, layout: str = "rows") -> dict[str, tf.TensorSpec]:
        """Name, shape and dtype of every raw column, as a server is told.

        Args:
            layout: of the model, ``"rows"`` or ``"lists"``.
        """
        shape = [None] if layout == "rows" else [None, None]
        return {name: column.spec(name, shape) for name, column in self._raw.items()}

    def example_spec(self) -> dict[str, Any]:
        """How the raw columns stand in a ``tf.train.Example``, for ``tf.io.parse_example`` and for
        :func:`tfmtl.ranking.parse`. What is left out is missing.
        """
        missing = {tf.string: "", tf.int64: MISSING, tf.float32: float("nan")}
        return {
            name: tf.io.VarLenFeature(spec.dtype)
            if spec.shape.rank == 2
            else tf.io.FixedLenFeature([], spec.dtype, missing[spec.dtype])
            for name, spec in self.signature().items()
        }

    def parse_examples(self, serialized) -> dict[str, tf.Tensor]:
        """Raw columns of serialized ``tf.train.Example``, strings ``[batch]``; a parser for
        :meth:`tfmtl.MultiTaskModel.export`.
        """
        found = tf.io.parse_example(serialized, self.example_spec())
        return {
            name: tf.sparse.to_dense(value, "" if value.dtype == tf.string else MISSING)
            if isinstance(value, tf.SparseTensor)
            else value
            for name, value in found.items()
        }

    def save(self, path: str | os.PathLike) -> None:
        """Write columns and what was learnt to a JSON file, which appears whole or not at all."""
        with files.written(path) as beside:
            pathlib.Path(beside).write_text(json.dumps(self.get_config(), indent=1))

    @classmethod
    def load(cls, path: str | os.PathLike) -> Preprocessor:
        """What :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is another file.
        """
        text = pathlib.Path(path).read_text(encoding="utf-8")
        try:
            return cls.from_config(json.loads(text))
        except (TypeError, KeyError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"`path` must be a file that `Preprocessor.save` wrote. Received: {str(path)!r}"
            ) from error

    def get_config(self) -> dict:
        """Columns and what was learnt, JSON-serialisable."""
        return {
            "columns": {name: options_of(column) for name, column in self.columns.items()},
            "learnt": {name: dict(learnt) for name, learnt in self._learnt.items()},
        }

    @classmethod
    def from_config(cls, config: Mapping) -> Preprocessor:
        """The inverse of :meth:`get_config`."""
        columns = {}
        for name, given in config["columns"].items():
            given = dict(given)
            columns[name] = KINDS[given.pop("kind")](**given)
        made = cls(columns)
        made._learnt = {name: dict(learnt) for name, learnt in config["learnt"].items()}
        if made._learnt.keys() >= made._learners().keys():
            made._make_layers()
        return made

    def _learners(self) -> dict[str, Learner]:
        """Of the columns that need one."""
        found = {name: column.learner() for name, column in self._raw.items()}
        return {name: learner for name, learner in found.items() if learner is not None}

    def _check_adapted(self) -> None:
        if not self._layers:
            raise ValueError(
                f"Call `adapt` with the training rows first. It learns: {list(self._learners())}"
            )

    def _size(self, name: str) -> int | None:
        return self._raw[name].size(self._learnt.get(name, {}))

    def _make_layers(self) -> None:
        self._layers = {n: c.layer(self._learnt.get(n, {})) for n, c in self._raw.items()}

    def _check(self, inputs: Mapping) -> None:
        """Look for columns that are missing or of another dtype."""
        missing = sorted(set(self._raw) - set(inputs))
        if missing:
            raise ValueError(
                f"Inputs must have every column. Expected: {sorted(self._raw)}. "
                f"Received: {sorted(inputs)} (missing: {missing})"
            )
        for name, column in self._raw.items():
            dtype = tf.as_dtype(inputs[name].dtype)
            wanted = column.wrong_dtype(dtype)
            if wanted:
                raise ValueError(
                    f"Inputs[{name!r}] must hold {wanted}. Received dtype: {dtype.name}"
                )
