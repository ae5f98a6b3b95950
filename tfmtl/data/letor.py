"""Learning-to-rank data sets: MSLR, LETOR 4 (MQ2007, MQ2008), Istella, Yahoo."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tfmtl.data import svmlight
from tfmtl.data.encode import Scale, check_tasks
from tfmtl.data.files import Path, check_fraction, find_parts
from tfmtl.data.rows import Rows, Splits
from tfmtl.features import FeatureSpec

#: How files may be named in a folder.
ENDINGS = tuple(f".{kind}{gz}" for kind in ("txt", "svm", "svmlight", "dat") for gz in ("", ".gz"))
#: A feature that reaches more than so many standard deviations above its mean is skewed.
SKEWED = 10.0


def letor(
    path: Path | Mapping[str, Path],
    *,
    labels: Mapping[str, str | int] | None = None,
    tasks: Iterable[str] | None = None,
    exclude: Iterable[int] = (),
    features: int | None = None,
    log: Iterable[int] | None = None,
    log_labels: Iterable[str] = (),
    validation_fraction: float = 0.2,
    seed: int = 0,
) -> Splits[Rows]:
    """Queries with judged documents, as svmlight text with ``qid:``.

    Splits are the published files. Where there is none for validation, a share of the training
    *queries* is held out. ``groups`` are query ids: rows of a query belong together wherever they
    stand in a file, and :meth:`Rows.lists` makes a list of each.

    Every feature that is neither a label nor excluded is an input, ``feature_1`` and so on as
    numbered in the file; what a line leaves out is 0. Inputs are scaled to mean 0 and standard
    deviation 1 on the training rows.

    Args:
        path: a folder with one file for each of train, validation (``vali``, ``valid``) and test,
            plain or ``.gz``, such as ``Fold1`` of MSLR; or the files as ``{"train": ..., "test":
            ...}``, optionally with ``"validation"``. Where a folder holds two sets (Yahoo), name
            the files.
        labels: each task's label: ``"label"`` is the judgement a line starts with, a number is a
            feature, which then is no input. For MSLR, ``{"relevance": "label", "click": 134,
            "dwell": 136}``. ``{"relevance": "label"}`` by default.
        tasks: some of ``labels``, all by default. The features of the others stay out of the
            inputs.
        exclude: features that are no inputs either: of MSLR, 135 (the URL's clicks) where clicks
            or dwell times are labels.
        features: how many features there are: needed where the training file does not hold the
            last ones.
        log: features that are scaled after ``log(1 + x)``. By default those that are never
            negative and exceed their mean by more than ten standard deviations, both on training
            rows.
        log_labels: tasks whose label becomes ``log(1 + label)``. Otherwise labels are as in the
            file: counts and times have long tails, which a pairwise loss does not see and a
            regression does.
        validation_fraction: which share of the training queries is held out where there is no
            file for validation, in (0, 1).
        seed: chooses these queries.

    Returns:
        Splits of rows with numeric columns only.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: an unknown task, a label or an excluded feature that the training file does
            not hold, a negative label in ``log_labels``, a fraction outside (0, 1), or what
            :func:`tfmtl.data.svmlight.read` rejects, with file and line.
    """
    labels = dict(labels if labels is not None else {"relevance": "label"})
    tasks = check_tasks(labels if tasks is None else tasks, labels)
    log_labels = tuple(log_labels)
    if log_labels:
        check_tasks(log_labels, labels)
    check_fraction("validation_fraction", validation_fraction)
    exclude, log = tuple(exclude), None if log is None else tuple(log)
    _check_labels(labels)
    parts = find_parts(path, ENDINGS)

    judged = {"train": svmlight.read(parts["train"], features)}
    n_features = judged["train"].features.shape[1]
    _check_numbers("labels", [each for each in labels.values() if each != "label"], n_features)
    _check_numbers("exclude", exclude, n_features)
    _check_numbers("log", log or (), n_features)
    for part in ("validation", "test"):
        if part in parts:
            judged[part] = svmlight.read(parts[part], n_features)

    taken = {*exclude, *labels.values()}
    inputs = [number for number in range(1, n_features + 1) if number not in taken]
    if not inputs:
        raise ValueError(f"`exclude` and `labels` leave no feature of {n_features} as an input.")
    chosen = {task: labels[task] for task in tasks}
    targets = {
        part: {task: _label(rows, task, what, log_labels) for task, what in chosen.items()}
        for part, rows in judged.items()
    }
    held_out = np.zeros(len(judged["train"].labels), bool)
    if "validation" not in judged:
        held_out = _held_out(judged["train"].queries, validation_fraction, seed)

    scales = {}
    for number in inputs:
        values = judged["train"].features[~held_out, number - 1]
        skewed = _is_skewed(values) if log is None else number in log
        scale = scales[f"feature_{number}"] = Scale.learn(values, skewed)
        # In place: there may be gigabytes.
        for rows in judged.values():
            rows.features[:, number - 1] = scale(rows.features[:, number - 1])

    def rows_of(part: str) -> Rows:
        matrix = judged[part].features
        columns = {f"feature_{number}": matrix[:, number - 1] for number in inputs}
        return Rows(columns, targets[part], groups=judged[part].queries)

    everything = {part: rows_of(part) for part in judged}
    if "validation" not in judged:
        whole = everything["train"]
        everything |= {"train": whole.take(~held_out), "validation": whole.take(held_out)}
    return Splits(
        **everything,
        features=FeatureSpec({}, tuple(scales)),
        tasks=tasks,
        vocabularies={},
        scales=scales,
    )


def _check_labels(labels: Mapping[str, Any]) -> None:
    for task, what in labels.items():
        if what != "label" and (isinstance(what, bool) or not isinstance(what, int)):
            raise ValueError(
                f"`labels[{task!r}]` must be 'label' or the number of a feature. Received: {what!r}"
            )


def _check_numbers(argument: str, numbers: Iterable[Any], n_features: int) -> None:
    wrong = [number for number in numbers if number not in range(1, n_features + 1)]
    if wrong:
        raise ValueError(
            f"`{argument}` must hold numbers of features, 1 to {n_features} in the training file. "
            f"Received: {wrong}"
        )


def _label(
    rows: svmlight.Judged, task: str, what: str | int, log_labels: Iterable[str]
) -> np.ndarray:
    """A task's labels, float32 ``[n]``, copied from features before these are scaled."""
    values = rows.labels if isinstance(what, str) else rows.features[:, what - 1].copy()
    if task not in log_labels:
        return values
    if values.min() < 0:
        raise ValueError(
            f"`log_labels` must hold tasks whose labels are not negative. Received: {task!r} with "
            f"a label of {values.min()}"
        )
    return np.log1p(values)


def _held_out(queries: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """The rows of a random share of the queries, at least of one and not of all."""
    distinct = np.unique(queries)
    if len(distinct) < 2:
        raise ValueError(
            "`path` must hold a file for validation, or at least two training queries to hold "
            f"one out. Received: {len(distinct)}"
        )
    n = min(max(1, round(fraction * len(distinct))), len(distinct) - 1)
    return np.isin(queries, np.random.default_rng(seed).permutation(distinct)[:n])


def _is_skewed(values: np.ndarray) -> bool:
    mean, std = values.mean(dtype="float64"), values.std(dtype="float64")
    return bool(values.min() >= 0 and values.max() > mean + SKEWED * std)
