"""Vocabularies and scales learnt in one pass over rows that never are in memory together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfmtl.data.encode import Scale, logarithm
from tfmtl.moments import Moments


class Distinct:
    """The distinct values among integers."""

    def __init__(self):
        self._known = np.zeros(0, "int64")
        self._new: list[np.ndarray] = []
        self._n_new = 0

    def add(self, values: np.ndarray) -> None:
        """Take note of values ``[n]``."""
        self._new.append(np.unique(values))
        self._n_new += len(self._new[-1])
        # Merge when it pays: each value is then merged a few times, whatever the file's length.
        if self._n_new > len(self._known) + 100_000:
            self.values()

    def values(self) -> np.ndarray:
        """Those met so far, sorted."""
        if self._new:
            self._known = np.unique(np.concatenate([self._known, *self._new]))
            self._new, self._n_new = [], 0
        return self._known


class Scaling:
    """The scale of a column, from its values block after block.

    Args:
        log: whether ``log(1 + x)`` is scaled.
    """

    def __init__(self, log: bool = False):
        self.log = log
        self._moments = Moments()

    def add(self, values: np.ndarray) -> None:
        """Take note of values ``[n]``; missing ones (NaN) are left out."""
        self._moments.add(logarithm(values) if self.log else np.asarray(values, "float64"))

    def scale(self) -> Scale:
        """The scale that :meth:`Scale.learn` would find for all values together."""
        return Scale(self._moments.mean, self._moments.std or 1.0, self.log)


class Lookup:
    """From integers to ids: 0 for what a vocabulary does not hold.

    Args:
        vocabulary: values in id order. Either ``None`` and then sorted integers; or a ``range``,
            whose integers are ids already.
    """

    def __init__(self, vocabulary: Sequence):
        self._size = len(vocabulary) if isinstance(vocabulary, range) else None
        if self._size is not None:
            return
        self._values = np.asarray(vocabulary[1:], "int64")
        self._first = int(self._values[0]) if len(self._values) else 0
        width = int(self._values[-1]) - self._first + 1 if len(self._values) else 0
        # A table is many times faster than a search and takes 4 bytes for each possible value.
        self._table = None
        if width <= 16 * len(self._values) + 65_536:
            # Values below and above fall on the zeros at both ends.
            self._table = np.zeros(width + 2, "int32")
            self._table[self._values - self._first + 1] = np.arange(1, len(vocabulary))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """The ids of values ``[n]``, int32."""
        if self._size is not None:
            return values.astype("int32")
        if self._table is not None:
            places = np.clip(values, self._first - 1, self._first + len(self._table) - 2)
            return self._table[places - (self._first - 1)]
        places = np.minimum(np.searchsorted(self._values, values), len(self._values) - 1)
        return np.where(self._values[places] == values, places + 1, 0).astype("int32")
