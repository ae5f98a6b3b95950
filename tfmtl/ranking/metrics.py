"""TF-Ranking's metrics over padded lists."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl import compat

#: TF-Ranking's keys: the class of ``metrics_impl``, and its options beside ``topn``.
KINDS = {
    "mrr": ("MRRMetric", ("topn",)),
    "arp": ("ARPMetric", ()),
    "ndcg": ("NDCGMetric", ("topn",)),
    "dcg": ("DCGMetric", ("topn",)),
    "precision": ("PrecisionMetric", ("topn",)),
    "recall": ("RecallMetric", ("topn",)),
    "map": ("MeanAveragePrecisionMetric", ("topn",)),
    "ordered_pair_accuracy": ("OPAMetric", ()),
    "hits": ("HitsMetric", ("topn",)),
    "bpref": ("BPrefMetric", ("topn", "use_trec_version")),
}


@keras.saving.register_keras_serializable("tfmtl")
class RankingMetric(keras.metrics.Mean):
    """A metric of TF-Ranking's, by its key.

    Labels and predictions are ``[batch, list]``, one query a row. A NaN or negative label, or a
    weight of 0, makes an item padding. The result is the weighted mean over lists. A list weighs
    the mean of its items' weights, weighted by their relevance; in ``arp`` and
    ``ordered_pair_accuracy`` it weighs its labels or pairs instead. A list without a relevant item
    is a 0 that counts (in ``arp`` and ``ordered_pair_accuracy`` it weighs 0). Ties are broken at
    random. All this is TF-Ranking's.

    One thing is not: a list in which *no* item has a label does not count. ``tfr.keras.metrics``
    count it as 0 unless its sample weights are 0.

    Args:
        key: ``"mrr"``, ``"arp"``, ``"ndcg"``, ``"dcg"``, ``"precision"``, ``"recall"``,
            ``"map"``, ``"ordered_pair_accuracy"``, ``"hits"`` or ``"bpref"``.
        topn: how many of the highest predictions are looked at, all by default; not for ``arp``
            and ``ordered_pair_accuracy``.
        name: ``"ndcg_10"``, the key and ``topn``, by default.
        dtype: of the sums that are kept.
        **options: ``use_trec_version`` of ``bpref``.

    Raises:
        ImportError: TF-Ranking is not installed.
        ValueError: an unknown key or option, or ``topn`` below 1.
    """

    def __init__(self, key: str, topn: int | None = None, *, name=None, dtype=None, **options):
        if key not in KINDS:
            raise ValueError(f"`key` must be one of {sorted(KINDS)}. Received: {key!r}")
        implementation, allowed = KINDS[key]
        if topn is not None and not (isinstance(topn, int) and topn >= 1):
            raise ValueError(f"`topn` must be None or an integer of at least 1. Received: {topn!r}")
        given = {**options, "topn": topn} if topn is not None else options
        unknown = sorted(set(given) - set(allowed))
        if unknown:
            raise ValueError(
                f"`options` of {key!r} must be some of {list(allowed)}. Received: {unknown}"
            )
        super().__init__(name=name or (f"{key}_{topn}" if topn else key), dtype=dtype)
        self.key = key
        self.topn = topn
        self.options = dict(options)
        if "topn" in allowed:
            given = {**options, "topn": topn}
        metrics_impl = compat.tensorflow_ranking().metrics_impl
        self._metric = getattr(metrics_impl, implementation)(name=self.name, **given)

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add the lists of a batch.

        Args:
            y_true: ``[batch, list]``.
            y_pred: the same shape.
            sample_weight: ``[batch, list]``, ``[batch, 1]`` or ``[batch]``.

        Raises:
            ValueError: shapes are not as above.
        """
        labels = tf.cast(tf.convert_to_tensor(y_true), tf.float32)
        scores = tf.cast(tf.convert_to_tensor(y_pred), tf.float32)
        if labels.shape.rank != 2 or not scores.shape.is_compatible_with(labels.shape):
            raise ValueError(
                "`y_true` and `y_pred` must both have the shape [batch, list]. "
                f"Received: {labels.shape} and {scores.shape}"
            )
        weights = tf.ones_like(labels)
        if sample_weight is not None:
            given = tf.cast(tf.convert_to_tensor(sample_weight), tf.float32)
            weights *= given[:, tf.newaxis] if given.shape.rank == 1 else given
        present = (labels >= 0) & (weights > 0)
        values, shares = self._metric.compute(
            tf.where(present, labels, -tf.ones_like(labels)),
            tf.where(present, scores, tf.zeros_like(scores)),
            tf.where(present, weights, tf.zeros_like(weights)),
        )
        return super().update_state(values[:, 0], sample_weight=shares[:, 0])

    def get_config(self):
        return {
            **super().get_config(),
            "key": self.key,
            "topn": self.topn,
            **self.options,
        }


def metric(key: str, topn: int | None = None, **options) -> RankingMetric:
    """A metric by TF-Ranking's key, as ``tfr.keras.metrics.get``; see :class:`RankingMetric`."""
    return RankingMetric(key, topn, **options)
