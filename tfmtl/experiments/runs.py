"""One training run of a comparison: a configuration in, a folder of results out."""

from __future__ import annotations

import csv
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

from tfmtl import balancers, callbacks, files, metrics, models, optimizers
from tfmtl.data import Rows, Splits
from tfmtl.experiments.settings import BALANCED, Settings, balancer_of, weights_of
from tfmtl.model import MultiTaskModel

#: How the name of a run's folder begins until the run is whole.
UNFINISHED = ".run-"


@dataclasses.dataclass(frozen=True)
class Run:
    """What is trained.

    Args:
        data: the data set's name.
        method: ``"single:<task>"``, ``"sum:<weight of the primary>"`` (the other tasks share the
            rest) or ``"sum:<weight>:<weight>..."`` of each task, ``"nmt"``, ``"nmt-paper"``, or a
            balancer with its options, ``"PUB:rescale=sum+update_every=1"``.
        seed: of the initial weights and of the order of the rows.
        settings: network and budget; ``settings.tasks`` are in priority order.
    """

    data: str
    method: str
    seed: int
    settings: Settings

    @property
    def key(self) -> str:
        """A folder name that changes with anything in the configuration."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
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
        NMT ``trace.csv`` and the SavedModel ``model/``.
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
    keras.backend.clear_session()
    keras.utils.set_random_seed(run.seed)
    settings = run.settings
    tasks = settings.tasks
    net = models.MMoE(
        tasks,
        splits.features,
        experts=settings.experts,
        expert_units=settings.expert_units,
        tower_units=settings.tower_units,
        seed=1000 * run.seed,
    )
    loss: dict[str, str | None] = dict.fromkeys(tasks, "binary_crossentropy")
    balancer, extra, stages = _method(run.method, tasks, loss)
    model = MultiTaskModel(net)
    model.compile(
        optimizers.named(settings.optimizer, learning_rate=settings.learning_rate),
        loss=loss,
        balancer=balancer,
        steps_per_execution=10,
    )

    def on_epoch_end(epoch: int, logs: dict) -> None:
        stage = f", stage {logs['stage']:.0f}" if "stage" in logs else ""
        report(f"{run.method}, seed {run.seed}: epoch {epoch + 1}{stage}")

    begun = time.perf_counter()
    history = model.fit(
        splits.train.batches(settings.batch_size, shuffle=True, seed=run.seed),
        validation_data=splits.validation.batches(8192),
        epochs=settings.epochs * stages,
        verbose=0,
        callbacks=[*extra, keras.callbacks.LambdaCallback(on_epoch_end=on_epoch_end)],
    )
    seconds = time.perf_counter() - begun
    scores = _scores(model, splits.test, tasks)
    arrays: dict = dict(scores)
    np.savez_compressed(folder / "test.npz", **arrays)
    record = {
        "data": run.data,
        "tasks": ">".join(tasks),
        "method": run.method,
        "seed": run.seed,
        **_aucs("auc", splits.test, scores),
        **_aucs("validation_auc", splits.validation, _scores(model, splits.validation, tasks)),
        "epochs": len(history.history["loss"]),
        "steps": int(model.progress.numpy()[0]),
        "seconds": round(seconds, 1),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
    (folder / "record.json").write_text(json.dumps(record, indent=1))
    if run.method.startswith("nmt"):
        write_csv(folder / "trace.csv", balancer.trace())
        model.export(str(folder / "model"))


def _scores(model: MultiTaskModel, rows: Rows, tasks: tuple[str, ...]) -> dict[str, np.ndarray]:
    """``{task: [rows]}``, float32."""
    predictions = model.predict(rows.batches(8192), verbose=0)
    return {task: np.asarray(predictions[task], np.float32).ravel() for task in tasks}


def _aucs(name: str, rows: Rows, scores: dict[str, np.ndarray]) -> dict[str, float]:
    """``{name_task: AUC}`` over the rows that carry a label."""
    found = {}
    for task, values in scores.items():
        known = ~np.isnan(rows.labels[task])
        found[f"{name}_{task}"] = metrics.auc(rows.labels[task][known], values[known])
    return found


def _method(method: str, tasks: tuple[str, ...], loss: dict):
    """A balancer, further callbacks, and the number of stages; may switch losses off."""
    kind, _, argument = method.partition(":")
    if kind == "single":
        loss.update({task: None for task in tasks if task != argument})
        return balancers.NMT([argument]), [], 1
    weights = weights_of(method, tasks)
    if weights is not None:
        return balancers.FixedWeights(weights), [callbacks.BestReading(weights)], 1
    if kind in BALANCED:
        return balancer_of(method), [callbacks.BestReading(dict.fromkeys(tasks, 1.0))], 1
    variant = "paper" if method == "nmt-paper" else "held_out"
    return balancers.NMT(tasks, variant=variant), [], len(tasks)


def write_csv(path: pathlib.Path, rows: list[dict]) -> None:
    """Write rows, beside the place first; a key that a row does not have is an empty cell."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with files.written(path) as beside, open(beside, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a CSV file as dicts of strings."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
