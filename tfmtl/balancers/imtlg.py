"""Equal projections on the tasks' gradients."""

from __future__ import annotations

import keras

from tfmtl import solvers
from tfmtl.balancers.gramian import GramianBalancer


@keras.saving.register_keras_serializable("tfmtl")
class IMTLG(GramianBalancer):
    r"""Steps along the combination that has the same projection on every task's gradient.

    IMTL-G (Liu et al., *Towards Impartial Multi-task Learning*, ICLR 2021, equation 6):

    .. math:: \Big\langle \sum_j \alpha_j g_j, \frac{g_i}{\|g_i\|}\Big\rangle \text{ equal for all }
              i, \qquad \sum_i \alpha_i = 1.

    Weights may be negative; they reach the shared variables alone. A task with a zero gradient
    weighs 0 and asks nothing of the others.

    Args:
        update_every: as in :class:`~tfmtl.balancers.gramian.GramianBalancer`.
    """

    def weigh(self, losses, gramian):
        return solvers.equal_projections(gramian)
