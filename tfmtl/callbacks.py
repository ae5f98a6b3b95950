"""Callbacks: what guards a training run, and what reads held-out losses while it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from tfmtl.inputs import Source


class Reading(NamedTuple):
    """What one look at held-out rows found.

    Args:
        losses: mean loss of each task, ``[tasks]``.
        aucs: AUC of each task whose labels are 0 and 1, NaN for the others, ``[tasks]``.
    """

    losses: np.ndarray
    aucs: np.ndarray

    def risks(self) -> np.ndarray:
        """``[tasks, 2]``: the loss and 1 − AUC, both the smaller the better."""
        return np.stack([self.losses, 1.0 - self.aucs], axis=1)


class TrainingGuard(keras.callbacks.Callback):
    """Stops at the first bad step and keeps count, so that a resumed run is the unbroken one.

    ``MultiTaskModel.fit`` puts it before every other callback, and :meth:`after_restore` behind
    them.
    """

    def __init__(self, training: Source):
        super().__init__()
        self._training = training
        self._passes_before = 0

    def _passes(self) -> int:
        return int(self.model.progress.numpy()[2])

    def on_train_begin(self, logs=None):
        self._passes_before = self._passes()

    def on_epoch_begin(self, epoch, logs=None):
        self.model.count_pass()

    def on_epoch_end(self, epoch, logs=None):
        self.model.progress.assign_add(tf.constant([0, 1, 0], tf.int64))

    def on_train_batch_end(self, batch, logs=None):
        fault = self.model.fault()
        if fault is not None:
            raise fault

    def after_restore(self) -> keras.callbacks.Callback:
        """A callback for the end of the list, where the state of a killed run has been restored.

        A seeded, reshuffling data set draws a new order in each pass. In a new process it would
        start over, so the passes that the killed run had begun are drawn and dropped.
        """
        guard = self

        class SkipPasses(keras.callbacks.Callback):
            def on_train_begin(self, logs=None):
                if guard._training.is_dataset:
                    for _ in range(guard._passes() - guard._passes_before):
                        next(iter(guard._training.dataset()))

        return SkipPasses()


class HeldOutReadings(keras.callbacks.Callback):
    """Reads losses on held-out rows several times an epoch; a subclass says what follows.

    Without ``validation_data`` the training rows are read.

    Args:
        readings: how many an epoch, evenly spread, the last at its end.

    Raises:
        ValueError: ``readings`` below 1.
    """

    def __init__(self, readings: int = 4):
        super().__init__()
        if not isinstance(readings, int) or readings < 1:
            raise ValueError(f"`readings` must be a positive integer. Received: {readings}")
        self.readings = readings
        self._steps = None
        self._done = 0

    def on_reading(self, reading: Reading) -> None:
        """What a reading means."""
        raise NotImplementedError

    def on_train_begin(self, logs=None):
        self._steps = self.params.get("steps")

    def on_epoch_begin(self, epoch, logs=None):
        self._done = 0

    def on_train_batch_end(self, batch, logs=None):
        self._batch = batch + 1
        if self._steps and self._batch < self._steps:
            due = math.floor(self._batch * self.readings / self._steps)
            if due > self._done:
                self._done = due
                self.on_reading(self.model.read())

    def on_epoch_end(self, epoch, logs=None):
        self._steps = self._steps or self._batch
        if not self.model.stop_training:
            self.on_reading(self.model.read())


class BestReading(HeldOutReadings):
    """Early stopping on a weighted sum of held-out losses, read several times an epoch.

    Args:
        weights: the weight of each task's loss in the sum; a task left out counts 0.
        readings: how many readings an epoch.
        patience: how many readings without a better one end the training.

    The weights of the best reading are restored at the end of training.

    Raises:
        ValueError: no weight above 0, or ``readings`` or ``patience`` below 1.
    """

    def __init__(self, weights: Mapping[str, float], readings: int = 4, patience: int = 5):
        super().__init__(readings)
        if not any(weight > 0 for weight in weights.values()):
            raise ValueError(f"`weights` must have one above 0. Received: {dict(weights)}")
        if patience < 1:
            raise ValueError(f"`patience` must be at least 1. Received: {patience}")
        self.weights = dict(weights)
        self.patience = patience

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        unknown = sorted(set(self.weights) - set(self.model.tasks))
        if unknown:
            raise ValueError(
                f"`weights` names unknown tasks. Expected some of: {sorted(self.model.tasks)}. "
                f"Received: {unknown}"
            )
        self._best = math.inf
        self._wait = 0
        self._kept: list[np.ndarray] | None = None

    def on_reading(self, reading):
        weights = [self.weights.get(task, 0.0) for task in self.model.tasks]
        value = float(np.dot(weights, reading.losses))
        if value < self._best:
            self._best = value
            self._wait = 0
            self._kept = self.model.net.get_weights()
        else:
            self._wait += 1
            if self._wait >= self.patience:
                self.model.stop_training = True

    def on_train_end(self, logs=None):
        if self._kept is not None:
            self.model.net.set_weights(self._kept)
