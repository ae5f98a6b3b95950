"""Do methods with updates along their gradients rank better? The statistics of PUB, section III."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from tfmtl.experiments import tables
from tfmtl.experiments.panel import Panel
from tfmtl.experiments.runs import SIMILARITIES


class Association(NamedTuple):
    """Of pairs of runs that differ in the method alone: do Diff and the mean AUC go apart?

    Args:
        counts: ``[2, 2]``, by whether the first run has the higher mean AUC, and the higher Diff.
        reverse: the share of pairs in which the run with the lower Diff has the higher mean AUC.
        statistic: of the χ² test of independence, without a correction.
        p: its p. Pairs share runs and are not independent, which makes it too small. Both are NaN
            where a row or a column of ``counts`` is empty.
        low: of the 95 % interval of ``reverse``, by a bootstrap over the groups of runs.
        high: likewise.
    """

    counts: np.ndarray
    reverse: float
    statistic: float
    p: float
    low: float
    high: float


def association(groups: Sequence[tuple[np.ndarray, np.ndarray]]) -> Association:
    """The association over all pairs within groups.

    Args:
        groups: mean AUCs ``[methods]`` and Diffs ``[methods]`` of runs of the same rows, model and
            seed.
    """
    tallies = []
    for scores, differences in groups:
        counts = np.zeros((2, 2), int)
        for i, j in itertools.combinations(range(len(scores)), 2):
            counts[int(scores[i] > scores[j]), int(differences[i] > differences[j])] += 1
        tallies.append(counts)
    every = np.array(tallies)
    total = every.sum(axis=0)
    test = (float("nan"), float("nan"))
    if total.any(axis=0).all() and total.any(axis=1).all():
        test = scipy.stats.chi2_contingency(total, correction=False)
    picked = np.random.default_rng(0).integers(0, len(every), (10_000, len(every)))
    drawn = every[picked].sum(axis=1)
    low, high = np.quantile(_reverse(drawn), [0.025, 0.975])
    reverse = float(_reverse(total))
    return Association(total, reverse, float(test[0]), float(test[1]), float(low), float(high))


def _reverse(counts: np.ndarray) -> np.ndarray:
    return (counts[..., 0, 1] + counts[..., 1, 0]) / counts.sum(axis=(-1, -2))


def table(panels: Sequence[Panel], reference: str) -> str:
    """Cosines by method over all panels (PUB, Table I) and what Diff has to do with the mean AUC.

    Args:
        panels: with records that hold :data:`tfmtl.experiments.runs.SIMILARITIES`.
        reference: the method that others are tested against.
    """
    rows: dict[str, list[list[float]]] = {}
    groups: dict[tuple, list[tuple[float, float]]] = {}
    for panel in panels:
        for run, record in zip(panel.runs, panel.records, strict=True):
            if len(run.trained) < len(run.settings.tasks):
                continue
            cosines = [float(record[name]) for name in SIMILARITIES]
            rows.setdefault(run.method, []).append(cosines)
            score = float(panel.overall[run.method][run.seed])
            groups.setdefault((*panel.tasks, panel.model, run.seed), []).append((score, cosines[2]))
    head = ["method", "cosine, tasks' own", "p", "cosine, shared", "p", "Diff"]
    lines = [head, ["---"] * len(head)]
    base = np.array(rows[reference])
    for method, values in ((each, np.array(found)) for each, found in rows.items()):
        ps = ["–", "–"]
        if method != reference and len(values) > 1:
            # As in the paper a test of independent samples.
            ps = [f"{scipy.stats.ttest_ind(values[:, i], base[:, i]).pvalue:.3f}" for i in (0, 1)]
        shared, own, diff = (tables.spread(values[:, i], 3) for i in range(3))
        lines.append([tables.label(method), own, ps[1], shared, ps[0], diff])
    paired = [np.array(group).T for group in groups.values()]
    found = association([(scores, diffs) for scores, diffs in paired])
    (both_lower, higher_diff), (higher_auc, both_higher) = found.counts
    return (
        tables.markdown(lines)
        + "\nMean ± standard deviation over all runs of a method; p against "
        + f"{tables.label(reference)}, independent samples.\n\n"
        + tables.markdown(
            [
                ["pairs", "lower Diff", "higher Diff"],
                ["---"] * 3,
                ["lower mean AUC", str(both_lower), str(higher_diff)],
                ["higher mean AUC", str(higher_auc), str(both_higher)],
            ]
        )
        + f"\n{found.counts.sum():,} pairs of runs that differ in the method alone. In "
        + f"{found.reverse:.1%} [{found.low:.1%}, {found.high:.1%}] of them the one with the lower "
        + "Diff has the higher mean AUC (the interval by a bootstrap over rows, model and seed); "
        + f"χ²(1) = {found.statistic:.2f}, p = {found.p:.2g}, too small since pairs share runs.\n"
    )
