"""The logistic loss of pairs."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl.losses.pairwise import PairwiseLoss


@keras.saving.register_keras_serializable("tfmtl")
class PairwiseLogistic(PairwiseLoss):
    r"""The logistic loss of pairs, RankNet's.

    Cheng et al., *No More Tuning*, AAAI 2025, equation 10:

    .. math:: \ell(z_i - z_j) = -\log\sigma(z_i - z_j) = \log\big(1 + e^{-(z_i - z_j)}\big).

    The arguments are those of :class:`PairwiseLoss`.
    """

    def pair_loss(self, difference):
        return tf.nn.softplus(-difference)
