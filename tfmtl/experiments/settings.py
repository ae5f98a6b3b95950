"""What is compared on which data, in one place, so that every method gets the same."""

from __future__ import annotations

import ast
import dataclasses
import math
import pathlib
from collections.abc import Iterable

from tfmtl import balancers
from tfmtl.data import Splits, census_income, kuairand
from tfmtl.data.census import TASKS as CENSUS_TASKS
from tfmtl.data.kuairand import TASKS as KUAIRAND_TASKS


@dataclasses.dataclass(frozen=True)
class Settings:
    """A data set's tasks by default, in priority order, and the budget of every method.

    Args:
        tasks: the most important first.
        epochs: at most so many for each stage of training; all methods stop early.
        batch_size: rows a step.
    """

    tasks: tuple[str, ...]
    epochs: int
    batch_size: int = 512
    optimizer: str = "Adam"
    learning_rate: float = 1e-3
    experts: int = 4
    expert_units: tuple[int, ...] = (64,)
    tower_units: tuple[int, ...] = (32,)
    embedding_width: int = 8


SETTINGS = {
    "census": Settings(tasks=("income", "never_married"), epochs=10),
    "kuairand": Settings(tasks=("click", "like"), epochs=4),
}

#: The tasks of each data set.
TASKS: dict[str, Iterable[str]] = {"census": CENSUS_TASKS, "kuairand": KUAIRAND_TASKS}

#: The demo's epochs, so that it ends within ten minutes on two cores.
DEMO_EPOCHS = {"census": 8, "kuairand": 4}

# These two are not part of a run: they may change without training anything again.
#: The primary task is held if its mean test AUC falls no further than this below training alone.
HELD_MARGIN = {"census": 0.001, "kuairand": 0.003}
#: A later task is learnt if it comes this far from 0.5 to its own single-task AUC.
LEARNT_SHARE = 0.85


#: The balancers that a method may name: all that need no task's name.
BALANCED = tuple(name for name in balancers.BALANCERS if name not in ("FixedWeights", "NMT"))


def load(name: str, path: str | None, tasks: tuple[str, ...], width: int) -> Splits:
    """The rows of a data set.

    Raises:
        ValueError: an unknown name or task, or ``path`` missing where the data set needs one.
        FileNotFoundError: ``path`` does not hold the data set.
    """
    if name == "census":
        return census_income(tasks=tasks, width=width)
    if name == "kuairand":
        if path is None:
            raise ValueError("`path` must be the folder that holds KuaiRand. Received: None")
        return kuairand(pathlib.Path(path), tasks=tasks, width=width)
    raise ValueError(f"`data` must be one of {sorted(SETTINGS)}. Received: {name!r}")


def check_tasks(name: str, tasks: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless these are two or more tasks of the data set, each once."""
    known = sorted(TASKS[name])
    if len(tasks) < 2 or len(set(tasks)) < len(tasks) or not set(tasks) <= set(known):
        raise ValueError(
            f"`tasks` must name two or more of {known}, each once. Received: {list(tasks)}"
        )


def check_methods(methods: tuple[str, ...], tasks: tuple[str, ...]) -> None:
    """Raise ``ValueError`` for a method that is unknown to :mod:`tfmtl.experiments.runs`, or for
    one that is named twice: its seeds would count twice.
    """
    singles = [f"single:{task}" for task in tasks]
    seen = set()
    for method in methods:
        weights = weights_of(method, tasks)
        known = method in (*singles, "nmt", "nmt-paper") or weights is not None
        if not known and method.partition(":")[0] in BALANCED:
            balancer_of(method)
        elif not known:
            raise ValueError(
                "`methods` must be 'nmt', 'nmt-paper', 'sum:W' with the primary task's weight "
                "0 < W < 1 or a weight for each task, 'sum:0.5:0.3:0.2', that add up to 1, "
                f"one of {singles}, or a balancer: {list(BALANCED)}. "
                f"Received: {method!r}"
            )
        same = method if weights is None else tuple(weights.values())
        if same in seen:
            raise ValueError(f"`methods` must name each method once. Received twice: {method!r}")
        seen.add(same)


def balancer_of(method: str) -> balancers.Balancer:
    """The balancer that a method such as ``"PUB:rescale=None+update_every=1"`` names.

    Raises:
        ValueError: the options are not those of the balancer.
    """
    name, _, text = method.partition(":")
    options = {}
    for option in filter(None, text.split("+")):
        key, _, value = option.partition("=")
        try:
            options[key] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            options[key] = value
    try:
        return balancers.BALANCERS[name](**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`methods` has {method!r}, which cannot be made: {error}") from error


def weights_of(method: str, tasks: tuple[str, ...]) -> dict[str, float] | None:
    """The tasks' weights in a weighted sum; ``None`` for what is no weighted sum of them.

    Args:
        method: ``"sum:0.8"``, where the other tasks share what is left, or a weight for each task,
            ``"sum:0.8:0.1:0.1"``.
        tasks: the primary one first.
    """
    kind, *text = method.split(":")
    try:
        weights = [float(each) for each in text]
    except ValueError:
        return None
    if len(weights) == 1:
        rest = (1 - weights[0]) / (len(tasks) - 1)
        weights += [rest] * (len(tasks) - 1)
    right = len(weights) == len(tasks) and min(weights) > 0 and math.isclose(sum(weights), 1)
    return dict(zip(tasks, weights)) if kind == "sum" and right else None


def weighted_sums(methods: Iterable[str]) -> list[str]:
    """The weighted sums among methods, by the weight of the primary task."""
    sums = (method for method in methods if method.startswith("sum:"))
    return sorted(sums, key=lambda method: float(method.split(":")[1]))


def default_methods(tasks: tuple[str, ...]) -> tuple[str, ...]:
    """Single-task training of every task, weighted sums, and NMT."""
    sums = [f"sum:{weight}" for weight in (0.1, 0.3, 0.5, 0.7, 0.9)]
    return (*(f"single:{task}" for task in tasks), *sums, "nmt")
