"""Tables in a training step: rows take the step of dense gradients, and cost by the batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import op_callbacks

from tests.conftest import make_model, make_rows
from tfmtl import FeatureSpec, balancers, models, optimizers

TASKS = ("like", "click")
#: Ids of a column, so many that no other size of the model is the same.
MANY = 54321

BALANCERS = {
    **{name: kind for name, kind in balancers.BALANCERS.items() if name != "NMT"},
    "FixedWeights": lambda: balancers.FixedWeights({"like": 2.0, "click": 0.5}),
    "EMTL": lambda: balancers.EMTL(update_every=2),
    "MGDA, now and then": lambda: balancers.MGDA(update_every=2),
    "MGDA, row by row": lambda: balancers.MGDA(accumulate="gramian"),
    "MGDA-UB": lambda: balancers.MGDA(wrt="representation"),
    "NMT": lambda: balancers.NMT(TASKS),
    "NMT-PUB": lambda: balancers.NMT(TASKS, inner=balancers.PUB(update_every=2)),
    "PUB": lambda: balancers.PUB(update_every=2),
    "PUB, every step": lambda: balancers.PUB(update_every=1),
    "PUB, before": lambda: balancers.PUB(update_every=1, moments="before"),
    "PUB, shaped": lambda: balancers.PUB(manipulation=["adatask", "clippy"]),
}


def make(optimizer, balancer, ids=4, **compiled):
    """A model over two small columns of ids, of which every batch of `batch` holds each."""
    spec = FeatureSpec({"item": ids, "user": ids}, ["age"], width=3)
    net = models.SharedBottom(list(TASKS), spec, bottom_units=(5,), tower_units=(), seed=3)
    return make_model(net=net, optimizer=optimizer, balancer=balancer, **compiled)


def batch(seed=0, n=16, ids=4):
    rows = make_rows(n, seed=seed)
    return {**rows.columns, "item": np.arange(n) % ids, "user": np.arange(n) // ids % ids}, {
        task: labels.reshape(-1, 1) for task, labels in rows.labels.items()
    }


def trained(model, steps=3):
    for seed in range(steps):
        model.train_on_batch(*batch(seed))
    return model.net.get_weights()


@pytest.mark.parametrize("name", sorted(set(BALANCERS) - {"GradDrop", "NMT", "NMT-PUB"}))
def test_where_every_row_is_touched_rows_take_the_dense_step(name):
    """GradDrop draws row by row, so that its draws are others; NMT's stages need `fit`."""
    by_rows = trained(make(optimizers.LazyAdam(0.1, row_beta_1=None), BALANCERS[name]()))
    dense = trained(make(keras.optimizers.Adam(0.1), BALANCERS[name]()))
    for one, other in zip(by_rows, dense, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", ["EqualWeights", "MGDA", "PUB, every step", "AdaTask", "GradDrop"])
def test_rows_out_of_the_batch_stay(name):
    model = make(optimizers.LazyAdam(0.1), BALANCERS[name](), ids=30)
    (table,) = [v for v in model.net.trainable_variables if v.shape == (60, 3)]
    before = np.array(table)
    for seed in range(2):
        model.train_on_batch(*batch(seed))
    moved = np.abs(np.array(table) - before).max(1) > 0
    expected = np.isin(np.arange(60), [*range(4), *range(30, 34)])
    np.testing.assert_array_equal(moved, expected)


def made_in_a_step(model, data):
    """Sizes of what is computed in a training step, in its branches too."""
    shapes = set()

    def note(op_type, inputs, attrs, outputs, op_name=None, graph=None):
        # A row-sparse gradient says of what shape the dense one is; nothing is made of it.
        shapes.update((op_type, tuple(out.shape)) for out in outputs if out.shape.rank)

    op_callbacks.add_op_callback(note)
    try:
        tf.function(model.train_step, autograph=False).get_concrete_function(
            tf.nest.map_structure(tf.constant, data)
        )
    finally:
        op_callbacks.remove_op_callback(note)
    return shapes


@pytest.mark.parametrize("name", sorted(BALANCERS))
@pytest.mark.parametrize("kind", ["LazyAdam", "LazyAdagrad"])
def test_no_step_makes_a_tensor_of_the_size_of_a_table(name, kind):
    model = make(getattr(optimizers, kind)(0.1), BALANCERS[name](), ids=MANY)
    data = batch()
    if name.startswith("NMT"):
        model.balancer._stage.assign(1)
    sizes = {2 * MANY, 4 * MANY}  # two columns in a table; two tasks' moments
    large = {each for each in made_in_a_step(model, data) if sizes & set(each[1])}
    assert not large


@pytest.mark.parametrize("name", ["EqualWeights", "MGDA", "PUB, every step"])
def test_a_model_stopped_and_loaded_goes_on(name, tmp_path):
    model = make(optimizers.LazyAdam(0.1), BALANCERS[name]())
    trained(model, 2)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, optimizers.LazyAdam)
    for each in (model, loaded):
        each.train_on_batch(*batch(5))
    for one, other in zip(model.net.get_weights(), loaded.net.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["EqualWeights", "MGDA", "PUB, every step"])
def test_xla_takes_the_same_step(name):
    ends = [
        trained(make(optimizers.LazyAdam(0.1), BALANCERS[name](), ids=30, jit_compile=jit))
        for jit in (None, True)
    ]
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", ["EqualWeights", "MGDA", "PUB, every step"])
def test_mixed_precision_moves_the_rows(name, policy):
    keras.mixed_precision.set_global_policy(policy)
    try:
        optimizer = optimizers.LazyAdam(0.1)
        if policy == "mixed_float16":
            optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
        model = make(optimizer, BALANCERS[name](), ids=30)
        before = [np.array(v) for v in model.net.trainable_variables]
        trained(model, 2)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    for variable, start in zip(model.net.trainable_variables, before, strict=True):
        now = np.array(variable)
        assert np.isfinite(now).all()
        assert (now != start).any()


def test_kerass_adam_would_have_been_noticed():
    sizes = made_in_a_step(make(keras.optimizers.Adam(0.1), None, ids=MANY), batch())
    assert any(2 * MANY in shape for _, shape in sizes)
