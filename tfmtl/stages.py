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
        planned = self.params["epochs"] * self.readings
        if self._nmt.done:
            self._nmt.proceed(planned)
        elif not self._nmt.started:
            self._nmt.begin(self._weights, self.model.read(), planned)

    def on_reading(self, reading):
        if self._nmt.done:
            return
        better, over = self._nmt.observe(reading, self.model.steps_taken)
        for task, multiplier in self._nmt.multipliers_at_limit().items():
            self.model.warn_once(
                f"The multiplier of task {task!r} has reached its limit, {multiplier:g}, and its "
                "constraint does not hold yet. It is kept there.",
                of=f"multiplier {task}",
            )
        if better:
            self._nmt.store("best", self._weights)
        if over:
            self._end_stage()

    def _end_stage(self) -> None:
        nmt = self._nmt
        paper = nmt.variant == "paper"
        if nmt.stage == 0 or not paper:
            nmt.restore("best", self._weights)
        if nmt.advance(self.model.read(training=True) if paper else None):
            self.model.stop_training = True
            return
        if not paper:
            nmt.restore("start", self._weights)
        compat.reset_optimizer(self.model.optimizer, self.model.net.trainable_variables)

    def on_train_end(self, logs=None):
        paper = self._nmt.variant == "paper" and self._nmt.stage > 0
        if not self._nmt.done and self._nmt.has_best and not paper:
            self._nmt.restore("best", self._weights)
