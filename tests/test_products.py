"""Outputs that are products of others, and tasks of different kinds in one model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmtl
from tests.conftest import make_model, make_net, make_rows
from tests.test_model import Foreign, arrays, functional
from tfmtl.models import Products

CHAIN = {"both": ("click", "like")}
BCE = "binary_crossentropy"


def wrapped(**options):
    return Products(make_net(kind="PLE", **options), CHAIN)


def test_a_product_is_the_product():
    net = make_net(("a", "b", "c"))
    columns = make_rows(8).columns
    found = Products(net, {"ab": ("a", "b"), "abc": ("ab", "c")})(columns)
    a, b, c = (net(columns)[task].numpy() for task in "abc")
    assert list(found) == ["a", "b", "c", "ab", "abc"]
    np.testing.assert_allclose(found["ab"].numpy(), a * b, rtol=1e-6)
    np.testing.assert_allclose(found["abc"].numpy(), a * b * c, rtol=1e-6)
    np.testing.assert_array_equal(found["c"].numpy(), c)


def test_the_factor_that_is_not_trained_itself_learns_through_the_product():
    model = make_model(net=wrapped(levels=1), loss={"click": BCE, "like": None, "both": BCE})
    own = model.task_variables
    names = {task: {v.name for v in found} for task, found in own.items()}
    assert any("tower_like" in name for name in names["both"])
    assert not names["click"]  # the product is trained by all that click is
    rows = make_rows(64)
    labels = {"click": rows.labels["click"], "both": rows.labels["click"] * rows.labels["like"]}
    before = [v.numpy() for v in own["both"]]
    model.fit(rows.columns, labels, batch_size=16, epochs=2, verbose=0)
    for old, variable in zip(before, own["both"], strict=True):
        assert not np.array_equal(old, variable.numpy())
    assert set(model.predict(rows.columns, verbose=0)) == {"click", "like", "both"}


def test_gradients_follow_the_product_rule():
    x = keras.Input((1,), name="x")
    net = Products(keras.Model({"x": x}, {"a": x, "b": x}), {"ab": ("a", "b")})
    given = tf.constant([[0.2]])
    with tf.GradientTape() as tape:
        tape.watch(given)
        loss = keras.losses.BinaryCrossentropy()(tf.ones([1, 1]), net({"x": given})["ab"])
    # (-log x²)' = -2 / x
    assert float(tape.gradient(loss, given)[0, 0]) == pytest.approx(-10.0, rel=1e-4)


@pytest.mark.parametrize("make", [functional, Foreign], ids=["functional", "subclassed"])
def test_around_any_backbone(make, tmp_path):
    x, y = arrays()
    model = make_model(net=Products(make(), CHAIN), loss={"like": BCE, "click": None, "both": BCE})
    labels = {"like": y["like"], "both": y["like"] * y["click"]}
    history = model.fit(x, labels, batch_size=16, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for task, expected in model.predict(x, verbose=0).items():
        np.testing.assert_allclose(loaded.predict(x, verbose=0)[task], expected, atol=1e-6)


def test_it_saves_by_itself_and_serves(tmp_path):
    net = wrapped()
    columns = make_rows(8).columns
    for weight in net.weights:
        weight.assign(weight + 0.1)
    expected = net(columns)
    net.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    assert loaded.get_config()["products"] == {"both": ["click", "like"]}
    model = make_model(net=loaded, loss={"click": BCE, "like": None, "both": BCE})
    model.export(str(tmp_path / "served"))
    serve = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    served = serve(**{name: tf.constant(column) for name, column in columns.items()})
    assert set(served) == {"like", "click", "both"}
    for task, values in expected.items():
        np.testing.assert_array_equal(loaded(columns)[task].numpy(), values.numpy())
        np.testing.assert_allclose(served[task].numpy(), values.numpy(), atol=1e-6)


def test_what_the_backbone_shows_stays_in_the_logs():
    model = make_model(net=wrapped(levels=1), loss={"click": BCE, "like": None, "both": BCE})
    rows = make_rows(32)
    labels = {"click": rows.labels["click"], "both": rows.labels["like"] * rows.labels["click"]}
    history = model.fit(rows.columns, labels, verbose=0).history
    assert {"gate_entropy_like", "gate_entropy_click"} <= set(history)
    assert Products(functional(), CHAIN).watch() == {}


def test_small_probabilities_do_not_vanish():
    x = keras.Input((1,), name="x")
    net = Products(keras.Model({"x": x}, {"a": x, "b": x}), {"ab": ("a", "b")})
    found = float(net({"x": tf.constant([[1e-15]])})["ab"][0, 0])
    assert found == pytest.approx(1e-30, rel=1e-5)


@pytest.mark.parametrize("kind", ["SharedBottom", "MMoE", "PLE"])
def test_regression_beside_classification(kind):
    """A probability, a number of any sign and a positive one; every head's loss falls."""
    tasks = ("like", "delta", "price")
    activations = {"like": "sigmoid", "delta": None, "price": "softplus"}
    net = make_net(tasks, kind=kind, output_activation=activations)
    rows = make_rows(128)
    labels = {
        "like": rows.labels["like"],
        "delta": rows.columns["age"] - 1.0,
        "price": np.exp(rows.columns["age"]),
    }
    model = make_model(
        tasks,
        net=net,
        optimizer=keras.optimizers.Adam(0.02),
        loss={"like": BCE, "delta": "mse", "price": "poisson"},
        metrics={"like": ["accuracy"], "delta": ["mae"]},
    )
    history = model.fit(rows.columns, labels, batch_size=32, epochs=8, verbose=0).history
    for task in tasks:
        assert history[f"{task}_loss"][-1] < history[f"{task}_loss"][0]
    predictions = {t: p.numpy() for t, p in net(rows.columns).items()}
    assert predictions["like"].min() > 0
    assert predictions["like"].max() < 1
    assert predictions["delta"].min() < 0
    assert predictions["price"].min() > 0


def outputs(net, products):
    return Products(net, products)(make_rows(4).columns)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Products(3, CHAIN), "`net` must be a Keras model"),
        (lambda: Products(functional(), {}), "`products` must be a dict"),
        (lambda: Products(functional(), ["like"]), "`products` must be a dict"),
        (lambda: Products(functional(), {"a": ("b",)}), r"`products\['a'\]` must name at least"),
        (lambda: Products(functional(), {"a": "like"}), r"`products\['a'\]` must name at least"),
        (lambda: outputs(make_net(), {"a": ("like", "buy")}), r"(?s)unknown: \['buy'\]"),
        (lambda: outputs(make_net(), {"like": ("like", "click")}), "names 'like', which is an"),
        (
            lambda: tfmtl.MultiTaskModel(Products(make_net(), {"a": ("like", "buy")})),
            r"(?s)unknown: \['buy'\]",
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_outputs_must_be_named():
    x = keras.Input((5,), name="x")
    net = Products(keras.Model(x, keras.layers.Dense(1)(x)), CHAIN)
    with pytest.raises(ValueError, match="output must be a dict"):
        net(np.zeros((2, 5), "float32"))
