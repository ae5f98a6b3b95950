"""The sum of the losses' logarithms."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl.balancers.losses import LossBalancer, size_of


@keras.saving.register_keras_serializable("tfmtl")
class SI(LossBalancer):
    r"""Minimises the sum of the logarithms of the losses, which their scales do not reach.

    The scale-invariant baseline of Nash-MTL and FAMO:

    .. math:: \min_\theta \sum_i \log L_i(\theta), \qquad w_i = 1/L_i.

    Departs from it where a loss is 0 or negative: :math:`w_i = 1/\max(|L_i|, 10^{-8})`, and 0 for
    a task without a label in the batch.
    """

    def weigh(self, losses):
        return tf.where(tf.equal(losses, 0), tf.zeros_like(losses), 1 / size_of(losses))
