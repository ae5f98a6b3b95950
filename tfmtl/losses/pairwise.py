"""The base of the pairwise losses: which pairs count, and how they are summed."""

from __future__ import annotations

import itertools
import math
import numbers
import os

import keras
import numpy as np
import tensorflow as tf

from tfmtl.losses.lists import Layout, find_pairs, padded_layout, row_layout, size_of
from tfmtl.losses.tiles import Gains, Sample, pair_sums

#: A compiled pass is split among so many cores at most.
MOST_PARTS = 8


class PairwiseLoss(keras.losses.Loss):
    r"""A loss of pairs of items of one query; a subclass gives :meth:`pair_loss`.

    A pair (i, j) counts when both have a label and :math:`y_i - y_j > \text{margin}`; its loss is
    a function of the difference of scores :math:`z_i - z_j`. A label that is negative or NaN is no
    label, as of padding.

    Two layouts:

    * padded: labels and scores ``[batch, list]``, one query a row (TF-Ranking's);
    * flat: labels and scores ``[rows]`` or ``[rows, 1]`` with query ids ``[rows]``. Rows of an id
      are one query wherever they stand in the batch, also when other queries come between.

    A query is what the batch holds of it. Labels and scores are computed with in float32, and
    :meth:`sums` has a gradient (a first derivative) with respect to the scores alone.

    As a plain Keras loss, ``loss(labels, scores)`` in the padded layout, it has one value per list
    ``[batch]``, the mean over the list's pairs and 0 without any. Keras' reduction then averages
    over all lists, those without a pair among them, and a sample weight ``[batch]`` multiplies
    lists, whereas :meth:`sums` divides by the pairs, or by the lists that have one.

    Args:
        over: ``"pairs"``, every pair counts alike; ``"lists"``, every list with a pair does. The
            first is the default because equation 10 of the source is stated for a pair and its
            training set is one of pairs (TF-Ranking also adds pairs up); with it a list counts by
            its pairs, which grow with the square of its length.
        margin: by how much labels must differ, at least 0.
        weighting: ``"ndcg"`` multiplies a pair's loss by what NDCG would change were i and j
            swapped,

            .. math:: \frac{|2^{y_i} - 2^{y_j}|}{\mathrm{maxDCG}}
                      \left|\frac{1}{\log_2(1 + r_i)} - \frac{1}{\log_2(1 + r_j)}\right|,

            with the ranks :math:`r` of the current scores among the list's labelled items, equal
            scores ranked as they came, held constant in the gradient. That is LambdaMART's
            (Burges, *From RankNet to LambdaRank to LambdaMART*, 2010) and TF-Ranking's
            ``DCGLambdaWeight`` with ``normalized=True, smooth_fraction=1``, gain
            :math:`2^y - 1` and discount :math:`1/\log_2(1+r)`, without its factor of the padded
            list size. It does not change which pairs, or how many, are counted.
        negatives: at most so many lower items for each higher one. Where there are n > ``k``, a
            systematic sample is taken: in order of label, the items ``(c n + start) // k`` for
            c = 0 ... k - 1 with one random start in {0, ..., n - 1} for each higher item. Each
            lower item has the chance k/n and none comes twice, but neighbours do not come
            together as they would in an independent draw.
        cap: at most so many higher items in a list, those of the highest labels; of equal labels
            those that come first.
        seed: of the sample. It is drawn statelessly from the seed and the batch's scores: the same
            call gives the same sample, and other scores, such as the next step's, another. XLA
            draws differently from TensorFlow.
        jit_compile: compile the pass over the pairs by XLA where the step around it is not: twice
            as fast and more on a CPU, after a second or two for each new shape of the input.
            Padded lists of a known number are shared out among the cores.
        reduction: as of every Keras loss.
        name: as of every Keras loss.

    Raises:
        ValueError: an argument is outside what is said above.
    """

    def __init__(
        self,
        over: str = "pairs",
        margin: float = 0.0,
        weighting: str | None = None,
        negatives: int | None = None,
        cap: int | None = None,
        seed: int = 0,
        jit_compile: bool = False,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
    ):
        super().__init__(reduction=reduction, name=name)
        if over not in ("pairs", "lists"):
            raise ValueError(f"`over` must be 'pairs' or 'lists'. Received: {over!r}")
        if not isinstance(margin, (int, float)) or not 0 <= margin < math.inf:
            raise ValueError(f"`margin` must be a finite number of at least 0. Received: {margin}")
        if weighting not in (None, "ndcg"):
            raise ValueError(f"`weighting` must be None or 'ndcg'. Received: {weighting!r}")
        for argument, value in (("negatives", negatives), ("cap", cap)):
            if value is not None and not (_is_integer(value) and value >= 1):
                raise ValueError(
                    f"`{argument}` must be None or an integer of at least 1. Received: {value!r}"
                )
        if not _is_integer(seed) or not -(2**31) <= seed < 2**31:
            raise ValueError(f"`seed` must be an integer of 32 bits. Received: {seed!r}")
        if not isinstance(jit_compile, bool):
            raise ValueError(f"`jit_compile` must be True or False. Received: {jit_compile!r}")
        self.over = over
        self.margin = float(margin)
        self.weighting = weighting
        self.negatives = negatives
        self.cap = cap
        self.seed = seed
        self.jit_compile = jit_compile
        self._pass = self._pass_over_pairs
        if jit_compile:
            self._pass = tf.function(self._pass, jit_compile=True, autograph=False)

    def pair_loss(self, difference):
        """The loss of pairs.

        Args:
            difference: float32 of any shape, the score of the item with the higher label minus
                that of the other.

        Returns:
            The losses, like ``difference``. TensorFlow operations that are differentiable.
        """
        raise NotImplementedError

    def sums(self, labels, scores, queries=None, weights=None):
        """The sum of the losses and what to divide it by.

        Args:
            labels: ``[batch, list]``, or ``[rows]`` or ``[rows, 1]`` with ``queries``; any number
                type. Negative or NaN is no label.
            scores: the same shape; any floating type. Without a label they are not read.
            queries: integers ``[rows]`` of any type, for flat rows.
            weights: the same shape as labels, weights of the items; a pair has that of its higher
                item, as in TF-Ranking. They multiply losses, not counts.

        Returns:
            ``(sum, count)``, float32 scalars whose ratio is the loss. ``over="pairs"``: the sum
            over pairs and their number. ``over="lists"``: the sum over lists of the mean over
            their pairs, and the number of lists with a pair. (0, 0) without a pair.

        Raises:
            ValueError: shapes or the type of ``queries`` are not as above.
        """
        values, counts = self._list_sums(labels, scores, queries, weights, mean=self.over)
        if self.over == "lists":
            counts = tf.cast(counts > 0, tf.float32)
        return tf.reduce_sum(values), tf.reduce_sum(counts)

    def call(self, y_true, y_pred):
        return self._list_sums(y_true, y_pred, None, None, mean="lists")[0]

    def get_config(self):
        return {
            **super().get_config(),
            "over": self.over,
            "margin": self.margin,
            "weighting": self.weighting,
            "negatives": self.negatives,
            "cap": self.cap,
            "seed": self.seed,
            "jit_compile": self.jit_compile,
        }

    def _list_sums(self, labels, scores, queries, weights, mean):
        """Per list the sum, or with ``mean="lists"`` the mean, over its pairs, and their number."""
        labels, scores, queries, weights = _read(labels, scores, queries, weights)
        lists = labels.shape[0]
        if not self.jit_compile or queries is not None or lists is None:
            return self._sums_of_lists(labels, scores, queries, weights, mean)
        # A compiled pass keeps to one core: some lists on each, side by side.
        edges = np.linspace(0, lists, min(lists, os.cpu_count() or 1, MOST_PARTS) + 1).astype(int)
        parts = [
            self._sums_of_lists(
                labels[low:high],
                scores[low:high],
                None,
                None if weights is None else weights[low:high],
                mean,
            )
            for low, high in itertools.pairwise(edges)
        ]
        values, counts = zip(*parts, strict=True)
        return tf.concat(values, 0), tf.concat(counts, 0)

    def _sums_of_lists(self, labels, scores, queries, weights, mean):
        """As :meth:`_list_sums`, of what has been read, in one pass."""

        @tf.custom_gradient
        def values_of(scores):
            # Value and gradient come from one pass over the pairs.
            values, counts, gradient, order, ids = self._pass(
                labels, tf.stop_gradient(scores), queries, weights, mean
            )

            def backward(upstream, _):
                found = gradient * tf.gather(upstream, ids)
                found = tf.scatter_nd(order[:, tf.newaxis], found, tf.shape(found))
                return tf.reshape(found, tf.shape(scores))

            return (values, counts), backward

        return values_of(scores)

    def _pass_over_pairs(self, labels, scores, queries, weights, mean):
        """Values and counts ``[lists]``; of sorted items their gradient, order and list."""
        layout = padded_layout(labels) if queries is None else row_layout(queries)
        labels, scores = tf.reshape(labels, [-1]), tf.reshape(scores, [-1])
        present = labels >= 0
        scores = tf.where(present, scores, tf.zeros_like(scores))
        pairs = find_pairs(layout, labels, self.margin, self.cap)
        per_item = pairs.ends - pairs.begins
        gains, sample, factor = None, None, None
        if self.negatives is not None:
            per_item = tf.minimum(per_item, self.negatives)
            sample = self._sample(scores, pairs, self.negatives)
        counts = _per_list(tf.cast(per_item, tf.float32), layout)
        if mean == "lists":
            factor = tf.math.reciprocal_no_nan(counts)
        if weights is not None:
            weights = tf.reshape(weights, [-1])
            weights = tf.gather(tf.where(present, weights, tf.zeros_like(weights)), pairs.order)
        if self.weighting == "ndcg":
            gains, inverse = _ndcg(layout, labels, scores, pairs.order)
            factor = inverse if factor is None else factor * inverse
        losses, gradient = pair_sums(
            self.pair_loss, tf.gather(scores, pairs.order), pairs, weights, gains, sample
        )
        values = _per_list(losses, layout)
        if factor is not None:
            values *= factor
            gradient *= tf.gather(factor, layout.ids)
        return values, counts, gradient, pairs.order, layout.ids

    def _sample(self, scores, pairs, size: int) -> Sample:
        """A random start for each item, drawn from the seed and the scores' bits."""
        mixed = tf.reduce_sum(tf.bitcast(scores, tf.int32))
        lower = pairs.ends - pairs.begins
        uniform = tf.random.stateless_uniform(
            tf.shape(lower), tf.stack([tf.constant(self.seed), mixed]), alg="philox"
        )
        starts = tf.cast(uniform * tf.cast(lower, tf.float32), tf.int32)
        return Sample(tf.minimum(starts, lower - 1), size)


def _read(labels, scores, queries, weights):
    """Labels, scores, weights as float32 and queries as int64, of checked shapes.

    All are ``[batch, list]`` or, with queries, ``[rows]``.
    """
    labels, scores = tf.convert_to_tensor(labels), tf.convert_to_tensor(scores)
    expected = "[batch, list]" if queries is None else "[rows] or [rows, 1] with `queries`"
    for argument, given in (("labels", labels), ("scores", scores)):
        rank = given.shape.rank
        if queries is None and rank == 1:
            raise ValueError(
                f"`{argument}` must have the shape [batch, list], or `queries` must be given with "
                f"[rows]. Received: {given.shape} without `queries`"
            )
        flat = rank == 1 or (rank == 2 and given.shape[1] == 1)
        if not (rank == 2 if queries is None else flat):
            raise ValueError(
                f"`{argument}` must have the shape {expected}. Received: {given.shape}"
            )
    if queries is None and 1 in (labels.shape[1], scores.shape[1]):
        raise ValueError(
            "`labels` and `scores` must hold lists of at least two items, or `queries` must be "
            f"given with [rows, 1]. Received: {labels.shape} and {scores.shape} without `queries`"
        )
    if queries is None:
        _check_like("scores", scores, "labels", labels)
    else:
        labels, scores = tf.reshape(labels, [-1]), tf.reshape(scores, [-1])
        queries = tf.convert_to_tensor(queries)
        if not queries.dtype.is_integer:
            raise ValueError(f"`queries` must be integers. Received: {queries.dtype.name}")
        # Equal stays equal and different different, which is all that is asked of an id.
        wide = tf.bitcast if queries.dtype == tf.uint64 else tf.cast
        queries = wide(_flat("queries", queries), tf.int64)
        _check_like("scores", scores, "labels", labels)
        _check_like("queries", queries, "labels", labels)
    if weights is not None:
        weights = tf.cast(tf.convert_to_tensor(weights), tf.float32)
        if queries is not None:
            weights = _flat("weights", weights)
        _check_like("weights", weights, "labels", labels)
    return tf.cast(labels, tf.float32), tf.cast(scores, tf.float32), queries, weights


def _flat(argument: str, given):
    """``[rows]`` of ``[rows]`` or ``[rows, 1]``."""
    if given.shape.rank == 1 or (given.shape.rank == 2 and given.shape[1] == 1):
        return tf.reshape(given, [-1])
    raise ValueError(f"`{argument}` must have the shape [rows]. Received: {given.shape}")


def _check_like(argument: str, given, other: str, like) -> None:
    if not given.shape.is_compatible_with(like.shape):
        raise ValueError(
            f"`{argument}` must have the shape of `{other}`, {like.shape}. Received: {given.shape}"
        )


def _per_list(values, layout: Layout):
    """Sums of sorted items over each list, ``[lists]``."""
    return tf.math.unsorted_segment_sum(values, layout.ids, layout.lists)


def _ndcg(layout: Layout, labels, scores, order):
    """Gains and discounts of sorted items, and one over each list's largest DCG ``[lists]``.

    Gains are divided by 2 to the list's highest label, which NDCG does not see, so that they
    cannot overflow.
    """
    present = labels >= 0
    lowest = tf.constant(float("-inf"))
    # NaN would leave the sort without an order.
    keys = tf.where(present & ~tf.math.is_nan(scores), scores, lowest)
    places = tf.range(size_of(labels, 0)) - layout.starts
    by_score = layout.sort(keys)[:, tf.newaxis]
    ranks = tf.gather(tf.scatter_nd(by_score, places, tf.shape(places)), order)
    labels = tf.gather(tf.where(present, labels, tf.zeros_like(labels)), order)
    # The first of a list's sorted items has its highest label.
    highest = tf.gather(labels, layout.starts)
    gains = tf.pow(2.0, labels - highest) - tf.pow(2.0, -highest)
    ideal = _per_list(gains * _discount(places), layout)
    return Gains(gains, _discount(ranks)), tf.math.reciprocal_no_nan(ideal)


def _discount(ranks):
    """Of ranks that count from 0."""
    return math.log(2.0) / tf.math.log1p(tf.cast(ranks, tf.float32) + 1.0)


def _is_integer(value) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
