"""Scales learnt so that all losses come to the same size."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl.balancers.adam import Adam
from tfmtl.balancers.base import check_non_negative
from tfmtl.balancers.losses import LossBalancer


@keras.saving.register_keras_serializable("tfmtl")
class IMTLL(LossBalancer):
    r"""Learns a scale for each loss that brings all of them to 1.

    IMTL-L (Liu et al., *Towards Impartial Multi-task Learning*, ICLR 2021, equation 9 with base e):

    .. math:: \min_{\theta, s} \sum_i \big(e^{s_i} L_i - s_i\big),

    which is at rest where :math:`e^{s_i} L_i = 1`. The weight is :math:`e^{s_i}`; :math:`s` starts
    at 0 and has an Adam of its own instead of the network's optimizer.

    Args:
        learning_rate: of :math:`s`.

    Raises:
        ValueError: ``learning_rate`` is negative or not finite.
    """

    def __init__(self, learning_rate: float = 1e-3, **kwargs):
        super().__init__(**kwargs)
        check_non_negative("learning_rate", learning_rate)
        self.learning_rate = float(learning_rate)

    def build(self, input_shape):
        self._s = Adam(self, "s", len(self.tasks), self.learning_rate)
        super().build(input_shape)

    def weigh(self, losses):
        weights = tf.exp(self._s.value())
        slope = weights * losses - 1
        self._s.descend(tf.where(tf.equal(losses, 0), tf.zeros_like(slope), slope))
        return weights

    def get_config(self):
        return {**super().get_config(), "learning_rate": self.learning_rate}
