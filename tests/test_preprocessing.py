"""Raw columns: what is learnt, what becomes of each value, in a pipeline and in a SavedModel."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmtl
from tfmtl import models
from tfmtl.preprocessing import Category, Cross, Number, Preprocessor

ROWS = {
    "country": ["de", "fr", "de", "", "it", "de", "fr", "us"],
    "device": [3, 3, -1, 7, 7, 7, 9, 9],
    "tags": ["a|b", "b", "", "b |c", "a", "b", "c|a|b", "zz"],
    "age": [20.0, 30.0, np.nan, 40.0, 50.0, 60.0, 70.0, 80.0],
    "price": [0.0, 1.0, 10.0, 100.0, 1000.0, 5.0, -1.0, np.nan],
}
COLUMNS = {
    "country": Category(width=4, least=2),
    "device": Category(width=4, dtype="int64"),
    "tags": Category(width=3, pooling="mean", separator="|"),
    "age": Number(bins=3, width=2),
    "price": Number(log=True),
    "country_device": Cross(["country", "device"], buckets=50, width=4),
}


def raw(rows=slice(None)):
    kinds = {"country": object, "device": "int64", "tags": object}
    return {n: np.array(v, kinds.get(n, "float32"))[rows] for n, v in ROWS.items()}


def tensors(rows=slice(None)):
    return {name: tf.constant(values.tolist(), None) for name, values in raw(rows).items()} | {
        "device": tf.constant(raw(rows)["device"])
    }


@pytest.fixture(scope="module")
def adapted():
    batches = tf.data.Dataset.from_tensor_slices((tensors(), np.zeros(8))).batch(3)
    return Preprocessor(COLUMNS).adapt(batches)


def test_what_is_learnt(adapted):
    learnt = adapted.get_config()["learnt"]
    assert learnt["country"] == {"vocabulary": ["de", "fr"]}  # twice at least, frequent first
    assert learnt["device"] == {"vocabulary": [7, 3, 9]}
    assert learnt["tags"] == {"vocabulary": ["b", "a", "c", "zz"]}
    ages = np.array(ROWS["age"])[~np.isnan(ROWS["age"])]
    np.testing.assert_allclose(learnt["age"]["boundaries"], np.quantile(ages, [1 / 3, 2 / 3]))
    prices = np.log1p([0, 1, 10, 100, 1000, 5, 0])
    assert learnt["price"]["mean"] == pytest.approx(prices.mean(), rel=1e-6)
    assert learnt["price"]["variance"] == pytest.approx(prices.var(), rel=1e-6)


def test_what_becomes_of_values(adapted):
    found = {name: values.numpy() for name, values in adapted(tensors()).items()}
    np.testing.assert_array_equal(found["country"], [1, 2, 1, 0, 0, 1, 2, 0])
    np.testing.assert_array_equal(found["device"], [2, 2, 0, 1, 1, 1, 3, 3])
    np.testing.assert_array_equal(
        found["tags"],
        np.reshape(
            [2, 1, -1, 1, -1, -1, *[-1] * 3, 1, 3, -1, 2, -1, -1, 1, -1, -1, 3, 2, 1, 4, -1, -1],
            (8, 3),
        ),
    )
    np.testing.assert_array_equal(found["age"][[0, 1, 3, 4, 7]], [1, 1, 2, 2, 3])
    np.testing.assert_array_equal(found["age"][np.isnan(ROWS["age"])], 0)
    prices = np.log1p([0, 1, 10, 100, 1000, 5, 0])
    expected = (prices - prices.mean()) / prices.std()
    np.testing.assert_allclose(found["price"][:7], expected, rtol=1e-4, atol=1e-5)
    assert found["price"][7] == 0  # the mean
    crossed = found["country_device"]
    assert crossed.dtype == "int32" and (crossed >= 0).all() and (crossed < 50).all()
    assert len(set(crossed.tolist())) > 4


def test_lists_are_rows_side_by_side(adapted):
    rows = adapted(tensors())
    lists = adapted({name: tf.reshape(values, [2, 4]) for name, values in tensors().items()})
    for name, values in lists.items():
        np.testing.assert_array_equal(values, tf.reshape(rows[name], values.shape))


def test_several_values_may_come_padded_or_ragged():
    columns = {"ids": Category(vocabulary=[5, 6], pooling="sum", dtype="int64")}
    made = Preprocessor(columns)
    expected = [[1, 2], [2, -1], [-1, -1]]
    padded = tf.constant([[5, 6], [6, -1], [-1, -1]], tf.int64)
    np.testing.assert_array_equal(made({"ids": padded})["ids"], expected)
    ragged = tf.ragged.constant([[5, 6], [6], []], dtype=tf.int64)
    np.testing.assert_array_equal(made({"ids": ragged})["ids"], expected)
    assert made.signature()["ids"].shape.as_list() == [None, None]


def test_what_is_given_needs_no_rows(tmp_path):
    (tmp_path / "words.txt").write_text("x\ny\n")
    made = Preprocessor(
        {
            "word": Category(vocabulary=tmp_path / "words.txt"),
            "hashed": Category(buckets=7),
            "number": Number(scaled=False),
            "bin": Number(bins=[1.0, 2.0]),
        }
    )
    found = made(
        {
            "word": tf.constant(["y", "w"]),
            "hashed": tf.constant(["p", "q"]),
            "number": tf.constant([3.5, np.nan]),
            "bin": tf.constant([2.0, np.nan]),
        }
    )
    np.testing.assert_array_equal(found["word"], [2, 0])
    np.testing.assert_array_equal(found["number"], [3.5, 0.0])
    np.testing.assert_array_equal(found["bin"], [3, 0])
    assert made.spec.categorical == {"word": 3, "hashed": 7, "bin": 4}


def test_it_goes_through_configuration_and_file(adapted, tmp_path):
    adapted.save(tmp_path / "columns.json")
    loaded = Preprocessor.load(tmp_path / "columns.json")
    assert loaded.get_config() == adapted.get_config()
    for name, values in adapted(tensors()).items():
        np.testing.assert_array_equal(loaded(tensors())[name], values)
    twin = keras.saving.deserialize_keras_object(
        json.loads(json.dumps(keras.saving.serialize_keras_object(adapted)))
    )
    assert twin.spec == adapted.spec
    unlearnt = Preprocessor.from_config(Preprocessor(COLUMNS).get_config())
    with pytest.raises(ValueError, match=r"Call `adapt` .* It learns: \['country', 'device'"):
        unlearnt(tensors())
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"`Preprocessor.save` wrote\. Received: .*other\.json"):
        Preprocessor.load(tmp_path / "other.json")


@pytest.mark.parametrize("kind", ["MMoE", "LTRTower"])
def test_a_server_sees_raw_columns(adapted, kind, tmp_path):
    if kind == "MMoE":
        net = models.MMoE(["like", "click"], adapted.spec, experts=2, expert_units=(4,), seed=1)
    else:
        net = models.LTRTower(adapted.spec, units=(4,), seed=1)
    tasks = net.tasks if kind == "MMoE" else ["score"]
    labels = {task: np.float32([0, 1] * 4) for task in tasks}
    rows = tf.data.Dataset.from_tensor_slices((tensors(), labels)).batch(4)
    model = tfmtl.MultiTaskModel(net)
    loss = keras.losses.BinaryCrossentropy(from_logits=kind == "LTRTower")
    model.compile(keras.optimizers.Adam(0.01), loss=dict.fromkeys(tasks, loss))
    model.fit(rows.map(lambda x, y: (adapted(x), y)), epochs=2, verbose=0)
    expected = model.predict(adapted(tensors()), verbose=0)
    model.export(str(tmp_path / "1"), preprocessor=adapted)
    served = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    found = served(**tensors())
    for task in tasks:
        np.testing.assert_allclose(found[task], expected[task], rtol=1e-5, atol=1e-6)


def test_pooled_embeddings_are_the_mean_or_the_sum():
    spec = tfmtl.FeatureSpec({"item": 5, "tags": 4}, (), 3, {"tags": "mean"})
    net = models.SharedBottom(["like"], spec, bottom_units=(2,), seed=0)
    (table,) = (weight.numpy() for weight in net.embedding.weights)
    columns = {
        "item": tf.constant([1, 2, 4]),
        "tags": tf.constant([[0, 2, -1], [3, -1, -1], [-1, -1, -1]]),
    }
    (found,) = net.embedding(columns)
    tags = table[5:]
    expected = np.stack([(tags[0] + tags[2]) / 2, tags[3], np.zeros(3)])
    np.testing.assert_allclose(
        found, np.concatenate([table[[1, 2, 4]], expected], 1), rtol=1e-6, atol=1e-7
    )
    twin = tfmtl.FeatureSpec(**spec.get_config())
    assert twin == spec
    summed = models.SharedBottom(
        ["like"], tfmtl.FeatureSpec({"tags": 4}, (), 3, {"tags": "sum"}), seed=0
    )
    (table,) = (weight.numpy() for weight in summed.embedding.weights)
    (found,) = summed.embedding({"tags": tf.constant([[[0, 2], [1, -1]]])})  # a list of two
    np.testing.assert_allclose(found, [table[0] + table[2], table[1]], rtol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError, match="below the vocabulary size"):
        summed.embedding({"tags": tf.constant([[4, 0]])})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Category(width=0), "`width` must be a positive integer. Received: 0"),
        (lambda: Category(pooling="max"), r"`pooling` must be one of .* Received: 'max'"),
        (lambda: Category(dtype="float"), "`dtype` must be 'string' or 'int64'"),
        (lambda: Category(vocabulary=["a"], buckets=3), "exclude each other"),
        (lambda: Category(vocabulary=["a", "a"]), r"each once. Received: \['a'\] twice"),
        (lambda: Category(vocabulary=[]), "at least one value"),
        (lambda: Category(separator="|"), "`separator` goes with `pooling`"),
        (lambda: Number(bins=1), "`bins` must be at least 2. Received: 1"),
        (lambda: Number(bins=[2.0, 1.0]), "rising boundaries"),
        (lambda: Cross(["a"], 5), "two or more columns"),
        (lambda: Preprocessor({}), "at least one column"),
        (lambda: Preprocessor({"a": 3}), r"`columns\['a'\]` must be a Category"),
        (lambda: Preprocessor({"a": Cross(["b", "c"], 4)}), "one value a row. Received: 'b'"),
        (
            lambda: tfmtl.FeatureSpec({"a": 2}, pooling={"b": "mean"}),
            "`pooling` must give categorical columns",
        ),
    ],
)
def test_what_is_wrong_is_said(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_rows_that_do_not_fit_are_refused(adapted):
    given = tensors()
    with pytest.raises(ValueError, match=r"\(missing: \['age'\]\)"):
        adapted({name: values for name, values in given.items() if name != "age"})
    with pytest.raises(ValueError, match=r"'device'\] must hold int64 values. .* float32"):
        adapted({**given, "device": given["age"]})
    with pytest.raises(ValueError, match=r"'age'\] must hold numbers. .* string"):
        adapted({**given, "age": given["country"]})
    with pytest.raises(ValueError, match="at least one batch"):
        Preprocessor(COLUMNS).adapt(tf.data.Dataset.from_tensor_slices(given).batch(4).take(0))
    with pytest.raises(ValueError, match="values of 'country' to learn, each at least 9 times"):
        Preprocessor({"country": Category(least=9)}).adapt(given)
