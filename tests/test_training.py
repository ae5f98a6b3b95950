"""From a table to a served model, by the command line: train, look, export, predict."""

import dataclasses
import io
import re
import warnings

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from click.testing import CliRunner
from rich.console import Console

from tests.test_table import frame
from tfmtl import callbacks, serving, training
from tfmtl.cli import main
from tfmtl.data.table import described
from tfmtl.experiments import sources
from tfmtl.files import read_csv
from tfmtl.preprocessing import Category, Cross, Number
from tfmtl.training import Recipe, run, show, single

pytest.importorskip("pandas")
FILE = """data:
  file: log.csv
  tasks: [buy, click]
  groups: session
  columns:
    tags: {kind: category, pooling: mean, separator: "|"}
    price: {kind: number, bins: 4}
    both: {kind: cross, columns: [city, stars], buckets: 20}
    balance: number
model:
  kind: mmoe
  experts: 2
  expert_units: [4]
loss: {buy: binary_crossentropy}
balancer: "PUB:update_every=1"
optimizer: {name: adam, learning_rate: 1e-2}
training: {epochs: 1, batch_size: 64}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame().to_csv("log.csv", index=False)
    (tmp_path / "ranker.yaml").write_text(FILE)
    return tmp_path


def invoke(*arguments, code=0):
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return re.sub(r"[\s│]+", " ", result.output)


def test_a_file_says_what_is_trained(folder):
    found = training.read("ranker.yaml")
    assert found.file == "log.csv"
    assert found.columns == {
        "tags": Category(pooling="mean", separator="|"),
        "price": Number(bins=4),
        "both": Cross(["city", "stars"], 20),
        "balance": Number(),
    }
    assert found.options == {"experts": 2, "expert_units": [4]}
    assert found.learning_rate == 0.01
    (folder / "below").mkdir()
    found = dataclasses.replace(found, time="balance")
    found.write(folder / "below" / "again.yaml")
    again = training.read(folder / "below" / "again.yaml")
    assert dataclasses.replace(again, file="log.csv") == found


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  file: log.csv\n", "", "ranker.yaml: data.file is missing"),
        ("groups:", "group:", "line 4: data.group is unknown. Expected some of: "),
        ("tasks: [buy, click]", "tasks: buy", "line 3: data.tasks must be of type list"),
        ("tasks: [buy, click]", "tasks: [buy, buy]", "line 3: data.tasks: `tasks` must name"),
        ("kind: number, bins: 4", "kind: number, bin: 4", "line 7: data.columns.price: expected"),
        ("kind: number, bins: 4", "kind: number, bins: 1", "line 7: data.columns.price: `bins`"),
        ("balance: number", "balance: numbers", "line 9: data.columns.balance: kind: expected"),
        ("kind: mmoe", "kind: mlp", "line 11: model.kind: `model` must be one of"),
        ("experts: 2", "expert: 2", "line 10: model: `options` of 'mmoe' must be some of"),
        ("kind: mmoe\n  experts: 2\n  expert_units: [4]", "kind: mmoe", None),
        ("buy: binary_crossentropy", "buy: crossentropy", "line 14: loss: `loss` of 'buy' must"),
        ("buy: binary", "like: binary", "line 14: loss: `loss` must be by task"),
        ("PUB:update_every=1", "PAB", "line 15: balancer: `balancer` must be one of"),
        ("PUB:update_every=1", "PUB:every=1", "line 15: balancer: `balancer` 'PUB:every=1' cannot"),
        ("name: adam", "name: adamm", "line 16: optimizer.name: `optimizer` must be one of"),
        ("learning_rate: 1e-2", "learning_rate: -1", "line 16: optimizer.learning_rate: "),
        ("epochs: 1,", "epochs: 0,", "line 17: training.epochs: `epochs` must be a positive"),
        ("epochs: 1,", "epoch: 1,", "line 17: training.epoch is unknown"),
        ("epochs: 1,", "epochs: 1, strategy: tpu,", "training.strategy: `strategy` must be one"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(folder, old, new, message):
    assert old in FILE
    (folder / "ranker.yaml").write_text(FILE.replace(old, new))
    if message is None:
        assert training.read("ranker.yaml").options == {}
        return
    with pytest.raises(ValueError, match=re.escape(message)):
        training.read("ranker.yaml")
    assert message in invoke("train", "ranker.yaml", code=2)
    assert not (folder / "runs").exists()


def test_from_a_table_to_predictions(folder):
    shown = invoke("data", "log.csv")
    assert "city 2" in shown and "left out" in shown
    shown = invoke("data", "log.csv", "--tasks", "buy")
    assert "AUC of buy" in shown and "tells" not in shown
    assert shown.index(" city ") < shown.index(" stars ")  # which tells less of buy
    assert "Received: ['sold']" in invoke("data", "log.csv", "--tasks", "sold", code=2)
    assert "goes with a CSV file" in invoke("data", "census", "--tasks", "income", code=2)
    shown = invoke("train", "ranker.yaml", "--alone", "--seed", 3)
    assert "buy alone" in shown and "a cross of city, stars" in shown
    assert re.search(r"click \d\.\d{4} \d\.\d{4} [+-]", shown)
    out = folder / "runs" / "ranker"
    assert sorted(path.name for path in out.iterdir()) == [
        "columns.json",
        "history.csv",
        "logs",
        "model",
        "model.weights.h5",
        "recipe.yaml",
    ]
    recipe, splits, model = run.load_trained(out)
    assert recipe.seed == 3 and recipe.columns["city"] == Category()
    expected = run.predictions(model, splits.test, recipe)
    rows = frame()
    found = training.scores(out / "model" / "1", rows)
    owners = rows["session"].factorize()[0]
    tested = np.isin(owners, splits.test.groups)
    for task, values in expected.items():
        np.testing.assert_allclose(found[task][tested], values, rtol=1e-4, atol=1e-6)
    assert "holds a trained model; take another" in invoke("train", "ranker.yaml", code=2)

    score = ["--score", "product:buy=1,click=0.5"]
    assert "Wrote served/1/" in invoke("export", out, "--to", "served", *score)
    assert "there is no folder no" in invoke(
        "predict", "served/1", "log.csv", "--out", "no/a.csv", code=2
    )
    invoke("predict", "served/1", "log.csv", "--out", "scores.csv")
    import pandas as pd

    scores = pd.read_csv("scores.csv")
    np.testing.assert_allclose(scores["score"], scores["buy"] * scores["click"] ** 0.5, rtol=1e-4)
    np.testing.assert_allclose(scores["buy"], found["buy"], rtol=1e-4, atol=1e-6)
    assert "`score` must be" in invoke("export", out, "--to", "x", "--score", "max:buy", code=2)
    assert "Received: ['like']" in invoke(
        "export", out, "--to", "x", "--score", "sum:like=1", code=2
    )
    rows.drop(columns=["stars"]).to_csv("short.csv", index=False)
    assert "Missing: ['stars']" in invoke("predict", "served/1", "short.csv", code=2)
    rows.iloc[:100].to_csv("log.csv", index=False)
    assert "no longer what the model was trained on" in invoke("export", out, "--to", "x", code=2)
    assert not (folder / "x").exists()


def test_lists_share_one_score_by_pairs(folder):
    recipe = Recipe(
        "log.csv",
        ("buy", "click"),
        groups="session",
        model="ltr_tower",
        options={"units": [4]},
        balancer="nmt",
        epochs=1,
        batch_size=32,
    )
    splits = run.load(recipe)
    found = training.train(recipe, folder / "out", splits=splits, verbose=0)
    np.testing.assert_array_equal(found["buy"], found["click"])
    measure, value = run.measure(recipe, splits.test, "buy", found["buy"])
    assert measure == "pairs in order" and 0 <= value <= 1
    served = tf.saved_model.load(str(folder / "out" / "model" / "1")).signatures
    assert set(served) == {"serve", "serving_default"}
    values = training.scores(folder / "out" / "model" / "1", "log.csv", keep=["session"])
    assert list(values) == ["session", "score"] and len(values["score"]) == len(frame())
    pytest.importorskip("tensorflow_serving")
    assert f"1/: saved_model.pb, {serving.WARM_UP}" in invoke(
        "export", folder / "out", "--to", "served", "--warm-up"
    )
    with pytest.raises(FileExistsError, match="holds a trained model"):
        training.train(recipe, folder / "out", splits=splits, verbose=0)
    with pytest.raises(ValueError, match="`groups` must name a column: 'ltr_tower' reads lists"):
        dataclasses.replace(recipe, groups=None)


def test_a_killed_run_goes_on_and_keeps_its_history(folder, monkeypatch):
    recipe = dataclasses.replace(training.read("ranker.yaml"), epochs=4, patience=99)
    whole = training.train(recipe, folder / "whole", verbose=0)
    with monkeypatch.context() as patch:
        backed_up = callbacks.BackupAndRestore.on_epoch_end

        def killed(self, epoch, logs=None):
            backed_up(self, epoch, logs)
            if epoch == 1:
                raise KeyboardInterrupt

        patch.setattr(callbacks.BackupAndRestore, "on_epoch_end", killed)
        with pytest.raises(KeyboardInterrupt):
            training.train(recipe, folder / "out", verbose=0)
    assert run.epochs_done(folder / "out") == 2
    other = dataclasses.replace(recipe, learning_rate=0.1, epochs=5)
    with pytest.raises(FileExistsError, match=r"learning_rate: 0.01 there, 0.1 here; training.ep"):
        training.train(other, folder / "out", verbose=0)
    again = training.train(recipe, folder / "out", verbose=0)
    for task in recipe.tasks:
        np.testing.assert_allclose(again[task], whole[task], rtol=1e-4)
    files = [read_csv(folder / name / "history.csv") for name in ("whole", "out")]
    assert [row["epoch"] for row in files[1]] == ["1", "2", "3", "4"]
    for one, other in zip(*files, strict=True):
        assert float(one["loss"]) == pytest.approx(float(other["loss"]), rel=1e-4)


def test_predictions_stand_in_order_behind_columns_that_are_kept(folder):
    invoke("train", "ranker.yaml", "--out", "out")
    rows = frame().head(5)
    rows["price"] = rows["price"].astype(object)
    rows.loc[2, "price"] = "cheap"
    rows.to_csv("some.csv", index=False, sep=";")
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        written = invoke("predict", "out/model/1", "some.csv", "--keep", "session,row")
    assert "Warning: Column 'price' has values that are no numbers" in written
    assert "session,row,buy,click s0,r0," in written
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for place in ("out/model", "out"):  # the newest version
            again = invoke("predict", place, "some.csv", "--keep", "session,row")
            assert again[again.index("session,") :] == written[written.index("session,") :]
    assert "no SavedModel" in invoke("predict", ".", "some.csv", code=2)
    refused = invoke("predict", "out/model/1", "some.csv", "--keep", "rows", code=2)
    assert "--keep" in refused and "Missing: ['rows'] (did you mean 'row'?)" in refused


def test_methods_are_compared_on_a_table_of_ones_own(folder):
    methods = ["--methods", "EqualWeights,single:buy,single:click", "--tasks", "buy,click"]
    few = ["--epochs", 1, "--seeds", 1, "--workers", 1]
    invoke("compare", "--data", "table", "--path", "log.csv", *methods, *few)
    out = folder / "runs" / "compare-log-buy-click"
    assert "# buy ≻ click on log" in (out / "report.md").read_text()
    first = {row["key"] for row in read_csv(out / "results.csv")}
    assert len(first) == 3
    name = sources.identified("table", "ranker.yaml")
    splits = sources.load(name, "ranker.yaml", ("buy", "click"), 8)
    assert splits.features == run.load(training.read("ranker.yaml")).features
    assert splits.train.groups is not None
    rows = frame()
    rows["price"] += 1
    rows.to_csv("log.csv", index=False)  # other rows: other runs
    assert sources.identified("table", "ranker.yaml") != name
    assert sources.identified("census", None) == "census"
    assert "`tasks` must have labels of 0 and 1" in invoke(
        "compare", "--data", "table", "--path", "log.csv", "--tasks", "buy,stars", code=2
    )
    for tasks in ([], ["--tasks", "buy"]):
        assert "two or more of the table's columns of labels" in invoke(
            "compare", "--data", "table", "--path", "log.csv", *tasks, code=2
        )


def test_what_a_column_tells_of_a_label_by_itself():
    import pandas as pd

    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 40_000).astype("float32")
    noise = draw.normal(size=40_000)
    assert single.auc(pd.Series(labels), labels) == 1
    assert single.auc(pd.Series(noise), labels) == pytest.approx(0.5, abs=0.05)
    # Scores of two normal distributions a deviation apart; both are seen in bins alone.
    expected = scipy.stats.norm.cdf(1 / np.sqrt(2))
    for of in (labels, 1 - labels):
        assert single.auc(pd.Series(noise + of), labels) == pytest.approx(expected, abs=0.03)
    words = pd.Series(np.where(labels == 1, None, "there"), dtype=object)
    assert single.auc(words, labels) == 1  # missing tells all
    assert single.auc(pd.Series([f"row {i}" for i in range(40_000)]), labels) == 0.5
    known = np.where(draw.random(40_000) < 0.5, np.nan, labels)
    assert single.auc(pd.Series(labels), known) == 1
    assert np.isnan(single.auc(pd.Series(noise), 3 * labels))
    assert np.isnan(single.auc(pd.Series(noise), np.ones(40_000)))


def test_notes_on_columns():
    import pandas as pd

    rows = pd.DataFrame(
        {
            "day": ["2024-01-01 10:00", "2024-01-02 11:00"] * 50,
            "leak": np.arange(100) % 2,
            "flag": [True, False] * 50,
            "rare": [None] * 99 + [1.5],
            "buy": (np.arange(100) % 2).astype(float),
        }
    )
    console = Console(file=io.StringIO(), width=300)
    console.print(show.described(rows, described(rows), ["buy"]))
    lines = {line.split()[1]: line for line in console.file.getvalue().splitlines() if "│" in line}
    assert "dates?" in lines["day"] or "tells buy" in lines["day"]
    assert "1.000" in lines["leak"] and "tells buy" in lines["leak"]
    assert "integers as ids" in lines["flag"]
    assert "99%" in lines["rare"] and "buy" not in lines
    console = Console(file=io.StringIO(), width=300)
    console.print(show.described(rows, described(rows)))
    assert "dates?" in console.file.getvalue() and "a label?" in console.file.getvalue()


def test_a_balancer_by_its_name_in_any_case():
    assert Recipe("log.csv", ("buy",), balancer="NMT:patience=3").balancer == "nmt:patience=3"
    assert Recipe("log.csv", ("buy",), balancer="pub").balancer == "PUB"
    with pytest.raises(ValueError, match=r"Received: 'NTM' \(did you mean 'nmt'\?\)"):
        Recipe("log.csv", ("buy",), balancer="NTM")


def test_what_is_wrong_with_a_table_is_said_of_the_option(folder):
    table = ["train", "--data", "log.csv", "--tasks"]
    for arguments, option, message in (
        ([*table, "buy,clik"], "--tasks", "Received: ['clik'] (did you mean 'click'?)"),
        ([*table, "buy,click", "--ignore", "x"], "--ignore", "`ignore` must name columns"),
        ([*table, "buy,click", "--time", "city"], "--time", "`time` must name a column of dates"),
        (["train", "log.csv"], "FILE", "must be YAML; a table goes to --data"),
        ([*table, "city"], "--tasks", "must name columns of numbers"),
    ):
        said = invoke(*arguments, code=2)
        assert f"Invalid value for {option}" in said and message in said
    (folder / "log.csv").rename(folder / "gone.csv")
    said = invoke("train", "ranker.yaml", code=2)
    assert "`file` must be a CSV file; in a recipe, as seen from it. Received: 'log.csv'" in said


def test_what_there_is():
    assert "Adaptive" in invoke("balancers") or "PUB" in invoke("balancers")
    assert "census" in invoke("data") and "income, never_married" in invoke("data")
    assert "checks a copy" in invoke("data", "kuairand")
    assert "expected one of" in invoke("data", "nothing", code=2)
    assert "Give FILE, or --data and --tasks." in invoke("train", code=2)
