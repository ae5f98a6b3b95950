"""Ranking metrics for Keras."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from tfmtl.metrics import values
from tfmtl.metrics.lists import arrange

GAINS = ("exponential", "linear")
GAUC_WEIGHTINGS = ("impressions", "groups")
PAIR_WEIGHTINGS = ("pairs", "lists")


class RankingMetric(keras.metrics.Metric):
    """A weighted mean over lists.

    Lists come in one of two layouts. *Padded*: labels and scores are ``[batch, list]``, and a label
    below 0 (as in TF-Ranking) or NaN is padding. *Flat*: they are ``[rows]`` or ``[rows, 1]``, and
    ``queries`` says which rows are one list, in any order. Only rows of one call of
    ``update_state`` (of one batch; under ``tf.distribute``, of one replica's part of it) make a
    list: where the rows of a query or a user are spread over batches, use the function of the same
    name in ``tfmtl.metrics`` on the whole set.

    Rows of sample weight 0 are left out. Otherwise weights do not tell rows of a list apart: the
    list counts by the mean weight of its rows. A list for which the metric is not defined is left
    out of the mean, and a mean over no list is 0. Where rows of a list have equal scores, a metric
    is its expectation over their orders: the order of the rows never matters. A NaN among the
    scores makes the metric NaN.

    State: the float64 sums of weighted values and of weights. They add over batches and replicas.

    Args:
        per_list: a function of ``tfmtl.metrics.values``.
        options: its options, which are also the subclass's.
        name: the name in logs.
        dtype: the dtype of the result.
    """

    #: ``update_state`` takes ``queries``.
    takes_queries = True

    def __init__(self, per_list: Callable, options: dict, name: str, dtype=None):
        super().__init__(name=name, dtype=dtype)
        self._per_list = per_list
        self._options = options
        state = {"shape": (), "initializer": "zeros", "dtype": "float64"}
        self.total = self.add_weight(name="total", **state)
        self.count = self.add_weight(name="count", **state)

    def update_state(self, y_true, y_pred, sample_weight=None, queries=None):
        """Add the lists of a batch.

        Args:
            y_true: labels, ``[batch, list]``, or ``[rows]`` or ``[rows, 1]`` with ``queries``.
            y_pred: scores in the same layout, higher is better; compared as float32.
            sample_weight: a number, ``[batch]``, or like ``y_true``.
            queries: integers, ``[rows]`` or ``[rows, 1]``.

        Raises:
            ValueError: shapes disagree or are of neither layout, or ``queries`` are not integers.
        """
        total, count = weighted_sums(
            self._per_list, self._options, y_true, y_pred, sample_weight, queries
        )
        self.total.assign_add(total)
        self.count.assign_add(count)

    def result(self):
        """The mean since the last reset; 0 where nothing counted."""
        mean = tf.math.divide_no_nan(*map(tf.convert_to_tensor, (self.total, self.count)))
        return tf.cast(mean, self.dtype)

    def get_config(self):
        return {**super().get_config(), **self._options}


def weighted_sums(per_list: Callable, options: dict, labels, scores, weights=None, queries=None):
    """The weighted sum of the values of lists and the sum of their weights, float64 scalars."""
    lists = arrange(labels, scores, weights, queries)
    value, worth = per_list(lists, **options)
    weights = worth * lists.weights
    nan = tf.constant(float("nan"), tf.float64)
    total = tf.reduce_sum(value * weights)
    return tf.where(lists.broken, nan, total), tf.reduce_sum(weights)


@keras.saving.register_keras_serializable("tfmtl")
class NDCG(RankingMetric):
    r"""Normalised discounted cumulative gain, the mean over lists.

    .. math:: \frac{\sum_{r\le k} g_r/\log_2(1+r)}{\max_\pi\sum_{r\le k} g_{\pi(r)}/\log_2(1+r)}

    with the gain :math:`g = 2^{label} - 1` (Burges et al., *Learning to Rank using Gradient
    Descent*, ICML 2005) or :math:`g = label`. Ties are as in scikit-learn; TF-Ranking shuffles
    them. Lists without a gain are left out; TF-Ranking counts them as 0.

    Args:
        k: how many ranks count; all by default.
        gains: "exponential" or "linear".
        name: by default "ndcg", or "ndcg_10" where k is 10.
        dtype: the dtype of the result.

    Raises:
        ValueError: ``k`` is not an integer of at least 1, or ``gains`` is neither.
    """

    def __init__(self, k: int | None = None, gains: str = "exponential", name=None, dtype=None):
        options = {"k": check_k(k), "gains": check_choice("gains", gains, GAINS)}
        super().__init__(values.ndcg, options, name or _named("ndcg", k), dtype)


@keras.saving.register_keras_serializable("tfmtl")
class MRR(RankingMetric):
    """Mean reciprocal rank of the first relevant row, whose label is at least 1.

    0 for a list whose first relevant row ranks below k; a list without any is left out (TF-Ranking
    counts it as 0).

    Args:
        k: how many ranks count; all by default.
        name: by default "mrr", or "mrr_10" where k is 10.
        dtype: the dtype of the result.

    Raises:
        ValueError: ``k`` is not an integer of at least 1.
    """

    def __init__(self, k: int | None = None, name=None, dtype=None):
        super().__init__(values.reciprocal_rank, {"k": check_k(k)}, name or _named("mrr", k), dtype)


@keras.saving.register_keras_serializable("tfmtl")
class MAP(RankingMetric):
    """Mean average precision: over all relevant rows (label at least 1) of a list, the mean of the
    precision down to each, where its rank is at most k, and of 0 elsewhere.

    As in TF-Ranking the mean is over all relevant rows of the list, also where they are more than
    k; a list without any is left out (TF-Ranking counts it as 0). Where scores tie, scikit-learn
    differs: it gives each row the last rank of its tie.

    Args:
        k: how many ranks count; all by default.
        name: by default "map", or "map_10" where k is 10.
        dtype: the dtype of the result.

    Raises:
        ValueError: ``k`` is not an integer of at least 1.
    """

    def __init__(self, k: int | None = None, name=None, dtype=None):
        super().__init__(
            values.average_precision, {"k": check_k(k)}, name or _named("map", k), dtype
        )


@keras.saving.register_keras_serializable("tfmtl")
class PrecisionAtK(RankingMetric):
    """The share of relevant rows (label at least 1) among the first k of a list.

    As in TF-Ranking, among all of them where the list is shorter than k. A list without a relevant
    row is left out (TF-Ranking counts it as 0): no scores could do better there.

    Args:
        k: how many ranks count.
        name: by default "precision_10" where k is 10.
        dtype: the dtype of the result.

    Raises:
        ValueError: ``k`` is not an integer of at least 1.
    """

    def __init__(self, k: int, name=None, dtype=None):
        options = {"k": check_k(k, optional=False)}
        super().__init__(values.precision, options, name or _named("precision", k), dtype)


@keras.saving.register_keras_serializable("tfmtl")
class GAUC(RankingMetric):
    r"""Grouped AUC: the mean over groups (users, queries) of the AUC within each.

    .. math:: \frac{\sum_u n_u\,\mathrm{AUC}_u}{\sum_u n_u}

    (Zhou et al., *Deep Interest Network for Click-Through Rate Prediction*, KDD 2018), where
    :math:`n_u` is the number of the group's impressions, that is rows. A row is positive where its
    label is at least 1, negative below. Groups without both are left out; ties count half.

    Args:
        weighting: "impressions", as above, or "groups", where each counts once.
        name: by default "gauc".
        dtype: the dtype of the result.

    Raises:
        ValueError: ``weighting`` is neither.
    """

    def __init__(self, weighting: str = "impressions", name=None, dtype=None):
        options = {"weighting": check_choice("weighting", weighting, GAUC_WEIGHTINGS)}
        super().__init__(values.auc, options, name or "gauc", dtype)


@keras.saving.register_keras_serializable("tfmtl")
class PairAccuracy(RankingMetric):
    """The share of pairs of rows of one list, with different labels, that the scores order right.

    A pair of equal scores counts half; TF-Ranking's ``OPAMetric`` counts it as wrong. With labels
    of 0 and 1 and "lists" it is the grouped AUC with each group counting once. O(n log n) over the
    n rows of a batch: pairs are not looked at one by one.

    Args:
        weighting: "pairs", where every pair counts once (as in TF-Ranking), or "lists", the mean of
            the lists' shares.
        name: by default "pair_accuracy".
        dtype: the dtype of the result.

    Raises:
        ValueError: ``weighting`` is neither.
    """

    def __init__(self, weighting: str = "pairs", name=None, dtype=None):
        options = {"weighting": check_choice("weighting", weighting, PAIR_WEIGHTINGS)}
        super().__init__(values.pair_accuracy, options, name or "pair_accuracy", dtype)


def check_k(k, optional: bool = True) -> int | None:
    """``k``, or ``ValueError`` where it counts no ranks."""
    if k is None and optional:
        return None
    if not isinstance(k, numbers.Integral) or k < 1:
        raise ValueError(
            f"`k` must be an integer of at least 1{' or None' if optional else ''}. Received: {k!r}"
        )
    return int(k)


def check_choice(argument: str, value, choices: Sequence[str]) -> str:
    """``value``, or ``ValueError`` where it is none of the choices."""
    if value not in choices:
        raise ValueError(f"`{argument}` must be one of {list(choices)}. Received: {value!r}")
    return value


def _named(name: str, k: int | None) -> str:
    return name if k is None else f"{name}_{k}"
