"""TF-Ranking's losses over padded lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfmtl import compat
from tfmtl.ranking.gains import check_lambda_weight, make_lambda_weight


class Kind(NamedTuple):
    """What a key stands for.

    Attributes:
        implementation: a class of ``losses_impl``.
        options: names of its options and what they are by default, as in ``tfr.keras.losses`` of
            TF-Ranking 0.5.5.
        lambda_weights: the weights that have an effect on it.
        default_lambda_weight: the one it has by default.
    """

    implementation: str
    options: Mapping[str, Any]
    lambda_weights: tuple[str, ...] = ()
    default_lambda_weight: str | None = None


_PAIR_WEIGHTS = ("label_diff", "dcg", "ndcg", "ndcg_v2", "yeti_dcg", "precision")
_SAMPLES = {"sample_size": 8, "gumbel_temperature": 1.0, "seed": None}

#: The keys of ``tfr.keras.losses.RankingLossKey``.
KINDS = {
    "pairwise_hinge_loss": Kind("PairwiseHingeLoss", {"temperature": 1.0}, _PAIR_WEIGHTS),
    "pairwise_logistic_loss": Kind("PairwiseLogisticLoss", {"temperature": 1.0}, _PAIR_WEIGHTS),
    "pairwise_soft_zero_one_loss": Kind(
        "PairwiseSoftZeroOneLoss", {"temperature": 1.0}, _PAIR_WEIGHTS
    ),
    "pairwise_mse_loss": Kind("PairwiseMSELoss", {"temperature": 1.0}, _PAIR_WEIGHTS),
    "yeti_logistic_loss": Kind(
        "PairwiseLogisticLoss", {"temperature": 1.0, **_SAMPLES}, ("yeti_dcg",), "yeti_dcg"
    ),
    "softmax_loss": Kind("SoftmaxLoss", {"temperature": 1.0}, ("dcg", "ndcg")),
    "calibrated_softmax_loss": Kind(
        "SoftmaxLoss", {"temperature": 1.0, "virtual_label": 0.0}, ("dcg", "ndcg")
    ),
    "unique_softmax_loss": Kind("UniqueSoftmaxLoss", {"temperature": 1.0}),
    "sigmoid_cross_entropy_loss": Kind("SigmoidCrossEntropyLoss", {}),
    "mean_squared_loss": Kind("MeanSquaredLoss", {}),
    "ordinal_loss": Kind("OrdinalLoss", {"ordinal_size": 1, "use_fraction_label": False}),
    "list_mle_loss": Kind("ListMLELoss", {"temperature": 1.0}, ("list_mle",)),
    "approx_ndcg_loss": Kind("ApproxNDCGLoss", {"temperature": 0.1}),
    "approx_mrr_loss": Kind("ApproxMRRLoss", {"temperature": 0.1}),
    "gumbel_approx_ndcg_loss": Kind("ApproxNDCGLoss", {"temperature": 0.1, **_SAMPLES}),
    "coupled_rankdistil_loss": Kind(
        "CoupledRankDistilLoss", {"sample_size": 8, "topk": None, "temperature": 1.0}
    ),
}


class Lists(NamedTuple):
    """How an implementation of TF-Ranking is applied to lists.

    Attributes:
        implementation: an object of ``losses_impl``.
        sampler: a ``losses_impl.GumbelSampler`` of scores, or ``None``.
        samples: how many it draws.
        virtual_label: the label of an item of score 0 that joins every list, or ``None``.
    """

    implementation: Any
    sampler: Any = None
    samples: int = 1
    virtual_label: float | None = None

    def losses(self, labels, scores, weights):
        """The loss of each list and what it weighs, float32 ``[batch]`` both.

        Args:
            labels: float32 ``[batch, list]``; -1 where there is no label.
            scores: float32 ``[batch, list]`` or, for losses with several scores an item,
                ``[batch, list, scores]``; finite also where there is no label.
            weights: float32 ``[batch, list]`` or ``[batch, 1]``, or ``None``.
        """
        counted = tf.reduce_any(labels >= 0, axis=1)
        if self.virtual_label is not None:
            one = tf.ones_like(labels[:, :1])
            if weights is not None and weights.shape[1] != 1:
                weights = tf.concat([weights, one], axis=1)
            labels = tf.concat([labels, self.virtual_label * one], axis=1)
            scores = tf.concat([scores, 0.0 * one], axis=1)
        if self.sampler is not None:
            # With weights the sampler joins branches of different rank, which XLA cannot.
            labels, scores, _ = self.sampler.sample(labels, scores)
            if weights is not None:
                weights = tf.repeat(weights, self.samples, axis=0)
        if not isinstance(self.implementation, compat.tensorflow_ranking().losses_impl.SoftmaxLoss):
            # That one does it itself.
            scores = self.implementation.get_logits(scores)
        losses, shares = self.implementation.compute_per_list(labels, scores, weights)
        if self.sampler is not None:
            shares = tf.reshape(shares, [-1, self.samples])
            weighted = tf.reduce_sum(tf.reshape(losses, [-1, self.samples]) * shares, axis=1)
            losses = tf.math.divide_no_nan(weighted, tf.reduce_sum(shares, axis=1))
            shares = tf.reduce_mean(shares, axis=1)
        # An empty list has a loss, and a weight, with some implementations.
        zero = tf.zeros_like(losses)
        counted &= shares > 0
        return tf.where(counted, losses, zero), tf.where(counted, shares, zero)


@keras.saving.register_keras_serializable("tfmtl")
class RankingLoss(keras.losses.Loss):
    r"""A loss of TF-Ranking's, by its key.

    Labels are ``[batch, list]``, one query a row, and NaN or negative where there is none, as of
    padding; scores are of the same shape, and not read where there is no label. ``ordinal_loss``
    takes scores ``[batch, list, ordinal_size]``.

    TF-Ranking gives a list :math:`q` a loss :math:`\ell_q` and a weight :math:`w_q`:

    ============ ================================ ===========================================
    losses       :math:`\ell_q`                   :math:`w_q`
    ============ ================================ ===========================================
    pairwise     mean over pairs                  the pairs, each with its lambda weight
    pointwise    mean over labelled items         the labelled items
    softmax      cross entropy                    the sum of labels
    the others   as defined                       1 with a label above 0, else 0
    ============ ================================ ===========================================

    :meth:`sums` is :math:`\sum_q w_q \ell_q` and the number of lists with :math:`w_q > 0`.
    ``tfr.keras.losses`` have the same sum and divide it by the batch size (pairwise and pointwise
    losses also by the padded list size), so that there lists without a pair, and padding, make the
    loss smaller.
    Two losses of theirs also count lists without a label above 0 unless given weights:
    ``list_mle_loss`` (in which all their orders are equally right) and ``unique_softmax_loss``
    (whose loss is 0 there). Here they do not count.

    As a plain Keras loss it gives :math:`\ell_q`, ``[batch]``, 0 for a list that does not count.

    The Yeti, Gumbel and RankDistil losses draw samples, and ``list_mle_loss`` an order of equal
    labels, from TensorFlow's global generator: a resumed run draws others than the unbroken one.

    TF-Ranking 0.5.3's own Keras face ignores ``temperature`` in losses other than the pairwise
    ones and softmax. Here it has its meaning, and 0.5.5's default, with either version.

    Args:
        key: see :data:`tfmtl.ranking.losses.KINDS`.
        lambda_weight: a name, or a dict of ``"name"`` and options, as
            ``{"name": "ndcg", "topn": 10}``; see :mod:`tfmtl.ranking.gains`.
        reduction: as of every Keras loss; :meth:`sums` is without it.
        name: the key by default.
        **options: the loss's own, see ``KINDS``.

    Raises:
        ImportError: TF-Ranking is not installed.
        ValueError: an unknown key or option, or a lambda weight without effect on this loss.
    """

    def __init__(
        self,
        key: str,
        *,
        lambda_weight: str | Mapping | None = None,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
        **options,
    ):
        if key not in KINDS:
            raise ValueError(f"`key` must be one of {sorted(KINDS)}. Received: {key!r}")
        kind = KINDS[key]
        unknown = sorted(set(options) - set(kind.options))
        if unknown:
            raise ValueError(
                f"`options` of {key!r} must be some of {sorted(kind.options)}. Received: {unknown}"
            )
        if lambda_weight is None:
            lambda_weight = kind.default_lambda_weight
        check_lambda_weight(lambda_weight, key, kind.lambda_weights)
        super().__init__(reduction=reduction, name=name or key)
        self.key = key
        self.lambda_weight = lambda_weight
        self.options = {**kind.options, **options}
        _check_options(self.options)
        self._lists = _make_lists(kind, self.options, make_lambda_weight(lambda_weight))

    def sums(self, labels, scores, queries=None, weights=None):
        """The sum of the losses and what to divide it by.

        Args:
            labels: ``[batch, list]``, any number type; negative or NaN is no label.
            scores: the same shape, any floating type.
            queries: must be ``None``: TF-Ranking knows padded lists alone.
            weights: ``[batch, list]`` or ``[batch, 1]``. A pair has that of its higher item, a list
                the mean of its items' weighted by their labels, as in TF-Ranking. They multiply
                losses, not counts.

        Returns:
            ``(sum, count)``, float32 scalars; (0, 0) where no list counts.

        Raises:
            ValueError: ``queries`` are given, or shapes are not as above.
        """
        return _sums(self._lists, labels, scores, queries, weights)

    def call(self, y_true, y_pred):
        labels, scores = _read(y_true, y_pred)
        return self._lists.losses(labels, scores, None)[0]

    def get_config(self):
        return {
            **super().get_config(),
            "key": self.key,
            "lambda_weight": self.lambda_weight,
            **self.options,
        }


def loss(key: str, **options) -> RankingLoss:
    """A loss by TF-Ranking's key, as ``tfr.keras.losses.get``; see :class:`RankingLoss`."""
    return RankingLoss(key, **options)


class AdoptedLoss:
    """A loss object of ``tfr.keras.losses`` with :meth:`sums`; see :func:`adopt`."""

    def __init__(self, lists: Lists):
        self._lists = lists

    def sums(self, labels, scores, queries=None, weights=None):
        """As :meth:`RankingLoss.sums`."""
        return _sums(self._lists, labels, scores, queries, weights)


def adopt(loss) -> AdoptedLoss | None:
    """What gives a loss object of ``tfr.keras.losses`` its sums; ``None`` for any other loss.

    It computes what :class:`RankingLoss` of the same key does, with the options, lambda weights and
    gain functions of that object. TF-Ranking is not imported to find out.

    Raises:
        ValueError: a loss for ragged tensors.
    """
    theirs = any(each.__module__.startswith("tensorflow_ranking.") for each in type(loss).__mro__)
    implementation = getattr(loss, "_loss", None)
    if not theirs or not hasattr(implementation, "compute_per_list"):
        return None
    if getattr(loss, "_ragged", False):
        raise ValueError(
            f"`loss` must take padded lists. Received: {type(loss).__name__} with ragged=True"
        )
    sampler = getattr(loss, "_gumbel_sampler", None)
    samples = loss._sample_size if sampler is not None else 1
    return AdoptedLoss(
        Lists(implementation, sampler, samples, getattr(loss, "_virtual_label", None))
    )


def _check_options(options: Mapping) -> None:
    for name, value in options.items():
        if name in ("temperature", "gumbel_temperature") and not value > 0:
            raise ValueError(f"`{name}` must be above 0. Received: {value}")
        if name == "virtual_label" and not value >= 0:
            raise ValueError(f"`virtual_label` must be at least 0. Received: {value}")
        whole = name in ("sample_size", "ordinal_size") or (name == "topk" and value is not None)
        if whole and not (isinstance(value, int) and value >= 1):
            raise ValueError(f"`{name}` must be an integer of at least 1. Received: {value!r}")


def _make_lists(kind: Kind, options: Mapping, lambda_weight) -> Lists:
    """The implementation a key stands for, and what goes before it."""
    losses_impl = compat.tensorflow_ranking().losses_impl
    own = dict(options)
    virtual_label = own.pop("virtual_label", None)
    sampler, samples = None, 1
    if "gumbel_temperature" in own:
        samples = own.pop("sample_size")
        sampler = losses_impl.GumbelSampler(
            sample_size=samples, temperature=own.pop("gumbel_temperature"), seed=own.pop("seed")
        )
    if lambda_weight is not None:
        own["lambda_weight"] = lambda_weight
    implementation = getattr(losses_impl, kind.implementation)(name=None, **own)
    return Lists(implementation, sampler, samples, virtual_label)


def _sums(lists: Lists, labels, scores, queries, weights):
    if queries is not None:
        raise ValueError(
            "TF-Ranking's losses take padded lists, labels and scores [batch, list], not rows with "
            "`queries`. Received: `queries`. The losses of `tfmtl.losses` take both."
        )
    labels, scores = _read(labels, scores)
    if weights is None:
        losses, shares = lists.losses(labels, scores, None)
        return tf.reduce_sum(losses * shares), _number_of(shares)
    weights = tf.cast(tf.convert_to_tensor(weights), tf.float32)
    if weights.shape.rank != 2 or (
        weights.shape[1] != 1 and not weights.shape.is_compatible_with(labels.shape)
    ):
        raise ValueError(
            f"`weights` must have the shape of `labels`, {labels.shape}, or [batch, 1]. "
            f"Received: {weights.shape}"
        )
    losses, shares = lists.losses(labels, scores, weights)
    # Of this call the graph keeps what the number of lists needs, and that are the labels.
    _, unweighted = lists.losses(labels, scores, None)
    return tf.reduce_sum(losses * shares), _number_of(unweighted)


def _number_of(shares):
    return tf.reduce_sum(tf.cast(shares > 0, tf.float32))


def _read(labels, scores):
    """Labels and scores as float32 of checked shapes; -1 for no label, where the score is 0."""
    labels = tf.cast(tf.convert_to_tensor(labels), tf.float32)
    scores = tf.cast(tf.convert_to_tensor(scores), tf.float32)
    if labels.shape.rank != 2 or labels.shape[1] == 1:
        raise ValueError(
            "`labels` must have the shape [batch, list] with lists of at least two items. "
            f"Received: {labels.shape}"
        )
    if scores.shape.rank not in (2, 3) or not scores.shape[:2].is_compatible_with(labels.shape):
        raise ValueError(
            f"`scores` must have the shape of `labels`, {labels.shape}. Received: {scores.shape}"
        )
    present = labels >= 0
    labels = tf.where(present, labels, -tf.ones_like(labels))
    read = present if scores.shape.rank == 2 else present[..., tf.newaxis]
    return labels, tf.where(read, scores, tf.zeros_like(scores))
