"""What a raw column is, and what becomes of its values."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmtl.features import POOLINGS
from tfmtl.moments import Moments

#: The value of a missing integer, and the padding of several.
MISSING = -1
#: Of a column that is cut into bins so many values are kept for the quantiles.
KEPT = 1_000_000


class Learner:
    """What a column learns, batch after batch."""

    def add(self, values: np.ndarray) -> None:
        """Take note of values ``[n]``."""
        raise NotImplementedError

    def found(self, name: str) -> dict[str, Any]:
        """What was learnt, JSON-serialisable; ``ValueError`` where there was nothing to learn."""
        raise NotImplementedError


class Column:
    """A raw column; what was learnt of it goes in and out as :meth:`Learner.found` gives it."""

    width: int

    def learner(self) -> Learner | None:
        """What learns; ``None`` where there is nothing to learn."""
        return None

    def layer(self, learnt: dict[str, Any]) -> keras.layers.Layer | None:
        """Keras' layer for the values; ``None`` where they stay as they are."""
        raise NotImplementedError

    def size(self, learnt: dict[str, Any]) -> int | None:
        """How many ids there are; ``None`` for a column of numbers."""
        raise NotImplementedError

    def wrong_dtype(self, dtype: tf.DType) -> str:
        """What the values must be, where a dtype is none of theirs; else nothing."""
        raise NotImplementedError

    def prepare(self, values):
        """Raw values as the layer takes them."""
        raise NotImplementedError

    def encode(self, layer: keras.layers.Layer | None, values):
        """Prepared values as a model reads them, int32 or float32."""
        raise NotImplementedError

    def spec(self, name: str, shape: list) -> tf.TensorSpec:
        """Of the raw values, where a column of one value a row has this shape."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Category(Column):
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
            given = pathlib.Path(given).read_text(encoding="utf-8").splitlines()
        values = tuple(int(v) if self.dtype == "int64" else str(v) for v in given)
        twice = [value for value, n in collections.Counter(values).items() if n > 1]
        if not values or twice:
            raise ValueError(
                "`vocabulary` must name at least one value, each once. "
                f"Received: {twice[:3] if twice else list(values)}{' twice' * bool(twice)}"
            )
        return values

    def learner(self):
        needed = self.vocabulary is None and self.buckets is None
        return _Vocabulary(self.least, self.most) if needed else None

    def known(self, learnt: dict[str, Any]) -> list:
        """The values that have an id of their own, from id 1 on."""
        return list(learnt["vocabulary"] if self.vocabulary is None else self.vocabulary)  # type: ignore[arg-type]

    def layer(self, learnt):
        if self.buckets is not None:
            return keras.layers.Hashing(self.buckets)
        of_strings = self.dtype == "string"
        kind = keras.layers.StringLookup if of_strings else keras.layers.IntegerLookup
        return kind(vocabulary=self.known(learnt))

    def size(self, learnt):
        return 1 + len(self.known(learnt)) if self.buckets is None else self.buckets

    def wrong_dtype(self, dtype):
        right = dtype == tf.string if self.dtype == "string" else dtype.is_integer
        return "" if right else f"{self.dtype} values"

    def prepare(self, values):
        if self.separator is not None:
            return tf.strings.strip(tf.strings.split(values, self.separator).to_tensor())
        if isinstance(values, tf.RaggedTensor):
            values = values.to_tensor("" if self.dtype == "string" else MISSING)
        return values if self.dtype == "string" else tf.cast(values, tf.int64)

    def encode(self, layer, values):
        ids = tf.cast(layer(values), tf.int32)
        if self.pooling is None:
            return ids
        absent = tf.equal(values, "" if self.dtype == "string" else tf.cast(MISSING, tf.int64))
        return tf.where(absent, -tf.ones_like(ids), ids)

    def spec(self, name, shape):
        several = self.pooling is not None and self.separator is None
        return tf.TensorSpec([*shape, None] if several else shape, self.dtype, name)


@dataclasses.dataclass(frozen=True)
class Number(Column):
    """A column of numbers: scaled, or cut into bins that are embedded like ids.

    Args:
        log: take ``log(1 + x)`` first, for a long tail; what is below 0 counts as 0.
        scaled: to mean 0 and standard deviation 1, learnt by ``adapt``; a missing number (NaN)
            becomes the mean. Otherwise numbers stay as they are, and a missing one becomes 0.
        bins: so many bins of about as many training rows each, or their inner boundaries, rising.
            Id 0 is for a missing number.
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
        if isinstance(self.bins, int):
            if self.bins < 2:
                raise ValueError(f"`bins` must be at least 2. Received: {self.bins}")
        elif self.bins is not None:
            bins = tuple(float(bound) for bound in self.bins)
            if not bins or any(a >= b for a, b in itertools.pairwise(bins)):
                raise ValueError(f"`bins` must be rising boundaries. Received: {list(self.bins)}")
            object.__setattr__(self, "bins", bins)

    def learner(self):
        if isinstance(self.bins, int):
            return _Quantiles(self.bins)
        return _Scale() if self.bins is None and self.scaled else None

    def _boundaries(self, learnt) -> list[float]:
        return list(learnt["boundaries"] if isinstance(self.bins, int) else self.bins or ())

    def layer(self, learnt):
        if self.bins is not None:
            return keras.layers.Discretization(self._boundaries(learnt))
        if not self.scaled:
            return None
        layer = keras.layers.Normalization(axis=None, **learnt)
        layer.build([None])  # here, where tensors are values: Keras 3 makes some when it is built
        return layer

    def size(self, learnt):
        return None if self.bins is None else len(self._boundaries(learnt)) + 2

    def wrong_dtype(self, dtype):
        return "" if dtype.is_floating or dtype.is_integer else "numbers"

    def prepare(self, values):
        values = tf.cast(values, tf.float32)
        return tf.math.log1p(tf.maximum(values, 0.0)) if self.log else values

    def encode(self, layer, values):
        if self.bins is not None:
            ids = tf.cast(layer(_known(values)), tf.int32) + 1
            return tf.where(tf.math.is_nan(values), tf.zeros_like(ids), ids)
        return _known(values if layer is None else layer(values))

    def spec(self, name, shape):
        return tf.TensorSpec(shape, tf.float32, name)


@dataclasses.dataclass(frozen=True)
class Cross:
    """Raw columns taken together: each combination of their values is hashed to an id.

    Args:
        columns: names of two or more columns of one value a row. Numbers count by their bins, or as
            they are.
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
        if isinstance(self.columns, str) or len(set(self.columns)) < 2:
            raise ValueError(
                f"`columns` must name two or more columns. Received: {list(self.columns)}"
            )
        object.__setattr__(self, "columns", tuple(self.columns))


#: Kinds of columns by the name that a configuration has for them.
KINDS: dict[str, type] = {"category": Category, "number": Number, "cross": Cross}


def options_of(column: Column | Cross, *, defaults: bool = True) -> dict[str, Any]:
    """A column as a file has it: its kind and its options, plain values alone.

    Args:
        column: which.
        defaults: also those that are as by default.
    """
    found: dict[str, Any] = {"kind": next(k for k, made in KINDS.items() if made is type(column))}
    for field in dataclasses.fields(column):  # type: ignore[arg-type]
        value = getattr(column, field.name)
        if defaults or value != field.default:
            found[field.name] = list(value) if isinstance(value, tuple) else value
    return found


class _Vocabulary(Learner):
    """Distinct values, the most frequent first."""

    def __init__(self, least: int, most: int | None):
        self._least, self._most = least, most
        self._counts: collections.Counter = collections.Counter()

    def add(self, values):
        found, counts = np.unique(values, return_counts=True)
        self._counts.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))

    def found(self, name):
        for missing in (b"", MISSING):
            self._counts.pop(missing, None)
        kept = sorted((-n, value) for value, n in self._counts.items() if n >= self._least)
        if not kept:
            raise ValueError(
                f"`data` must hold values of {name!r} to learn, each at least {self._least} times. "
                "Received: none"
            )
        values = (value for _, value in kept[: self._most])
        return {"vocabulary": [v.decode() if isinstance(v, bytes) else v for v in values]}


class _Scale(Learner):
    """Mean and variance; a constant column has no scale of its own and becomes 0."""

    def __init__(self):
        self._moments = Moments()

    def add(self, values):
        self._moments.add(values)

    def found(self, name):
        return {"mean": self._moments.mean, "variance": self._moments.std**2 or 1.0}


class _Quantiles(Learner):
    """Boundaries of bins with about as many rows each."""

    def __init__(self, bins: int):
        self._bins = bins
        self._values: list[np.ndarray] = []
        self._rng = np.random.default_rng(0)

    def add(self, values):
        self._values.append(values[np.isfinite(values)])
        if sum(map(len, self._values)) > 2 * KEPT:
            kept = np.concatenate(self._values)
            self._values = [self._rng.choice(kept, KEPT, replace=False)]

    def found(self, name):
        values = np.concatenate(self._values)
        if not len(values):
            raise ValueError(f"`data` must hold numbers of {name!r} to cut. Received: none")
        shares = np.linspace(0, 1, self._bins + 1)[1:-1]
        return {"boundaries": np.unique(np.quantile(values, shares)).tolist()}


def _known(values):
    """Numbers, a missing one being 0."""
    return tf.where(tf.math.is_nan(values), tf.zeros_like(values), values)


def _check_counts(column, *names: str) -> None:
    for name in names:
        value = getattr(column, name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"`{name}` must be a positive integer. Received: {value!r}")
