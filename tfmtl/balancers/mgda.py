"""The minimum-norm point of the tasks' gradients."""

from __future__ import annotations

import keras

from tfmtl import solvers
from tfmtl.balancers.gramian import GramianBalancer


@keras.saving.register_keras_serializable("tfmtl")
class MGDA(GramianBalancer):
    r"""Steps along the shortest convex combination of the tasks' gradients.

    MGDA (Désidéri, 2012; Sener and Koltun, *Multi-Task Learning as Multi-Objective Optimization*,
    NeurIPS 2018, equation 4):

    .. math:: \min_w \Big\|\sum_i w_i g_i\Big\|^2 \quad\text{s.t.}\quad
              w_i \ge 0,\; \sum_i w_i = 1.

    The result opposes no task, and the smallest gradient weighs the most; a task whose gradient is
    zero is at its optimum and stops the others.

    Departs from the authors' code, which runs up to 250 Frank-Wolfe steps: the problem is solved
    to the end, in closed form for two tasks.

    Args:
        update_every: as in :class:`~tfmtl.balancers.gramian.GramianBalancer`.
    """

    def weigh(self, losses, gramian):
        return solvers.min_norm(gramian)
