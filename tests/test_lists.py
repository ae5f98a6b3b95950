"""Query lists in the place of rows, and the tower that scores them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmtl
from tests.conftest import SPEC, make_model, make_net, make_rows
from tests.test_models import embed, mlp
from tfmtl import models

KINDS = ["SharedBottom", "OMoE", "MMoE", "PLE", "LTRTower"]


def make(kind, **options):
    if kind == "LTRTower":
        return models.LTRTower(SPEC, units=(6, 4), seed=7, **options)
    return make_net(kind=kind, **options)


def lists(batch=4, size=6):
    """Columns ``[batch, size]`` and the same as rows."""
    rows = make_rows(batch * size).columns
    return {name: column.reshape(batch, size) for name, column in rows.items()}, rows


@pytest.mark.parametrize("size", [1, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_an_item_of_a_list_is_a_row(kind, size):
    net = make(kind)
    columns, rows = lists(size=size)
    expected = net(rows)
    for output, scores in net(columns).items():
        assert scores.shape == (4, size)
        assert scores.dtype == tf.float32
        np.testing.assert_allclose(
            scores.numpy().reshape(-1, 1), expected[output].numpy(), rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize("kind", ["MMoE", "PLE", "LTRTower"])
def test_lists_are_trained_and_served(kind, tmp_path):
    net = make(kind, layout="lists")
    columns, _ = lists(8)
    outputs = tuple(net(columns))
    labels = {t: (columns["age"] > 0).astype("float32") for t in outputs}
    model = tfmtl.MultiTaskModel(net)
    from_logits = keras.losses.BinaryCrossentropy(from_logits=kind == "LTRTower")
    model.compile(
        keras.optimizers.Adam(0.01), loss=dict.fromkeys(outputs, from_logits), jit_compile=False
    )
    data = tf.data.Dataset.from_tensor_slices((columns, labels)).batch(4)
    losses = model.fit(data, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert model.predict(columns, verbose=0)[outputs[0]].shape == (8, 6)
    model.export(str(tmp_path / "served"))
    serve = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    for size in (6, 3):  # as long as the lists come
        some = {name: tf.constant(column[:5, :size]) for name, column in columns.items()}
        for output, scores in net(some).items():
            np.testing.assert_allclose(serve(**some)[output].numpy(), scores.numpy(), atol=1e-6)


@pytest.mark.parametrize("over", ["pairs", "lists"])
@pytest.mark.parametrize("layout", ["lists", "rows"])
def test_a_reading_tells_the_share_of_pairs_in_order(layout, over):
    rng = np.random.default_rng(0)
    columns, rows = lists(10)
    labels = rng.integers(0, 4, (10, 6)).astype("float32")
    labels[rng.random((10, 6)) < 0.2] = np.nan
    labels[3] = 1.0  # a list without a pair
    weights = rng.integers(1, 3, 10).astype("float32")  # one of a query's rows: pairs have it too
    loss = tfmtl.losses.PairwiseLogistic(over=over)
    net = make("LTRTower", layout=layout)
    if layout == "lists":
        model = tfmtl.MultiTaskModel(net, layout="lists")
        given = (columns, {"score": labels}, {"score": weights})
        size = 4
    else:
        queries = np.repeat(np.arange(10, dtype="int32"), 6)
        model = tfmtl.MultiTaskModel(net, queries="query")
        flat = {"score": labels.reshape(-1, 1), "query": queries}
        given = (rows, flat, {"score": np.repeat(weights, 6)})
        size = 24
    model.compile(keras.optimizers.Adam(1e-3), loss={"score": loss})
    data = tf.data.Dataset.from_tensor_slices(given).batch(size)
    model.fit(data, verbose=0)
    scores = net.predict(rows if layout == "rows" else columns, verbose=0)["score"].reshape(10, 6)
    expected = tfmtl.metrics.pair_accuracy(labels, scores, weights=weights, weighting=over)
    assert model.read(training=True).aucs == pytest.approx([expected], abs=1e-6)
    assert 0 < expected < 1


def test_the_tower_is_its_formula():
    net = make("LTRTower")
    columns = make_rows(9).columns
    hidden = mlp(net.hidden, embed(net, columns))[0]
    expected = mlp(net.towers[0], hidden, last=lambda v: v)[0]
    np.testing.assert_allclose(net(columns)["score"].numpy(), expected, rtol=1e-4, atol=1e-6)
    assert expected.min() < 0  # a logit


def test_layer_norm_is_keras_own():
    net = make("LTRTower", layer_norm=True)
    columns = make_rows(9).columns
    x = embed(net, columns)
    rng = np.random.default_rng(0)
    for weight in net.hidden.weights:
        weight.assign(rng.normal(size=weight.shape))
    weights = [w.numpy() for w in net.hidden.weights]
    for kernel, shift, scale in zip(weights[0::3], weights[1::3], weights[2::3], strict=True):
        norm = keras.layers.LayerNormalization(epsilon=1e-6)
        product = x @ kernel[0]
        norm.build(product.shape)
        norm.set_weights([scale[0, 0], shift[0, 0]])
        x = np.maximum(norm(product).numpy(), 0)
    expected = mlp(net.towers[0], x, last=lambda v: v)[0]
    np.testing.assert_allclose(net(columns)["score"].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_layer_norm_bears_large_features():
    columns = make_rows(64).columns
    large = {**columns, "age": columns["age"] * 1e6}
    scores = make("LTRTower", layer_norm=True)(large)["score"].numpy()
    assert np.abs(scores).max() < 100
    assert np.abs(make("LTRTower")(large)["score"].numpy()).max() > 1e4


@pytest.mark.parametrize("layer_norm", [False, True])
def test_the_tower_goes_through_configuration_and_file(layer_norm, tmp_path):
    options = {"layer_norm": layer_norm, "layout": "lists", "output_activation": "tanh"}
    net = make("LTRTower", activation="elu", **options)
    config = net.get_config()
    twin = models.LTRTower.from_config(config)
    assert twin.get_config() == config
    for mine, its in zip(net.weights, twin.weights, strict=True):
        np.testing.assert_array_equal(its.numpy(), mine.numpy())
    net.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    columns, _ = lists()
    np.testing.assert_array_equal(loaded(columns)["score"].numpy(), net(columns)["score"].numpy())


def test_the_tower_in_mixed_precision():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        net = make("LTRTower", layer_norm=True)
        model = make_model(("score",), net=net, loss={"score": "mse"})
        history = model.fit(make_rows(64, tasks=("score",)).batches(32), verbose=0).history
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert np.isfinite(history["loss"]).all()
    assert net(make_rows(4).columns)["score"].dtype == tf.float32


def test_a_list_length_that_only_the_graph_knows():
    net = make_net()
    columns, rows = lists()
    specs = [{name: tf.TensorSpec([None, None], c.dtype) for name, c in columns.items()}]
    call = tf.function(lambda inputs: net(inputs), input_signature=specs)
    scores = call({name: tf.constant(column) for name, column in columns.items()})["like"]
    np.testing.assert_allclose(scores.numpy().ravel(), net(rows)["like"].numpy()[:, 0], rtol=1e-5)


def test_the_layout_is_what_a_server_is_told():
    assert {s.shape.rank for s in make_net().input_spec_by_column().values()} == {1}
    told = make_net(layout="lists").input_spec_by_column()
    assert {tuple(spec.shape) for spec in told.values()} == {(None, None)}


@pytest.mark.parametrize(
    "shapes",
    [((4, 6), (4, 6), (24,)), ((4, 6), (4, 6), (6, 4)), ((2, 3, 4),) * 3],
    ids=str,
)
def test_columns_that_disagree(shapes):
    columns = {
        name: column.reshape(shape)
        for (name, column), shape in zip(make_rows(24).columns.items(), shapes, strict=True)
    }
    with pytest.raises(ValueError, match=r"(?s)`?Columns must all be rows, \[batch\], or all be"):
        make_net()(columns)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_net(layout="list"), "`layout` must be 'rows' or 'lists'"),
        (lambda: models.LTRTower(SPEC, units=()), "`units` must be a sequence"),
        (lambda: models.LTRTower(SPEC, units=(3, -1)), "`units` must be a sequence"),
        (lambda: models.LTRTower(SPEC, layout=None), "`layout` must be 'rows' or 'lists'"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
