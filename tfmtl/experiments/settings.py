"""What is compared on which data, in one place, so that every method gets the same."""

from __future__ import annotations

import ast
import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Iterable

from tfmtl import balancers, models


@dataclasses.dataclass(frozen=True)
class Settings:
    """Tasks in priority order, a network and the budget of every method.

    Args:
        tasks: the most important first.
        epochs: at most so many for each stage of training; all methods stop early.
        model: one of :data:`MODELS`.
        batch_size: rows a step.
        epoch_rows: an epoch ends after so many rows; by default after all.
        monitor: what early stopping goes by, on held-out rows: the ``"loss"`` (the sum of the
            tasks', with a weighted sum's own weights), the ``"mean"`` of the tasks' AUCs, or
            that of the ``"primary"`` one. NMT goes by its constraints. A regression task counts by
            the share of its labels' variance that is explained.
        scales: for some tasks a factor of the loss, as if it were measured in other units.
        similarity: measure how far the parameters move along the gradient (PUB, section III).
    """

    tasks: tuple[str, ...]
    epochs: int
    model: str = "mmoe"
    batch_size: int = 512
    epoch_rows: int | None = None
    monitor: str = "loss"
    scales: tuple[tuple[str, float], ...] = ()
    similarity: bool = False
    optimizer: str = "Adam"
    learning_rate: float = 1e-3
    experts: int = 4
    expert_units: tuple[int, ...] = (64,)
    tower_units: tuple[int, ...] = (32,)
    embedding_width: int = 8


#: The models that are compared, of about as many experts: half of PLE's are shared.
MODELS = {
    "shared_bottom": models.SharedBottom,
    "omoe": models.OMoE,
    "mmoe": models.MMoE,
    "ple": models.PLE,
}

#: A later task is learnt if it comes this far from 0.5 to its own single-task AUC.
LEARNT_SHARE = 0.85


#: Methods that are neither a balancer nor a weighted sum: NMT with its defaults, as its paper has
#: it, and with FAMO inside; and equal weights under the optimizer Clippy.
NAMED = ("nmt", "nmt-paper", "nmt-famo", "clippy")

#: The balancers that a method may name: all that need no task's name.
BALANCED = tuple(name for name in balancers.BALANCERS if name not in ("FixedWeights", "NMT"))


def network(settings: Settings, features, seed: int, regression: Collection[str] = ()):
    """The model that is trained.

    Args:
        settings: which, and its widths. ``experts`` are those that all tasks read in OMoE and MMoE;
            PLE has half as many shared, and as many of each task's own, on one level; a shared
            bottom is of one expert's widths.
        features: the input columns.
        seed: of the initial weights.
        regression: the tasks that predict a number and not a probability.
    """
    units, half = settings.expert_units, max(1, settings.experts // 2)
    trunks: dict[str, dict] = {
        "shared_bottom": {"bottom_units": units},
        "omoe": {"experts": settings.experts, "expert_units": units},
        "mmoe": {"experts": settings.experts, "expert_units": units},
        "ple": {
            "levels": 1,
            "shared_experts": half,
            "task_experts": half,
            "expert_units": units,
        },
    }
    return MODELS[settings.model](
        settings.tasks,
        features,
        tower_units=settings.tower_units,
        output_activation={
            task: None if task in regression else "sigmoid" for task in settings.tasks
        },
        seed=seed,
        **trunks[settings.model],
    )


def check_methods(methods: tuple[str, ...], tasks: tuple[str, ...]) -> None:
    """Raise ``ValueError`` for a method that is unknown to :mod:`tfmtl.experiments.runs`, or for
    one that is named twice: its seeds would count twice.
    """
    singles = [f"single:{task}" for task in tasks]
    seen = set()
    for method in methods:
        weights = weights_of(method, tasks)
        if method.partition(":")[0] in (*NAMED, *BALANCED):
            balancer_of(method, tasks)
        elif method not in singles and weights is None:
            raise ValueError(
                f"`methods` must be one of {list(NAMED)}, 'sum:W' with the primary task's weight "
                "0 < W < 1 or a weight for each task, 'sum:0.5:0.3:0.2', that add up to 1, "
                f"one of {singles}, or a balancer: {list(BALANCED)}. "
                f"Received: {method!r}"
            )
        same = method if weights is None else tuple(weights.values())
        if same in seen:
            raise ValueError(f"`methods` must name each method once. Received twice: {method!r}")
        seen.add(same)


def balancer_of(method: str, tasks: tuple[str, ...]) -> balancers.Balancer:
    """The balancer that a method such as ``"PUB:rescale=None+update_every=1"`` names, or one on
    top of another, ``"EMTL:base=NashMTL"``.

    Args:
        method: one of :data:`NAMED` or :data:`BALANCED`, with options or without.
        tasks: in priority order, for NMT.

    Raises:
        ValueError: the options are not those of the balancer.
    """
    name, _, text = method.partition(":")
    kinds: dict[str, Callable[..., balancers.Balancer]] = {
        **balancers.BALANCERS,
        "nmt": functools.partial(balancers.NMT, tasks),
        "nmt-paper": functools.partial(balancers.NMT, tasks, "paper"),
        "nmt-famo": functools.partial(balancers.NMT, tasks, inner=balancers.FAMO()),
        "clippy": balancers.EqualWeights,
    }
    try:
        return kinds[name](**_options(text))
    except (TypeError, ValueError) as error:
        raise ValueError(f"`methods` has {method!r}, which cannot be made: {error}") from error


def _options(text: str) -> dict:
    """What ``"rescale=None+update_every=1"`` gives a balancer."""
    options = {}
    for option in filter(None, text.split("+")):
        key, _, value = option.partition("=")
        try:
            options[key] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            options[key] = balancers.get(value) if value in balancers.BALANCERS else value
    return options


def is_nmt(method: str) -> bool:
    """Whether a method trains in stages, to hold the earlier tasks."""
    return method.startswith("nmt")


def trains(method: str, task: str) -> bool:
    """Whether a method trains a task at all: single-task training leaves the others at rest."""
    return not method.startswith("single:") or method == f"single:{task}"


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
