"""Gradients projected off those they oppose."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl.balancers.dice import Dice, check_seed
from tfmtl.balancers.gramian import GramianBalancer


@keras.saving.register_keras_serializable("tfmtl")
class PCGrad(GramianBalancer):
    r"""Projects each task's gradient onto the normal plane of every other it conflicts with.

    PCGrad (Yu et al., *Gradient Surgery for Multi-Task Learning*, NeurIPS 2020, Algorithm 1): for
    each task i, over the other tasks j in random order,

    .. math:: g_i \leftarrow g_i - \frac{\langle g_i, g_j\rangle}{\|g_j\|^2} g_j
              \quad\text{where}\quad \langle g_i, g_j\rangle < 0,

    and the step follows the sum of the results. All of it happens to coefficients: the Gram
    matrix is enough. With two tasks the order does not matter.

    Args:
        seed: of the order of projections.
        update_every: as in :class:`~tfmtl.balancers.gramian.GramianBalancer`.

    Raises:
        ValueError: ``seed`` is not an integer of 31 bits.
    """

    def __init__(self, seed: int = 0, update_every: int = 1, **kwargs):
        super().__init__(update_every, **kwargs)
        self.seed = check_seed(seed)

    def build(self, input_shape):
        self._dice = Dice(self, self.seed)
        super().build(input_shape)

    def weigh(self, losses, gramian):
        n = gramian.shape[0]
        coefficients = tf.eye(n, dtype=gramian.dtype)  # a row for each task's projected gradient
        if n < 2:
            return tf.reduce_sum(coefficients, axis=0)
        squares = tf.linalg.diag_part(gramian)
        keys = tf.random.stateless_uniform([n, n], self._dice.roll())
        order = tf.argsort(keys, axis=1)  # for each task, the others as it meets them

        def project(turn, coefficients):
            other = order[:, turn]
            along = tf.reduce_sum(coefficients * tf.gather(gramian, other), axis=1)
            own = tf.equal(other, tf.range(n))
            conflict = (along < 0) & ~own
            share = tf.math.divide_no_nan(along, tf.gather(squares, other))
            share = tf.where(conflict, share, tf.zeros_like(share))
            return turn + 1, coefficients - share[:, None] * tf.one_hot(
                other, n, dtype=gramian.dtype
            )

        _, coefficients = tf.while_loop(
            lambda turn, _: turn < n, project, (0, coefficients), maximum_iterations=n
        )
        return tf.reduce_sum(coefficients, axis=0)

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}
