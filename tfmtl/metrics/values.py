"""What a ranking metric says of each list, and what the list counts for.

Each function takes ``Lists`` and returns two float64 tensors in the places of the lists: the
value, and what a list of weight 1 counts for in the mean, 0 where the metric is not defined for it.
Where scores are equal, the value is the expectation over the orders of their rows (McSherry and
Najork, *Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied
Scores*, ECIR 2008).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from tfmtl.metrics import inversions
from tfmtl.metrics.lists import Lists, falling, inverse, order_of, ordered, runs, sums_of

#: Labels from here up are relevant, where a metric asks for no grades.
RELEVANT = 1.0


def ndcg(lists: Lists, k: int | None, gains: str):
    """Normalised discounted cumulative gain."""
    rank = lists.running(lists.present)
    discounts = _within(rank, k, lists.present) * _discount(rank)
    # Absent rows come last in both orders: the places of the present ones are the same.
    ideal = tf.gather(lists.labels, order_of(lists.index, falling(ordered(lists.labels))))
    achieved = lists.sums(_tie_means(lists, _gain(lists.labels, gains)) * discounts)
    possible = lists.sums(_gain(ideal, gains) * discounts)
    return tf.math.divide_no_nan(achieved, possible), _one_if(possible > 0)


def reciprocal_rank(lists: Lists, k: int | None):
    """One over the rank of the first relevant row."""
    tie = _Tie.of(lists)
    decided = lists.present & (tie.above == 0) & (tie.relevant > 0)
    # Of all ways to place the tie's relevant rows, those with the first one here.
    later = tie.size - tie.place
    possible = decided & (later >= tie.relevant - 1)
    chances = _log_choose(later, tie.relevant - 1) - _log_choose(tie.size, tie.relevant)
    chances = tf.where(possible, tf.exp(chances), tf.zeros_like(chances))
    found = chances * _within(tie.rank, k, possible)
    return lists.sums(tf.math.divide_no_nan(found, tie.rank)), _one_if(tie.total > 0)


def average_precision(lists: Lists, k: int | None):
    """The mean over the relevant rows of the precision down to each."""
    tie = _Tie.of(lists)
    # Of a relevant row here: the hits above the tie, itself, its share of the tie's others.
    others = tf.math.divide_no_nan((tie.place - 1) * (tie.relevant - 1), tie.size - 1)
    hits = tf.math.divide_no_nan(tie.relevant, tie.size) * (tie.above + 1 + others)
    found = tf.math.divide_no_nan(hits, tie.rank) * _within(tie.rank, k, lists.present)
    return tf.math.divide_no_nan(lists.sums(found), tie.total), _one_if(tie.total > 0)


def precision(lists: Lists, k: int):
    """The relevant share of the first k rows."""
    relevant = lists.labels >= RELEVANT
    first = _within(lists.running(lists.present), k, lists.present)
    hits = lists.sums(first * _tie_means(lists, relevant))
    return tf.math.divide_no_nan(hits, lists.sums(first)), _one_if(lists.sums(relevant) > 0)


def auc(lists: Lists, weighting: str):
    """The share of (relevant, other) pairs that the scores order right, a tie counting half."""
    relevant = lists.labels >= RELEVANT
    other = lists.present & ~relevant
    others = lists.sums(other)
    passed = lists.at_tie_end(lists.running(other))
    beaten = tf.gather(others, lists.index) - tf.cast(passed, tf.float64)
    beaten += 0.5 * sums_of(lists.ties, other)
    right = lists.sums(tf.where(relevant, beaten, tf.zeros_like(beaten)))
    pairs = lists.sums(relevant) * others
    size = lists.sums(lists.present) if weighting == "impressions" else tf.ones_like(pairs)
    return tf.math.divide_no_nan(right, pairs), tf.where(pairs > 0, size, tf.zeros_like(size))


def pair_accuracy(lists: Lists, weighting: str):
    """The share of pairs of different labels that the scores order right, a tie counting half."""
    present = lists.present
    # Numbers of the runs of equal labels, rising with the list and falling with the label.
    order = order_of(lists.index, falling(ordered(lists.labels)))
    grades = runs(tf.gather(lists.index, order), tf.gather(lists.labels, order))
    grades = tf.gather(grades, inverse(order))
    # Within ties by label, so that only a row that scores above a better one is out of order.
    order = order_of(lists.ties, grades)
    ties, grades, counted = (tf.gather(each, order) for each in (lists.ties, grades, present))
    same = sums_of(grades, counted)
    tied_same = sums_of(runs(ties, grades), counted)
    tied = sums_of(ties, counted)
    size = tf.gather(lists.sums(present), lists.index)
    zero = tf.zeros_like(size)
    pairs = 0.5 * lists.sums(tf.where(counted, size - same, zero))
    tied_pairs = 0.5 * lists.sums(tf.where(counted, tied - tied_same, zero))
    wrong = lists.sums(_wrong(grades))
    value = tf.math.divide_no_nan(pairs - wrong - 0.5 * tied_pairs, pairs)
    return value, pairs if weighting == "pairs" else _one_if(pairs > 0)


class _Tie(NamedTuple):
    """Float64 of each row: its rank, its place in its tie (each from 1), the tie's size and
    relevant rows, the relevant rows above the tie; of each list: its relevant rows.
    """

    rank: tf.Tensor
    place: tf.Tensor
    size: tf.Tensor
    relevant: tf.Tensor
    above: tf.Tensor
    total: tf.Tensor

    @classmethod
    def of(cls, lists: Lists) -> _Tie:
        flags = lists.labels >= RELEVANT
        ranks = lists.running(lists.present)
        rank, end, hits = (
            tf.cast(each, tf.float64)
            for each in (ranks, lists.at_tie_end(ranks), lists.at_tie_end(lists.running(flags)))
        )
        size, relevant = (sums_of(lists.ties, each) for each in (lists.present, flags))
        return cls(rank, rank - end + size, size, relevant, hits - relevant, lists.sums(flags))


def _tie_means(lists: Lists, values):
    """For each row the mean over the present rows of its tie; ``values`` are 0 where absent."""
    return tf.math.divide_no_nan(sums_of(lists.ties, values), sums_of(lists.ties, lists.present))


def _log_choose(n, k):
    """The logarithm of the binomial coefficient; a number without meaning where it is 0."""
    n, k = tf.maximum(n, 0.0), tf.maximum(k, 0.0)
    rest = tf.maximum(n - k, 0.0)
    return tf.math.lgamma(n + 1) - tf.math.lgamma(k + 1) - tf.math.lgamma(rest + 1)


def _wrong(grades):
    """For each row, in the order of the grades, how many of a higher grade come before it."""
    places = tf.range(tf.size(grades))
    return inversions.count(inverse(order_of(grades, places)))


def _within(rank, k, rows):
    """Float64 1 for those rows whose rank is at most ``k``, 0 for the others."""
    return _one_if(rows if k is None else rows & (rank <= k))


def _one_if(condition):
    return tf.cast(condition, tf.float64)


def _discount(rank):
    """Float64 1 / log₂(1 + rank); of a row before which no present one is, that of rank 1."""
    rank = tf.cast(tf.maximum(rank, 1), tf.float64)
    return math.log(2.0) / tf.math.log1p(rank)


def _gain(labels, gains):
    """Float64 gains of labels, 0 for absent rows' -1."""
    labels = tf.cast(tf.maximum(labels, 0.0), tf.float64)
    return labels if gains == "linear" else tf.math.expm1(labels * math.log(2.0))
