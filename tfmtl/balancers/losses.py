"""What balancers have in common that read the tasks' losses and nothing else."""

from __future__ import annotations

import tensorflow as tf

from tfmtl import compat
from tfmtl.balancers.base import Balancer

#: Losses nearer to 0 than this count as this where they are divided by or logged.
LEAST_LOSS = 1e-8


class LossBalancer(Balancer):
    """A balancer that finds its weights from the losses: one backward pass a step.

    A method is a subclass that implements :meth:`weigh`.
    """

    def weigh(self, losses):
        """The weights ``[tasks]`` from the mean losses ``[tasks]``, float32. A task without a
        label in the batch has a loss of 0.
        """
        raise NotImplementedError

    def build(self, input_shape):
        self._last = compat.add_state(self, "last", (len(self.tasks),), initial=1.0)
        self.built = True

    def call(self, losses, gramian=None):
        weights = self.weigh(losses)
        self.record(weights)
        return weights

    def record(self, weights, gramian=None):
        self._last.assign(weights)

    def last(self):
        return tf.convert_to_tensor(self._last)

    def watch(self):
        """``weight_<task>`` of the last step."""
        weights = self.last()
        return {f"weight_{task}": weights[i] for i, task in enumerate(self.tasks)}


def size_of(losses):
    """The losses' absolute values, kept above 0."""
    return tf.maximum(tf.abs(losses), LEAST_LOSS)
