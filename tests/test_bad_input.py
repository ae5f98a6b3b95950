"""Bad input: the error names the argument, what was expected, what came; nothing is lost."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmtl
from tests.conftest import make_model, make_net, make_rows
from tfmtl import balancers

LOSS = dict.fromkeys(["like", "click"], "binary_crossentropy")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": {"like": "mse"}}, r"`loss` must name every output.*Received"),
        ({"loss": {**LOSS, "share": "mse"}}, r"`loss` must name every output.*Received"),
        ({"loss": "mse"}, r"`loss` must be a dict"),
        ({"loss": {**LOSS, "like": keras.losses.MeanSquaredError("sum")}}, "reduction='sum'"),
        ({"loss": LOSS, "metrics": {"share": ["mse"]}}, r"`metrics` names tasks.*Received"),
        ({"loss": LOSS, "metrics": ["mse"]}, r"`metrics` must be a dict.*Received"),
        ({"loss": LOSS, "weighted_metrics": {"share": ["mse"]}}, "`weighted_metrics` names tasks"),
        ({"loss": LOSS, "metrics": {"like": ["mae", "mae"]}}, "two metrics that report as"),
        ({"loss": dict.fromkeys(LOSS)}, r"`loss` must have a loss for at least one task"),
        ({"loss": LOSS, "optimizer": keras.optimizers.SGD(-0.1)}, r"`optimizer`.*Received: -0.1"),
        ({"loss": LOSS, "balancer": "Nothing"}, r"`balancer` must be.*Received: 'Nothing'"),
        ({"loss": LOSS, "balancer": "NMT"}, r"`balancer='NMT'` needs arguments"),
        (
            {"loss": LOSS, "balancer": balancers.FixedWeights({"like": 1.0})},
            r"`weights` must name every task.*missing: \['click'\]",
        ),
    ],
)
def test_compile_refuses(arguments, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        tfmtl.MultiTaskModel(make_net()).compile(**arguments)


@pytest.mark.parametrize(
    "weights", [{"like": -1.0}, {"like": float("nan")}, {"like": float("inf")}, {"like": 0.0}]
)
def test_fixed_weights_refuse(weights):
    with pytest.raises(ValueError, match=r"`weights.*Received"):
        balancers.FixedWeights(weights)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: balancers.NMT(["like", "like"]),
            r"`priority` must name every task once.*Received",
        ),
        (lambda: balancers.NMT(["like"], tolerance=-1.0), r"`tolerance`.*Received: -1.0"),
        (
            lambda: balancers.NMT(["a"], tolerance={"a": -1.0}),
            r"`tolerance\['a'\]`.*Received: -1.0",
        ),
        (
            lambda: balancers.NMT(["like"], multiplier_rate=-0.1),
            "`multiplier_rate`.*Received: -0.1",
        ),
        (lambda: tfmtl.MultiTaskModel("MMoE"), "`net` must be a Keras model. Received: 'MMoE'"),
    ],
)
def test_constructors_refuse(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("priority", [["like"], ["like", "share"], ["like", "click", "share"]])
def test_a_priority_list_must_name_the_tasks(priority):
    with pytest.raises(ValueError, match=r"`priority` must name every task once.*Received"):
        make_model(balancer=balancers.NMT(priority))


def test_numbers_of_numpy_are_numbers():
    weights = {"like": np.float32(0.5), "click": np.int64(2)}
    assert balancers.FixedWeights(weights).get_config()["weights"] == {"like": 0.5, "click": 2.0}


def test_a_refused_compile_leaves_the_model_as_it_was():
    model = make_model()
    with pytest.raises(ValueError, match="`loss` must name every output"):
        model.compile("sgd", loss={"like": "mse"})
    assert model.tasks == ("like", "click")
    model.fit(make_rows(32).batches(16), verbose=0)


def test_a_balancer_belongs_to_one_set_of_tasks():
    balancer = balancers.EqualWeights()
    make_model(balancer=balancer)
    with pytest.raises(ValueError, match="already belongs to a model"):
        make_model(("a", "b"), balancer=balancer)


def test_a_backbone_must_return_a_dict_or_one_tensor():
    x = keras.Input((3,))
    net = keras.Model(x, [keras.layers.Dense(1)(x), keras.layers.Dense(1)(x)])
    with pytest.raises(ValueError, match=r"dict \{task: prediction\}, or one tensor. Received"):
        tfmtl.MultiTaskModel(net)


@keras.saving.register_keras_serializable("test")
class Single(keras.Model):
    """A subclassed model that returns a tensor."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.layer = keras.layers.Dense(1)

    def call(self, inputs):
        return self.layer(inputs["age"][:, None])


def test_a_backbone_built_late_must_have_the_tasks_outputs_too():
    model = make_model(net=Single())
    for _ in range(2):  # the second time as well
        with pytest.raises(ValueError, match=r"or `outputs` say .* Expected: \['score'\]"):
            model.fit(make_rows(32).batches(16), verbose=0)


def test_a_task_must_reach_a_variable():
    x = keras.Input((3,), name="x")
    frozen = keras.layers.Dense(1, name="b", trainable=False)(x)
    net = keras.Model({"x": x}, {"a": keras.layers.Dense(1, name="a")(x), "b": frozen})
    with pytest.raises(ValueError, match=r"must reach a trainable variable.*\['b'\]"):
        make_model(("a", "b"), net=net)


def broken(change):
    """Good data changed, as arrays."""
    rows = make_rows(64)
    x, y = dict(rows.columns), dict(rows.labels)
    change(x, y)
    return x, y


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: y.pop("like"), r"`labels` must name every task.*missing: \['like'\]"),
        (lambda x, y: y.update(share=y["like"]), r"`labels`.*unknown: \['share'\]"),
        (lambda x, y: y.update(like=np.stack([y["like"]] * 2, 1)), "'like' disagree in shape"),
        (lambda x, y: y["like"].__setitem__(3, 2.0), r"Labels of task 'like' must lie in \[0, 1\]"),
        (lambda x, y: y["like"].__setitem__(3, -1.0), r"Labels of task 'like'.*Received: -1.0"),
        (lambda x, y: x["item"].__setitem__(3, 12), "below the vocabulary size.*'item'"),
        (lambda x, y: x.pop("age"), r"every column of the spec.*missing: \['age'\]"),
    ],
)
def test_labels_are_refused_before_training(change, message):
    model = make_model()
    before = model.net.get_weights()
    errors = (ValueError, tf.errors.InvalidArgumentError)
    with pytest.raises(errors, match=f"(?s){message}"):
        model.fit(*broken(change), batch_size=64, verbose=0)
    for kept, now in zip(before, model.net.get_weights(), strict=True):
        np.testing.assert_array_equal(now, kept)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_weight": {"share": np.ones(64)}}, r"`sample_weight` must name tasks.*'share'"),
        (
            {"sample_weight": np.ones(60)},
            r"must have equally many rows. Received: \{(64, 60|60, 64)",
        ),
        ({"y": None}, r"`y` must be given as \{task: labels\}"),
        ({"y": np.zeros(64)}, r"Labels must be a dict \{task: labels\}. Received"),
        ({"validation_split": 1.5}, "`validation_split` must lie between 0 and 1. Received: 1.5"),
        ({"validation_split": 0.999}, "leaves one part of the 64 rows empty"),
        ({"x": iter([])}, "can be read more than once. Received"),
    ],
)
def test_fit_refuses(options, message):
    x, y = broken(lambda x, y: None)
    model = make_model()
    before = model.net.get_weights()
    with pytest.raises(ValueError, match=f"(?s){message}"):
        model.fit(**{"x": x, "y": y, "verbose": 0, **options})
    for kept, now in zip(before, model.net.get_weights(), strict=True):
        np.testing.assert_array_equal(now, kept)


@pytest.mark.parametrize(
    "change", [lambda y: y.pop("like"), lambda y: y.update(like=y["like"] + 2)]
)
def test_held_out_rows_are_checked_before_training(change):
    model = make_model()
    before = model.net.get_weights()
    x, y = broken(lambda x, y: change(y))
    with pytest.raises(ValueError, match=r"(?s)like.*Received"):
        model.fit(make_rows(64).batches(32), validation_data=(x, y), verbose=0)
    for kept, now in zip(before, model.net.get_weights(), strict=True):
        np.testing.assert_array_equal(now, kept)


def test_evaluation_has_the_same_domain_of_labels():
    model = make_model()
    x, y = broken(lambda x, y: y["like"].__setitem__(40, 3.0))
    with pytest.raises(ValueError, match=r"Labels of task 'like'.*in evaluation"):
        model.evaluate(x, y, batch_size=16, verbose=0)
    good = broken(lambda x, y: None)
    assert np.isfinite(model.evaluate(*good, batch_size=16, verbose=0)).all()


def test_a_bad_batch_alone_raises_and_the_next_one_trains():
    model = make_model()
    before = model.net.get_weights()
    with pytest.raises(ValueError, match="Labels of task 'like' must lie in"):
        model.train_on_batch(*broken(lambda x, y: y["like"].__setitem__(3, 3.0)))
    for kept, now in zip(before, model.net.get_weights(), strict=True):
        np.testing.assert_array_equal(now, kept)
    model.train_on_batch(*broken(lambda x, y: None))
    assert any(
        not np.array_equal(a, b) for a, b in zip(before, model.net.get_weights(), strict=True)
    )


def classes(label):
    """A three-class model and its arrays, with one label in the last of two batches."""
    x = keras.Input((5,), name="x")
    net = keras.Model({"x": x}, {"kind": keras.layers.Dense(3, "softmax", name="kind")(x)})
    y = np.zeros(64, "int64")
    y[63] = label
    return net, {"x": np.ones((64, 5), "float32")}, {"kind": y}


@pytest.mark.parametrize("batch_size", [32, 64])
def test_a_class_must_exist(batch_size):
    net, x, y = classes(3)
    model = make_model(("kind",), net=net, loss={"kind": "sparse_categorical_crossentropy"})
    with pytest.raises(ValueError, match=r"Labels of task 'kind' must lie in \[0, 2\]"):
        model.fit(x, y, batch_size=batch_size, shuffle=False, verbose=0)
    assert all(np.isfinite(w).all() for w in net.get_weights())


def test_a_loss_must_give_a_value_for_each_row():
    with pytest.raises(ValueError, match=r"`loss\['like'\]` must return one value per row"):
        make_model(
            loss={**LOSS, "like": lambda y_true, y_pred: tf.reduce_mean((y_true - y_pred) ** 2)}
        ).fit(make_rows(32).batches(16), verbose=0)


def test_an_empty_data_set_is_refused():
    rows = make_rows(8)
    with pytest.raises(ValueError, match="Expected at least one batch"):
        make_model().fit(rows.batches(8).take(0), verbose=0)
    x, y = ({n: v[:0] for n, v in part.items()} for part in (rows.columns, rows.labels))
    with pytest.raises(ValueError, match="Expected at least one batch"):
        make_model().fit(x, y, verbose=0)


def test_compile_comes_first():
    with pytest.raises(ValueError, match="Call `compile"):
        tfmtl.MultiTaskModel(make_net()).fit(make_rows().batches(8))


@pytest.mark.parametrize(
    "options",
    [{"jit_compile": False}, {"jit_compile": True}, {"steps_per_execution": 4}],
    ids=str,
)
@pytest.mark.parametrize(
    ("column", "value", "error", "message"),
    [
        # Whether a NaN reaches the loss is up to TensorFlow's kernels; gradients it always does.
        ("age", np.inf, FloatingPointError, "is not finite at step 2"),
        ("like", 3.0, ValueError, r"Labels of task 'like' must lie in \[0, 1\].*at step 2"),
    ],
)
def test_a_bad_step_is_not_taken(column, value, error, message, options):
    x, y = broken(lambda x, y: None)
    (x if column in x else y)[column][40] = value  # the third of four batches
    model = make_model(**options)
    with pytest.raises(error, match=message):
        model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    good = make_model()
    first = [{n: v[:32] for n, v in part.items()} for part in (x, y)]
    good.fit(*first, batch_size=16, shuffle=False, verbose=0)
    for expected, now in zip(good.net.get_weights(), model.net.get_weights(), strict=True):
        np.testing.assert_allclose(now, expected, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_row_without_labels_cannot_break_the_weights(jit_compile):
    x, y = broken(lambda x, y: None)
    x["age"][40] = np.inf
    for labels in y.values():
        labels[40] = np.nan
    model = make_model(jit_compile=jit_compile)
    with pytest.raises(FloatingPointError, match="is not finite at step 2"):
        model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    assert all(np.isfinite(w).all() for w in model.net.get_weights())


class Cliff(keras.Model):
    """Finite everywhere; its gradient is not where the inputs are 0."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, inputs):
        hidden = self.dense(tf.reshape(inputs["age"], [-1, 1]))
        steep = tf.sqrt(tf.square(tf.reshape(inputs["age"], [-1, 1]) * hidden))
        return {task: tf.sigmoid(steep[:, i : i + 1]) for i, task in enumerate(("like", "click"))}


@pytest.mark.parametrize(
    "balancer", [None, "MGDA", balancers.PUB(update_every=1)], ids=["equal", "MGDA", "PUB"]
)
def test_a_gradient_that_is_not_finite_is_no_step(balancer):
    rows = make_rows(32)
    rows.columns["age"][20] = 0.0
    model = make_model(net=Cliff(), balancer=balancer)
    with pytest.raises(FloatingPointError, match="gradient is not finite at step 1, though every"):
        model.fit(rows.columns, rows.labels, batch_size=16, shuffle=False, verbose=0)
    assert all(np.isfinite(w).all() for w in model.net.get_weights())


def test_export_needs_a_place_of_its_own(tmp_path):
    model = make_model()
    model.export(str(tmp_path / "model"))
    with pytest.raises(FileExistsError, match="`filepath` must not exist"):
        model.export(str(tmp_path / "model"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    model = make_model()
    monkeypatch.setattr(tfmtl.compat, "write_archive", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.export(str(tmp_path / "model"))
    assert list(tmp_path.iterdir()) == []


def test_unused_outputs_are_served_but_not_trained():
    model = make_model(loss={"like": "binary_crossentropy", "click": None})
    rows = make_rows(32)
    before = [w.numpy() for w in model.net.towers[1].weights]
    model.fit(rows.batches(16), verbose=0)
    for kept, now in zip(before, model.net.towers[1].weights, strict=True):
        np.testing.assert_array_equal(now.numpy(), kept)
    assert set(model.predict(rows.batches(16), verbose=0)) == {"like", "click"}
    assert tf.nest.flatten(model.tasks) == ["like"]
