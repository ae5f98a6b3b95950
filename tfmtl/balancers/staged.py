"""Another balancer inside the stages of NMT."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfmtl.balancers.base import Balancer, Before


class Staged:
    """A copy of a balancer for each stage, over the tasks of that stage and the earlier ones.

    Args:
        inner: what is copied; it reads losses, a Gram matrix or updates.
        tasks: all of them.
        rank: ``[tasks]``, the stage that each is the own task of.
    """

    def __init__(self, inner: Balancer, tasks: Sequence[str], rank: np.ndarray):
        self._members = [np.flatnonzero(rank <= stage) for stage in range(len(tasks))]
        #: The copies, in the order of the stages.
        self.copies: list[Balancer] = []
        for members in self._members:
            copy = type(inner).from_config(inner.get_config())
            copy.bind([tasks[i] for i in members.tolist()])
            self.copies.append(copy)

    def weigh(self, stage, losses, *matrices):
        """The running stage's weights ``[tasks]``, 1 for a task of a later stage.

        Args:
            stage: an integer scalar.
            losses: ``[tasks]``.
            matrices: ``[tasks, tasks]`` each, as the balancer is called with.
        """
        weights = tf.ones_like(losses)
        for number, (copy, members) in enumerate(zip(self.copies, self._members, strict=True)):
            running = tf.equal(stage, number)
            parts = [tf.gather(tf.gather(each, members), members, axis=1) for each in matrices]
            before = Before(copy)
            found = copy(tf.gather(losses, members), *parts)
            before.back_unless(running)
            spread = tf.tensor_scatter_nd_update(tf.ones_like(losses), members[:, None], found)
            weights = tf.where(running, spread, weights)
        return weights

    def look_back(self, stage, losses, losses_after) -> None:
        """As :meth:`tfmtl.balancers.Balancer.look_back`, for the running stage."""
        for number, (copy, members) in enumerate(zip(self.copies, self._members, strict=True)):
            before = Before(copy)
            copy.look_back(tf.gather(losses, members), tf.gather(losses_after, members))
            before.back_unless(tf.equal(stage, number))
