"""A weighted sum of the losses with weights given by hand."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from tfmtl.balancers.base import Balancer, check_non_negative, check_task_names


@keras.saving.register_keras_serializable("tfmtl")
class FixedWeights(Balancer):
    """The sum of the losses with constant weights, what Keras calls ``loss_weights``.

    The baseline of every paper here (NMT, equation 9).

    Args:
        weights: a weight of at least 0 for every task, at least one of them above 0. They are
            used as given, not normalised.

    Raises:
        ValueError: a weight is negative or not finite, all are 0, or (once the tasks are known)
            a task is missing or unknown.
    """

    def __init__(self, weights: Mapping[str, float], **kwargs):
        super().__init__(**kwargs)
        check_non_negative("weights", weights)
        if not any(weights.values()):
            raise ValueError(f"`weights` must have one above 0. Received: {dict(weights)}")
        self.weights_by_task = {task: float(weight) for task, weight in weights.items()}

    def check_tasks(self, tasks):
        check_task_names("weights", list(self.weights_by_task), tasks)

    def call(self, losses, gramian=None):
        return tf.constant([self.weights_by_task[task] for task in self.tasks], tf.float32)

    def total(self, losses):
        """The weighted sum, as Keras reports it."""
        return tf.reduce_sum(self(losses) * losses)

    def get_config(self):
        return {**super().get_config(), "weights": dict(self.weights_by_task)}
