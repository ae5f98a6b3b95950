"""A line in the terminal that says where NMT stands."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING:
    from rich.console import Console


class StageProgress(keras.callbacks.Callback):
    """Prints where :class:`tfmtl.balancers.NMT` stands, in one line; give ``fit`` ``verbose=0``.

    The line says which stage runs, what the last reading found of its task, and for each task that
    is held where it stands, its baseline and its multiplier λ. At a terminal it is written anew
    with each reading, elsewhere once an epoch. A stage that has ended leaves a line with the level
    of its task, the baseline of later stages, and says whether the earlier tasks are held in the
    weights that it gives; and one more where the constraints left less than half of what it had
    learnt.

    Args:
        console: where to print; by default to the standard output.

    Raises:
        ValueError: in ``fit``, the balancer is another one.
    """

    def __init__(self, console: Console | None = None):
        super().__init__()
        from rich.console import Console

        self._console = console or Console()

    def on_train_begin(self, logs=None):
        from tfmtl.balancers import NMT  # which imports the callbacks

        if not isinstance(self.model.balancer, NMT):
            raise ValueError(
                "`StageProgress` is for `compile(balancer=NMT(...))`. "
                f"Received: {type(self.model.balancer).__name__}"
            )
        self._stage = -1

    def on_epoch_begin(self, epoch, logs=None):
        nmt = self.model.balancer
        if self._stage < 0:  # not before: a callback may restore a run when training begins
            self._stage, self._shown = nmt.stage, nmt.readings_taken
            self._baselines = nmt.baselines()
        self._show_ended()
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch, logs=None):
        if self._console.is_terminal:
            self._show_reading()
        self._show_ended()

    def on_epoch_end(self, epoch, logs=None):
        self._show_reading()

    def on_train_end(self, logs=None):
        if self._stage >= 0:
            self._show_ended()

    def _show_ended(self) -> None:
        nmt = self.model.balancer
        while self._stage < nmt.stage:
            if nmt.trace()[-1]["stage"] == self._stage + 1:
                self._show_reading()
            task, earlier = nmt.priority[self._stage], nmt.priority[: self._stage]
            found = nmt.baselines()[task]
            level = f"{task} {_level(**found)} around its best reading"
            self._stage += 1
            parts = [level, *(self._said_of(each) for each in earlier)]
            self._print(f"stage {self._stage} of {len(nmt.priority)} ended: {'; '.join(parts)}")
            self._baselines = nmt.baselines()
            seen = [r[f"auc_{task}"] for r in nmt.trace() if r["stage"] == self._stage]
            if earlier and _fell_short(found["auc"], seen):
                self._print(
                    f"{task} had reached AUC {max(seen):.4f}, but not while {', '.join(earlier)} "
                    "stood at the baseline on the held-out rows. These may have too few of its "
                    "labels to tell, or the tasks are at odds: try more held-out rows, more "
                    "epochs, or a tolerance."
                )

    def _said_of(self, task: str) -> str:
        """Whether an earlier task is held in what the stage that has just ended gives."""
        nmt = self.model.balancer
        kept = next((r for r in nmt.kept() if r["stage"] == self._stage), None)
        if kept is None or nmt.variant == "paper":  # which has no readings that are feasible
            return f"{task} was to stay where it was"
        loss, auc = kept[f"loss_{task}"], kept[f"auc_{task}"]
        baseline = self._baselines[task]
        if kept["feasible"]:
            return f"{task} held, {_level(loss, auc)} against {_level(**baseline)}"
        views = [f"loss {loss:.4g} against {baseline['loss']:.4g}"]
        if not math.isnan(auc):
            views.insert(0, f"AUC {auc:.4f} against {baseline['auc']:.4f}")
        return f"{task} NOT held, {', '.join(views)}"

    def _show_reading(self) -> None:
        nmt = self.model.balancer
        if nmt.readings_taken == self._shown:
            return
        self._shown = nmt.readings_taken
        last = nmt.trace()[-1]
        running, *held = nmt.priority[last["stage"] - 1 :: -1]

        def found(task: str) -> str:
            return f"{task} {_level(last[f'loss_{task}'], last[f'auc_{task}'])}"

        parts = [found(running)]
        for task in held:
            baseline = _level(**self._baselines[task])
            where = f"baseline {baseline.split()[-1]}, λ {last[f'lambda_{task}']:.3g}"
            parts.append(f"{found(task)} ({where})")
        where = (
            f"stage {last['stage']}/{len(nmt.priority)}, epoch {self._epoch}/"
            f"{self.params['epochs']}"
        )
        self._print(f"{where}: {', '.join(parts)}", stays=not self._console.is_terminal)

    def _print(self, text: str, *, stays: bool = True) -> None:
        options: dict = {"soft_wrap": True}
        if self._console.is_terminal:
            from rich.control import Control, ControlType

            erase = (ControlType.ERASE_IN_LINE, 2)
            self._console.control(Control(ControlType.CARRIAGE_RETURN, erase))
            options = {"no_wrap": True, "overflow": "ellipsis"}
        end = "\n" if stays else ""
        self._console.print(text, end=end, highlight=False, markup=False, **options)


def _fell_short(kept: float, seen: list[float]) -> bool:
    """Whether most of what a stage had learnt is not in what it returns (NaN: cannot be told)."""
    return kept - 0.5 < (max(seen, default=math.nan) - 0.5) / 2 and max(seen) > 0.55


def _level(loss: float, auc: float) -> str:
    """How good a task is: its AUC where it has one."""
    return f"loss {loss:.4g}" if math.isnan(auc) else f"AUC {auc:.4f}"
