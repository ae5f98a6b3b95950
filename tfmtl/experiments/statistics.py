"""Is a method's AUC above another's? Differences paired by seed, intervals over test rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Difference:
    """A mean difference of AUCs over seeds and its bootstrap interval.

    Args:
        mean: over the seeds, on the test rows as they are.
        low: the 2.5 % quantile over resampled test rows (or groups).
        high: the 97.5 % quantile.
    """

    mean: float
    low: float
    high: float


class WeightedAUC:
    """The exact AUC of one set of scores under many weightings of its rows; ties count half.

    Args:
        labels: ``[rows]`` of 0 and 1.
        scores: ``[rows]``.
    """

    def __init__(self, labels: np.ndarray, scores: np.ndarray):
        self._order = np.argsort(scores, kind="stable")
        ordered = scores[self._order]
        # Where each run of equal scores begins.
        self._starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        self._positive = labels[self._order].astype(np.float64)

    def __call__(self, weights: np.ndarray) -> float:
        """The AUC where row i counts ``weights[i]`` times."""
        weights = weights[self._order]
        positive = np.add.reduceat(weights * self._positive, self._starts)
        negative = np.add.reduceat(weights * (1.0 - self._positive), self._starts)
        below = np.cumsum(negative) - 0.5 * negative
        return float((positive * below).sum() / (positive.sum() * negative.sum()))


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
        labels: ``[rows]`` of 0 and 1.
        scores: for each method its scores ``[rows]`` of every seed, in the order of the seeds.
        reference: one of the methods.
        groups: ``[rows]``; whole groups (a user's rows) are resampled instead of rows.
        draws: how many.
        seed: of the resampling.

    Raises:
        ValueError: an unknown reference, or methods with unequally many seeds.
    """
    if reference not in scores:
        raise ValueError(f"`reference` must be one of {sorted(scores)}. Received: {reference!r}")
    counts = {method: len(each) for method, each in scores.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"`scores` must have the same seeds for each method. Received: {counts}")
    methods = list(scores)
    curves = [[WeightedAUC(labels, each) for each in scores[method]] for method in methods]

    def means(weights: np.ndarray) -> np.ndarray:
        found = np.array([np.mean([curve(weights) for curve in each]) for each in curves])
        return found - found[methods.index(reference)]

    observed = means(np.ones(len(labels)))
    rng = np.random.default_rng(seed)
    members = (
        np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    )
    size = int(members.max()) + 1
    drawn = []
    for _ in range(draws):
        times = np.bincount(rng.integers(0, size, size), minlength=size)
        drawn.append(means(times[members].astype(np.float64)))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return {
        method: Difference(float(observed[i]), float(low[i]), float(high[i]))
        for i, method in enumerate(methods)
    }
