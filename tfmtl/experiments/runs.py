"""One training run of a comparison: a configuration in, a folder of results out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import tempfile
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tfmtl import balancers, callbacks, compat, losses, metrics, optimizers
from tfmtl.data import Rows, Splits
from tfmtl.experiments.settings import Settings, network
from tfmtl.experiments.sources import SOURCES
from tfmtl.files import write_csv
from tfmtl.model import MultiTaskModel
from tfmtl.names import balancer_of, is_nmt, trains, weights_of

#: What a record tells of gradients and updates, where they are watched.
SIMILARITIES = ("similarity_shared", "similarity_task", "difference")
#: How the name of a run's folder begins until the run is whole.
UNFINISHED = ".run-"


@dataclasses.dataclass(frozen=True)
class Run:
    """What is trained.

    Args:
        data: the data set's name.
        method: ``"single:<task>"``, ``"sum:<weight of the primary>"`` (the other tasks share the
            rest) or ``"sum:<weight>:<weight>..."`` of each task, one of
            :data:`tfmtl.names.NAMED`, or a balancer with its options,
            ``"PUB:rescale=sum+update_every=1"``.
        seed: of the initial weights and of the order of the rows.
        settings: network and budget; ``settings.tasks`` are in priority order.
    """

    data: str
    method: str
    seed: int
    settings: Settings

    @property
    def trained(self) -> tuple[str, ...]:
        """The tasks that are trained: one, or all."""
        return tuple(task for task in self.settings.tasks if trains(self.method, task))

    def measure(self, task: str) -> str:
        """``"auc"``, or ``"mse"`` for a regression task."""
        return "mse" if task in self.regression else "auc"

    @property
    def regression(self) -> frozenset[str]:
        """The tasks whose labels are numbers."""
        return SOURCES[self.data].regression if self.data in SOURCES else frozenset()

    @property
    def key(self) -> str:
        """A folder name that changes with anything in the configuration.

        Settings that have their default are not in it: a new setting leaves older runs' keys.
        """
        given = {
            field.name: getattr(self.settings, field.name)
            for field in dataclasses.fields(Settings)
            if getattr(self.settings, field.name) != field.default
        }
        text = json.dumps([self.data, self.method, self.seed, given], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        return f"{re.sub('[^A-Za-z0-9.]+', '-', self.method)}-seed{self.seed}-{digest}"


def execute(
    run: Run, splits: Splits, folder: pathlib.Path, report: Callable[[str], None] | None = None
) -> pathlib.Path:
    """Train and test, unless that has been done: the run's folder is whole or absent.

    Args:
        run: the configuration.
        splits: its rows.
        folder: where the folders of runs are.
        report: is called with a line of progress at each epoch.

    Returns:
        The run's folder: ``record.json`` (AUCs on test and validation rows, epochs, steps,
        seconds of training, versions); ``test.npz`` with the test rows' predictions by task; with
        NMT ``trace.csv``, and of seed 0 the SavedModel ``model/``.
    """
    target = folder / run.key
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    beside = pathlib.Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder))
    try:
        _train(run, splits, beside, report or (lambda line: None))
        os.chmod(beside, 0o755)
        try:
            os.rename(beside, target)
        except OSError:
            if not target.exists():  # else another command has just finished the same run
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return target


def _train(run: Run, splits: Splits, folder: pathlib.Path, report: Callable[[str], None]) -> None:
    compat.forget_graphs()
    keras.utils.set_random_seed(run.seed)
    settings = run.settings
    net = network(settings, splits.features, 1000 * run.seed, run.regression)
    balancer = _balancer(run)
    optimizer = "Clippy" if run.method.startswith("clippy") else settings.optimizer
    model = MultiTaskModel(net)
    model.compile(
        optimizers.named(optimizer, learning_rate=settings.learning_rate),
        loss={task: _loss(run, task) if task in run.trained else None for task in settings.tasks},
        balancer=balancer,
        steps_per_execution=10,
    )
    rows = splits.train.batches(settings.batch_size, shuffle=True, seed=run.seed)
    if settings.epoch_rows is not None:
        rows = rows.take(-(-settings.epoch_rows // settings.batch_size))
    notes = _Notes(run, report)
    begun = time.perf_counter()
    history = model.fit(
        rows,
        validation_data=splits.validation.batches(8192),
        epochs=settings.epochs * (len(settings.tasks) if is_nmt(run.method) else 1),
        verbose=0,
        callbacks=[*_stopping(run, splits.validation), notes],
    ).history
    seconds = time.perf_counter() - begun
    scores = _scores(model, splits.test, settings.tasks)
    arrays: dict = dict(scores)
    np.savez_compressed(folder / "test.npz", **arrays)
    held_out = _scores(model, splits.validation, settings.tasks)
    record = {
        "key": run.key,
        "data": run.data,
        "tasks": ">".join(settings.tasks),
        "model": settings.model,
        "method": run.method,
        "seed": run.seed,
        "learning_rate": settings.learning_rate,
        "batch_size": settings.batch_size,
        **_measures(run, "", splits.test, scores),
        **_measures(run, "validation_", splits.validation, held_out),
        **{name: float(np.mean(history[name])) for name in SIMILARITIES if name in history},
        "epochs": len(history["loss"]),
        "steps": model.steps_taken,
        "seconds": round(seconds, 1),
        "seconds_an_epoch": round(notes.seconds_an_epoch, 2),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
    (folder / "record.json").write_text(json.dumps(record, indent=1))
    if is_nmt(run.method):
        write_csv(folder / "trace.csv", balancer.trace())
        if run.seed == 0:
            model.export(str(folder / "model"))


class _Notes(keras.callbacks.Callback):
    """Says how far a run is, times its epochs, and has updates watched where settings say so."""

    def __init__(self, run: Run, report: Callable[[str], None]):
        super().__init__()
        self.watches_updates = run.settings.similarity
        self._run = run
        self._report = report
        self._seconds: list[float] = []

    def on_epoch_begin(self, epoch, logs=None):
        self._begun = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self._seconds.append(time.perf_counter() - self._begun)
        stage = f", stage {logs['stage']:.0f}" if "stage" in logs else ""
        run = self._run
        what = f"{run.settings.model}, {run.method}, seed {run.seed}"
        self._report(f"{what}: epoch {epoch + 1}{stage}")

    @property
    def seconds_an_epoch(self) -> float:
        """The median of all but the first, in which the graph is made."""
        return float(np.median(self._seconds[1:] or self._seconds))


def _scores(model: MultiTaskModel, rows: Rows, tasks: tuple[str, ...]) -> dict[str, np.ndarray]:
    """``{task: [rows]}``, float32."""
    predictions = model.predict(rows.batches(8192), verbose=0)
    return {task: np.asarray(predictions[task], np.float32).ravel() for task in tasks}


def _measures(run: Run, prefix: str, rows: Rows, scores: dict) -> dict[str, float]:
    """``{prefix + auc_task: AUC}``, or ``mse_task``, over the rows that carry a label."""
    found = {}
    for task, values in scores.items():
        known = ~np.isnan(rows.labels[task])
        labels, values = rows.labels[task][known], values[known]
        if run.measure(task) == "auc":
            value = metrics.auc(labels, values)
        else:
            value = float(np.mean(np.square(labels - values.astype(float))))
        found[f"{prefix}{run.measure(task)}_{task}"] = value
    return found


def _loss(run: Run, task: str):
    kind = keras.losses.MeanSquaredError if task in run.regression else None
    loss = (kind or keras.losses.BinaryCrossentropy)()
    factor = dict(run.settings.scales).get(task)
    return loss if factor is None else losses.Scaled(loss, factor)


def _balancer(run: Run) -> balancers.Balancer:
    if run.method.startswith("single:"):
        return balancers.NMT(run.trained)
    weights = weights_of(run.method, run.settings.tasks)
    if weights is not None:
        return balancers.FixedWeights(weights)
    return balancer_of(run.method, run.settings.tasks)


def _stopping(run: Run, held_out: Rows) -> list[callbacks.BestReading]:
    """Early stopping, where the balancer does not stop by itself."""
    tasks, monitor = run.settings.tasks, run.settings.monitor
    if is_nmt(run.method) or len(run.trained) == 1:
        return []
    if monitor == "loss":
        weights = weights_of(run.method, tasks) or dict.fromkeys(tasks, 1.0)
        return [callbacks.BestReading(weights)]
    scales = dict(run.settings.scales)
    counted = tasks if monitor == "mean" else tasks[:1]
    weights = {
        task: 1 / (scales.get(task, 1.0) * float(np.nanvar(held_out.labels[task])))
        if task in run.regression
        else 1.0
        for task in counted
    }
    return [callbacks.BestReading(weights, monitor="auc")]
