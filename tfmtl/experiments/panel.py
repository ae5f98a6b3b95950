"""One panel of a plan's tables: what every method gave for a set of tasks and a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tfmtl.experiments.plan import Plan
from tfmtl.experiments.runs import Run
from tfmtl.metrics import delta_m

#: How a table calls the runs that train one task each.
ALONE = "single"
MODELS = {"shared_bottom": "Shared-Bottom", "omoe": "OMoE", "mmoe": "MMoE", "ple": "PLE"}


class Panel:
    """What a set of tasks and a model gave.

    Args:
        tasks: in priority order.
        model: its name.
        runs: of the tasks and the model.
        records: of the runs.

    Attributes:
        measures: ``{task: "auc" or "mse"}``.
        values: of each method ``[seeds, tasks]``; the runs of each task alone are one method.
        seconds: of each method ``[seeds, 2]``: of training, and of an epoch.
        overall: of each method ``[seeds]``: the mean AUC, or where a task has none Δm% against each
            task alone with its sign turned, so that more is better.
    """

    def __init__(
        self, tasks: tuple[str, ...], model: str, runs: Sequence[Run], records: Sequence[Mapping]
    ):
        self.tasks, self.model = tasks, model
        self.runs, self.records = runs, records
        self.measures = {task: runs[0].measure(task) for task in tasks}
        found: dict[str, dict[int, np.ndarray]] = {}
        times: dict[str, dict[int, np.ndarray]] = {}
        for run, record in zip(runs, records, strict=True):
            method = ALONE if run.method.startswith("single:") else run.method
            row = found.setdefault(method, {}).setdefault(run.seed, np.full(len(tasks), np.nan))
            for task in run.trained:
                row[tasks.index(task)] = float(record[f"{self.measures[task]}_{task}"])
            total = times.setdefault(method, {}).setdefault(run.seed, np.zeros(2))
            total += [float(record["seconds"]), float(record["seconds_an_epoch"])]
        self.values = {m: np.array([rows[s] for s in sorted(rows)]) for m, rows in found.items()}
        self.seconds = {m: np.array([rows[s] for s in sorted(rows)]) for m, rows in times.items()}
        self.ranked = set(self.measures.values()) == {"auc"}
        if self.ranked:
            self.overall = {m: values.mean(axis=1) for m, values in self.values.items()}
        else:
            self.overall = {
                m: np.array([-self.drop(row) for row in values])
                for m, values in self.values.items()
            }

    @classmethod
    def of(cls, plan: Plan, runs: Sequence[Run], records: Sequence[Mapping]) -> list[Panel]:
        """The panels of a plan, in its order."""
        found = []
        for tasks in plan.tasks:
            for model in plan.models:
                own = [
                    (run, record)
                    for run, record in zip(runs, records, strict=True)
                    if (run.settings.tasks, run.settings.model) == (tasks, model)
                ]
                found.append(cls(tasks, model, *map(list, zip(*own, strict=True))))
        return found

    @property
    def title(self) -> str:
        """Model and tasks."""
        return f"{MODELS[self.model]}: {', '.join(self.tasks)}"

    def alone(self, task: str) -> bool:
        """Whether a task was trained alone."""
        return any(run.method == f"single:{task}" for run in self.runs)

    def key(self, method: str, seed: int) -> str:
        """Of a method's run; an empty one where there is none."""
        found = (run.key for run in self.runs if (run.method, run.seed) == (method, seed))
        return next(found, "")

    def drop(self, row: np.ndarray) -> float:
        """Δm% of a row of measures against each task alone; NaN where these were not trained."""
        if not all(map(self.alone, self.tasks)):
            return float("nan")
        alone = self.values[ALONE].mean(axis=0)
        lower = [task for task, measure in self.measures.items() if measure == "mse"]
        found, base = (dict(zip(self.tasks, each.tolist(), strict=True)) for each in (row, alone))
        return delta_m(found, base, lower)

    def ranks(self) -> dict[str, float]:
        """The mean over tasks of a method's rank by its mean over seeds, 1 being the best."""
        names = [name for name in self.values if name != ALONE]
        means = np.array([self.values[name].mean(axis=0) for name in names])
        means *= [1 if self.measures[task] == "auc" else -1 for task in self.tasks]
        places = (means[None] > means[:, None]).sum(axis=1) + 1.0
        return dict(zip(names, places.mean(axis=1).tolist(), strict=True))
