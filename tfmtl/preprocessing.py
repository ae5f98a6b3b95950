"""Raw columns, as a log or a request has them, to the ids and numbers that models read."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmtl import files
from tfmtl.data.learning import Moments
from tfmtl.features import POOLINGS, FeatureSpec

#: The value of a missing integer, and the padding of several.
MISSING = -1
#: Of a column that is cut into bins so many values are kept for the quantiles.
KEPT = 1_000_000


@dataclasses.dataclass(frozen=True)
class Category:
    """A column of strings or integers that becomes ids, each with an embedding.

    Id 0 is for every value that is missing (an empty string, -1) or unknown.

    Args:
        width: of the embedding.
        vocabulary: the known values, or a text file with one a line. By default ``adapt`` learns
            them.
        buckets: hash the values to so many ids instead, which needs no vocabulary; there 0 is an
            id like any other.
        most: of learnt values the most frequent so many are kept.
        least: learnt values that are met less often are unknown.
        pooling: for a column with several values a row, how their embeddings become one:
            ``"mean"`` or ``"sum"``. Without a value it is 0.
        separator: such a column is one string a row, split at this. By default it is ``[batch,
            values]``, padded with empty strings or -1.
        dtype: of the raw values, ``"string"`` or ``"int64"``.

    Raises:
        ValueError: a number below 1, an unknown ``pooling`` or ``dtype``, both a vocabulary and
            buckets, an empty vocabulary or one that names a value twice, or a separator without
            ``pooling`` or of integers.
        FileNotFoundError: there is no such file.
    """

    width: int = 8
    vocabulary: Sequence | str | os.PathLike | None = None
    buckets: int | None = None
    most: int | None = None
    least: int = 1
    pooling: str | None = None
    separator: str | None = None
    dtype: str = "string"

    def __post_init__(self) -> None:
        _check_counts(self, "width", "buckets", "most", "least")
        if self.pooling is not None and self.pooling not in POOLINGS:
            raise ValueError(f"`pooling` must be one of {POOLINGS}. Received: {self.pooling!r}")
        if self.dtype not in ("string", "int64"):
            raise ValueError(f"`dtype` must be 'string' or 'int64'. Received: {self.dtype!r}")
        if self.vocabulary is not None and self.buckets is not None:
            raise ValueError("`vocabulary` and `buckets` exclude each other. Received both")
        if self.separator is not None and (self.pooling is None or self.dtype != "string"):
            raise ValueError(
                "`separator` goes with `pooling` and strings. "
                f"Received: {self.separator!r}, pooling={self.pooling!r}, dtype={self.dtype!r}"
            )
        if self.vocabulary is not None:
            object.__setattr__(self, "vocabulary", self._read(self.vocabulary))

    def _read(self, given) -> tuple:
        if isinstance(given, (str, os.PathLike)):
            lines = pathlib.Path(given).read_text(encoding="utf-8").splitlines()
            given = [int(line) for line in lines] if self.dtype == "int64" else lines
        values = tuple(int(v) if self.dtype == "int64" else str(v) for v in given)
        twice = [value for value, n in collections.Counter(values).items() if n > 1]
        if not values or twice:
            raise ValueError(
                "`vocabulary` must name at least one value, each once. "
                f"Received: {twice[:3] if twice else list(values)}{' twice' * bool(twice)}"
            )
        return values


@dataclasses.dataclass(frozen=True)
class Number:
    """A column of numbers: scaled, or cut into bins that are embedded like ids.

    Args:
        log: take ``log(1 + x)`` first, for a long tail; what is below 0 counts as 0.
        scaled: to mean 0 and standard deviation 1, learnt by ``adapt``; a missing number (NaN)
            becomes the mean. Otherwise numbers stay as they are, and a missing one becomes 0.
        bins: so many bins of about as many training rows each, or their inner boundaries, rising.
        width: of the embedding of a bin.

    Raises:
        ValueError: a number below 1 (of bins: below 2), or boundaries that do not rise.
    """

    log: bool = False
    scaled: bool = True
    bins: int | Sequence[float] | None = None
    width: int = 8

    def __post_init__(self) -> None:
        _check_counts(self, "width")
        if self.bins is None:
            return
        if isinstance(self.bins, int):
            if self.bins < 2:
                raise ValueError(f"`bins` must be at least 2. Received: {self.bins}")
            return
        bins = tuple(float(bound) for bound in self.bins)
        if not bins or any(a >= b for a, b in zip(bins, bins[1:], strict=False)):
            raise ValueError(f"`bins` must be rising boundaries. Received: {list(self.bins)}")
        object.__setattr__(self, "bins", bins)


@dataclasses.dataclass(frozen=True)
class Cross:
    """Raw columns taken together: each combination of their values is hashed to an id.

    Args:
        columns: names of two or more columns of one value a row.
        buckets: how many ids.
        width: of the embedding.

    Raises:
        ValueError: fewer than two columns, or a number below 1.
    """

    columns: Sequence[str]
    buckets: int
    width: int = 8

    def __post_init__(self) -> None:
        _check_counts(self, "buckets", "width")
        object.__setattr__(self, "columns", tuple(self.columns))
        if isinstance(self.columns, str) or len(set(self.columns)) < 2:
            raise ValueError(
                f"`columns` must name two or more columns. Received: {list(self.columns)}"
            )


#: Kinds of columns by the name that a configuration has for them.
KINDS: dict[str, type] = {"category": Category, "number": Number, "cross": Cross}


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

    def __init__(self, columns: Mapping[str, Category | Number | Cross]):
        super().__init__()
        if not columns:
            raise ValueError("`columns` must hold at least one column. Received: {}")
        for name, column in columns.items():
            if not isinstance(column, tuple(KINDS.values())):
                raise ValueError(
                    f"`columns[{name!r}]` must be a Category, a Number or a Cross. "
                    f"Received: {column!r}"
                )
            for part in column.columns if isinstance(column, Cross) else ():
                raw = columns.get(part)
                if raw is None or isinstance(raw, Cross) or getattr(raw, "pooling", None):
                    raise ValueError(
                        f"`columns[{name!r}]` must cross columns of one value a row. "
                        f"Received: {part!r}"
                    )
        self._columns = dict(columns)
        self._learnt: dict[str, dict] = {}
        self._layers: dict[str, keras.layers.Layer] = {}
        if not self._open():
            self._make_layers()

    @property
    def columns(self) -> dict[str, Category | Number | Cross]:
        """By name, as they were given."""
        return dict(self._columns)

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
        learning = {name: _Learning(self._columns[name]) for name in self._open()}
        rows = False
        for batch in data:
            inputs = batch[0] if isinstance(batch, tuple) else batch
            self._check(inputs)
            for name, each in learning.items():
                each.add(self._values(name, inputs[name]))
            rows = True
        if learning and not rows:
            raise ValueError("`data` must hold at least one batch of rows. Received: none")
        self._learnt = {name: each.found(name) for name, each in learning.items()}
        self._make_layers()
        return self

    @property
    def spec(self) -> FeatureSpec:
        """What it gives, for the models.

        Raises:
            ValueError: ``adapt`` has to be called first.
        """
        sizes, numeric, widths, pooling = {}, [], {}, {}
        for name, column in self._columns.items():
            if isinstance(column, Number) and column.bins is None:
                numeric.append(name)
                continue
            sizes[name] = self._size(name)
            widths[name] = column.width
            if isinstance(column, Category) and column.pooling:
                pooling[name] = column.pooling
        return FeatureSpec(sizes, tuple(numeric), widths, pooling)

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        self._check_adapted()
        self._check(inputs)
        found = {}
        for name, column in self._columns.items():
            if isinstance(column, Cross):
                parts = [self._as_text(part, inputs[part]) for part in column.columns]
                shape = tf.shape(parts[0])
                crossed = self._layers[name]([tf.reshape(part, [-1]) for part in parts])
                ids = tf.reshape(tf.cast(crossed, tf.int32), shape)
                found[name] = tf.ensure_shape(ids, parts[0].shape)
                continue
            values = self._values(name, inputs[name])
            if isinstance(column, Number):
                found[name] = self._number(name, values)
            else:
                ids = tf.cast(self._layers[name](values), tf.int32)
                if column.pooling:
                    ids = tf.where(_absent(values), -tf.ones_like(ids), ids)
                found[name] = ids
        return found

    def signature(self, layout: str = "rows") -> dict[str, tf.TensorSpec]:
        """Name, shape and dtype of every raw column, as a server is told.

        Args:
            layout: of the model, ``"rows"`` or ``"lists"``.
        """
        found = {}
        for name, column in self._raw().items():
            shape = [None] if layout == "rows" else [None, None]
            dtype = tf.float32
            if isinstance(column, Category):
                dtype = tf.as_dtype(column.dtype)
                shape = [*shape, None] if column.pooling and not column.separator else shape
            found[name] = tf.TensorSpec(shape, dtype, name)
        return found

    def save(self, path: str | os.PathLike) -> None:
        """Write columns and what was learnt to a JSON file, which appears whole or not at all."""
        with files.written(pathlib.Path(path)) as beside:
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
        names = {kind: name for name, kind in KINDS.items()}
        columns = {
            name: {"kind": names[type(column)], **dataclasses.asdict(column)}
            for name, column in self._columns.items()
        }
        return {"columns": columns, "learnt": self._learnt}

    @classmethod
    def from_config(cls, config: Mapping) -> Preprocessor:
        """The inverse of :meth:`get_config`."""
        columns = {}
        for name, given in config["columns"].items():
            given = dict(given)
            columns[name] = KINDS[given.pop("kind")](**given)
        made = cls(columns)
        made._learnt = {name: dict(learnt) for name, learnt in config["learnt"].items()}
        if made._learnt.keys() >= set(made._open()):
            made._make_layers()
        return made

    def _raw(self) -> dict[str, Category | Number]:
        """The columns that are read."""
        return {n: c for n, c in self._columns.items() if not isinstance(c, Cross)}

    def _open(self) -> list[str]:
        """The columns that need to learn."""
        return [name for name, column in self._columns.items() if _learns(column)]

    def _check_adapted(self) -> None:
        if not self._layers and self._open():
            raise ValueError(
                f"Call `adapt` with the training rows first. It learns: {self._open()}"
            )

    def _size(self, name: str) -> int:
        """How many ids a column has."""
        self._check_adapted()
        column = self._columns[name]
        if isinstance(column, Number):
            return len(self._boundaries(name)) + 1
        if column.buckets is not None:
            return column.buckets
        return 1 + len(self._vocabulary(name))

    def _vocabulary(self, name: str) -> Sequence:
        given = self._columns[name].vocabulary
        return self._learnt[name]["vocabulary"] if given is None else given

    def _boundaries(self, name: str) -> Sequence[float]:
        bins = self._columns[name].bins
        return self._learnt[name]["boundaries"] if isinstance(bins, int) else bins

    def _make_layers(self) -> None:
        layers = keras.layers
        made: dict[str, keras.layers.Layer] = {}
        for name, column in self._columns.items():
            if isinstance(column, Cross):
                made[name] = layers.HashedCrossing(column.buckets)
            elif isinstance(column, Number):
                if column.bins is not None:
                    made[name] = layers.Discretization(list(self._boundaries(name)))
                elif column.scaled:
                    made[name] = layers.Normalization(axis=None, **self._learnt[name])
            elif column.buckets is not None:
                made[name] = layers.Hashing(column.buckets)
            elif column.dtype == "string":
                made[name] = layers.StringLookup(vocabulary=list(self._vocabulary(name)))
            else:
                made[name] = layers.IntegerLookup(vocabulary=list(self._vocabulary(name)))
        self._layers = made

    def _check(self, inputs: Mapping) -> None:
        """Look for columns that are missing or of another dtype."""
        raw = self._raw()
        missing = sorted(set(raw) - set(inputs))
        if missing:
            raise ValueError(
                f"Inputs must have every column. Expected: {sorted(raw)}. "
                f"Received: {sorted(inputs)} (missing: {missing})"
            )
        for name, column in raw.items():
            dtype = tf.as_dtype(inputs[name].dtype)
            wanted = "numbers" if isinstance(column, Number) else f"{column.dtype} values"
            right = {
                "numbers": dtype.is_floating or dtype.is_integer,
                "string values": dtype == tf.string,
                "int64 values": dtype.is_integer,
            }[wanted]
            if not right:
                raise ValueError(
                    f"Inputs[{name!r}] must hold {wanted}. Received dtype: {dtype.name}"
                )

    def _values(self, name: str, values):
        """A raw column as its layer takes it."""
        column = self._columns[name]
        if isinstance(column, Category) and column.separator is not None:
            values = tf.strings.split(values, column.separator)
            return tf.strings.strip(values.to_tensor())
        padding = "" if tf.as_dtype(values.dtype) == tf.string else MISSING
        if isinstance(values, tf.RaggedTensor):
            values = values.to_tensor(padding)
        if isinstance(column, Number):
            values = tf.cast(values, tf.float32)
            return tf.math.log1p(tf.maximum(values, 0.0)) if column.log else values
        return tf.cast(values, tf.int64) if column.dtype == "int64" else values

    def _as_text(self, name: str, values):
        """A raw column as a cross takes it: a number by its bin, or as it is written."""
        column = self._columns[name]
        values = self._values(name, values)
        if isinstance(column, Number) and column.bins is not None:
            values = self._number(name, values)
        return values if values.dtype == tf.string else tf.strings.as_string(values)

    def _number(self, name: str, values):
        column = self._columns[name]
        if column.bins is not None:
            known = tf.where(tf.math.is_nan(values), tf.zeros_like(values), values)
            return tf.cast(self._layers[name](known), tf.int32)
        if column.scaled:
            values = self._layers[name](values)
        return tf.where(tf.math.is_nan(values), tf.zeros_like(values), values)


class _Learning:
    """What one column learns, batch after batch."""

    def __init__(self, column: Category | Number):
        self._column = column
        self._counts: collections.Counter = collections.Counter()
        self._values: list[np.ndarray] = []
        self._moments = Moments()
        self._rng = np.random.default_rng(0)

    def add(self, values) -> None:
        """Take note of a batch's values."""
        values = values.numpy().ravel()
        if isinstance(self._column, Category):
            found, counts = np.unique(values, return_counts=True)
            self._counts.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
            return
        if self._column.bins is None:
            self._moments.add(values)
            return
        self._values.append(values[np.isfinite(values)])
        if sum(map(len, self._values)) > 2 * KEPT:
            kept = np.concatenate(self._values)
            self._values = [self._rng.choice(kept, KEPT, replace=False)]

    def found(self, name: str) -> dict:
        """What was learnt, JSON-serialisable."""
        column = self._column
        if isinstance(column, Category):
            for missing in (b"", MISSING):
                self._counts.pop(missing, None)
            kept = [(-n, value) for value, n in self._counts.items() if n >= column.least]
            kept = sorted(kept)[: column.most]
            values = [value.decode() if isinstance(value, bytes) else value for _, value in kept]
            if not values:
                raise ValueError(
                    f"`data` must hold values of {name!r} to learn, each at least {column.least} "
                    "times. Received: none"
                )
            return {"vocabulary": values}
        if column.bins is None:
            scale = self._moments.scale()
            return {"mean": scale.mean, "variance": scale.std**2}
        values = np.concatenate(self._values)
        if not len(values):
            raise ValueError(f"`data` must hold numbers of {name!r} to cut. Received: none")
        shares = np.linspace(0, 1, int(column.bins) + 1)[1:-1]  # type: ignore[arg-type]
        return {"boundaries": np.unique(np.quantile(values, shares)).tolist()}


def _learns(column: Category | Number | Cross) -> bool:
    if isinstance(column, Category):
        return column.vocabulary is None and column.buckets is None
    if isinstance(column, Number):
        return isinstance(column.bins, int) or (column.bins is None and column.scaled)
    return False


def _absent(values):
    """Where several values are padding."""
    if values.dtype == tf.string:
        return tf.equal(values, "")
    return tf.equal(values, tf.cast(MISSING, values.dtype))


def _check_counts(column, *names: str) -> None:
    for name in names:
        value = getattr(column, name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"`{name}` must be a positive integer. Received: {value!r}")


