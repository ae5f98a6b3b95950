"""Gradients at the shared representation (MGDA-UB) instead of at the parameters."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmtl
from tests.conftest import make_model, make_net, make_rows
from tests.test_balancers import EXAMPLES, GRAMIAN, finite
from tfmtl import balancers, compat, models

GRADIENT_METHODS = [*GRAMIAN, "GradDrop"]


def losses_at(net, rows, tasks=("like", "click")):
    """Losses, each task's gradient at its representation, and a tape for everything."""
    from tfmtl.models.representation import recording

    with tf.GradientTape(persistent=True) as tape, recording() as marked:
        predictions = net(rows.columns, training=True)
        losses = [
            tf.reduce_mean(
                keras.losses.binary_crossentropy(rows.labels[t][:, None], predictions[t])
            )
            for t in tasks
        ]
    at = [tape.gradient(loss, r) for loss, r in zip(losses, marked.of_tasks(tasks), strict=True)]
    return losses, at, tape


@pytest.mark.parametrize("kind", ["SharedBottom", "MMoE"])
@pytest.mark.parametrize("update_every", [1, 2])
def test_the_step_follows_the_weights_of_the_representations_gramian(kind, update_every):
    rows = make_rows(32)
    net = make_net(kind=kind)
    model = make_model(
        net=net,
        optimizer=keras.optimizers.SGD(1.0),
        balancer=balancers.MGDA(wrt="representation", update_every=update_every),
    )
    losses, at, tape = losses_at(net, rows)
    flat = np.stack([np.ravel(each) for each in at])
    weights = balancers.MGDA().weights(flat @ flat.T).numpy()
    shared = [compat.tf_variable(v) for v in model.shared_variables]
    found = [tape.gradient(loss, shared) for loss in losses]
    expected = [
        v.numpy() - sum(w * tf.convert_to_tensor(g[i]).numpy() for w, g in zip(weights, found))
        for i, v in enumerate(shared)
    ]
    own = {
        task: [
            v.numpy() - g.numpy()
            for v, g in zip(
                map(compat.tf_variable, variables),
                tape.gradient(losses[k], [compat.tf_variable(v) for v in variables]),
            )
        ]
        for k, (task, variables) in enumerate(model.task_variables.items())
    }
    model.train_on_batch(rows.columns, rows.labels)
    for variable, value in zip(shared, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-4, atol=1e-6)
    for task, variables in model.task_variables.items():
        for variable, value in zip(variables, own[task], strict=True):
            np.testing.assert_allclose(np.array(variable), value, rtol=1e-4, atol=1e-6)


def test_the_bound_of_mgda_ub_holds():
    """For a linear bottom without bias the gradient is Z-gradients times inputs (their theorem)."""
    rng = np.random.default_rng(0)
    x, at = rng.normal(size=(16, 4)), rng.normal(size=(2, 16, 3))
    weights = balancers.MGDA().weights(np.einsum("ibd,jbd->ij", at, at)).numpy()
    combined = np.linalg.norm(x.T @ np.tensordot(weights, at, 1))
    bound = np.linalg.norm(x, 2) * np.linalg.norm(np.tensordot(weights, at, 1))
    assert combined <= bound


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "SharedBottom") for name in GRADIENT_METHODS), ("MGDA", "MMoE")]
)
def test_every_gradient_method_trains_by_it(name, kind, tmp_path):
    rows = make_rows(64)
    balancer = type(EXAMPLES[name]())(wrt="representation")
    net = make_net(kind=kind)
    model = make_model(net=net, optimizer=keras.optimizers.Adam(0.02), balancer=balancer)
    before = [np.array(v) for v in model.shared_variables]
    history = model.fit(rows.batches(32), epochs=3, verbose=0).history
    assert finite(model)
    assert history["loss"][-1] < history["loss"][0]
    assert all(
        np.abs(a - np.array(v)).max() > 0
        for a, v in zip(before, model.shared_variables, strict=True)
    )
    again = balancers.get(keras.saving.serialize_keras_object(balancer))
    assert again.wrt == "representation"


def functional(mark=True):
    """A functional model of stock layers, marked or not."""
    inputs = {"age": keras.Input((1,), name="age")}
    hidden = keras.layers.Dense(4, activation="relu")(inputs["age"])
    if mark:
        hidden = models.Representation()(hidden)
    heads = {
        t: keras.layers.Dense(1, activation="sigmoid", name=t)(hidden) for t in ("like", "click")
    }
    return keras.Model(inputs, heads)


def test_any_backbone_may_be_marked_and_is_saved_with_its_mark(tmp_path):
    rows = make_rows(32)
    x = {"age": rows.columns["age"][:, None]}
    model = make_model(net=functional(), balancer=balancers.NashMTL(wrt="representation"))
    model.fit(x, dict(rows.labels), batch_size=16, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, again):
        each.fit(x, dict(rows.labels), batch_size=16, verbose=0, shuffle=False)
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_backbone_without_a_mark_is_refused():
    with pytest.raises(ValueError, match=r"marks where its shared part ends .* without one"):
        make_model(net=functional(mark=False), balancer=balancers.MGDA(wrt="representation"))
    with pytest.raises(ValueError, match="every shared variable below the `Representation`"):
        inputs = {"age": keras.Input((1,), name="age")}
        hidden = models.Representation()(keras.layers.Dense(4)(inputs["age"]))
        above = keras.layers.Dense(3, name="above")(hidden)
        net = keras.Model(
            inputs, {t: keras.layers.Dense(1, name=t)(above) for t in ("like", "click")}
        )
        make_model(net=net, balancer=balancers.GradDrop(wrt="representation"))


class Several(keras.Model):
    """Two marks, or one that leaves a task out."""

    def __init__(self, twice):
        super().__init__()
        self.bottom = keras.layers.Dense(3)
        self.mark = models.Representation()
        self.heads = {t: keras.layers.Dense(1) for t in ("like", "click")}
        self.twice = twice

    def call(self, inputs):
        hidden = self.bottom(inputs)
        first = self.mark({"like": hidden})["like"]
        hidden = self.mark(first) if self.twice else first
        return {task: head(hidden) for task, head in self.heads.items()}


@pytest.mark.parametrize(("twice", "message"), [(True, "called once"), (False, "missing")])
def test_marks_that_do_not_fit_are_refused(twice, message):
    model = tfmtl.MultiTaskModel(Several(twice))
    loss = dict.fromkeys(("like", "click"), "mse")
    model.compile("sgd", loss, balancer=balancers.MGDA(wrt="representation"))
    y = {t: np.zeros(4, "float32") for t in ("like", "click")}
    with pytest.raises(ValueError, match=message):
        model.fit(np.zeros((4, 2), "float32"), y, verbose=0)
