"""The hinge loss of pairs."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl.losses.pairwise import PairwiseLoss


@keras.saving.register_keras_serializable("tfmtl")
class PairwiseHinge(PairwiseLoss):
    r"""The hinge loss of pairs, TF-Ranking's.

    .. math:: \ell(z_i - z_j) = \max(0, 1 - (z_i - z_j)).

    The arguments are those of :class:`PairwiseLoss`.
    """

    def pair_loss(self, difference):
        return tf.nn.relu(1.0 - difference)
