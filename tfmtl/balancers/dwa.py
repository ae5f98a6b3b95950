"""Weights from how fast the losses fell in the last epochs."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl import compat
from tfmtl.balancers.losses import LossBalancer, size_of


@keras.saving.register_keras_serializable("tfmtl")
class DWA(LossBalancer):
    r"""Weighs a task the more the slower its loss fell.

    Dynamic Weight Average (Liu et al., *End-to-End Multi-Task Learning with Attention*, CVPR 2019,
    equation 7), with the mean losses of the last two epochs:

    .. math:: w_i = n\,\mathrm{softmax}_i\big(r_i/T\big), \qquad
              r_i = \frac{L_i(t-1)}{L_i(t-2)}.

    The weights are 1 in the first two epochs. An epoch's mean is that of its steps.

    Args:
        temperature: :math:`T`, above 0; large values make the weights equal.

    Raises:
        ValueError: ``temperature`` is not a finite number above 0.
    """

    def __init__(self, temperature: float = 2.0, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(temperature, (int, float)) or not 0 < temperature < float("inf"):
            raise ValueError(
                f"`temperature` must be a finite number above 0. Received: {temperature}"
            )
        self.temperature = float(temperature)

    def build(self, input_shape):
        n = len(self.tasks)
        # Sums of losses and counts in this epoch; means of the last and of the one before, 0
        # where there is none yet.
        self._sums = compat.add_state(self, "sums", (2, n))
        self._means = compat.add_state(self, "means", (2, n))
        super().build(input_shape)

    def weigh(self, losses):
        present = tf.cast(tf.not_equal(losses, 0), tf.float32)
        self._sums.assign_add(tf.stack([losses, present]))
        last, before = tf.unstack(tf.convert_to_tensor(self._means))
        rates = tf.where(before == 0, tf.ones_like(last), tf.abs(last) / size_of(before))
        return len(self.tasks) * tf.nn.softmax(tf.clip_by_value(rates, 0, 1e30) / self.temperature)

    def end_epoch(self) -> None:
        """The losses seen since the last call are those of an epoch."""
        sums, counts = tf.unstack(tf.convert_to_tensor(self._sums))
        last = tf.unstack(tf.convert_to_tensor(self._means))[0]
        mean = tf.where(counts > 0, tf.math.divide_no_nan(sums, counts), last)
        self._means.assign(tf.stack([mean, last]))
        self._sums.assign(tf.zeros_like(self._sums))

    def callbacks(self):
        return [keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: self.end_epoch())]

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature}
