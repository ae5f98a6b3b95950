"""The Nash bargaining solution between the tasks' gradients."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl import solvers
from tfmtl.balancers.gramian import GramianBalancer


@keras.saving.register_keras_serializable("tfmtl")
class NashMTL(GramianBalancer):
    r"""Lets the tasks bargain for the direction of the step.

    Nash-MTL (Navon et al., *Multi-Task Learning as a Bargaining Game*, ICML 2022, claim 3.1): the
    direction that maximises :math:`\sum_i\log\langle g_i, d\rangle` has the weights

    .. math:: G\alpha = 1/\alpha, \qquad \alpha > 0.

    Departs from the authors' code: the equation is solved exactly, by Newton's method, instead of
    by a sequence of conic programs. The exact solution has :math:`\|\sum_i\alpha_i g_i\| =
    \sqrt n` whatever the gradients' size; by default the weights are scaled to sum to n, as equal
    weights do. The authors clip the direction to norm 1 instead.

    Args:
        rescale: ``"sum"``, or ``None`` for the weights of the paper.
        update_every: as in :class:`~tfmtl.balancers.gramian.GramianBalancer`.

    Raises:
        ValueError: an unknown ``rescale``.
    """

    def __init__(self, rescale: str | None = "sum", update_every: int = 1, **kwargs):
        super().__init__(update_every, **kwargs)
        if rescale not in ("sum", None):
            raise ValueError(f"`rescale` must be 'sum' or None. Received: {rescale!r}")
        self.rescale = rescale

    def weigh(self, losses, gramian):
        weights = solvers.bargaining(gramian)
        if self.rescale is None:
            return weights
        return solvers.shares(weights) * tf.cast(tf.size(weights), weights.dtype)

    def get_config(self):
        return {**super().get_config(), "rescale": self.rescale}
