"""Models and methods by the names that plans, recipes and commands have for them."""

from __future__ import annotations

import ast
import functools
import math
from collections.abc import Callable, Iterable

from tfmtl import balancers, models

#: Backbones with an output for each task.
MODELS = {
    "shared_bottom": models.SharedBottom,
    "omoe": models.OMoE,
    "mmoe": models.MMoE,
    "ple": models.PLE,
}

#: Methods that are neither a balancer nor a weighted sum: NMT with its defaults, as its paper has
#: it, and with FAMO inside; and equal weights under the optimizer Clippy.
NAMED = ("nmt", "nmt-paper", "nmt-famo", "clippy")

#: The balancers that a method may name: all that need no task's name.
BALANCED = tuple(name for name in balancers.BALANCERS if name not in ("FixedWeights", "NMT"))


def check_methods(methods: tuple[str, ...], tasks: tuple[str, ...]) -> None:
    """Raise ``ValueError`` for a method that is unknown, or one that is named twice: its seeds
    would count twice.
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
