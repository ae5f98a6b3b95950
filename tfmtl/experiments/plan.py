"""A file that says what is compared: models, methods and seeds on a data set."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl import config, optimizers
from tfmtl.experiments.runs import Run
from tfmtl.experiments.settings import Settings
from tfmtl.experiments.sources import SOURCES, check_tasks
from tfmtl.names import MODELS, check_methods

#: What ``--quick`` makes of a file's settings, and of its seeds.
QUICK: dict[str, Any] = {"epochs": 1, "epoch_rows": 16384, "batch_size": 512, "experts": 2}
QUICK_SEEDS = 2
_KINDS = {
    int: "a positive integer",
    float: "a positive number",
    bool: "true or false",
    str: "a name",
    tuple: "a list of positive integers",
    dict: "a positive number for some of the tasks",
}
#: Settings that a file may set, and of what kind their values are.
_SETTABLE = {
    "epochs": int,
    "batch_size": int,
    "epoch_rows": int,
    "optimizer": str,
    "learning_rate": float,
    "experts": int,
    "expert_units": tuple,
    "tower_units": tuple,
    "embedding_width": int,
    "monitor": str,
    "scales": dict,
    "similarity": bool,
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is compared.

    Args:
        title: of the tables.
        data: the data set.
        tasks: for each table its tasks, in priority order.
        models: names of :data:`tfmtl.names.MODELS`.
        methods: as :class:`tfmtl.experiments.runs.Run` has them; ``single:TASK`` stands for each
            task alone.
        seeds: how many.
        reference: the method that others are tested against.
        settings: the budget of every method.
        trials: for each setting that is tried its values. Every method gets all combinations, with
            seed 0, and keeps the one that validation rows speak for.
        few: the methods of the reduced form; by default all.
    """

    title: str
    data: str
    tasks: tuple[tuple[str, ...], ...]
    models: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: int
    reference: str
    settings: Settings
    trials: Mapping[str, Sequence] = dataclasses.field(default_factory=dict)
    few: tuple[str, ...] = ()

    def first(self) -> list[Run]:
        """The runs of seed 0, with every trial."""
        return [run for cell in self._cells() for run in self._trials(cell)]

    def chosen(self, records: Mapping[str, Mapping]) -> list[Run]:
        """The runs of all seeds, seed by seed, each method with the settings it keeps.

        Args:
            records: of the runs of :meth:`first`, by their keys; without trials none are needed.
        """
        best = []
        for cell in self._cells():
            tried = self._trials(cell)
            scores = [self._score(run, records[run.key]) for run in tried if self.trials]
            best.append(tried[int(np.argmax(scores)) if scores else 0])
        return [dataclasses.replace(run, seed=seed) for seed in range(self.seeds) for run in best]

    def quick(self) -> Plan:
        """The same with less of everything: the first tasks, the last model, few methods, an epoch
        of few rows, two seeds, no trials.
        """
        return dataclasses.replace(
            self,
            tasks=self.tasks[:1],
            models=self.models[-1:],
            methods=self.few,
            seeds=QUICK_SEEDS,
            settings=dataclasses.replace(self.settings, **QUICK),
            trials={},
        )

    def _cells(self) -> Iterator[tuple[tuple[str, ...], str, str]]:
        """Tasks, model and method."""
        for tasks, model in itertools.product(self.tasks, self.models):
            for method in expanded(self.methods, tasks):
                yield tasks, model, method

    def _trials(self, cell: tuple[tuple[str, ...], str, str]) -> list[Run]:
        tasks, model, method = cell
        settings = dataclasses.replace(self.settings, tasks=tasks, model=model)
        return [
            Run(
                self.data,
                method,
                0,
                dataclasses.replace(settings, **dict(zip(self.trials, values, strict=True))),
            )
            for values in itertools.product(*self.trials.values())
        ]

    def _score(self, run: Run, record: Mapping) -> float:
        """The mean validation AUC of the tasks that a run trains; of regression 1 - MSE."""
        found = []
        for task in run.trained:
            measure = run.measure(task)
            value = float(record[f"validation_{measure}_{task}"])
            found.append(value if measure == "auc" else 1 - value)
        return float(np.mean(found))


def expanded(methods: Sequence[str], tasks: Sequence[str]) -> list[str]:
    """Methods with ``TASK`` replaced by each task, each once."""
    named = (method.replace("TASK", task) for method in methods for task in tasks)
    return list(dict.fromkeys(named))


def read(path: str | pathlib.Path) -> Plan:
    """The plan that a YAML file holds.

    Its keys are those of :class:`Plan`. ``tasks`` may be one list; of ``settings`` and ``trials``
    the keys are those of :class:`tfmtl.experiments.settings.Settings`, under ``trials`` with a list
    of values each.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not YAML, a key is unknown, missing or has a wrong value. The file, the
            line and the key are named.
    """
    found = config.read(path)
    fields = [field.name for field in dataclasses.fields(Plan)]
    found.check_keys(fields, required=("title", "data", "methods"))
    data = found.choice("data", sorted(SOURCES))
    base = SOURCES[data].settings
    tasks = _names(found, "tasks", [list(base.tasks)])
    with found.naming("tasks"):
        for each in tasks:
            check_tasks(data, each)
    (models,) = _names(found, "models", ["mmoe"])
    with found.naming("models"):
        unknown = sorted(set(models) - set(MODELS))
        if unknown:
            raise ValueError(f"expected some of {list(MODELS)}. Received: {unknown}")
    (methods,) = _names(found, "methods")
    with found.naming("methods"):
        for each in tasks:
            check_methods(tuple(expanded(methods, each)), each)
    reference = found.choice("reference", methods, methods[0])
    (few,) = _names(found, "few", list(methods))
    with found.naming("few"):
        if reference not in few or not set(few) <= set(methods):
            raise ValueError(f"expected some of the methods, {reference!r} among them")
    with found.naming("seeds"):
        seeds = _checked("seeds", int, found.value("seeds", default=5))
    section = found.section("settings")
    section.check_keys(_SETTABLE)
    settings = {name: _setting(section, name, section.value(name)) for name in section}
    section = found.section("trials")
    section.check_keys(_SETTABLE)
    trials = {
        name: tuple(_setting(section, name, value) for value in section.value(name, list))
        for name in section
    }
    return Plan(
        title=found.value("title", str),
        data=data,
        tasks=tasks,
        models=models,
        methods=methods,
        seeds=seeds,
        reference=reference,
        settings=dataclasses.replace(base, tasks=tasks[0], **settings),
        trials=trials,
        few=few,
    )


def _names(section: config.Section, key: str, *default: list) -> tuple[tuple[str, ...], ...]:
    """A list of names, or a list of such lists."""
    value = section.value(key, list, *default)
    with section.naming(key):
        lists = value if value and isinstance(value[0], list) else [value]
        if not all(each and isinstance(name, str) for each in lists for name in each or [None]):
            raise ValueError(f"expected names. Received: {value!r}")
    return tuple(tuple(each) for each in lists)


def _setting(section: config.Section, name: str, value) -> Any:
    with section.naming(name):
        found = _checked(name, _SETTABLE[name], value)
        if name == "optimizer":
            optimizers.named(found)
        if name == "monitor" and found not in ("loss", "mean", "primary"):
            raise ValueError(f"expected 'loss', 'mean' or 'primary'. Received: {found!r}")
    return found


def _checked(name: str, kind: type, value) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    right = {
        int: number and isinstance(value, int) and value > 0,
        float: number and value > 0,
        bool: isinstance(value, bool),
        str: isinstance(value, str),
        tuple: isinstance(value, list) and all(isinstance(v, int) and v > 0 for v in value),
        dict: isinstance(value, dict)
        and all(isinstance(v, (int, float)) and v > 0 for v in value.values()),
    }[kind]
    if not right:
        raise ValueError(f"expected {_KINDS[kind]}. Received: {value!r}")
    return tuple(value.items()) if kind is dict else kind(value)
