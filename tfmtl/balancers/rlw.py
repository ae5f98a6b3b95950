"""Random weights."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl.balancers.dice import Dice, check_seed
from tfmtl.balancers.losses import LossBalancer


@keras.saving.register_keras_serializable("tfmtl")
class RLW(LossBalancer):
    r"""Draws the weights anew in every step: the random baseline.

    RLW (Lin et al., *Reasonable Effectiveness of Random Weighting*, TMLR 2022):
    :math:`w = n\,\mathrm{softmax}(z)`, :math:`z_i \sim N(0, 1)`. The paper's weights sum to 1;
    these sum to n, as equal weights do.

    Args:
        seed: of the draws.

    Raises:
        ValueError: ``seed`` is not an integer of 31 bits.
    """

    def __init__(self, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.seed = check_seed(seed)

    def build(self, input_shape):
        self._dice = Dice(self, self.seed)
        super().build(input_shape)

    def weigh(self, losses):
        n = len(self.tasks)
        return n * tf.nn.softmax(tf.random.stateless_normal([n], self._dice.roll()))

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}
