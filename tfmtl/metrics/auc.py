"""The area under the ROC curve of arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def auc(labels, scores, weights=None) -> float:
    """Area under the ROC curve, exact, ties counting half.

    Args:
        labels: ``[rows]`` of 0 and 1.
        scores: ``[rows]``, higher where 1 is more likely.
        weights: ``[rows]``, at least 0; 1 each by default.

    Returns:
        The probability that a positive row scores above a negative one; NaN where one of the two
        kinds has no weight.
    """
    labels = np.asarray(labels, np.float64).ravel()
    scores = np.asarray(scores).ravel()
    weights = np.ones_like(labels) if weights is None else np.asarray(weights, np.float64).ravel()
    _, rank = np.unique(scores, return_inverse=True)
    positive = np.bincount(rank, weights * labels)
    negative = np.bincount(rank, weights * (1.0 - labels))
    total = positive.sum() * negative.sum()
    if total <= 0:
        return float("nan")
    below = np.cumsum(negative) - 0.5 * negative
    return float((positive * below).sum() / total)


def binary_auc(batches: Sequence) -> float:
    """The AUC over batches of ``(labels, scores, weights)``, each ``[batch]``; rows of weight 0
    do not count. NaN where the labels are not 0 and 1.
    """
    labels, scores, weights = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    counted = weights > 0
    labels, scores, weights = labels[counted], scores[counted], weights[counted]
    if not len(labels) or not np.isin(labels, (0.0, 1.0)).all():
        return float("nan")
    return auc(labels, scores, weights)
