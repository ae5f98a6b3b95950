"""The readings of NMT's stages, kept in a variable that is saved with the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfmtl import compat

#: So many readings are kept; later ones are not recorded.
ROWS = 2048
_FIGURES = ("weight", "lambda", "loss", "auc", "violation")


class Readings:
    """What each reading found.

    Args:
        layer: the balancer, which owns the variable.
        tasks: their names.
    """

    def __init__(self, layer, tasks: Sequence[str]):
        self._tasks = tuple(tasks)
        columns = 3 + len(_FIGURES) * len(self._tasks)
        self._rows = compat.add_state(layer, "trace", (ROWS, columns), initial=np.nan)

    def record(self, place: int, step: int, stage: int, feasible: bool, *figures) -> None:
        """Keep a reading.

        Args:
            place: how many there were before.
            step, stage, feasible: the stage counts from 0.
            figures: ``[tasks]`` each: weights, multipliers relative to the stage's own task,
                losses, AUCs, violations.
        """
        if place < ROWS:
            rows = self._rows.numpy()
            rows[place] = np.concatenate([[step, stage + 1, feasible], *figures])
            self._rows.assign(rows)

    def _recorded(self) -> np.ndarray:
        rows = self._rows.numpy()
        return rows[~np.isnan(rows[:, 0])]

    def risks(self, stage: int) -> np.ndarray:
        """``[readings, tasks, 2]``: loss and 1 − AUC of a stage's readings."""
        n = len(self._tasks)
        rows = self._recorded()
        rows = rows[rows[:, 1] == stage + 1]
        losses, aucs = rows[:, 3 + 2 * n : 3 + 3 * n], rows[:, 3 + 3 * n : 3 + 4 * n]
        return np.stack([losses, 1.0 - aucs], axis=2)

    def as_dicts(self) -> list[dict]:
        """Every reading, as :meth:`tfmtl.balancers.NMT.trace` says."""
        names = ["step", "stage", "feasible"]
        names += [f"{figure}_{task}" for figure in _FIGURES for task in self._tasks]
        found = []
        for row in self._recorded().tolist():
            step, stage, feasible = row[:3]
            first = {"step": int(step), "stage": int(stage), "feasible": bool(feasible)}
            found.append({**first, **dict(zip(names[3:], row[3:], strict=True))})
        return found


def level(risks: np.ndarray, best: int) -> np.ndarray:
    """How low a stage's risks were around its best reading: of the means over three readings in a
    row with that one among them the lowest, each risk for itself.

    Args:
        risks: ``[readings, ...]``.
        best: which reading is the best; of fewer than three readings it is the level.
    """
    if len(risks) < 3:
        return risks[best]
    windows = range(max(0, best - 2), min(best, len(risks) - 3) + 1)
    return np.min([risks[i : i + 3].mean(axis=0) for i in windows], axis=0)


def monitored(risks: np.ndarray) -> np.ndarray:
    """1 − AUC where there is one, else the loss; drops the last axis."""
    return np.where(np.isnan(risks[..., 1]), risks[..., 0], risks[..., 1])
