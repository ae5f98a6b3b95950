"""Balances the tasks' parameter updates instead of their gradients."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from tfmtl import solvers
from tfmtl.balancers.updates import UpdateBalancer


@keras.saving.register_keras_serializable("tfmtl")
class PUB(UpdateBalancer):
    r"""Lets the tasks bargain for the update of the shared variables.

    PUB (Yuan et al., *A Parameter Update Balancing Algorithm for Multi-task Ranking Models in
    Recommendation Systems*, Algorithm 1): with :math:`D = [\Delta\theta_1, \dots,
    \Delta\theta_n]`, where :math:`\Delta\theta_i` is what the optimizer would do for task i alone,

    .. math:: D^\top D\alpha = 1/\alpha, \qquad
              \theta \leftarrow \theta - \eta D\alpha, \qquad
              \text{moments} \leftarrow \sum_i \alpha_i g_i.

    Departs from the paper:

    * The updates of all tasks hold the same momentum. It says nothing of a task, makes the columns
      of :math:`D` nearly parallel, and :math:`\alpha` nearly equal. So tasks bargain by the part
      of the update that their own gradient makes, :math:`f(g_i)` with a momentum of 0, and the
      variables still move along the whole updates. (``bargain="update"``: the paper. What it
      changes on real rows is in docs/results.md.)
    * The exact :math:`\alpha` makes :math:`\|D\alpha\| = \sqrt n` however long the updates are,
      which is tiny against a step of Adam and shrinks the moments with it. By default
      :math:`\alpha` is scaled so that the step is as long as the mean of the tasks' updates,
      :math:`\|D\alpha\| = \|D\mathbf 1\|/n`. One task alone is then the optimizer itself, and
      identical tasks are one of them.
    * The equation is solved exactly, by Newton's method, instead of by a sequence of conic
      programs.
    * Updates are Keras' own, with Adam's bias correction and :math:`\epsilon` outside the root,
      instead of the paper's simplified formulas.

    The paper's letter is ``PUB(bargain="update", rescale=None)``. It needs a tuned learning rate.
    Its weights are so small that Adam's :math:`\epsilon` counts, which is most of what it was
    ahead by (docs/results.md).

    Args:
        update_every: search the weights every so many steps; between them the optimizer steps
            along the gradient of the weighted loss. (Paper: 10 or 100.)
        bargain: ``"own"`` as above, or ``"update"`` for the paper's whole updates. With
            ``"adatask"`` they are the same: the momentum is the task's.
        rescale: ``"norm"`` as above; ``"sum"`` for weights that sum to n; ``None`` for the
            paper's letter.
        manipulation: what shapes each task's update before the bargain: ``"clippy"``,
            ``"adatask"`` (moments of each task's own, for which every step takes every task's
            gradient), both in a list, or ``None``.
        moments: ``"after"`` moves the shared variables along :math:`D\alpha` and advances the
            moments after it, as the paper does; ``"before"`` advances them with
            :math:`\sum_i\alpha_i g_i` first and takes the optimizer's own step.

    Raises:
        ValueError: an unknown option, or (in ``compile``) an optimizer other than those of
            :data:`tfmtl.optimizers.SUPPORTED`.
    """

    def __init__(
        self,
        update_every: int = 10,
        bargain: str = "own",
        rescale: str | None = "norm",
        manipulation: str | Sequence[str] | None = None,
        moments: str = "after",
        **kwargs,
    ):
        super().__init__(update_every, **kwargs)
        if bargain not in ("own", "update"):
            raise ValueError(f"`bargain` must be 'own' or 'update'. Received: {bargain!r}")
        if rescale not in ("norm", "sum", None):
            raise ValueError(f"`rescale` must be 'norm', 'sum' or None. Received: {rescale!r}")
        chosen = [manipulation] if isinstance(manipulation, str) else list(manipulation or ())
        if not set(chosen) <= {"clippy", "adatask"}:
            raise ValueError(
                "`manipulation` must be 'clippy', 'adatask', both in a list, or None. "
                f"Received: {manipulation!r}"
            )
        if moments not in ("after", "before"):
            raise ValueError(f"`moments` must be 'after' or 'before'. Received: {moments!r}")
        self.bargain = bargain
        self.own_part = bargain == "own"
        self.rescale = rescale
        self.manipulation = sorted(chosen)
        self.moments = moments
        self.clips = "clippy" in chosen
        self.own_moments = "adatask" in chosen

    def weigh(self, losses, gramian, whole=None):
        weights = solvers.bargaining(gramian)
        whole = gramian if whole is None else whole
        if self.rescale is None:
            return weights
        n = tf.cast(tf.size(weights), weights.dtype)
        if self.rescale == "sum":
            return n * solvers.shares(weights)
        size = tf.sqrt(tf.maximum(tf.reduce_sum(whole), 0)) / n
        length = tf.sqrt(tf.maximum(tf.reduce_sum(weights * tf.linalg.matvec(whole, weights)), 0))
        return weights * tf.math.divide_no_nan(size, length)

    def get_config(self):
        return {
            **super().get_config(),
            "bargain": self.bargain,
            "rescale": self.rescale,
            "manipulation": self.manipulation,
            "moments": self.moments,
        }
