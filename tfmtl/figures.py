"""The figures of a training run: which belong together, by the names they have in the logs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations, permutations

#: What a balancer may show for each task, as ``<figure>_<task>``.
BY_TASK = ("weight", "gradient_norm", "lambda", "violation", "p", "alpha")

#: Every group that is not a metric.
GROUPS = ("loss", *BY_TASK[:2], "cosine", *BY_TASK[2:], "similarity")


def tag(name: str, tasks: Sequence[str]) -> str:
    """The name of a figure with its group before a slash, as TensorBoard sorts them.

    ``like_loss`` → ``loss/like``, ``weight_like`` → ``weight/like``, ``cosine_like_click`` →
    ``cosine/like_click``, ``like_auc`` → ``auc/like``, ``val_like_auc`` → ``val_auc/like``. The
    total ``loss``, ``stage`` and whatever names no task keep their name.

    A name is compared with those that the tasks give, so that underscores in a task's name do no
    harm. Where two tasks fit a metric, ``like`` and ``like_long`` in ``like_long_auc``, it is the
    longer one's.

    Args:
        name: a key of the logs or of a ``History``.
        tasks: every task's name.
    """
    known = _known(tasks)
    if name in known:
        return known[name]
    longest_first = sorted(tasks, key=len, reverse=True)
    for task in longest_first:
        if name.startswith(f"{task}_"):
            metric = name[len(task) + 1 :]
            # A metric that is called as a group must not be taken for one of its figures.
            return name if metric in GROUPS else f"{metric}/{task}"
    if name.startswith("val_"):
        return f"val_{tag(name[len('val_') :], tasks)}"
    for task in longest_first:
        if name.endswith(f"_{task}"):
            return f"{name[: -len(task) - 1]}/{task}"
    return name


def pairs(tasks: Iterable[str]) -> dict[str, tuple[str, str]]:
    """What a figure of two tasks may be called, ``like_click``, and which two they are."""
    tasks = tuple(tasks)
    # Those in the tasks' own order last: where two pairs have one name, it is theirs.
    both = (*permutations(tasks, 2), *combinations(tasks, 2))
    return {f"{a}_{b}": (a, b) for a, b in both}


def tasks_of(names: Iterable[str]) -> tuple[str, ...]:
    """The tasks whose losses are among the keys of a ``History``, sorted."""
    names = list(names)
    held_out = {f"val_{name}" for name in names}
    losses = (name for name in names if name.endswith("_loss") and name not in held_out)
    return tuple(sorted(name[: -len("_loss")] for name in losses))


def _known(tasks: Sequence[str]) -> dict[str, str]:
    return {
        "loss": "loss",
        "similarity_shared": "similarity/shared",
        "similarity_task": "similarity/task",
        "difference": "similarity/difference",
        **{f"cosine_{pair}": f"cosine/{pair}" for pair in pairs(tasks)},
        **{f"{figure}_{task}": f"{figure}/{task}" for figure in BY_TASK for task in tasks},
        **{f"{task}_loss": f"loss/{task}" for task in tasks},
    }
