"""Callbacks: what guards a training run, reads held-out losses while it runs, or shows it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfmtl import compat, distributed, events, figures
from tfmtl.progress import StageProgress as StageProgress

if TYPE_CHECKING:
    from tfmtl.inputs import Source


class Reading(NamedTuple):
    """What one look at held-out rows found.

    Args:
        losses: mean loss of each task, ``[tasks]``.
        aucs: AUC of each task whose labels are 0 and 1; of one whose loss compares the items of a
            query the share of their pairs that are in order; NaN for the others, ``[tasks]``.
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
        self._looked = True

    def _passes(self) -> int:
        return int(self.model.progress.numpy()[2])

    def on_train_begin(self, logs=None):
        self._passes_before = self._passes()

    def on_epoch_begin(self, epoch, logs=None):
        self.model.count_pass()
        self._looked = False

    def on_test_begin(self, logs=None):
        self._look_for_labels()  # before the metrics are those of the validation

    def on_epoch_end(self, epoch, logs=None):
        self._look_for_labels()
        self.model.progress.assign_add(tf.constant([0, 1, 0, 0], tf.int64))

    def _look_for_labels(self) -> None:
        """Warn of a task that no row of the epoch had a label of."""
        if not self._looked:
            self._looked = True
            for task in self.model.tasks_without_labels():
                self.model.warn_once(
                    f"Task {task!r} had no label in an epoch of training: nothing trains it.",
                    of=f"labels {task}",
                )

    def on_train_batch_end(self, batch, logs=None):
        self.model.heed_faults()

    def after_restore(self) -> keras.callbacks.Callback:
        """A callback for the end of the list, where the state of a killed run has been restored.

        A seeded, reshuffling data set draws a new order in each pass. In a new process it would
        start over, so the passes that the killed run had begun are drawn and dropped.
        """
        return _SkipPasses(self)

    def skip_passes(self) -> None:
        """Draw the passes that were begun before the state was restored."""
        if self._training.is_dataset:
            for _ in range(self._passes() - self._passes_before):
                next(iter(self._training.dataset()))


class _SkipPasses(keras.callbacks.Callback):
    # Not a class within `after_restore`: TensorFlow keeps every class it has met, and with a class
    # of its own for each `fit` the model would never go.
    def __init__(self, guard: TrainingGuard):
        super().__init__()
        self._guard = guard

    def on_train_begin(self, logs=None):
        self._guard.skip_passes()


class BackupAndRestore(keras.callbacks.Callback):
    """Lets a ``fit`` that was killed go on, with the same command, after its last whole epoch.

    At the end of each epoch everything is written to one file, which appears whole or not at all:
    weights, optimizer, balancer with NMT's stages, steps, and how far a seeded shuffling has come.
    ``fit`` then ends with the weights of an unbroken one. Keras 3's own callback of this name
    writes two files, which a kill can leave at odds, and with several workers all of them do.

    Several workers need a folder that all of them see; the first writes.

    Args:
        backup_dir: the folder; it is made where there is none.
        delete_checkpoint: delete the backup when ``fit`` has ended. A process that is killed after
            that, and before what it trained is saved, starts anew; keep the backup to be safe from
            that too, and delete it yourself.

    Raises:
        ValueError: ``backup_dir`` is not a path; or (in ``fit``) the backup is not one of this
            model, or workers see different ones.
    """

    _name = re.compile(r"epoch-(\d+)\.weights\.h5")

    def __init__(self, backup_dir: str | os.PathLike, delete_checkpoint: bool = True):
        super().__init__()
        if not isinstance(backup_dir, (str, os.PathLike)) or not os.fspath(backup_dir):
            raise ValueError(f"`backup_dir` must be the path of a folder. Received: {backup_dir!r}")
        self.backup_dir = os.fspath(backup_dir)
        self.delete_checkpoint = delete_checkpoint

    def on_train_begin(self, logs=None):
        strategy = self.model.distribute_strategy
        backups = self.backups()
        epoch = max(backups, default=0)
        first = int(distributed.of_chief(strategy, np.array([epoch], np.float32))[0])
        if first != epoch:
            raise ValueError(
                "`backup_dir` must be a folder that all workers see. Received: "
                f"{self.backup_dir!r}, which holds epoch {epoch} here and {first} for the first"
            )
        if epoch:
            self.model.load_weights(backups[epoch])
            over = self.model.balancer.done
            compat.start_at_epoch(self.model, self.params["epochs"] if over else epoch)

    def on_epoch_end(self, epoch, logs=None):
        older = self.backups()
        name = f"epoch-{epoch + 1:05d}.weights.h5"
        self.model.save_weights(os.path.join(self.backup_dir, name))
        self._delete(each for number, each in older.items() if number != epoch + 1)

    def on_train_end(self, logs=None):
        compat.start_at_epoch(self.model, None)
        if self.delete_checkpoint:
            self._delete(self.backups().values())

    def backups(self) -> dict[int, str]:
        """The backups there are, by the number of epochs behind them."""
        names = os.listdir(self.backup_dir) if os.path.isdir(self.backup_dir) else []
        found = [(self._name.fullmatch(name), name) for name in names]
        return {int(m[1]): os.path.join(self.backup_dir, name) for m, name in found if m}

    def _delete(self, paths) -> None:
        if distributed.is_chief(self.model.distribute_strategy):
            for path in paths:
                os.remove(path)


class HeldOutReadings(keras.callbacks.Callback):
    """Reads losses on held-out rows several times an epoch; a subclass says what follows.

    Without ``validation_data`` the training rows are read.

    Args:
        readings: how many an epoch, evenly spread, the last at its end. There are fewer where an
            epoch has less than so many executions of ``compile(steps_per_execution=...)``, and in
            the first epoch of data of unknown length, which has one.

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

    def per_epoch(self) -> int:
        """How many readings an epoch has; what was asked for as long as its length is not known."""
        if not self._steps:
            return self.readings
        at_once = compat.steps_at_once(self.model)
        due = {self._due(batch) for batch in range(at_once, self._steps, at_once)}
        return len(due - {0}) + 1

    def _due(self, batch: int) -> int:
        """How many readings are due after so many steps of an epoch."""
        return batch * self.readings // self._steps  # type: ignore[operator]

    def on_epoch_begin(self, epoch, logs=None):
        self._done = 0

    def on_train_batch_end(self, batch, logs=None):
        self._batch = batch + 1
        if self._steps and self._batch < self._steps:
            due = self._due(self._batch)
            if due > self._done:
                self._done = due
                self.on_reading(self.model.read())

    def on_epoch_end(self, epoch, logs=None):
        self._steps = self._steps or self._batch
        if not self.model.stop_training:
            self.on_reading(self.model.read())


class BestReading(HeldOutReadings):
    """Early stopping on a weighted sum over held-out rows, read several times an epoch.

    Args:
        weights: the weight of each task in the sum; a task left out counts 0.
        readings: how many readings an epoch.
        patience: how many readings without a better one end the training.
        verbose: 1 says at the end of training which reading's weights are kept.
        monitor: what is summed: ``"loss"``, or ``"auc"`` for 1 - AUC where a task has one (labels
            of 0 and 1, or a loss of pairs or lists: the share of pairs in order) and its loss where
            not.

    The weights of the best reading are restored at the end of training. An epoch's logs get the
    AUCs of its last reading, ``val_<task>_auc``, where no metric of that name is there: what comes
    behind this callback, History and the progress bar too, shows them.

    Raises:
        ValueError: no weight above 0, ``readings`` or ``patience`` below 1, or an unknown
            ``monitor``.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        readings: int = 4,
        patience: int = 5,
        monitor: str = "loss",
        verbose: int = 0,
    ):
        super().__init__(readings)
        if monitor not in ("loss", "auc"):
            raise ValueError(f"`monitor` must be 'loss' or 'auc'. Received: {monitor!r}")
        if not any(weight > 0 for weight in weights.values()):
            raise ValueError(f"`weights` must have one above 0. Received: {dict(weights)}")
        if patience < 1:
            raise ValueError(f"`patience` must be at least 1. Received: {patience}")
        self.weights = dict(weights)
        self.patience = patience
        self.monitor = monitor
        self.verbose = verbose

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        unknown = sorted(set(self.weights) - set(self.model.tasks))
        if unknown:
            raise ValueError(
                f"`weights` names unknown tasks. Expected some of: {sorted(self.model.tasks)}. "
                f"Received: {unknown}"
            )
        self._best = math.inf
        self._best_epoch = 0
        self._last: Reading | None = None
        self._wait = 0
        self._kept: list[np.ndarray] | None = None

    def on_reading(self, reading):
        self._last = reading
        weights = [self.weights.get(task, 0.0) for task in self.model.tasks]
        values = reading.losses
        if self.monitor == "auc":
            values = np.where(np.isnan(reading.aucs), values, 1.0 - reading.aucs)
        value = float(np.dot(weights, values))
        if value < self._best:
            self._best = value
            self._best_epoch = self._epoch
            self._wait = 0
            self._kept = self.model.net.get_weights()
        else:
            self._wait += 1
            if self._wait >= self.patience:
                self.model.stop_training = True

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self._epoch = epoch + 1

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        by_query = self.model.layout == "lists" or self.model.queries is not None
        if self._last is None or by_query or "val_loss" not in (logs or {}):
            return
        for task, auc in zip(self.model.tasks, self._last.aucs.tolist(), strict=True):
            if not math.isnan(auc):
                logs.setdefault(f"val_{task}_auc", auc)

    def on_train_end(self, logs=None):
        if self._kept is None:
            return
        self.model.net.set_weights(self._kept)
        if self.verbose:
            stopped = f"{self.patience} readings of the held-out rows brought nothing better. "
            print(
                f"Epoch {self._epoch}: {stopped if self._wait >= self.patience else ''}"
                f"The weights are those of the best reading, in epoch {self._best_epoch}."
            )


class TaskBoard(keras.callbacks.Callback):
    """Writes what a multi-task run shows to TensorBoard.

    Every scalar of the logs becomes one with its group before the slash: ``loss/like``,
    ``weight/like``, ``gradient_norm/like``, ``cosine/like_click``, ``lambda/like``, metrics as
    ``auc/like`` and figures of held-out rows as ``val_loss/like``; the total is ``loss``. As in
    Keras, losses and metrics are means over the epoch so far, what a balancer shows is of the step.
    Values that are not finite are left out. :func:`tfmtl.plots.history` draws the folder.

    Steps are the model's ``steps_taken``: a resumed run goes on, and takes the place of what the
    killed one had written beyond the steps it resumes from. A run that starts anew takes the place
    of all, so give it a folder of its own.

    It needs no package beside TensorFlow. Where several workers train, the chief writes.

    Args:
        log_dir: the folder; it is made where there is none.
        every: write every so many steps, and at the end of each epoch.
        similarity: also show the cosine between gradient and update, over the shared variables
            (``similarity/shared``), over those of the tasks (``similarity/task``), and how the two
            differ (``similarity/difference``): PUB, equation 1.

    Raises:
        ValueError: ``log_dir`` is not a path, ``every`` not a positive integer, or ``similarity``
            not a boolean.
    """

    def __init__(self, log_dir: str | os.PathLike, every: int = 100, similarity: bool = False):
        super().__init__()
        if not isinstance(log_dir, (str, os.PathLike)) or not os.fspath(log_dir):
            raise ValueError(f"`log_dir` must be the path of a folder. Received: {log_dir!r}")
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise ValueError(f"`every` must be a positive integer. Received: {every!r}")
        if not isinstance(similarity, bool):
            raise ValueError(f"`similarity` must be True or False. Received: {similarity!r}")
        self.log_dir = os.fspath(log_dir)
        self.every = every
        #: Asks ``MultiTaskModel.fit`` to compute the similarities.
        self.watches_updates = similarity
        # Keras 2.15 turns every figure of every step into a number, unless all callbacks say this.
        self._supports_tf_logs = True
        self._writer: events.ScalarWriter | None = None

    def on_train_begin(self, logs=None):
        self.on_train_end()  # of a `fit` that an error ended
        self._tags: dict[str, str] = {}
        self._written: set[str] = set()

    def on_epoch_begin(self, epoch, logs=None):
        # Not before: a callback behind this one may restore a run when the training begins.
        self._step = self.model.steps_taken
        if self._writer is None and self.model.distribute_strategy.extended.should_save_summary:
            self._writer = events.ScalarWriter(self.log_dir, self._step + 1)

    def on_train_batch_end(self, batch, logs=None):
        self._move()
        if self._due:
            self._write(logs)

    def on_epoch_end(self, epoch, logs=None):
        self._move()
        self._write(logs)
        if self._writer is not None:
            self._writer.flush()

    def on_train_end(self, logs=None):
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _move(self) -> None:
        """Go to the step that the model has come to."""
        step = self.model.steps_taken
        # An execution may hold several steps.
        self._due = step // self.every > self._step // self.every
        if step > self._step:
            self._step = step
            self._written.clear()

    def _write(self, logs: Mapping) -> None:
        """Write the figures that this step has not written yet."""
        if self._writer is None:
            return
        scalars = {}
        for name in (name for name in logs if name not in self._written):
            value = np.asarray(logs[name])
            if value.ndim == 0 and np.isfinite(value):
                if name not in self._tags:
                    self._tags[name] = figures.tag(name, self.model.tasks)
                scalars[self._tags[name]] = float(value)
        self._written.update(logs)
        self._writer.write(self._step, scalars)
