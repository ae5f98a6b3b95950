"""Mirror ascent on the losses, within a ball around equal weights."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl import compat, solvers
from tfmtl.balancers.base import check_non_negative
from tfmtl.balancers.losses import LossBalancer


@keras.saving.register_keras_serializable("tfmtl")
class BanditMTL(LossBalancer):
    r"""Regularises the variance of the losses: an adversary weighs the larger ones more.

    BanditMTL (Mao et al., ACL 2021, Algorithm 1):

    .. math:: \min_\theta \max_{p \in P_\rho} \frac1n\sum_t p_t L_t, \qquad
              P_\rho = \Big\{p : \sum_t p_t\log(n p_t) \le \sqrt\rho\Big\},

    with a step of mirror ascent on :math:`p` before each step on :math:`\theta`. The ball's radius
    is written as in EMTL. The weights are :math:`n p`, which sum to n as equal weights do. The
    method follows the task with the largest loss: bring losses of different units to one scale.

    Args:
        radius: :math:`\rho`; above :math:`\log^2 n` the ball holds everything.
        step: :math:`\eta_p`.

    Raises:
        ValueError: an argument is negative or not finite.
    """

    def __init__(self, radius: float = 0.5, step: float = 0.5, **kwargs):
        super().__init__(**kwargs)
        check_non_negative("radius", radius)
        check_non_negative("step", step)
        self.radius = float(radius)
        self.step = float(step)

    def build(self, input_shape):
        n = len(self.tasks)
        self._p = compat.add_state(self, "p", (n,), initial=1.0 / n)
        super().build(input_shape)

    def weigh(self, losses):
        p = solvers.mirror_ascent(
            tf.convert_to_tensor(self._p), losses, self.step, self.radius**0.5
        )
        self._p.assign(p)
        return len(self.tasks) * p

    def get_config(self):
        return {**super().get_config(), "radius": self.radius, "step": self.step}
