"""Randomness that is part of a model's state."""

from __future__ import annotations

import tensorflow as tf

from tfmtl import compat


class Dice:
    """Seeds for stateless random numbers, equal on every replica and resumed after a kill.

    Args:
        layer: the layer that keeps the count of what was drawn.
        seed: an integer.
    """

    def __init__(self, layer, seed: int):
        self._seed = seed
        self._drawn = compat.add_state(layer, "drawn", (), "int32")

    def roll(self) -> tf.Tensor:
        """A new seed for ``tf.random.stateless_*``."""
        drawn = tf.convert_to_tensor(self._drawn)
        self._drawn.assign(drawn + 1)
        return tf.stack([tf.constant(self._seed, tf.int32), drawn])


def check_seed(seed: int) -> int:
    """The seed, or ``ValueError`` for what is none."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**31:
        raise ValueError(f"`seed` must be an integer from 0 to 2**31 - 1. Received: {seed!r}")
    return seed
