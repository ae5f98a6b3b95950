"""What a server gets: raw columns, serialized examples, a fused score, versions, a warm-up."""

import functools

import numpy as np
import pytest
import tensorflow as tf

import tfmtl
from tests.conftest import make_model, make_rows
from tests.test_preprocessing import COLUMNS, tensors
from tfmtl import models, ranking, serving
from tfmtl.preprocessing import Category, Cross, Number, Preprocessor

OUTPUTS = {"click": tf.constant([[0.5], [0.0]]), "watch": tf.constant([[4.0], [9.0]])}


def test_scores_are_their_formulas():
    product = serving.PowerProduct({"click": 2.0, "watch": 0.5})(OUTPUTS).numpy()
    np.testing.assert_allclose(product[0], 0.5**2 * 4.0**0.5, rtol=1e-6)
    assert 0 <= product[1] < 1e-20
    summed = serving.WeightedSum({"click": 2.0, "watch": -1.0})(OUTPUTS).numpy()
    np.testing.assert_allclose(summed, [[-3.0], [-9.0]])
    with pytest.raises(ValueError, match=r"Expected some of: \['click', 'watch'\].*\['like'\]"):
        serving.WeightedSum({"like": 1.0})(OUTPUTS)
    with pytest.raises(ValueError, match="`exponents` must hold finite numbers"):
        serving.PowerProduct({"like": float("nan")})
    with pytest.raises(ValueError, match="`weights` must hold finite numbers"):
        serving.WeightedSum({})


def example(row):
    return features(row).SerializeToString()


def features(row):
    features = {}
    for name, values in row.items():
        values = np.atleast_1d(values)
        if values.dtype.kind in "OSU":
            data = [v if isinstance(v, bytes) else v.encode() for v in values.tolist()]
            features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=data))
        elif values.dtype.kind == "i":
            features[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        else:
            features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Example(features=tf.train.Features(feature=features))


def test_every_way_to_ask_gives_the_same(tmp_path):
    columns = {**COLUMNS, "seen": Category(vocabulary=[5, 6], pooling="mean", dtype="int64")}
    raw = {**tensors(), "seen": tf.constant([[5, 6], [6, -1]] * 4, tf.int64)}
    made = Preprocessor(columns).adapt(raw)
    net = models.MMoE(["like", "click"], made.spec, experts=2, expert_units=(4,), seed=1)
    model = tfmtl.MultiTaskModel(net)
    labels = {task: np.float32([0, 1] * 4) for task in net.tasks}
    model.compile("adam", loss=dict.fromkeys(net.tasks, "binary_crossentropy"))
    rows = tf.data.Dataset.from_tensor_slices((raw, labels)).batch(4)
    model.fit(rows.map(lambda x, y: (made(x), y)), verbose=0)
    score = serving.PowerProduct({"like": 1.0, "click": 0.5})
    place = serving.next_version(tmp_path / "ranker")
    assert place.name == "1"
    model.export(
        str(place), preprocessor=made, parsers={"examples": made.parse_examples}, score=score
    )
    assert serving.next_version(tmp_path / "ranker").name == "2"
    served = tf.saved_model.load(str(place)).signatures
    expected = model.predict(made(raw), verbose=0)
    found = served["serving_default"](**raw)
    for task in net.tasks:
        np.testing.assert_allclose(found[task], expected[task], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        found["score"], expected["like"] * expected["click"] ** 0.5, rtol=1e-5
    )
    plain = {name: values.numpy() for name, values in raw.items()}
    serialized = []
    for i in range(8):
        row = {name: values[i] for name, values in plain.items()}
        row["seen"] = row["seen"][row["seen"] >= 0]
        if row["country"] == b"":
            del row["country"]  # as an example without the feature
        serialized.append(example(row))
    for name, values in served["examples"](serialized=tf.constant(serialized)).items():
        np.testing.assert_allclose(values, found[name], rtol=1e-6)

    pytest.importorskip("tensorflow_serving")
    one = {name: values[:1] for name, values in plain.items()}
    path = serving.write_warm_up(place, one)
    (record,) = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog.FromString(record)
    request = log.predict_log.request
    assert request.model_spec.name == "ranker"
    asked = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
    again = served["serving_default"](**asked)
    np.testing.assert_allclose(again["score"], found["score"][:1], rtol=1e-5)
    with pytest.raises(ValueError, match=r"`signature` must be one of .* Received: 'other'"):
        serving.write_warm_up(place, one, signature="other")
    with pytest.raises(ValueError, match=r"`inputs` must be .* Received: \['age'\]"):
        serving.write_warm_up(place, {"age": one["age"]})
    with pytest.raises(FileNotFoundError, match="`folder` must hold a SavedModel"):
        serving.write_warm_up(tmp_path, one)


def test_a_score_that_cannot_be_made_leaves_nothing(tmp_path):
    model = make_model()
    model.fit(make_rows(20).batches(10), verbose=0)
    with pytest.raises(ValueError, match=r"Expected some of: \['click', 'like'\]"):
        model.export(str(tmp_path / "1"), score=serving.WeightedSum({"share": 1.0}))
    with pytest.raises(ValueError, match="Call `adapt`"):
        model.export(str(tmp_path / "1"), preprocessor=Preprocessor({"age": Number()}))
    assert list(tmp_path.iterdir()) == []


def test_lists_with_their_context_are_raw_columns(tmp_path):
    input_pb2 = pytest.importorskip("tensorflow_serving.apis.input_pb2")
    queries = [  # of each its country, and of each item a price, a device and where it was seen
        ("de", [(1.0, 3, [5, 6]), (20.0, 7, [6])]),
        ("fr", [(3.0, 7, []), (np.nan, -1, [5]), (8.0, 3, [0])]),
        ("??", [(5.0, 9, [6, 9, 5])]),
    ]
    columns = Preprocessor(
        {
            "country": Category(vocabulary=["de", "fr"]),
            "price": Number(log=True),
            "device": Category(dtype="int64", vocabulary=[3, 7]),
            "seen": Category(dtype="int64", vocabulary=[5, 6], pooling="mean"),
            "both": Cross(["country", "device"], buckets=20),
        }
    )
    raw = {
        "country": np.full((3, 3), "", object),
        "price": np.zeros((3, 3), "float32"),
        "device": np.zeros((3, 3), "int64"),
        "seen": np.full((3, 3, 3), -1),
    }
    serialized, is_item = [], np.zeros((3, 3), bool)
    for q, (country, items) in enumerate(queries):
        raw["country"][q] = country
        examples = []
        for i, (price, device, seen) in enumerate(items):
            is_item[q, i] = True
            raw["price"][q, i], raw["device"][q, i] = price, device
            raw["seen"][q, i, : len(seen)] = seen
            row = {"seen": np.array(seen, int)}
            if not np.isnan(price):  # what is missing is left out
                row |= {"price": price, "device": device}
            examples.append(features(row))
        context = features({"country": country})
        record = input_pb2.ExampleListWithContext(examples=examples, context=context)
        serialized.append(record.SerializeToString())
    raw = {name: tf.constant(values) for name, values in raw.items()}
    columns.adapt(raw)
    net = models.LTRTower(columns.spec, units=(4,), layout="lists", seed=1)
    model = tfmtl.MultiTaskModel(net, outputs={"pay": "score"}, layout="lists")
    expected = model.predict(columns(raw), verbose=0)["score"]
    examples = columns.example_spec()
    context = {"country": examples.pop("country")}
    parse = functools.partial(ranking.parse, context=context, examples=examples)
    model.export(str(tmp_path / "1"), preprocessor=columns, parsers={"elwc": parse})
    served = tf.saved_model.load(str(tmp_path / "1")).signatures
    for found in (
        served["serving_default"](**raw)["score"],
        served["elwc"](serialized=tf.constant(serialized))["score"],
    ):
        np.testing.assert_allclose(found[is_item], expected[is_item], rtol=1e-5, atol=1e-6)
    assert len(np.unique(expected[is_item])) == is_item.sum()
