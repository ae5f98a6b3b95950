"""Weights from a learnt uncertainty of each task."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl.balancers.adam import Adam
from tfmtl.balancers.base import check_non_negative
from tfmtl.balancers.losses import LossBalancer


@keras.saving.register_keras_serializable("tfmtl")
class Uncertainty(LossBalancer):
    r"""Learns a homoscedastic uncertainty for each task.

    Kendall et al., *Multi-Task Learning Using Uncertainty to Weigh Losses*, CVPR 2018, equation 7,
    with :math:`s_i = \log\sigma_i^2`:

    .. math:: \min_{\theta, s} \sum_i \tfrac12\big(e^{-s_i} L_i + s_i\big).

    The weight is :math:`\tfrac12 e^{-s_i}`, best where it is :math:`1/(2 L_i)`. Departs from the
    authors in that :math:`s` has an Adam of its own instead of the network's optimizer. It starts
    at 0; the paper's code at 0, LibMTL's at -0.5.

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
        weights = 0.5 * tf.exp(-self._s.value())
        slope = 0.5 - weights * losses
        self._s.descend(tf.where(tf.equal(losses, 0), tf.zeros_like(slope), slope))
        return weights

    def get_config(self):
        return {**super().get_config(), "learning_rate": self.learning_rate}
