"""Moments of each task's own."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl.balancers.updates import UpdateBalancer


@keras.saving.register_keras_serializable("tfmtl")
class AdaTask(UpdateBalancer):
    r"""Gives every task moments of its own over the shared variables and sums the updates.

    AdaTask (Yang et al., *AdaTask: A Task-aware Adaptive Learning Rate Approach to Multi-task
    Learning*, AAAI 2023, equation 5 and its table of optimizers):

    .. math:: \theta \leftarrow \theta - \eta\sum_i \Delta\theta_i, \qquad
              \Delta\theta_i = f(g_i; m_i, v_i).

    A task with large gradients does not shrink the steps of the others. The state holds one set of
    the optimizer's slots for every task and shared variable; every step takes every task's
    gradient.
    """

    own_moments = True

    def __init__(self, **kwargs):
        super().__init__(update_every=1, **kwargs)

    def weigh(self, losses, gramian, whole=None):
        return tf.ones_like(gramian[0])

    def get_config(self):
        config = super().get_config()
        del config["update_every"]
        return config
