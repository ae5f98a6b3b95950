"""Adam whose steps are small against the weights they change."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl import compat

#: The largest step of a weight: this part of it, plus this.
RELATIVE, ABSOLUTE = 0.5, 1e-2


def clip(update, value, rate, relative: float = RELATIVE, absolute: float = ABSOLUTE):
    r"""A variable's update, scaled so that no entry moves too far at once.

    Clippy (Tang et al., *Improving Training Stability for Multitask Ranking Models in Recommender
    Systems*, KDD 2023, Algorithm 2): one factor for the whole variable,

    .. math:: \min\Big(1,\; \min_j \frac{\lambda_{rel}|\theta_j| + \lambda_{abs}}
              {\eta|\Delta_j|}\Big).

    Args:
        update: :math:`\Delta`, of the variable's shape, or ``[tasks, ...]``, each with a factor of
            its own.
        value: :math:`\theta`.
        rate: :math:`\eta`.
    """
    allowed = relative * tf.abs(value) + absolute
    ratios = rate * tf.abs(update) / allowed
    axes = list(range(update.shape.rank - value.shape.rank, update.shape.rank))
    largest = tf.reduce_max(ratios, axis=axes, keepdims=True) if axes else ratios
    return update / tf.maximum(largest, tf.ones_like(largest))


@keras.saving.register_keras_serializable("tfmtl")
class Clippy(keras.optimizers.Adam):
    r"""Adam with :func:`clip` on every variable's step.

    Args:
        relative: :math:`\lambda_{rel}`.
        absolute: :math:`\lambda_{abs}`, above 0: a weight of 0 would stop its whole variable.
        **kwargs: Adam's.

    Raises:
        ValueError: ``relative`` below 0, or ``absolute`` not above 0.
    """

    #: Its updates are Adam's, as long as it does not clip.
    formula = keras.optimizers.Adam

    def __init__(self, *args, relative: float = RELATIVE, absolute: float = ABSOLUTE, **kwargs):
        if not relative >= 0:
            raise ValueError(f"`relative` must be at least 0. Received: {relative}")
        if not absolute > 0:
            raise ValueError(f"`absolute` must be above 0. Received: {absolute}")
        super().__init__(*args, **kwargs)
        self.relative = float(relative)
        self.absolute = float(absolute)

    def update_step(self, gradient, variable, *learning_rate):
        value = tf.identity(compat.tf_variable(variable))
        super().update_step(gradient, variable, *learning_rate)
        step = value - compat.tf_variable(variable)
        variable.assign(value - clip(step, value, 1.0, self.relative, self.absolute))

    def get_config(self):
        return {**super().get_config(), "relative": self.relative, "absolute": self.absolute}
