"""Adam for the few numbers that a balancer learns itself."""

from __future__ import annotations

import tensorflow as tf

from tfmtl import compat


class Adam:
    """A vector that descends along gradients it is given, with Adam's usual constants.

    Args:
        layer: the layer whose state the vector, its moments and its count are.
        name: the vector's.
        size: its length.
        rate: the learning rate.
        initial: its value at first.
    """

    def __init__(self, layer, name: str, size: int, rate: float, initial: float = 0.0):
        self._rate = rate
        self._value = compat.add_state(layer, name, (size,), initial=initial)
        self._moments = compat.add_state(layer, f"{name}_moments", (2, size))
        self._count = compat.add_state(layer, f"{name}_count", ())

    def value(self) -> tf.Tensor:
        """The vector, float32."""
        return tf.convert_to_tensor(self._value)

    def assign(self, value) -> None:
        """Put the vector somewhere else."""
        self._value.assign(value)

    def descend(self, gradient, decay: float = 0.0) -> None:
        """A step; what is not finite in the gradient counts as 0."""
        gradient = tf.where(tf.math.is_finite(gradient), gradient, tf.zeros_like(gradient))
        # Squares of more than this are not finite in float32.
        gradient = tf.clip_by_value(gradient, -1e15, 1e15) + decay * self.value()
        count = tf.convert_to_tensor(self._count) + 1
        first, second = tf.unstack(tf.convert_to_tensor(self._moments))
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        self._count.assign(count)
        self._moments.assign(tf.stack([first, second]))
        unbiased = first / (1 - 0.9**count)
        scale = tf.sqrt(second / (1 - 0.999**count)) + 1e-8
        self._value.assign(self.value() - self._rate * unbiased / scale)
