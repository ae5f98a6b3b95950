"""Is a method's AUC above another's? Differences paired by seed, intervals over test rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.stats


@dataclasses.dataclass(frozen=True)
class Difference:
    """A mean difference of AUCs over seeds and its bootstrap interval.

    Args:
        mean: over the seeds, on the test rows as they are.
        low: the 2.5 % quantile over resampled test rows (or groups).
        high: the 97.5 % quantile.
        deviation: standard deviation of the paired difference over seeds; NaN with one seed.
    """

    mean: float
    low: float
    high: float
    deviation: float


@dataclasses.dataclass(frozen=True)
class Paired:
    """Values of one method minus those of another, paired by seed.

    Args:
        mean: over the seeds.
        low: of the 95 % interval of the mean, by bootstrap over seeds: with few seeds a narrow one.
        high: likewise.
        p: of the paired t-test, two-sided; NaN with one seed, or where all differences are equal.
    """

    mean: float
    low: float
    high: float
    p: float


def paired(values: np.ndarray, reference: np.ndarray, draws: int = 10_000) -> Paired:
    """The difference of two methods over the same seeds.

    Args:
        values: ``[seeds]``.
        reference: ``[seeds]``.
        draws: of the bootstrap, whose seed is fixed.

    Raises:
        ValueError: shapes that differ.
    """
    values, reference = np.asarray(values, float), np.asarray(reference, float)
    if values.shape != reference.shape or values.ndim != 1:
        raise ValueError(
            "`values` and `reference` must both have shape [seeds]. "
            f"Received shapes: {list(values.shape)}, {list(reference.shape)}"
        )
    change = values - reference
    picked = np.random.default_rng(0).integers(0, len(change), (draws, len(change)))
    low, high = np.quantile(change[picked].mean(axis=1), [0.025, 0.975])
    p = float("nan")
    if len(change) > 1 and change.std() > 0:
        p = float(scipy.stats.ttest_rel(values, reference).pvalue)
    return Paired(float(change.mean()), float(low), float(high), p)


class WeightedAUC:
    """The exact AUC of one set of scores under many weightings of its rows; ties count half.

    Sorting is done once: a weighting costs a running sum over the negative rows.

    Args:
        labels: ``[rows]`` of 0 and 1; rows without a label (NaN) do not count.
        scores: ``[rows]``.

    Raises:
        ValueError: shapes that differ.
    """

    def __init__(self, labels: np.ndarray, scores: np.ndarray):
        if labels.shape != scores.shape or labels.ndim != 1:
            raise ValueError(
                "`labels` and `scores` must both have shape [rows]. "
                f"Received shapes: {list(labels.shape)}, {list(scores.shape)}"
            )
        self._positives = np.flatnonzero(labels == 1)
        negatives = np.flatnonzero(labels == 0)
        self._negatives = negatives[np.argsort(scores[negatives], kind="stable")]
        ordered, own = scores[self._negatives], scores[self._positives]
        # How many negative rows lie below each positive one, and below or level with it.
        self._below = np.searchsorted(ordered, own, side="left")
        self._level = np.searchsorted(ordered, own, side="right")

    def __call__(self, weights: np.ndarray) -> float:
        """The AUC where row i counts ``weights[i]`` times; NaN if one kind has no weight."""
        negative = np.concatenate([[0.0], np.cumsum(weights[self._negatives])])
        positive = weights[self._positives]
        total = 2.0 * positive.sum() * negative[-1]
        if total <= 0:
            return float("nan")
        return float(positive @ (negative[self._below] + negative[self._level]) / total)


def differences(
    labels: np.ndarray,
    scores: Mapping[str, Sequence[np.ndarray]],
    reference: str,
    *,
    groups: np.ndarray | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Difference]:
    """AUC of every method minus that of a reference.

    In each draw the test rows are resampled once, with replacement, for all methods and seeds
    alike; the statistic is the mean over seeds of the difference. The interval says what other
    test rows would have given these trained models, not what other trainings would have.

    Args:
        labels: ``[rows]`` of 0 and 1; rows without a label (NaN) do not count.
        scores: for each method its scores ``[rows]`` of every seed, in the order of the seeds.
        reference: one of the methods.
        groups: ``[rows]``; whole groups (a user's rows) are resampled instead of rows.
        draws: how many.
        seed: of the resampling.

    Raises:
        ValueError: an unknown reference, methods with unequally many seeds, shapes that differ, or
            labels of one kind.
    """
    if reference not in scores:
        raise ValueError(f"`reference` must be one of {sorted(scores)}. Received: {reference!r}")
    counts = {method: len(each) for method, each in scores.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"`scores` must have the same seeds for each method. Received: {counts}")
    methods = list(scores)
    curves = [[WeightedAUC(labels, each) for each in scores[method]] for method in methods]

    def against(weights: np.ndarray) -> np.ndarray:
        """``[methods, seeds]``."""
        found = np.array([[curve(weights) for curve in each] for each in curves])
        return found - found[methods.index(reference)]

    observed = against(np.ones(len(labels)))
    rng = np.random.default_rng(seed)
    members = (
        np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    )
    size = int(members.max()) + 1
    drawn = []
    for _ in range(draws):
        times = np.bincount(rng.integers(0, size, size), minlength=size)
        drawn.append(against(times[members].astype(np.float64)).mean(axis=1))
    # A draw without a single positive row says nothing about any method.
    kept = np.array(drawn)[~np.isnan(drawn).any(axis=1)]
    if not len(kept):
        raise ValueError("`labels` must hold both 0 and 1. Received: no draw with both")
    low, high = np.quantile(kept, [0.025, 0.975], axis=0)
    return {
        method: Difference(
            float(observed[i].mean()),
            float(low[i]),
            float(high[i]),
            float(observed[i].std(ddof=1)) if len(observed[i]) > 1 else float("nan"),
        )
        for i, method in enumerate(methods)
    }
