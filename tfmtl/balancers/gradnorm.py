"""Weights learnt so that the tasks train at similar rates."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl import compat, solvers
from tfmtl.balancers.adam import Adam
from tfmtl.balancers.base import check_non_negative
from tfmtl.balancers.gramian import GramianBalancer

#: No task's weight falls below this part of the mean.
LEAST = 1e-3


@keras.saving.register_keras_serializable("tfmtl")
class GradNorm(GramianBalancer):
    r"""Learns weights that bring the tasks' gradient norms to a common scale.

    GradNorm (Chen et al., ICML 2018, equation 2): the weights descend on

    .. math:: \sum_i \Big| w_i\|g_i\| - \bar G\, r_i^{a} \Big|, \qquad
              \bar G = \frac1n\sum_i w_i\|g_i\|, \quad
              r_i = \frac{L_i/L_i(0)}{\tfrac1n\sum_j L_j/L_j(0)},

    the target held constant, and are scaled to sum to n after every step.

    Departs from the paper: the gradients are those over all shared variables, not the last shared
    layer; the weights move in their logarithm, so that they stay above 0; :math:`L_i(0)` is the
    loss in the first step in which the task has one.

    Args:
        asymmetry: :math:`a`; 0 evens out the norms whatever the losses. (Paper: 1.5 for tasks of
            different kinds, 0.12 for similar ones.)
        learning_rate: of Adam for the weights.
        update_every: as in :class:`~tfmtl.balancers.gramian.GramianBalancer`.

    Raises:
        ValueError: an argument is negative or not finite.
    """

    def __init__(
        self,
        asymmetry: float = 1.5,
        learning_rate: float = 0.025,
        update_every: int = 1,
        **kwargs,
    ):
        super().__init__(update_every, **kwargs)
        check_non_negative("asymmetry", asymmetry)
        check_non_negative("learning_rate", learning_rate)
        self.asymmetry = float(asymmetry)
        self.learning_rate = float(learning_rate)

    def build(self, input_shape):
        n = len(self.tasks)
        self._logits = Adam(self, "logits", n, self.learning_rate)
        self._first_losses = compat.add_state(self, "first_losses", (n,))
        super().build(input_shape)

    def weigh(self, losses, gramian):
        n = tf.cast(tf.size(losses), tf.float32)
        losses = tf.abs(tf.cast(losses, tf.float32))
        norms = tf.sqrt(tf.maximum(tf.linalg.diag_part(tf.cast(gramian, tf.float32)), 0))
        first = tf.convert_to_tensor(self._first_losses)
        first = tf.where(first > 0, first, losses)
        self._first_losses.assign(first)
        weights = self._weights_now(n)
        rates = n * solvers.shares(tf.math.divide_no_nan(losses, first))
        scaled = weights * norms
        target = tf.reduce_mean(scaled) * rates**self.asymmetry
        slope = tf.sign(scaled - target) * scaled
        # Adam does not see the slopes' common scale, which may be far from 1.
        self._logits.descend(tf.math.divide_no_nan(slope, tf.reduce_mean(scaled)))
        return tf.cast(self._weights_now(n), gramian.dtype)

    def _weights_now(self, n):
        return n * solvers.shares(tf.maximum(tf.nn.softmax(self._logits.value()), LEAST / n))

    def get_config(self):
        return {
            **super().get_config(),
            "asymmetry": self.asymmetry,
            "learning_rate": self.learning_rate,
        }
