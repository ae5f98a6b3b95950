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


def test_a_balancer_belongs_to_one_set_of_tasks():
    balancer = balancers.EqualWeights()
    make_model(balancer=balancer)
    with pytest.raises(ValueError, match="already belongs to a model"):
        make_model(("a", "b"), balancer=balancer)


def test_a_backbone_must_return_a_dict():
    x = keras.Input((3,))
    net = keras.Model(x, keras.layers.Dense(1)(x))
    with pytest.raises(ValueError, match=r"must be a dict \{task: prediction\}. Received"):
        tfmtl.MultiTaskModel(net)


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
    ],
)
def test_labels_are_refused_before_training(change, message):
    model = make_model()
    before = model.net.get_weights()
    with pytest.raises(ValueError, match=f"(?s){message}"):
        model.fit(*broken(change), batch_size=64, verbose=0)
    for kept, now in zip(before, model.net.get_weights(), strict=True):
        np.testing.assert_array_equal(now, kept)


def test_an_empty_data_set_is_refused():
    rows = make_rows(8)
    with pytest.raises(ValueError, match="Expected at least one batch"):
        make_model().fit(rows.batches(8).take(0), verbose=0)


def test_compile_comes_first():
    with pytest.raises(ValueError, match="Call `compile"):
        tfmtl.MultiTaskModel(make_net()).fit(make_rows().batches(8))


@pytest.mark.parametrize("steps_per_execution", [1, 4])
@pytest.mark.parametrize(
    ("column", "value", "error", "message"),
    [
        ("age", np.inf, FloatingPointError, "loss of task '(like|click)' is not finite at step 2"),
        ("like", 3.0, ValueError, r"Labels of task 'like' must lie in \[0, 1\].*at step 2"),
    ],
)
def test_a_bad_step_is_not_taken(column, value, error, message, steps_per_execution):
    x, y = broken(lambda x, y: None)
    (x if column in x else y)[column][40] = value  # the third of four batches
    model = make_model(steps_per_execution=steps_per_execution)
    with pytest.raises(error, match=message):
        model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    good = make_model()
    first = [{n: v[:32] for n, v in part.items()} for part in (x, y)]
    good.fit(*first, batch_size=16, shuffle=False, verbose=0)
    for expected, now in zip(good.net.get_weights(), model.net.get_weights(), strict=True):
        np.testing.assert_allclose(now, expected, atol=1e-6)


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
