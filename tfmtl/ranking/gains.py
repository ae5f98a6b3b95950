"""Lambda weights: what TF-Ranking multiplies pairs or items by, so that a loss follows a metric.

========== =================================================== ========================
name       what a pair weighs                                  options
========== =================================================== ========================
label_diff the difference of labels
dcg        the change of DCG, gain y, discount 1/rank          topn, normalized,
                                                               smooth_fraction
ndcg       the change of NDCG, gain 2^y - 1, discount          topn, smooth_fraction
           1/log2(1 + rank)
ndcg_v2    the same with a better treatment of ``topn``        topn
yeti_dcg   the same of DCG, between neighbours by score alone  topn, normalized
precision  the change of precision at ``topn``                 topn (required)
list_mle   an item's: 1/log2(1 + rank), for list_mle_loss
========== =================================================== ========================

They are those of ``tfr.keras.losses`` with the gains and discounts these have by default; that of
``list_mle`` is the one TF-Ranking documents, as it has none by default. Other functions can be had
with a loss object of ``tfr.keras.losses`` itself, where that imports.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from tfmtl import compat

#: The options of each lambda weight.
OPTIONS = {
    "label_diff": (),
    "dcg": ("topn", "normalized", "smooth_fraction"),
    "ndcg": ("topn", "smooth_fraction"),
    "ndcg_v2": ("topn",),
    "yeti_dcg": ("topn", "normalized"),
    "precision": ("topn",),
    "list_mle": (),
}


def check_lambda_weight(given, key: str, allowed: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless it is ``None`` or describes a weight that this loss uses."""
    if given is None:
        return
    name, options = _split(given)
    if name not in allowed:
        raise ValueError(
            f"`lambda_weight` of {key!r} must be "
            f"{f'one of {sorted(allowed)}' if allowed else 'None'}. Received: {given!r}"
        )
    unknown = sorted(set(options) - set(OPTIONS[name]))
    if unknown:
        raise ValueError(
            f"`lambda_weight` {name!r} has the options {list(OPTIONS[name])}. Received: {unknown}"
        )
    topn = options.get("topn")
    if (topn is not None or name == "precision") and not (isinstance(topn, int) and topn >= 1):
        raise ValueError(
            f"`lambda_weight` {name!r} needs an integer `topn` of at least 1. Received: {topn!r}"
        )


def make_lambda_weight(given):
    """The object of ``losses_impl`` that a checked description means; ``None`` for ``None``."""
    if given is None:
        return None
    losses_impl = compat.tensorflow_ranking().losses_impl
    name, options = _split(given)
    graded = {"topn": None, "gain_fn": _exponential, "rank_discount_fn": _logarithmic}
    if name == "label_diff":
        return losses_impl.LabelDiffLambdaWeight()
    if name == "dcg":
        linear = {"gain_fn": lambda label: label, "rank_discount_fn": _reciprocal}
        return losses_impl.DCGLambdaWeight(**linear, **options)
    if name == "ndcg":
        return losses_impl.DCGLambdaWeight(**{**graded, **options}, normalized=True)
    if name == "ndcg_v2":
        return losses_impl.DCGLambdaWeightV2(**{**graded, **options}, normalized=True)
    if name == "yeti_dcg":
        return losses_impl.YetiDCGLambdaWeight(**{**graded, **options})
    if name == "precision":
        return losses_impl.PrecisionLambdaWeight(**options)
    return losses_impl.ListMLELambdaWeight(rank_discount_fn=_logarithmic)


def _split(given) -> tuple[str, dict]:
    if isinstance(given, str):
        return given, {}
    if isinstance(given, Mapping) and isinstance(given.get("name"), str):
        return given["name"], {key: value for key, value in given.items() if key != "name"}
    raise ValueError(
        f"`lambda_weight` must be a name, or a dict with a 'name' and options. Received: {given!r}"
    )


def _exponential(labels):
    return tf.pow(2.0, labels) - 1.0


def _logarithmic(ranks):
    return tf.math.divide_no_nan(tf.math.log(2.0), tf.math.log1p(ranks))


def _reciprocal(ranks):
    return tf.math.divide_no_nan(1.0, ranks)
