"""All losses fall at the same relative rate, from losses alone."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl import solvers
from tfmtl.balancers.adam import Adam
from tfmtl.balancers.base import check_non_negative
from tfmtl.balancers.losses import LossBalancer, size_of


@keras.saving.register_keras_serializable("tfmtl")
class FAMO(LossBalancer):
    r"""Decreases all losses at an equal relative rate, in the time and space of one task.

    FAMO (Liu et al., *Fast Adaptive Multitask Optimization*, NeurIPS 2023, Algorithm 1): with
    :math:`z = \mathrm{softmax}(\xi)` the step follows

    .. math:: \sum_i w_i \nabla L_i, \qquad
              w_i = c\,\frac{z_i}{L_i - b_i}, \quad
              c = \Big(\sum_i \frac{z_i}{L_i - b_i}\Big)^{-1},

    and after it :math:`\xi` descends, by Adam, along :math:`J_z^\top\delta + \gamma\xi` with
    :math:`\delta_i = \log(L_i - b_i) - \log(L_i' - b_i)`, where :math:`L'` are the losses of the
    same batch after the step: one more forward pass. The bounds :math:`b_i` are 0, a loss's
    absolute value stands in for a negative one, and a task without a label in the batch weighs 0
    and has :math:`\delta_i` at the mean of the others.

    Args:
        learning_rate: of :math:`\xi` (the authors' 0.025).
        decay: :math:`\gamma` (the authors' 0.001).

    Raises:
        ValueError: an argument is negative or not finite.
    """

    looks_back = True

    def __init__(self, learning_rate: float = 0.025, decay: float = 1e-3, **kwargs):
        super().__init__(**kwargs)
        check_non_negative("learning_rate", learning_rate)
        check_non_negative("decay", decay)
        self.learning_rate = float(learning_rate)
        self.decay = float(decay)

    def build(self, input_shape):
        self._logits = Adam(self, "logits", len(self.tasks), self.learning_rate)
        super().build(input_shape)

    def weigh(self, losses):
        shares = tf.nn.softmax(self._logits.value())
        present = tf.cast(tf.not_equal(losses, 0), tf.float32)
        return solvers.shares(present * shares / size_of(losses))

    def look_back(self, losses, losses_after):
        present = tf.cast(tf.not_equal(losses, 0), tf.float32)
        fall = tf.math.log(size_of(losses)) - tf.math.log(size_of(losses_after))
        mean = tf.math.divide_no_nan(tf.reduce_sum(present * fall), tf.reduce_sum(present))
        fall = tf.where(present > 0, fall, mean)
        shares = tf.nn.softmax(self._logits.value())
        slope = shares * (fall - tf.reduce_sum(shares * fall))
        self._logits.descend(slope, self.decay)

    def get_config(self):
        return {**super().get_config(), "learning_rate": self.learning_rate, "decay": self.decay}
