"""The callback that leads a training run through the stages of a priority list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfmtl import compat
from tfmtl.callbacks import HeldOutReadings

if TYPE_CHECKING:
    from tfmtl.balancers.nmt import NMT


class PriorityStages(HeldOutReadings):
    """Runs the stages of :class:`tfmtl.balancers.NMT` within one ``fit``.

    ``MultiTaskModel.fit`` adds it before the user's callbacks, so that a backup at the end of an
    epoch holds the stage as it is. All that it decides is state of the balancer.
    """

    def __init__(self, nmt: NMT):
        super().__init__(nmt.readings)
        self._nmt = nmt

    @property
    def _weights(self) -> list:
        return [compat.tf_variable(variable) for variable in self.model.net.weights]

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        planned = self.params["epochs"] * self.per_epoch()
        if self._nmt.done:
            self._nmt.proceed(planned)
        elif not self._nmt.started:
            self._nmt.begin(self._weights, self.model.read(), planned)

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self._go_on()

    def on_train_batch_end(self, batch, logs=None):
        before = self._done
        super().on_train_batch_end(batch, logs)
        if self._done > before:
            self._go_on()

    def on_reading(self, reading):
        if self._nmt.done:
            return
        better = self._nmt.observe(reading, self.model.steps_taken)
        for task, multiplier in self._nmt.multipliers_at_limit().items():
            self.model.warn_once(
                f"The multiplier of task {task!r} has reached its limit, {multiplier:g} times the "
                "ratio of the losses' sizes, and its constraint does not hold yet; it stays there. "
                "Wider layers, a model that gives tasks room of their own (PLE), or a tolerance "
                "may help.",
                of=f"multiplier {task}",
            )
        if better:
            self._nmt.store("best", self._weights)

    def on_epoch_end(self, epoch, logs=None):
        # Another stage than the last, if it is over, ends when the next epoch begins: callbacks
        # that keep the weights of the best epoch are still to see those that its figures are of.
        known = bool(self._steps)
        super().on_epoch_end(epoch, logs)
        if not known and not self._nmt.done:
            left = self.params["epochs"] - epoch - 1
            self._nmt.plan(self._nmt.readings_taken + left * self.per_epoch())
        if self._nmt.stage == len(self._nmt.tasks) - 1:
            self._go_on()

    def on_train_end(self, logs=None):
        nmt = self._nmt
        if nmt.done:
            return
        if nmt.has_best and not self._keeps_last:
            nmt.restore("best", self._weights)
        missed = list(nmt.priority[nmt.stage + 1 :])
        if missed:
            stopped = self.model.stop_training
            how = "was stopped, not by NMT," if stopped else "ended"
            remedy = (
                "NMT(patience=...) stops each stage by itself."
                if stopped
                else ("Each stage needs at least a reading: give more epochs, or smaller batches.")
            )
            self.model.warn_once(
                f"Training {how} in stage {nmt.stage + 1} of {len(nmt.tasks)}: {missed} have not "
                f"been trained. {remedy}"
            )

    @property
    def _keeps_last(self) -> bool:
        """Whether the stage's result are its last weights, not those of its best reading."""
        return self._nmt.variant == "paper" and self._nmt.stage > 0

    def _go_on(self) -> None:
        """Go to the next stage where the running one is over."""
        nmt = self._nmt
        if not nmt.over:
            return
        paper = nmt.variant == "paper"
        if not self._keeps_last:
            nmt.restore("best", self._weights)
        if nmt.advance(self.model.read(training=True) if paper else None):
            self.model.stop_training = True
            return
        if not paper:
            nmt.restore("start", self._weights)
        compat.reset_optimizer(self.model.optimizer, self.model.net.trainable_variables)
