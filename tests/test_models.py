"""The backbones: against NumPy, from a seed, through a configuration."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmtl
from tests.conftest import SPEC, make_net, make_rows
from tfmtl.models.layers import ParallelMLP, seeds_from


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def embed(net, columns):
    """What the embedding layer should give, from its single table."""
    (table,) = (w.numpy() for w in net.embedding.weights)
    item, user = table[columns["item"]], table[12 + columns["user"]]
    return np.concatenate([item, user, columns["age"][:, None]], axis=1)


def mlp(layer, x, hidden=lambda v: np.maximum(v, 0), last=None):
    """Every copy of a ParallelMLP applied to the same input: [copies, batch, units]."""
    weights = [w.numpy() for w in layer.weights]
    kernels, biases = weights[0::2], weights[1::2]
    outputs = []
    for copy in range(layer.copies):
        h = x
        for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
            h = h @ kernel[copy] + bias[copy]
            h = (last if last and i == len(kernels) - 1 else hidden)(h)
        outputs.append(h)
    return np.stack(outputs)


def test_mmoe_is_the_papers_formula():
    net = make_net(expert_units=(6, 5), gate_units=(3,))
    rows = make_rows(9)
    x = embed(net, rows.columns)
    experts = mlp(net.experts, x)
    predictions = net(rows.columns)
    for task, gate_layer, tower in zip(net.tasks, net.gates, net.towers, strict=True):
        gate = mlp(gate_layer, x, last=softmax)[0]
        np.testing.assert_allclose(gate.sum(axis=1), 1, rtol=1e-6)
        mixed = np.einsum("be,ebu->bu", gate, experts)
        expected = mlp(tower, mixed, last=sigmoid)[0]
        np.testing.assert_allclose(predictions[task].numpy(), expected, rtol=1e-4, atol=1e-6)


def test_shared_bottom_is_its_formula():
    net = make_net(kind="SharedBottom", bottom_units=(6, 5))
    rows = make_rows(9)
    bottom = mlp(net.bottom, embed(net, rows.columns))[0]
    for task, tower in zip(net.tasks, net.towers, strict=True):
        expected = mlp(tower, bottom, last=sigmoid)[0]
        np.testing.assert_allclose(net(rows.columns)[task].numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("activation", ["relu", "tanh", "softmax"])
@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_layer_reads_its_input_in_parts_as_if_whole(copies, activation, layer_norm):
    """Outputs, first and second derivatives."""
    layer = ParallelMLP(
        copies, 5, (4, 2), seeds_from(1), activation=activation, layer_norm=layer_norm
    )
    for variable in layer.trainable_variables:
        variable.assign(variable + tf.random.stateless_normal(variable.shape, [1, 2]))
    variables = [tfmtl.compat.tf_variable(each) for each in layer.trainable_variables]
    parts = [tf.random.stateless_normal([6, width], [3, width]) for width in (2, 3)]

    @tf.function
    def derivatives(in_parts):
        wanted = [*parts, *variables]
        with tf.GradientTape() as outer:
            outer.watch(wanted)
            with tf.GradientTape() as tape:
                tape.watch(wanted)
                outputs = layer(parts if in_parts else tf.concat(parts, axis=1))
                total = tf.reduce_sum(tf.sin(outputs))
            first = tape.gradient(total, wanted)
            squares = tf.add_n([tf.reduce_sum(tf.square(each)) for each in first])
        return outputs, first, outer.gradient(squares, wanted)

    for mine, whole in zip(*map(tf.nest.flatten, map(derivatives, (True, False))), strict=True):
        np.testing.assert_allclose(mine.numpy(), whole.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["MMoE", "SharedBottom"])
def test_shapes_seed_and_configuration(kind):
    net = make_net(kind=kind)
    rows = make_rows(5)
    predictions = net(rows.columns)
    assert {task: p.shape.as_list() for task, p in predictions.items()} == {
        "like": [5, 1],
        "click": [5, 1],
    }
    twin = type(net).from_config(net.get_config())
    for mine, its in zip(net.weights, twin.weights, strict=True):
        np.testing.assert_array_equal(its.numpy(), mine.numpy())
    assert not np.allclose(predictions["like"], predictions["click"])  # towers differ


def test_experts_differ_at_the_start():
    kernel = make_net(experts=4).experts.weights[0].numpy()
    limit = np.sqrt(6 / (kernel.shape[1] + kernel.shape[2]))
    for i in range(4):
        assert 0.7 * limit < np.abs(kernel[i]).max() <= limit  # Glorot's, for one expert
        for j in range(i):
            assert np.abs(kernel[i] - kernel[j]).max() > 0.1 * limit


def test_an_embedding_costs_the_rows_of_the_batch():
    net = make_net()
    with tf.GradientTape() as tape:
        total = tf.add_n([tf.reduce_sum(p) for p in net(make_rows(4).columns).values()])
    table = tfmtl.compat.tf_variable(net.embedding.weights[0])
    gradient = tape.gradient(total, table)
    assert isinstance(gradient, tf.IndexedSlices)
    assert gradient.values.shape == (8, 3)


def test_a_width_for_each_column():
    spec = tfmtl.FeatureSpec({"item": 12, "user": 7}, ["age"], width={"item": 5, "user": 2})
    net = tfmtl.models.SharedBottom(["like"], spec, seed=1)
    assert net.embedding.output_width == 8
    columns = make_rows(3).columns
    item, user = (w.numpy() for w in net.embedding.weights)
    expected = np.concatenate(
        [item[columns["item"]], user[columns["user"]], columns["age"][:, None]], axis=1
    )
    np.testing.assert_allclose(np.concatenate(net.embedding(columns), axis=1), expected, rtol=1e-6)


def test_int64_ids_and_column_vectors_are_welcome():
    net = make_net()
    columns = make_rows(4).columns
    tall = {name: values[:, None] for name, values in columns.items()}
    wide = {n: v.astype("int64") if v.dtype == np.int32 else v for n, v in columns.items()}
    for other in (tall, wide):
        np.testing.assert_array_equal(net(other)["like"], net(columns)["like"])


@pytest.mark.parametrize("kind", ["MMoE", "SharedBottom"])
def test_a_backbone_saves_by_itself(tmp_path, kind):
    net = make_net(kind=kind)
    columns = make_rows(4).columns
    net.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    np.testing.assert_array_equal(loaded(columns)["like"], net(columns)["like"])


@pytest.mark.parametrize("wrong", [12, -1])
def test_an_id_never_reads_another_columns_rows(wrong):
    columns = {**make_rows(4).columns, "item": np.array([0, 1, wrong, 3], "int32")}
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"below the vocabulary size.*'item'"):
        make_net()(columns)


def test_a_column_of_the_spec_must_be_there():
    columns = make_rows(4).columns
    columns.pop("age")
    with pytest.raises(ValueError, match=r"(?s)must have every column.*missing: \['age'\]"):
        make_net()(columns)
    extra = {**make_rows(4).columns, "height": np.zeros(4, "float32")}
    np.testing.assert_array_equal(
        make_net()(extra)["like"], make_net()(make_rows(4).columns)["like"]
    )


def test_outputs_can_be_logits():
    columns = make_rows(4).columns
    logits = make_net(output_activation={"like": None, "click": "sigmoid"})(columns)
    probabilities = make_net()(columns)
    np.testing.assert_allclose(
        sigmoid(logits["like"].numpy()), probabilities["like"].numpy(), rtol=1e-5
    )
    np.testing.assert_allclose(logits["click"].numpy(), probabilities["click"].numpy(), rtol=1e-6)


def test_without_a_seed_every_model_starts_elsewhere():
    one, two = (tfmtl.models.MMoE(["like"], SPEC).get_weights() for _ in range(2))
    assert any(not np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tfmtl.FeatureSpec({}), "`categorical` and `numeric` are both empty"),
        (lambda: tfmtl.FeatureSpec({"a": 0}), r"`categorical\['a'\]` must be"),
        (lambda: tfmtl.FeatureSpec({"a": 1}, ["a"]), "Column names must be unique"),
        (lambda: tfmtl.FeatureSpec({"a": 1}, width=0), "`width` of 'a' must be at least 1"),
        (lambda: tfmtl.FeatureSpec({"a": 1}, width={"b": 1}), "`width` must be an integer or"),
        (lambda: tfmtl.models.MMoE("ab", SPEC), "`tasks` must be distinct names"),
        (lambda: tfmtl.models.MMoE([], SPEC), "`tasks` must be distinct names"),
        (lambda: tfmtl.models.MMoE(["a", "a"], SPEC), "`tasks` must be distinct names"),
        (lambda: make_net(experts=0), "`experts` must be a positive integer"),
        (lambda: make_net(expert_units=()), "`expert_units` must be a sequence"),
        (lambda: make_net(output_activation={"like": None}), "`output_activation` must be one"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
