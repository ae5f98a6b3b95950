"""What is compared on which data, in one place, so that every method gets the same."""

from __future__ import annotations

import dataclasses
import math
import pathlib

from tfmtl.data import Splits, census_income, kuairand


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
    learning_rate: float = 1e-3
    experts: int = 4
    expert_units: tuple[int, ...] = (64,)
    tower_units: tuple[int, ...] = (32,)
    embedding_width: int = 8


SETTINGS = {
    "census": Settings(tasks=("income", "never_married"), epochs=10),
    "kuairand": Settings(tasks=("click", "like"), epochs=4),
}


#: The demo's epochs, so that it ends within ten minutes on two cores.
DEMO_EPOCHS = {"census": 3, "kuairand": 3}


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


def check_methods(methods: tuple[str, ...], tasks: tuple[str, ...]) -> None:
    """Raise ``ValueError`` for a method that :mod:`tfmtl.experiments.runs` does not know."""
    singles = [f"single:{task}" for task in tasks]
    for method in methods:
        if method in (*singles, "nmt", "nmt-paper"):
            continue
        kind, _, weight = method.partition(":")
        try:
            share = float(weight)
        except ValueError:
            share = math.nan
        if kind != "sum" or not 0 < share < 1:
            raise ValueError(
                "`methods` must be 'nmt', 'nmt-paper', 'sum:W' with the primary task's weight "
                f"0 < W < 1, or one of {singles}. Received: {method!r}"
            )


def default_methods(tasks: tuple[str, ...]) -> tuple[str, ...]:
    """Single-task training of every task, weighted sums, and NMT."""
    sums = [f"sum:{weight}" for weight in (0.1, 0.3, 0.5, 0.7, 0.9)]
    return (*(f"single:{task}" for task in tasks), *sums, "nmt")
