"""A table that nobody has described: what its columns are taken for, and its parts."""

import numpy as np
import pytest
import tensorflow as tf

import tfmtl
from tfmtl import data, models
from tfmtl.data.table import described, values_of
from tfmtl.preprocessing import Category, Cross, Number

pd = pytest.importorskip("pandas")


def frame(n=400):
    rng = np.random.default_rng(0)
    city = rng.choice(["Rome", "Oslo", None], n, p=[0.5, 0.4, 0.1])
    buys = (rng.random(n) < np.where(city == "Rome", 0.6, 0.2)).astype(float)
    return pd.DataFrame(
        {
            "session": [f"s{i // 4}" for i in range(n)],
            "row": [f"r{i}" for i in range(n)],
            "city": city,
            "shop_id": rng.integers(0, 60, n),
            "stars": rng.integers(1, 6, n),
            "price": np.exp(3 * rng.normal(size=n)),
            "balance": rng.normal(size=n),
            "tags": rng.choice(["new|red", "red", "", "blue|new|red"], n),
            "constant": 1,
            "buy": buys,
            "click": np.where(rng.random(n) < 0.1, np.nan, rng.random(n) < 0.5),
        }
    )


def test_what_columns_are_taken_for():
    found = described(frame().drop(columns=["buy", "click"]), width=4)
    assert found["city"] == Category(width=4)
    assert found["shop_id"] == Category(width=4, dtype="int64")
    assert found["stars"] == Category(width=4, dtype="int64")
    assert found["price"] == Number(log=True)
    assert found["balance"] == Number()
    assert found["row"] is None and found["constant"] is None
    assert described(pd.DataFrame({"yes": [True, False, None] * 10}))["yes"] == Category(
        dtype="int64"
    )
    some = described(pd.DataFrame({"few": ["a", "b", "c", "d", "d"]}))
    assert some["few"] == Category(least=2)


def test_true_and_false_are_one_and_zero():
    truth = pd.Series([True, False, None, True])
    np.testing.assert_array_equal(values_of(truth, "int64"), [1, 0, -1, 1])
    np.testing.assert_array_equal(values_of(truth, "float32"), [1, 0, np.nan, 1])
    np.testing.assert_array_equal(values_of(truth.dropna().astype(bool), "int64"), [1, 0, 1])
    np.testing.assert_array_equal(values_of(pd.Series([1, 0]), "int64"), [1, 0])


DAYS = [f"2026-0{1 + i // 100}-{1 + i % 28:02}T0{i % 10}:00" for i in range(400)]


@pytest.mark.parametrize("written", [DAYS, pd.to_datetime(DAYS), pd.to_datetime(DAYS).astype(int)])
def test_the_last_rows_are_for_the_test(written):
    rows = frame().assign(when=written)
    splits = data.table(rows, tasks=["buy"], time="when", columns={"balance": Number(scaled=False)})
    assert "when" not in splits.train.columns
    age = dict(zip(rows["balance"].astype("float32"), rows["when"], strict=True))
    parts = splits.train, splits.validation, splits.test
    train, validation, test = ([age[v] for v in part.columns["balance"]] for part in parts)
    assert [len(train), len(validation), len(test)] == [320, 40, 40]
    assert max(train) <= min(validation) and max(validation) <= min(test)


def test_a_group_is_parted_by_its_last_row():
    rows = frame().assign(row=np.arange(400), when=np.arange(400) % 4)
    rows.loc[::4, "when"] = 0
    late = rows["session"].isin([f"s{i}" for i in range(7, 17)])
    rows.loc[late & (rows["when"] == 3), "when"] = 9  # one row of four
    splits = data.table(rows, tasks="buy", groups="session", time="when", ignore="row")
    assert "row" not in splits.train.columns
    assert sorted(set(splits.test.groups)) == list(range(7, 17))
    # All others are of one time, and the table's order counts.
    assert sorted(set(splits.validation.groups)) == list(range(90, 100))


@pytest.mark.parametrize(
    ("time", "message"),
    [
        ("whence", r"`time` must name columns of the table. Received: \['whence'\]"),
        ("city", r"one in each row. Received: 'city', which has 400 others, '\w+' for one"),
        ("click", r"'click', which has \d+ others, 'nan' for one"),
    ],
)
def test_what_is_no_time(time, message):
    rows = frame().assign(city=lambda t: t["city"].fillna("Bern"))
    with pytest.raises(ValueError, match=message):
        data.table(rows, tasks=["buy"], time=time)


@pytest.mark.parametrize("groups", [None, "session"])
def test_parts_and_columns(groups, tmp_path):
    frame().to_csv(tmp_path / "log.csv", index=False)
    splits = data.table(
        tmp_path / "log.csv",
        tasks=["buy", "click"],
        columns={
            "tags": Category(pooling="mean", separator="|"),
            "city_stars": Cross(["city", "stars"], buckets=20),
        },
        ignore=[] if groups else ["session"],
        groups=groups,
        seed=1,
    )
    assert len(repr(splits)) < 500 and "train=320 rows" in repr(splits)
    parts = [splits.train, splits.validation, splits.test]
    assert [len(part) for part in parts] == [320, 40, 40]
    expected = {"city", "shop_id", "stars", "price", "balance", "tags", "city_stars"}
    assert set(splits.train.columns) == expected
    assert splits.features.pooling == {"tags": "mean"}
    assert splits.vocabularies["city"] == [None, "Rome", "Oslo"]
    assert np.isnan(splits.train.labels["click"]).any()
    if groups:
        owners = [set(part.groups.tolist()) for part in parts]
        assert not owners[0] & owners[1] and not owners[0] & owners[2]
        columns, _ = next(iter(splits.train.lists(2, 6)))
        assert columns["tags"].shape == (2, 6, 3)
        np.testing.assert_array_equal(columns["tags"][:, 4:], -1)  # a list has four rows
    net = models.MMoE(splits.tasks, splits.features, experts=2, expert_units=(4,), seed=1)
    model = tfmtl.MultiTaskModel(net)
    model.compile("adam", loss=dict.fromkeys(splits.tasks, "binary_crossentropy"))
    model.fit(splits.train.batches(64, shuffle=True, seed=0), verbose=0)
    model.export(str(tmp_path / "1"), preprocessor=splits.preprocessor)
    serve = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    row = frame().iloc[[0]]
    raw = {
        "city": ["Rome"],
        "shop_id": row["shop_id"].to_numpy(),
        "stars": row["stars"].to_numpy(),
        "price": row["price"].to_numpy("float32"),
        "balance": row["balance"].to_numpy("float32"),
        "tags": ["new|red"],
    }
    served = serve(**{name: tf.constant(values) for name, values in raw.items()})
    assert 0 < float(served["buy"][0, 0]) < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["sold"]}, r"`tasks` must name columns of the table. Received: \['sold'\]"),
        ({"tasks": []}, "`tasks` must name one or more columns"),
        ({"tasks": ["city"]}, "columns of numbers. Received: 'city', which holds 'Rome'"),
        ({"tasks": ["buy"], "ignore": ["x"]}, r"`ignore` must name columns .* \['x'\]"),
        ({"tasks": ["buy"], "columns": {"buy": Number()}}, "that are no inputs"),
        ({"tasks": ["buy"], "test_fraction": 1.0}, r"`test_fraction` must lie in \(0, 1\)"),
        (
            {"tasks": ["buy"], "test_fraction": 0.6, "validation_fraction": 0.5},
            "must leave rows to train on. Received: 0.5 and 0.6 of 400 rows",
        ),
    ],
)
def test_what_does_not_fit_is_said(options, message):
    rows = frame()
    rows.loc[0, "city"] = "Rome"
    with pytest.raises(ValueError, match=message):
        data.table(rows, **options)


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(FileNotFoundError, match="`path` must be a file"):
        data.table(tmp_path / "no.csv", tasks=["buy"])
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match=r"empty\.csv: not a CSV file"):
        data.table(tmp_path / "empty.csv", tasks=["buy"])
    (tmp_path / "head.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match=r"head\.csv: a header and no rows"):
        data.table(tmp_path / "head.csv", tasks=["a"])


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators_are_seen(tmp_path, separator):
    frame().drop(columns="tags").to_csv(tmp_path / "a.csv", index=False, sep=separator)
    splits = data.table(tmp_path / "a.csv", tasks=["buy"])
    assert "city" in splits.features.categorical


def test_labels_that_are_all_the_same_are_named():
    with pytest.raises(ValueError, match=r"labels that differ. Received: 'buy'.*have 0 alone"):
        data.table(frame().assign(buy=0.0), tasks=["buy", "click"])
