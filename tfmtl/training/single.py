"""How much a column tells of a label by itself: what tells too much is often not known in time."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl import metrics
from tfmtl.data.encode import require

#: Numbers of more values than this are looked at in so many parts of equal count.
PARTS = 64
#: The means of a value's labels are drawn to the mean of all as if that were so many rows.
PRIOR = 20.0


def auc(column: Any, labels: np.ndarray, seed: int = 0) -> float:
    """The AUC that the label's mean for each value of a column has, learnt on one half of the rows
    and tested on the other.

    Args:
        column: a pandas Series; missing is a value like any other, one that only the second half
            has counts as the mean.
        labels: ``[rows]``, 0 and 1, NaN where there is none.
        seed: of the halves.

    Returns:
        NaN where the labels are no 0 and 1, or all alike.
    """
    pandas = require("pandas")
    known = ~np.isnan(labels)
    if not np.isin(labels[known], (0.0, 1.0)).all():
        return float("nan")
    values = column[known].reset_index(drop=True)
    if values.dtype.kind in "iuf" and values.nunique() > PARTS:
        values = pandas.qcut(values, PARTS, labels=False, duplicates="drop")
    codes = pandas.Series(values.factorize(use_na_sentinel=False)[0])
    labels = labels[known]
    first = np.random.default_rng(seed).random(len(labels)) < 0.5
    if any(len(np.unique(labels[half])) < 2 for half in (first, ~first)):
        return float("nan")
    mean = labels[first].mean()
    of_value = pandas.Series(labels[first]).groupby(codes[first].to_numpy()).agg(["sum", "count"])
    means = (of_value["sum"] + PRIOR * mean) / (of_value["count"] + PRIOR)
    scores = codes[~first].map(means).fillna(mean).to_numpy(float)
    return metrics.auc(labels[~first], scores)
