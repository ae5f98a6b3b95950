"""Equitable multi-task learning: even relative contributions, on top of a gradient method."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl import compat, solvers
from tfmtl.balancers.base import check_non_negative
from tfmtl.balancers.gramian import GramianBalancer
from tfmtl.balancers.mgda import MGDA

#: A gradient shorter than this part of the longest does not make its task's rate larger.
SHORTEST = 1e-6


@keras.saving.register_keras_serializable("tfmtl")
class EMTL(GramianBalancer):
    r"""Evens out the tasks' relative rates of loss and gradient norm.

    EMTL (Yuan et al., *Equitable Multi-task Learning*, Algorithm 1). A gradient method gives
    :math:`\alpha`; the relative rates :math:`\tilde R_t = \alpha_t L_t/\|g_t\|` move a distribution
    :math:`p` over the tasks by one step of mirror ascent (equation 12) within the ball
    :math:`\sum_t p_t\log(n p_t) \le \sqrt\rho`; the step follows (equation 13)

    .. math:: \frac1n\sum_t \Big(\epsilon\,\alpha_t L_t
              + (1 - \epsilon)\,p_t\frac{\alpha_t L_t}{\|g_t\|}\Big).

    Departs from the paper: rates are divided by their mean, so that neither the losses' unit nor
    the network's size decides how far :math:`\eta` moves :math:`p`; the weights of equation 13,
    whose second part is of another unit than its first, are brought together by dividing
    :math:`1/\|g_t\|` by its mean, and all are scaled to sum to n. A negative loss counts with its
    absolute value, a task without a gradient rates 0.

    Args:
        base: the gradient method that gives :math:`\alpha`; :class:`MGDA` by default. Its
            negative weights count as 0.
        mixing: :math:`\epsilon` between 0 and 1; 1 is the base alone. (Paper: searched in 0–0.5.)
        radius: :math:`\rho` of the ball. Above :math:`\log^2 n`, 0.48 for two tasks, it holds
            everything, and :math:`p` comes to lie on one task. (Paper: searched in 0.1–1.2.)
        step: :math:`\eta_p`.
        update_every: as in :class:`~tfmtl.balancers.gramian.GramianBalancer`.

    Raises:
        ValueError: a base that is no gradient method, ``mixing`` outside [0, 1], or another
            argument negative or not finite.
    """

    def __init__(
        self,
        base: GramianBalancer | None = None,
        mixing: float = 0.3,
        radius: float = 0.5,
        step: float = 0.5,
        update_every: int = 1,
        **kwargs,
    ):
        super().__init__(update_every, **kwargs)
        base = MGDA() if base is None else compat.deserialize(base)
        if not isinstance(base, GramianBalancer):
            raise ValueError(
                f"`base` must be a balancer that reads a Gram matrix. Received: {base!r}"
            )
        check_non_negative("mixing", mixing)
        if mixing > 1:
            raise ValueError(f"`mixing` must be at most 1. Received: {mixing}")
        check_non_negative("radius", radius)
        check_non_negative("step", step)
        self.base = base
        self.mixing = float(mixing)
        self.radius = float(radius)
        self.step = float(step)

    def build(self, input_shape):
        n = len(self.tasks)
        self.base.bind(self.tasks)
        self._p = compat.add_state(self, "p", (n,), initial=1.0 / n)
        self._alpha = compat.add_state(self, "alpha", (n,), initial=1.0 / n)
        super().build(input_shape)

    def weigh(self, losses, gramian):
        n = tf.cast(tf.size(losses), gramian.dtype)
        alpha = solvers.shares(tf.nn.relu(self.base.weigh(losses, gramian)))
        norms = tf.sqrt(tf.maximum(tf.linalg.diag_part(gramian), 0))
        floor = SHORTEST * tf.reduce_max(norms)
        inverse = tf.where(
            norms > 0,
            tf.math.divide_no_nan(tf.ones_like(norms), tf.maximum(norms, floor)),
            tf.zeros_like(norms),
        )
        rates = alpha * solvers.shares(inverse) * solvers.shares(tf.abs(losses))
        p = tf.cast(self._p, gramian.dtype)
        p = solvers.mirror_ascent(p, n * solvers.shares(rates), self.step, self.radius**0.5)
        self._p.assign(tf.cast(p, tf.float32))
        self._alpha.assign(tf.cast(alpha, tf.float32))
        own = n * solvers.shares(inverse)
        return n * solvers.shares(alpha * (self.mixing + (1 - self.mixing) * p * own))

    def watch(self):
        """As every gradient method, and ``alpha_<task>`` of the base, ``p_<task>``."""
        found = super().watch()
        for name, state in (("alpha", self._alpha), ("p", self._p)):
            values = tf.convert_to_tensor(state)
            found.update({f"{name}_{task}": values[i] for i, task in enumerate(self.tasks)})
        return found

    def get_config(self):
        return {
            **super().get_config(),
            "base": compat.serialize(self.base),
            "mixing": self.mixing,
            "radius": self.radius,
            "step": self.step,
        }
