"""How far the parameters move along the gradient: PUB's measure of what optimizers do to it."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf


class Similarity:
    r"""Cosines between the gradient an optimizer is given and the update it makes of it.

    Yuan et al., *A Parameter Update Balancing Algorithm* (PUB), section III: the mean over the
    steps of an epoch, over all shared variables at once and over all of the tasks' own, and
    (equation 1)

    .. math:: \mathrm{Diff} = 2\,\frac{|Sim_{task} - Sim_{share}|}{|Sim_{task} + Sim_{share}|}.

    Costs a dense gradient and a copy of every variable in each step.
    """

    def __init__(self) -> None:
        self.metrics = [
            keras.metrics.Mean(name="similarity_shared"),
            keras.metrics.Mean(name="similarity_task"),
        ]

    def update(self, gradients: Sequence, moved: Sequence, shared: Sequence[bool], sound) -> None:
        """Take in a step.

        Args:
            gradients: of each variable, all replicas' sum; ``None`` where there is none.
            moved: what each variable was lowered by.
            shared: for each variable whether it is shared.
            sound: whether the step was taken, a boolean scalar.
        """
        for metric, wanted in zip(self.metrics, (True, False), strict=True):
            chosen = [
                (tf.cast(tf.convert_to_tensor(gradient), tf.float32), tf.cast(change, tf.float32))
                for gradient, change, is_shared in zip(gradients, moved, shared, strict=True)
                if gradient is not None and is_shared is wanted
            ]
            if not chosen:
                continue
            # Gradients of 1e20 and more have no square in float32.
            largest = tf.reduce_max([tf.reduce_max(tf.abs(gradient)) for gradient, _ in chosen])
            chosen = [(tf.math.divide_no_nan(g, largest), change) for g, change in chosen]
            along = tf.add_n([tf.reduce_sum(g * change) for g, change in chosen])
            lengths = [
                tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(pair[i])) for pair in chosen]))
                for i in (0, 1)
            ]
            cosine = tf.math.divide_no_nan(along, lengths[0] * lengths[1])
            metric.update_state(cosine, sample_weight=tf.cast(sound, tf.float32))

    def result(self) -> dict:
        """``similarity_shared``, ``similarity_task`` and ``difference``."""
        shared, task = (metric.result() for metric in self.metrics)
        difference = 2 * tf.math.divide_no_nan(tf.abs(task - shared), tf.abs(task + shared))
        return {"similarity_shared": shared, "similarity_task": task, "difference": difference}
