"""Mean and standard deviation of numbers that never are in memory together."""

from __future__ import annotations

import numpy as np


class Moments:
    """By the pairwise update of Chan et al. (1983), which large means do not trouble."""

    def __init__(self):
        self._n, self._squares = 0, 0.0
        #: The mean so far; 0 without a value.
        self.mean = 0.0

    def add(self, values: np.ndarray) -> None:
        """Take note of values ``[n]``; those that are not finite are left out."""
        values = np.asarray(values, "float64")
        values = values[np.isfinite(values)]
        n = len(values)
        if not n:
            return
        mean = float(values.mean())
        total, apart = self._n + n, mean - self.mean
        self._squares += float(((values - mean) ** 2).sum()) + apart**2 * self._n * n / total
        self.mean += apart * n / total
        self._n = total

    @property
    def std(self) -> float:
        """The standard deviation so far; 0 without a value."""
        return float(np.sqrt(self._squares / max(self._n, 1)))
