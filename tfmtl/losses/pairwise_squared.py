"""The squared loss of pairs."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl.losses.pairwise import PairwiseLoss


@keras.saving.register_keras_serializable("tfmtl")
class PairwiseSquared(PairwiseLoss):
    r"""The squared loss of pairs: scores shall differ by one, no less and no more.

    .. math:: \ell(z_i - z_j) = \big(1 - (z_i - z_j)\big)^2.

    It is a surrogate of AUC that is consistent with it (Gao and Zhou, *On the Consistency of AUC
    Pairwise Optimization*, IJCAI 2015). TF-Ranking's ``PairwiseMSELoss`` is another: it asks for
    the difference of the labels and counts pairs of equal labels.
    The arguments are those of :class:`PairwiseLoss`.
    """

    def pair_loss(self, difference):
        return tf.square(1.0 - difference)
