"""A recipe carried out: trained, tested, and left for a server."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from tfmtl import balancers, callbacks, metrics, optimizers
from tfmtl.data import Rows, Splits, table
from tfmtl.data.table import columns_of
from tfmtl.data.table import read as read_table
from tfmtl.files import read_csv, write_csv
from tfmtl.model import MultiTaskModel
from tfmtl.names import balancer_of, is_nmt, weights_of
from tfmtl.preprocessing import Preprocessor
from tfmtl.training.recipe import MODELS, Recipe, loss_named, read

#: What a run leaves in its folder.
RECIPE, COLUMNS, WEIGHTS, SERVED = "recipe.yaml", "columns.json", "model.weights.h5", "model/1"
HISTORY, BACKUP = "history.csv", "backup"


def load(recipe: Recipe) -> Splits:
    """The recipe's rows; errors as of :func:`tfmtl.data.table`."""
    if not os.path.isfile(recipe.file):
        raise FileNotFoundError(
            f"`file` must be a CSV file; in a recipe, as seen from it. Received: {recipe.file!r}"
        )
    return table(
        recipe.file,
        tasks=recipe.tasks,
        columns=recipe.columns,
        ignore=recipe.ignore,
        groups=recipe.groups,
        time=recipe.time,
        validation_fraction=recipe.validation_fraction,
        test_fraction=recipe.test_fraction,
        seed=recipe.split_seed,
    )


def build(recipe: Recipe, splits: Splits, alone: str | None = None) -> MultiTaskModel:
    """A compiled model.

    Args:
        recipe: says which.
        splits: the rows.
        alone: the one task to train, the others being at rest.
    """
    tasks = recipe.tasks
    kind, options = MODELS[recipe.model], dict(recipe.options)
    steps = int(_batches(splits.train, recipe, recipe.batch_size).cardinality())
    strategy = tf.distribute.get_strategy()
    if recipe.strategy == "mirrored":
        strategy = tf.distribute.MirroredStrategy()
    with strategy.scope():
        if recipe.lists:
            net = kind(splits.features, layout="lists", seed=recipe.seed, **options)
            model = MultiTaskModel(net, outputs=dict.fromkeys(tasks, "score"), layout="lists")
        else:
            activations = {
                task: "sigmoid" if _is_binary(splits.train.labels[task]) else None for task in tasks
            }
            net = kind(
                tasks,
                splits.features,
                output_activation=activations,
                seed=recipe.seed,
                **options,
            )
            model = MultiTaskModel(net)
        model.compile(
            optimizers.named(recipe.optimizer, learning_rate=recipe.learning_rate),
            loss={
                task: loss_named(task, name) if alone in (None, task) else None
                for task, name in losses(recipe, splits).items()
            },
            balancer=_balancer(recipe, alone),
            # Held-out rows are read between executions.
            steps_per_execution=max(1, min(10, steps // 8)),
        )
    return model


def losses(recipe: Recipe, splits: Splits) -> dict[str, str]:
    """The name of each task's loss: the recipe's, or what its labels ask for."""
    found = {}
    for task in recipe.tasks:
        binary = _is_binary(splits.train.labels[task])
        name = "binary_crossentropy" if binary else "mean_squared_error"
        found[task] = recipe.loss.get(task, "pairwise_logistic" if recipe.lists else name)
    return found


def fit(
    model: MultiTaskModel,
    recipe: Recipe,
    splits: Splits,
    *,
    alone: str | None = None,
    folder: pathlib.Path | None = None,
    verbose: int | str = "auto",
) -> Mapping[str, list]:
    """Train; returns Keras' history by name.

    Args:
        model: of :func:`build`.
        recipe: the same.
        splits: the same.
        alone: the same.
        folder: gets ``history.csv``, ``logs/`` for TensorBoard, and while it trains ``backup/``,
            from which a killed run goes on.
        verbose: as in ``fit``.
    """
    tasks = recipe.tasks if alone is None else (alone,)
    used: list[keras.callbacks.Callback] = []
    staged = is_nmt(recipe.balancer) and alone is None
    if isinstance(model.balancer, balancers.NMT):
        if verbose:
            used.append(callbacks.StageProgress())
            verbose = 0
    else:
        weights = weights_of(recipe.balancer, recipe.tasks) or dict.fromkeys(tasks, 1.0)
        used.append(
            callbacks.BestReading(weights, patience=recipe.patience, verbose=int(bool(verbose)))
        )
    if folder is not None:
        used.append(callbacks.TaskBoard(folder / "logs"))
        used.append(_History(folder / HISTORY))  # first: what has a backup has its row
        used.append(callbacks.BackupAndRestore(folder / BACKUP))
    return model.fit(
        _batches(splits.train, recipe, recipe.batch_size, recipe.seed),
        validation_data=_batches(splits.validation, recipe, 8 * recipe.batch_size),
        epochs=recipe.epochs * (len(tasks) if staged else 1),
        callbacks=used,
        verbose=verbose,
    ).history


def train(
    recipe: Recipe,
    folder: str | os.PathLike,
    *,
    splits: Splits | None = None,
    verbose: int | str = "auto",
) -> dict[str, np.ndarray]:
    """Train, and leave what a server and a reader need.

    Args:
        recipe: what and how.
        folder: gets the recipe, ``columns.json``, the weights, ``history.csv``, ``logs/``, and the
            SavedModel ``model/1``, which takes raw columns.
        splits: the recipe's rows, where they have been loaded.
        verbose: as in ``fit``.

    Returns:
        ``{task: [rows]}``, the test rows' predictions.

    Raises:
        FileExistsError: the folder holds a trained model, or a killed run of another recipe.
    """
    folder = pathlib.Path(folder)
    check_free(folder, recipe)
    splits = load(recipe) if splits is None else splits
    recipe.write(folder / RECIPE)
    keras.utils.set_random_seed(recipe.seed)
    model = build(recipe, splits)
    fit(model, recipe, splits, folder=folder, verbose=verbose)
    with contextlib.suppress(OSError):
        (folder / BACKUP).rmdir()
    splits.preprocessor.save(folder / COLUMNS)
    model.save_weights(folder / WEIGHTS)
    export(model, splits, folder / SERVED)
    return predictions(model, splits.test, recipe)


def check_free(folder: pathlib.Path, recipe: Recipe) -> None:
    """Raise FileExistsError where a folder holds a model, or what is no beginning of this one."""
    check_untrained(folder)
    if not epochs_done(folder) or not (folder / RECIPE).exists():
        return
    earlier, now = (
        dict(_leaves(each.described(folder / RECIPE))) for each in (read(folder / RECIPE), recipe)
    )
    changed = [
        f"{key}: {earlier.get(key)!r} there, {now.get(key)!r} here"
        for key in dict.fromkeys((*earlier, *now))
        if earlier.get(key) != now.get(key)
    ]
    if changed:
        raise FileExistsError(
            f"`folder` holds a killed run of another recipe ({'; '.join(changed)}); take another "
            f"folder, or delete it. Received: {str(folder)!r}"
        )


def check_untrained(folder: pathlib.Path) -> None:
    """Raise FileExistsError where a folder holds a trained model."""
    if (folder / SERVED).exists():
        raise FileExistsError(
            f"`folder` holds a trained model; take another one, or delete it. Received: "
            f"{str(folder)!r}"
        )


def epochs_done(folder: pathlib.Path) -> int:
    """How many epochs a killed run in this folder has behind it."""
    return max(callbacks.BackupAndRestore(folder / BACKUP).backups(), default=0)


def _leaves(found: Mapping, above: str = ""):
    """``("training.epochs", 10)`` and so on."""
    for key, value in found.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", list(value) if isinstance(value, tuple) else value


class _History(keras.callbacks.Callback):
    """Keeps a file of every epoch's figures, which a run that goes on continues."""

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self._path = path

    def on_epoch_end(self, epoch, logs=None):
        earlier = read_csv(self._path) if epoch and self._path.exists() else []
        earlier = [row for row in earlier if int(row["epoch"]) <= epoch]
        write_csv(self._path, [*earlier, {"epoch": epoch + 1, **(logs or {})}])


def alone(recipe: Recipe, splits: Splits, task: str, verbose: int | str = "auto") -> np.ndarray:
    """The test rows' predictions ``[rows]`` of a task that is trained alone."""
    keras.utils.set_random_seed(recipe.seed)
    model = build(recipe, splits, task)
    fit(model, recipe, splits, alone=task, verbose=verbose)
    return predictions(model, splits.test, recipe)[task]


def load_trained(folder: str | os.PathLike) -> tuple[Recipe, Splits, MultiTaskModel]:
    """What :func:`train` left: its recipe, the rows, and the trained model.

    Raises:
        FileNotFoundError: the folder holds no trained model, or the table is gone.
        ValueError: the table has changed.
    """
    folder = pathlib.Path(folder)
    missing = [n for n in (RECIPE, COLUMNS, WEIGHTS) if not (folder / n).exists()]
    if missing:
        raise FileNotFoundError(f"`folder` must be of a trained model. Missing: {missing}")
    recipe = read(folder / RECIPE)
    splits = load(recipe)
    columns = Preprocessor.load(folder / COLUMNS)
    if columns.spec != splits.preprocessor.spec:
        raise ValueError(f"{recipe.file} is no longer what the model was trained on")
    model = build(recipe, splits)
    model.net(next(iter(_batches(splits.test, recipe, 1)))[0])
    model.load_weights(folder / WEIGHTS)
    return recipe, splits, model


def some_raw(recipe: Recipe, splits: Splits) -> dict[str, np.ndarray]:
    """A row, or a list, of the table, as the served model takes it."""
    row = columns_of(read_table(recipe.file, rows=1), splits.preprocessor.signature())
    return {name: values[:, None] if recipe.lists else values for name, values in row.items()}


def export(model: MultiTaskModel, splits: Splits, place: pathlib.Path, score=None) -> None:
    """Write the SavedModel that takes raw columns, and serialized examples where those are rows."""
    parsers = {"examples": splits.preprocessor.parse_examples} if model.layout == "rows" else {}
    model.export(str(place), preprocessor=splits.preprocessor, parsers=parsers, score=score)


def predictions(model: MultiTaskModel, rows: Rows, recipe: Recipe) -> dict[str, np.ndarray]:
    """``{task: [rows]}``; of one score the same for every task."""
    columns = {name: values[:, None] for name, values in rows.columns.items()}
    found = model.net.predict(columns if recipe.lists else dict(rows.columns), 8192, verbose=0)
    return {
        task: np.asarray(found["score" if recipe.lists else task], np.float32).ravel()
        for task in recipe.tasks
    }


def measure(recipe: Recipe, rows: Rows, task: str, values: np.ndarray) -> tuple[str, float]:
    """How good predictions are: the share of a group's pairs in order for lists, AUC for labels of
    0 and 1, mean squared error for others.
    """
    labels = rows.labels[task]
    known = ~np.isnan(labels)
    if recipe.lists and rows.groups is not None:
        share = metrics.pair_accuracy(labels[known], values[known], rows.groups[known])
        return "pairs in order", share
    if _is_binary(labels):
        return "AUC", metrics.auc(labels[known], values[known])
    return "MSE", float(np.mean(np.square(labels[known] - values[known])))


def _balancer(recipe: Recipe, alone: str | None) -> balancers.Balancer:
    if alone is not None:
        return balancers.NMT([alone], patience=recipe.patience)
    weights = weights_of(recipe.balancer, recipe.tasks)
    if weights is not None:
        return balancers.FixedWeights(weights)
    name = recipe.balancer
    if is_nmt(name) and "patience=" not in name:
        name += f"{'+' if ':' in name else ':'}patience={recipe.patience}"
    return balancer_of(name, recipe.tasks)


def _batches(rows: Rows, recipe: Recipe, size: int, seed: int | None = None) -> tf.data.Dataset:
    shuffle = seed is not None
    if recipe.lists:
        return rows.lists(size, recipe.list_size, shuffle=shuffle, seed=seed)
    return rows.batches(size, shuffle=shuffle, seed=seed)


def _is_binary(labels: np.ndarray) -> bool:
    known = labels[~np.isnan(labels)]
    return bool(np.isin(known, (0.0, 1.0)).all())
