"""Comparisons: cached runs, statistics against references, files, the command line."""

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score

from tests.conftest import SPEC, make_rows
from tfmtl import data, metrics
from tfmtl.cli import main
from tfmtl.experiments import plots, tables
from tfmtl.experiments.runs import Run, execute, read_csv
from tfmtl.experiments.settings import Settings, check_methods, default_methods
from tfmtl.experiments.statistics import WeightedAUC, differences

TASKS = ("like", "click")
SETTINGS = Settings(TASKS, epochs=2, batch_size=50, experts=2, expert_units=(4,), tower_units=(3,))


def splits():
    rows = make_rows(300)
    parts = (rows.take(slice(0, 180)), rows.take(slice(180, 240)), rows.take(slice(240, None)))
    return data.Splits(*parts, SPEC, TASKS, {}, {})


def labels_and_scores(n=80, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype("float32")
    return labels, np.round(rng.normal(size=n) + labels, 1)  # rounded: with ties


def test_auc_is_scikit_learns():
    labels, scores = labels_and_scores()
    weights = np.random.default_rng(1).integers(0, 4, len(labels)).astype(float)
    expected = roc_auc_score(labels, scores, sample_weight=weights)
    assert metrics.auc(labels, scores, weights) == pytest.approx(expected, abs=1e-12)
    assert WeightedAUC(labels, scores)(weights) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(metrics.auc(np.ones(3), np.arange(3)))


def test_differences_are_those_of_a_plain_loop():
    labels, first = labels_and_scores()
    scores = {"a": [first, first + 1], "b": [labels_and_scores(seed=s)[1] for s in (2, 3)]}
    groups = np.repeat(np.arange(20), 4)
    found = differences(labels, scores, "a", groups=groups, draws=50, seed=4)
    assert found["a"] == dataclasses.replace(found["a"], mean=0.0, low=0.0, high=0.0)
    rng = np.random.default_rng(4)
    drawn = []
    for _ in range(50):
        picked = rng.integers(0, 20, 20)
        rows = np.concatenate([np.flatnonzero(groups == g) for g in picked])
        aucs = {
            m: np.mean([roc_auc_score(labels[rows], s[rows]) for s in each])
            for m, each in scores.items()
        }
        drawn.append(aucs["b"] - aucs["a"])
    assert (found["b"].low, found["b"].high) == pytest.approx(
        tuple(np.quantile(drawn, [0.025, 0.975])), abs=1e-9
    )


def test_a_run_is_whole_cached_and_complete(tmp_path):
    run = Run("synthetic", "nmt", 0, SETTINGS)
    lines = []
    folder = execute(run, splits(), tmp_path, lines.append)
    assert sorted(path.name for path in folder.iterdir()) == [
        "model",
        "record.json",
        "test.npz",
        "trace.csv",
    ]
    record = json.loads((folder / "record.json").read_text())
    test = splits().test
    with np.load(folder / "test.npz") as scores:
        for task in TASKS:
            expected = roc_auc_score(test.labels[task], scores[task])
            assert record[f"auc_{task}"] == pytest.approx(expected, abs=1e-9)
    assert lines[0] == "nmt, seed 0: epoch 1, stage 1"
    again = execute(run, None, tmp_path, lines.append)  # no rows: nothing is trained
    assert again == folder
    assert [path.name for path in tmp_path.iterdir()] == [run.key]
    plots.traces(read_csv(folder / "trace.csv"), TASKS, tmp_path / "traces.png")
    assert (tmp_path / "traces.png").stat().st_size > 5000


def test_a_failed_run_leaves_nothing(tmp_path):
    settings = dataclasses.replace(SETTINGS, batch_size=0)
    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        execute(Run("synthetic", "sum:0.5", 0, settings), splits(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def records(points):
    return [
        {"method": method, "seed": 0, "auc_like": like, "auc_click": click, "seconds": 1.0}
        for method, (like, click) in points.items()
    ]


@pytest.mark.parametrize(
    ("nmt", "where"),
    [((0.85, 0.75), "above"), ((0.7, 0.6), "below"), ((0.75, 0.65), "on"), ((0.9, 0.5), "beyond")],
)
def test_where_a_point_lies_against_the_curve(nmt, where):
    found = records({"sum:0.1": (0.7, 0.7), "sum:0.9": (0.8, 0.6), "nmt": nmt})
    assert tables.against_curve(found, TASKS) == where


def test_tables_and_the_tradeoff_plot(tmp_path):
    points = {"single:like": (0.8, 0.5), "single:click": (0.5, 0.7), "sum:0.5": (0.78, 0.69)}
    found = records({**points, "nmt": (0.8, 0.68), "nmt-paper": (0.75, 0.68)})
    table = tables.results_table(found, TASKS)
    assert "| NMT | 0.8000 | 0.6800 | 1 |" in table
    assert "| like alone | 0.8000 | – | 1 |" in table
    assert tables.coverage(found, "click") == pytest.approx(0.9)
    plots.tradeoff(found, TASKS, tmp_path / "plane.png")
    assert (tmp_path / "plane.png").stat().st_size > 5000


def test_methods_are_checked():
    check_methods((*default_methods(TASKS), "nmt-paper"), TASKS)
    for method in ("sum:0", "sum:2", "sum:x", "single:share", "famo"):
        with pytest.raises(ValueError, match=f"Received: '{method}'"):
            check_methods((method,), TASKS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--data", "kuairand"], "--path"),
        (["demo", "--data", "mnist"], "--data"),
        (["demo", "--tasks", "income"], "--tasks"),
        (["demo", "--methods", "famo"], "--methods"),
        (["demo", "--seeds", "0"], "--seeds"),
        (["compare", "--seeds", "1"], "--seeds"),
    ],
)
def test_the_command_names_the_bad_option(arguments, message):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert message in result.output
