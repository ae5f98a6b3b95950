"""Ranking metrics of whole arrays, exact however the rows of a group are spread."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfmtl.metrics import ranking, values


def gauc(labels, scores, groups=None, weights=None, *, weighting: str = "impressions") -> float:
    """What :class:`~tfmtl.metrics.GAUC` says of all rows at once.

    Args:
        labels: ``[rows]``, or ``[lists, items]`` without ``groups``; at least 1 is positive, below
            0 or NaN is absent.
        scores: like ``labels``, higher is better.
        groups: ``[rows]``, the user or query of each row, of any dtype that sorts.
        weights: ``[rows]``, or like ``labels``, or ``[lists]``; rows of weight 0 are left out, and
            a group counts by the mean weight of its rows.
        weighting: "impressions" or "groups".

    Returns:
        The mean; NaN where no group counts or a score that counts is NaN.

    Raises:
        ValueError: shapes disagree or are of neither layout, or an option is not known.
    """
    ranking.check_choice("weighting", weighting, ranking.GAUC_WEIGHTINGS)
    return _mean(values.auc, labels, scores, groups, weights, weighting=weighting)


def pair_accuracy(labels, scores, groups=None, weights=None, *, weighting: str = "pairs") -> float:
    """What :class:`~tfmtl.metrics.PairAccuracy` says of all rows at once; arguments, results and
    errors as in :func:`gauc`, with ``weighting`` "pairs" or "lists".
    """
    ranking.check_choice("weighting", weighting, ranking.PAIR_WEIGHTINGS)
    return _mean(values.pair_accuracy, labels, scores, groups, weights, weighting=weighting)


def ndcg(
    labels, scores, groups=None, weights=None, *, k: int | None = None, gains: str = "exponential"
) -> float:
    """What :class:`~tfmtl.metrics.NDCG` says of all rows at once; the rest as in :func:`gauc`."""
    ranking.check_choice("gains", gains, ranking.GAINS)
    ranking.check_k(k)
    return _mean(values.ndcg, labels, scores, groups, weights, k=k, gains=gains)


def mean_reciprocal_rank(
    labels, scores, groups=None, weights=None, *, k: int | None = None
) -> float:
    """What :class:`~tfmtl.metrics.MRR` says of all rows at once; the rest as in :func:`gauc`."""
    ranking.check_k(k)
    return _mean(values.reciprocal_rank, labels, scores, groups, weights, k=k)


def mean_average_precision(
    labels, scores, groups=None, weights=None, *, k: int | None = None
) -> float:
    """What :class:`~tfmtl.metrics.MAP` says of all rows at once; the rest as in :func:`gauc`."""
    ranking.check_k(k)
    return _mean(values.average_precision, labels, scores, groups, weights, k=k)


def precision_at_k(labels, scores, groups=None, weights=None, *, k: int) -> float:
    """What :class:`~tfmtl.metrics.PrecisionAtK` says of all rows at once; the rest as in
    :func:`gauc`.
    """
    ranking.check_k(k, optional=False)
    return _mean(values.precision, labels, scores, groups, weights, k=k)


def _mean(per_list: Callable, labels, scores, groups, weights, **options) -> float:
    labels = np.asarray(labels)
    scores = np.asarray(scores)
    if groups is None:
        if labels.ndim != 2:
            raise ValueError(
                "`groups` must be given unless `labels` are [lists, items]. Received: groups=None "
                f"and labels of shape {labels.shape}"
            )
    else:
        groups = np.asarray(groups)
        for argument, array in (("labels", labels), ("scores", scores), ("groups", groups)):
            if array.shape not in (groups.shape[:1], (*groups.shape[:1], 1)):
                raise ValueError(
                    f"`{argument}` must be [rows], as many as `groups`. Received: {array.shape}"
                )
        groups = np.unique(groups.ravel(), return_inverse=True)[1].astype(np.int32)
    total, count = ranking.weighted_sums(per_list, options, labels, _ranks(scores), weights, groups)
    return float(total / count) if count > 0 else float("nan")


def _ranks(scores):
    """Scores as int32 of the same order: float64 ones that differ may be one as float32. With a
    NaN, which has no rank, they stay as they are.
    """
    exact = scores.dtype.kind == "f" and scores.dtype.itemsize <= 4
    if exact or np.isnan(scores).any():
        return scores
    ranks = np.unique(scores, return_inverse=True)[1]
    return ranks.reshape(scores.shape).astype(np.int32)
