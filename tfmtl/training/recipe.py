"""What is trained, on what and how, and the YAML file that says so."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import keras

from tfmtl import config, files, losses, models, names, optimizers, words
from tfmtl.data.encode import require
from tfmtl.names import BALANCED, NAMED, balancer_of, weights_of
from tfmtl.preprocessing import KINDS, Column, Cross
from tfmtl.preprocessing.columns import options_of

#: Models by the name that a recipe has for them.
MODELS: dict[str, Any] = {**names.MODELS, "ltr_tower": models.LTRTower}
#: Losses of this package by name, beside those of Keras.
LOSSES = {
    "pairwise_logistic": losses.PairwiseLogistic,
    "pairwise_hinge": losses.PairwiseHinge,
    "pairwise_squared": losses.PairwiseSquared,
}
STRATEGIES = ("none", "mirrored")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A training run.

    Args:
        file: a CSV file with a header.
        tasks: columns of labels, the most important first.
        columns: what some of the other columns are; the rest is looked at.
        ignore: columns that are no inputs.
        groups: a column that says whose rows they are.
        time: a column by which they are parted, the last for the test; by default by lot.
        validation_fraction: see :func:`tfmtl.data.table`.
        test_fraction: likewise.
        split_seed: chooses the parts, without ``time``.
        model: one of :data:`MODELS`. ``"ltr_tower"`` gives one score for all tasks and reads lists.
        options: of the model.
        loss: by task, a name of Keras' or of :data:`LOSSES`. By default cross-entropy for labels of
            0 and 1 and squared error for others; of lists the pairwise logistic loss.
        balancer: a balancer with its options as in ``"PUB:update_every=1"``, ``"nmt"`` for the
            tasks in their order, or a weighted sum, ``"sum:0.9"``.
        optimizer: the name of Keras' or tfmtl's.
        learning_rate: of it.
        epochs: at most so many; with NMT for each task.
        batch_size: rows, or lists, a step.
        list_size: rows a list, of lists.
        patience: so many readings of the held-out rows without a better one end the training; four
            are taken an epoch.
        strategy: ``"none"``, or ``"mirrored"`` over all devices of the machine.
        seed: of the initial weights and of the order of the rows.

    Raises:
        ValueError: what cannot be right whatever the table holds; the argument is named.
    """

    file: str
    tasks: tuple[str, ...]
    columns: Mapping[str, Column | Cross] = dataclasses.field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    groups: str | None = None
    time: str | None = None
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    split_seed: int = 0
    model: str = "mmoe"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    loss: Mapping[str, str] = dataclasses.field(default_factory=dict)
    balancer: str = "EqualWeights"
    optimizer: str = "Adam"
    learning_rate: float = 1e-3
    epochs: int = 10
    batch_size: int = 512
    list_size: int | None = None
    patience: int = 5
    strategy: str = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("tasks", "ignore"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("epochs", "batch_size", "patience", "list_size"):
            value = getattr(self, name)
            if not (value is None and name == "list_size") and (
                not isinstance(value, int) or isinstance(value, bool) or value < 1
            ):
                raise ValueError(f"`{name}` must be a positive integer. Received: {value!r}")
        if not isinstance(self.learning_rate, (int, float)) or not self.learning_rate > 0:
            raise ValueError(f"`learning_rate` must be above 0. Received: {self.learning_rate!r}")
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(
                f"`tasks` must name one or more columns, each once. Received: {list(self.tasks)}"
            )
        for name, choices in (("model", MODELS), ("strategy", STRATEGIES)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"`{name}` must be one of {list(choices)}. Received: {getattr(self, name)!r}"
                )
        known = _arguments(MODELS[self.model])
        unknown = sorted(set(self.options) - set(known))
        if unknown:
            raise ValueError(
                f"`options` of {self.model!r} must be some of {known}. Received: {unknown}"
            )
        if self.lists and self.groups is None:
            raise ValueError(f"`groups` must name a column: {self.model!r} reads lists")
        wrong = sorted(set(self.loss) - set(self.tasks))
        if wrong:
            raise ValueError(f"`loss` must be by task, {list(self.tasks)}. Received: {wrong}")
        for task, name in self.loss.items():
            loss_named(task, name)
        object.__setattr__(self, "balancer", _balancer_named(self.balancer, self.tasks))
        optimizers.named(self.optimizer)

    @property
    def lists(self) -> bool:
        """Whether rows are read as lists."""
        return self.model == "ltr_tower"

    def described(self, path: str | os.PathLike) -> dict[str, Any]:
        """What :meth:`write` writes to a path."""
        data: dict[str, Any] = {
            "file": os.path.relpath(self.file, pathlib.Path(path).parent),
            "tasks": list(self.tasks),
            "ignore": list(self.ignore),
            "groups": self.groups,
            "time": self.time,
            "validation_fraction": self.validation_fraction,
            "test_fraction": self.test_fraction,
            "seed": self.split_seed,
            "columns": {n: options_of(each, defaults=False) for n, each in self.columns.items()},
        }
        found: dict[str, Any] = {
            "data": {key: value for key, value in data.items() if value not in (None, [], {})},
            "model": {"kind": self.model, **self.options},
            "loss": dict(self.loss),
            "balancer": self.balancer,
            "optimizer": {"name": self.optimizer, "learning_rate": self.learning_rate},
            "training": {name: getattr(self, name) for name in _TRAINING},
        }
        found = {key: value for key, value in found.items() if value}
        found["training"] = {k: v for k, v in found["training"].items() if v is not None}
        return found

    def write(self, path: str | os.PathLike) -> None:
        """Write the file that :func:`read` reads; the table's place is as seen from it."""
        found = self.described(path)
        text = require("yaml", "Writing a configuration").safe_dump(found, sort_keys=False)
        with files.written(path) as beside:
            pathlib.Path(beside).write_text(text, encoding="utf-8")


_DATA = (
    "file",
    "tasks",
    "columns",
    "ignore",
    "groups",
    "time",
    "validation_fraction",
    "test_fraction",
    "seed",
)
_TRAINING = ("epochs", "batch_size", "list_size", "patience", "strategy", "seed")


def read(path: str | os.PathLike) -> Recipe:
    """The recipe that a YAML file holds. Its table is looked for beside the file.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: PyYAML is not installed.
        ValueError: it is not YAML, a key is unknown, missing or has a wrong value. The file, the
            line and the key are named.
    """
    found = config.read(path)
    found.check_keys(
        ("data", "model", "loss", "balancer", "optimizer", "training"), required=("data",)
    )
    given: dict[str, Any] = {}

    def take(section: config.Section, key: str, kind: type | None = None, name: str = "") -> None:
        if key in section:
            given[name or key] = section.value(key, kind)
            sections[name or key] = (section, key)

    sections: dict[str, tuple[config.Section, str]] = {}
    data = found.section("data")
    data.check_keys(_DATA, required=("file", "tasks"))
    take(data, "file", str)
    given["file"] = os.path.normpath(pathlib.Path(path).parent / given["file"])
    for key in ("tasks", "ignore"):
        take(data, key, list)
    take(data, "groups", str)
    take(data, "time", str)
    for key in ("validation_fraction", "test_fraction"):
        take(data, key, float)
    take(data, "seed", int, "split_seed")
    given["columns"] = _columns(data.section("columns"))
    model = found.section("model")
    take(model, "kind", str, "model")
    given["options"] = {key: model.value(key) for key in model if key != "kind"}
    sections["options"] = (found, "model")
    take(found, "loss", dict)
    take(found, "balancer", str)
    section = found.section("optimizer")
    section.check_keys(("name", "learning_rate"))
    take(section, "name", str, "optimizer")
    take(section, "learning_rate")
    with contextlib.suppress(KeyError, ValueError, TypeError):
        given["learning_rate"] = float(given["learning_rate"])  # YAML takes 1e-3 for a word
    section = found.section("training")
    section.check_keys(_TRAINING)
    for key in _TRAINING:
        take(section, key)
    try:
        return Recipe(**given)
    except (TypeError, ValueError) as error:
        named = next((name for name in sections if str(error).startswith(f"`{name}`")), None)
        if named is None:
            raise ValueError(f"{pathlib.Path(path).name}: {error}") from error
        section, key = sections[named]
        raise section.error(key, f": {error}") from error


def _balancer_named(name: str, tasks: tuple[str, ...]) -> str:
    """The balancer as it is called, whichever way its name is written."""
    if weights_of(name, tasks) is not None:
        return name
    known = [*(each for each in NAMED if each != "clippy"), *BALANCED]
    given, colon, options = name.partition(":")
    called = {each.lower(): each for each in known}
    if given.lower() not in called:
        raise ValueError(
            f"`balancer` must be one of {known}, with options as in 'PUB:update_every=1', or a "
            f"weighted sum as in 'sum:0.9'. Received: {name!r}{words.hint(given, known)}"
        )
    name = f"{called[given.lower()]}{colon}{options}"
    try:
        balancer_of(name, tasks)
    except ValueError as error:
        raise ValueError(f"`balancer` {name!r} cannot be made: {error.__cause__}") from error
    return name


def loss_named(task: str, name: str) -> keras.losses.Loss:
    """A loss by its name.

    Raises:
        ValueError: there is none.
    """
    kind = LOSSES.get(name, getattr(keras.losses, _camel(name), None))
    if not (isinstance(kind, type) and issubclass(kind, keras.losses.Loss)):
        raise ValueError(
            f"`loss` of {task!r} must be the name of one of Keras' losses or of {sorted(LOSSES)}. "
            f"Received: {name!r}"
        )
    return kind()


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _columns(section: config.Section) -> dict[str, Column | Cross]:
    found = {}
    for name in section:
        given = section.value(name)
        with section.naming(name):
            options = {"kind": given} if isinstance(given, str) else dict(given or {})
            kind = options.pop("kind", None)
            if kind not in KINDS:
                raise ValueError(f"kind: expected one of {list(KINDS)}. Received: {kind!r}")
            try:
                found[name] = KINDS[kind](**options)
            except TypeError as error:
                known = [field.name for field in dataclasses.fields(KINDS[kind])]
                raise ValueError(
                    f"expected some of {known}. Received: {sorted(options)}"
                ) from error
    return found


def _arguments(kind) -> list[str]:
    """The options of a model that a recipe may set."""
    towers = set() if kind is models.LTRTower else {"tower_units"}
    return sorted({"activation", *towers, *kind.trunk_defaults})
