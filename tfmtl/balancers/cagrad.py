"""The direction near the mean gradient that helps the worst task most."""

from __future__ import annotations

import keras

from tfmtl import solvers
from tfmtl.balancers.base import check_non_negative
from tfmtl.balancers.gramian import GramianBalancer


@keras.saving.register_keras_serializable("tfmtl")
class CAGrad(GramianBalancer):
    r"""Improves the worst-off task within a ball around the mean gradient.

    CAGrad (Liu et al., *Conflict-Averse Gradient Descent*, NeurIPS 2021, equation 3 and
    Algorithm 1):

    .. math:: \max_d \min_i \langle g_i, d\rangle \quad\text{s.t.}\quad
              \|d - g_0\| \le c\|g_0\|, \qquad g_0 = \frac1n\sum_i g_i.

    Departs from the authors' code: the dual is solved to the end rather than by 20 steps of SGD.
    As there (``rescale=1``), the result is divided by :math:`1 + c^2`.

    Args:
        c: the radius of the ball, relative to the mean gradient. 0 is the mean itself.
        update_every: as in :class:`~tfmtl.balancers.gramian.GramianBalancer`.

    Raises:
        ValueError: ``c`` is not a finite number of at least 0.
    """

    def __init__(self, c: float = 0.4, update_every: int = 1, **kwargs):
        super().__init__(update_every, **kwargs)
        check_non_negative("c", c)
        self.c = float(c)

    def weigh(self, losses, gramian):
        return solvers.conflict_averse(gramian, self.c) / (1 + self.c**2)

    def get_config(self):
        return {**super().get_config(), "c": self.c}
