"""One figure for all tasks against single-task training."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping


def delta_m(results: Mapping, baselines: Mapping, lower_is_better: Collection[str] = ()) -> float:
    r"""Δm%, the mean relative drop against baselines, in percent; lower is better.

    .. math:: \Delta m = \frac{100}{T}\sum_t\frac1{P_t}\sum_p (-1)^{l_p}\,
              \frac{M_{m,p} - M_{b,p}}{M_{b,p}}

    with :math:`l_p = 1` where a higher value of the criterion is better and 0 where a lower one is
    (section VI of *Parameter Update Balancing*; Maninis et al., CVPR 2019, have the opposite sign).
    A negative Δm% is an improvement. As in PUB's paper the mean is first over a task's criteria,
    then over tasks.

    Args:
        results: ``{task: value}``, or ``{task: {criterion: value}}``.
        baselines: the same of the baseline, usually each task trained alone; values above 0.
        lower_is_better: which tasks, or which criteria where tasks have several, are better lower;
            others are better higher.

    Raises:
        ValueError: the two differ in tasks or criteria or name none, a name in ``lower_is_better``
            is in neither, a value is not finite, or a baseline is not above 0.
    """
    if isinstance(lower_is_better, str):
        raise ValueError(
            f"`lower_is_better` must be a collection of names. Received: {lower_is_better!r}"
        )
    found, expected = _criteria("results", results), _criteria("baselines", baselines)
    if found.keys() != expected.keys():
        raise ValueError(
            "`results` and `baselines` must have the same tasks and criteria. "
            f"Only in `results`: {_names(found.keys() - expected.keys())}. "
            f"Only in `baselines`: {_names(expected.keys() - found.keys())}"
        )
    names = {criterion for _, criterion in found}
    unknown = sorted(set(lower_is_better) - names)
    if unknown:
        raise ValueError(
            f"`lower_is_better` must name some of {sorted(names)}. Received: {unknown}"
        )
    drops: dict[str, list[float]] = {}
    for (task, criterion), value in found.items():
        baseline = expected[task, criterion]
        if not baseline > 0:
            raise ValueError(
                f"`baselines` must be above 0, since changes are relative to them. Received: "
                f"{_name(task, criterion)}={baseline}"
            )
        sign = 1.0 if criterion in lower_is_better else -1.0
        drops.setdefault(task, []).append(sign * (value - baseline) / baseline)
    return 100.0 * sum(sum(task) / len(task) for task in drops.values()) / len(drops)


def _criteria(argument: str, values: Mapping) -> dict[tuple[str, str], float]:
    """``{(task, criterion): value}``; a task's only criterion has the task's name."""
    if not isinstance(values, Mapping) or not values:
        raise ValueError(f"`{argument}` must be a dict that names tasks. Received: {values!r}")
    found = {}
    for task, value in values.items():
        criteria = value if isinstance(value, Mapping) else {task: value}
        if not criteria:
            raise ValueError(f"`{argument}[{task!r}]` must name criteria. Received: {value!r}")
        for criterion, number in criteria.items():
            found[task, criterion] = float(number)
            if not math.isfinite(found[task, criterion]):
                raise ValueError(
                    f"`{argument}` must have finite values. Received: "
                    f"{_name(task, criterion)}={number}"
                )
    return found


def _name(task: str, criterion: str) -> str:
    return repr(task) if task == criterion else f"{task!r}[{criterion!r}]"


def _names(keys) -> list[str]:
    return sorted(_name(*key) for key in keys)
