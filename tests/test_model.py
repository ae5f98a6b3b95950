"""MultiTaskModel: trains as Keras does, and what it adds."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmtl
from tests.conftest import make_model, make_net, make_rows
from tfmtl import balancers, compat
from tfmtl.balancers.gramian import GramianBalancer


def functional(tasks=("like", "click"), seed=1):
    """A functional model with dict outputs, one shared layer and a tower per task."""
    inputs = {"x": keras.Input((5,), name="x")}
    initial = keras.initializers.GlorotUniform(seed=seed)
    shared = keras.layers.Dense(6, "tanh", name="shared", kernel_initializer=initial)(inputs["x"])
    outputs = {
        task: keras.layers.Dense(
            1,
            "sigmoid",
            name=task,
            kernel_initializer=keras.initializers.GlorotUniform(seed=seed + i + 1),
        )(shared)
        for i, task in enumerate(tasks)
    }
    return keras.Model(inputs, outputs)


def arrays(n=64, tasks=("like", "click"), seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5)).astype("float32")
    y = {t: (x @ rng.normal(size=(5, 1)) > 0).astype("float32") for t in tasks}
    return {"x": x}, y


@keras.saving.register_keras_serializable("test")
class Foreign(keras.Model):
    """A subclassed model that knows nothing of this package, without a `training` argument."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.body = keras.layers.Dense(4, "relu")
        self.like = keras.layers.Dense(1, "sigmoid")
        self.click = keras.layers.Dense(1, "sigmoid")

    def call(self, inputs):
        hidden = self.body(inputs["x"])
        return {"like": self.like(hidden), "click": self.click(hidden)}


def names(variables):
    return {compat.variable_name(variable) for variable in variables}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_fixed_weights_are_keras_loss_weights(optimizer):
    x, y = arrays()
    weights = {"like": 0.3, "click": 1.7}
    plain, net = functional(), functional()
    plain.compile(optimizer, loss=dict.fromkeys(y, "binary_crossentropy"), loss_weights=weights)
    expected = plain.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0)
    model = make_model(net=net, optimizer=optimizer, balancer=balancers.FixedWeights(weights))
    history = model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0)
    for mine, its in zip(net.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(mine, its, atol=1e-5)
    for key in ("loss", "like_loss", "click_loss"):
        np.testing.assert_allclose(history.history[key], expected.history[key], rtol=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adagrad", "rmsprop"])
def test_rows_of_a_table_train_as_a_dense_matrix_does(optimizer):
    ids = np.array([3, 1, 3, 3, 0, 1, 2, 3], "int32")  # several of them twice in a batch
    labels = {"like": (ids > 1).astype("float32"), "click": (ids % 2).astype("float32")}

    def end(first, x):
        inputs = {"x": keras.Input(x.shape[1:], dtype=x.dtype.name, name="x")}
        hidden = keras.layers.Flatten()(first(inputs["x"]))
        towers = [keras.layers.Dense(1, "sigmoid", name=task) for task in labels]
        for seed, tower in enumerate(towers):
            tower.kernel_initializer = keras.initializers.GlorotUniform(seed=seed)
        net = keras.Model(inputs, {tower.name: tower(hidden) for tower in towers})
        model = make_model(net=net, optimizer=optimizer)
        model.fit({"x": x}, labels, batch_size=4, epochs=4, shuffle=False, verbose=0)
        return net.get_weights()

    initial = keras.initializers.RandomNormal(seed=3)
    sparse = end(keras.layers.Embedding(4, 3, embeddings_initializer=initial), ids[:, None])
    dense = end(
        keras.layers.Dense(3, use_bias=False, kernel_initializer=initial),
        np.eye(4, dtype="float32")[ids],
    )
    for one, other in zip(sparse, dense, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def three_kinds():
    """A functional model with one output of each kind, and arrays for it."""
    x = keras.Input((5,), name="x")
    hidden = keras.layers.Dense(4, "tanh", name="hidden")(x)
    outputs = {
        "kind": keras.layers.Dense(3, "softmax", name="kind")(hidden),
        "click": keras.layers.Dense(1, "sigmoid", name="click")(hidden),
        "price": keras.layers.Dense(2, name="price")(hidden),
    }
    rng = np.random.default_rng(0)
    labels = {
        "kind": rng.integers(0, 3, 40),
        "click": rng.integers(0, 2, (40, 1)).astype("float32"),
        "price": rng.normal(size=(40, 2)).astype("float32"),
    }
    columns = {"x": rng.normal(size=(40, 5)).astype("float32")}
    return keras.Model({"x": x}, outputs), columns, labels


@pytest.mark.parametrize("sparse", [True, False])
def test_losses_and_metrics_are_keras_own_under_keras_names(sparse):
    net, x, y = three_kinds()
    kind = "sparse_categorical_crossentropy"
    if not sparse:
        kind = "categorical_crossentropy"
        y["kind"] = np.eye(3, dtype="float32")[y["kind"]]
    losses = {"kind": kind, "click": keras.losses.BinaryCrossentropy(), "price": "mse"}
    metrics = {
        "kind": ["accuracy"],
        "click": ["accuracy", keras.metrics.AUC(name="auc"), "binary_accuracy"],
        "price": ["mae", keras.metrics.MeanSquaredError(name="square")],
    }
    model = make_model(tuple(y), net=net, loss=losses, metrics=metrics)
    # Equal batches: Keras 3 averages the loss of a task over batches, not rows.
    found = model.evaluate(x, y, batch_size=20, verbose=0, return_dict=True)
    plain = keras.Model(net.input, net.output)
    plain.compile("sgd", loss=losses, metrics=metrics)
    expected = plain.evaluate(x, y, batch_size=20, verbose=0, return_dict=True)
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-4), key


def test_a_foreign_model_trains_and_is_understood():
    x, y = arrays()
    model = make_model(net=Foreign(), metrics={"like": ["accuracy", keras.metrics.AUC(name="auc")]})
    history = model.fit(x, y, validation_data=(x, y), epochs=5, batch_size=16, verbose=0)
    assert set(history.history) == {
        prefix + key
        for prefix in ("", "val_")
        for key in ("loss", "like_loss", "click_loss", "like_accuracy", "like_auc")
    }
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert len(model.shared_variables) == 2
    assert names(model.task_variables["like"]) == names(model.net.like.trainable_variables)
    found = model.evaluate(x, y, verbose=0, return_dict=True)
    predictions = model.predict(x, verbose=0)
    entropy = keras.losses.BinaryCrossentropy()
    for task in ("like", "click"):
        expected = float(entropy(y[task], predictions[task]))
        assert found[f"{task}_loss"] == pytest.approx(expected, rel=1e-4)
    assert found["loss"] == pytest.approx(found["like_loss"] + found["click_loss"], rel=1e-5)


def test_which_task_reaches_what():
    net = make_net(("a", "b", "c"))
    model = make_model(("a", "b", "c"), net=net)
    assert names(model.shared_variables) == names([*net.embedding.weights, *net.experts.weights])
    for task, gate, tower in zip("abc", net.gates, net.towers, strict=True):
        assert names(model.task_variables[task]) == names([*gate.weights, *tower.weights])


def test_a_variable_that_two_of_three_tasks_reach_is_shared():
    x = keras.Input((5,), name="x")
    pair = keras.layers.Dense(3, name="pair")(x)
    outputs = {
        "a": keras.layers.Dense(1, name="a")(pair),
        "b": keras.layers.Dense(1, name="b")(pair),
        "c": keras.layers.Dense(1, name="c")(x),
    }
    net = keras.Model({"x": x}, outputs)
    model = make_model(tuple("abc"), net=net, loss=dict.fromkeys("abc", "mse"))
    assert names(model.shared_variables) == names(net.get_layer("pair").weights)
    assert names(model.task_variables["c"]) == names(net.get_layer("c").weights)
    alone = make_model(tuple("abc"), net=net, loss={"a": "mse", "b": None, "c": "mse"})
    assert alone.shared_variables == []
    assert alone.tasks == ("a", "c")


def test_shared_variables_can_be_given():
    net = functional()
    kernel = net.get_layer("shared").kernel
    model = tfmtl.MultiTaskModel(net, shared=[kernel])
    assert names(model.shared_variables) == names([kernel])
    with pytest.raises(ValueError, match="`shared` must name trainable variables"):
        tfmtl.MultiTaskModel(net, shared=["nothing"])


def test_given_shared_variables_survive_saving_though_their_names_do_not(tmp_path):
    x, y = arrays()
    net = Foreign()
    net(x)
    model = tfmtl.MultiTaskModel(net, shared=[net.body.kernel])
    model.compile("sgd", loss=dict.fromkeys(y, "binary_crossentropy"))
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [id(each) for each in loaded.shared_variables] == [id(loaded.net.body.kernel)]


def test_freezing_and_compiling_anew_is_understood():
    x, y = arrays()
    net = functional()
    model = make_model(net=net)
    model.fit(x, y, verbose=0)
    net.get_layer("shared").trainable = False
    model.compile(keras.optimizers.SGD(0.1), loss=dict.fromkeys(y, "mse"))
    assert model.shared_variables == []
    assert names(model.task_variables["like"]) == names(net.get_layer("like").weights)
    frozen, free = net.get_layer("shared").get_weights(), net.get_layer("like").get_weights()
    model.fit(x, y, verbose=0)
    for before, now in zip(frozen, net.get_layer("shared").get_weights(), strict=True):
        np.testing.assert_array_equal(now, before)
    assert not np.array_equal(net.get_layer("like").get_weights()[0], free[0])
    net.get_layer("shared").trainable = True
    model.compile(keras.optimizers.SGD(0.1), loss=dict.fromkeys(y, "mse"))
    assert names(model.shared_variables) == names(net.get_layer("shared").weights)


@pytest.mark.parametrize("balancer", [None, "PUB"])
@pytest.mark.parametrize("first", ["call", "predict", "evaluate", "train_on_batch"])
def test_whatever_comes_first_builds_a_foreign_model(first, balancer):
    x, y = arrays()
    model = make_model(net=Foreign(), balancer=balancer)
    {
        "call": lambda: model(x),
        "predict": lambda: model.predict(x, verbose=0),
        "evaluate": lambda: model.evaluate(x, y, verbose=0),
        "train_on_batch": lambda: model.train_on_batch(x, y),
    }[first]()
    assert len(model.shared_variables) == 2
    assert model.fit(x, y, verbose=0).history.keys() >= {"loss", "like_loss", "click_loss"}
    assert model.balancer.tasks == ("like", "click")


def test_a_model_may_be_called_before_it_is_compiled_and_compiled_anew_after():
    x, y = arrays()
    model = tfmtl.MultiTaskModel(Foreign())
    expected = model(x)
    loss = dict.fromkeys(("like", "click"), "binary_crossentropy")
    for balancer in (balancers.NMT(["like", "click"], readings=1), balancers.PUB()):
        model.compile("adam", loss=loss, balancer=balancer)
        model.fit(x, y, epochs=2, verbose=0)
        assert (np.array(model(x)["like"]) != np.array(expected["like"])).any()


def test_absent_labels_leave_loss_and_metrics():
    x, y = arrays()
    y["like"][:20] = np.nan
    metrics = {"like": [keras.metrics.AUC(name="auc")]}
    model = make_model(net=functional(), metrics=metrics)
    found = model.evaluate(x, y, verbose=0, return_dict=True)
    few = make_model(net=model.net, metrics=metrics)
    rest = few.evaluate(
        {"x": x["x"][20:]}, {t: v[20:] for t, v in y.items()}, verbose=0, return_dict=True
    )
    for key in ("like_loss", "like_auc"):
        assert found[key] == pytest.approx(rest[key], rel=1e-5)
    assert found["click_loss"] != pytest.approx(rest["click_loss"], rel=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_task_learns_from_its_labelled_rows_alone(optimizer):
    x, y = arrays()
    absent = np.arange(64) % 3 == 0
    y["like"][absent] = np.nan
    model = make_model(net=functional(), optimizer=optimizer)
    model.fit(x, y, batch_size=64, epochs=1, verbose=0)
    few = make_model(net=functional(), optimizer=optimizer)
    labelled = {t: v[~absent] for t, v in y.items()}
    few.fit({"x": x["x"][~absent]}, labelled, batch_size=64, epochs=1, verbose=0)
    kernels = {t: [m.net.get_layer(t).get_weights()[0] for m in (model, few)] for t in y}
    np.testing.assert_allclose(*kernels["like"], atol=1e-6)
    if optimizer == "sgd":  # Adam's first step is the gradient's sign, which may well agree
        assert not np.allclose(*kernels["click"], atol=1e-4)


@pytest.mark.filterwarnings("ignore:Task .* had no label:RuntimeWarning")
def test_a_batch_without_labels_of_a_task_leaves_its_tower():
    x, y = arrays()
    y["like"][:] = np.nan
    model = make_model(net=functional())
    before = [v.numpy() for v in model.task_variables["like"]]
    history = model.fit(x, y, batch_size=16, epochs=2, verbose=0)
    for kept, variable in zip(before, model.task_variables["like"], strict=True):
        np.testing.assert_array_equal(variable.numpy(), kept)
    assert history.history["like_loss"] == [0.0, 0.0]
    assert np.isfinite(history.history["click_loss"]).all()
    assert all(np.isfinite(w).all() for w in model.net.get_weights())


def test_sample_weights_multiply_losses_of_all_tasks_or_one():
    x, y = arrays()
    rng = np.random.default_rng(3)
    weight = rng.uniform(0, 2, 64).astype("float32")
    model = make_model(net=functional())
    predictions = model.predict(x, verbose=0)
    rowwise = {t: np.asarray(keras.losses.binary_crossentropy(y[t], predictions[t])) for t in y}
    every = model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    for task in y:
        assert every[f"{task}_loss"] == pytest.approx((rowwise[task] * weight).mean(), rel=1e-4)
    data = tf.data.Dataset.from_tensor_slices((x, y, {"like": weight})).batch(20)
    one = model.evaluate(data, verbose=0, return_dict=True)
    assert one["like_loss"] == pytest.approx((rowwise["like"] * weight).mean(), rel=1e-4)
    assert one["click_loss"] == pytest.approx(rowwise["click"].mean(), rel=1e-4)


def test_weights_of_one_task_need_no_data_set():
    x, y = arrays()
    weight = np.linspace(0, 2, 64, dtype="float32")
    model = make_model(net=functional())
    found = model.evaluate(x, y, sample_weight={"like": weight}, verbose=0, return_dict=True)
    data = tf.data.Dataset.from_tensor_slices((x, y, {"like": weight})).batch(32)
    expected = model.evaluate(data, verbose=0, return_dict=True)
    assert found == pytest.approx(expected, rel=1e-5)
    given = {"sample_weight": {"click": weight}, "validation_data": (x, y, {"like": weight})}
    history = model.fit(x, y, verbose=0, **given)
    assert np.isfinite(history.history["val_loss"]).all()


class Batches(compat.PyDataset):
    """Keras' indexable data set over the arrays."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 4

    def __getitem__(self, i):
        part = slice(16 * i, 16 * (i + 1))
        return {"x": self.x["x"][part]}, {t: v[part] for t, v in self.y.items()}


def test_arrays_data_sets_and_pydatasets_train_alike():
    x, y = arrays()
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    ends = []
    for given in ((x, y), (data,), (Batches(x, y),)):
        model = make_model(net=functional())
        size = {"batch_size": 16} if len(given) == 2 else {}
        model.fit(*given, epochs=2, shuffle=False, verbose=0, **size)
        ends.append(model.net.get_weights())
    for other in ends[1:]:
        for one, two in zip(ends[0], other, strict=True):
            np.testing.assert_allclose(two, one, atol=1e-6)


def test_validation_split_holds_out_the_last_rows():
    x, y = arrays()
    model = make_model(net=functional())
    history = model.fit(x, y, validation_split=0.25, epochs=1, verbose=0)
    last = ({"x": x["x"][48:]}, {t: v[48:] for t, v in y.items()})
    found = model.evaluate(*last, verbose=0, return_dict=True)
    assert history.history["val_like_loss"][0] == pytest.approx(found["like_loss"], rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"run_eagerly": True},
        {"steps_per_execution": 3},
        {"jit_compile": True},
        {"jit_compile": False},
    ],
    ids=str,
)
def test_ways_to_run_give_the_same_weights(options):
    x, y = arrays()
    ends = []
    for each in ({}, options):
        model = make_model(net=functional(), **each)
        model.fit(x, y, batch_size=10, epochs=2, shuffle=False, verbose=0)
        ends.append(model.net.get_weights())
    for one, two in zip(*ends, strict=True):
        np.testing.assert_allclose(two, one, atol=1e-5)


def test_a_fit_traces_the_step_once(rows):
    traced = []

    class Counting(balancers.EqualWeights):
        def call(self, losses, gramian=None):
            traced.append(1)
            return super().call(losses)

    model = make_model(balancer=Counting())
    model.fit(rows.batches(100), validation_data=rows.batches(100), epochs=3, verbose=0)
    # Keras 3 traces once more for the smaller last batch.
    assert len(traced) <= 2
    before = len(traced)
    model.fit(rows.batches(100), epochs=2, verbose=0)
    assert len(traced) == before


def test_predictions_trace_the_network_once_however_many_steps_an_execution_has(rows):
    traced, found = [], []
    for steps in (1, 5):
        model = make_model(steps_per_execution=steps)
        model.fit(rows.batches(48), verbose=0)
        call, calls = model.call, []

        def counting(*args, call=call, calls=calls, **kwargs):
            calls.append(1)
            return call(*args, **kwargs)

        model.call = counting
        found.append(model.predict(rows.batches(32), verbose=0)["like"])  # seven, and a half
        traced.append(len(calls))
        model.fit(rows.batches(48), verbose=0)
        assert compat.steps_at_once(model) == steps
    assert max(traced) <= 2
    np.testing.assert_allclose(*found, atol=1e-5)


def test_saving_keeps_the_whole_compiled_model(tmp_path, rows):
    model = make_model(
        optimizer=keras.optimizers.Adam(0.01),
        metrics={"like": [keras.metrics.AUC()]},
        balancer=balancers.FixedWeights({"like": 2.0, "click": 0.5}),
    )
    train = rows.batches(80)
    model.fit(train, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.balancer) is balancers.FixedWeights
    assert loaded.balancer.get_config() == model.balancer.get_config()
    assert loaded.steps_taken == model.steps_taken
    optimizers = (compat.optimizer_variables(m.optimizer) for m in (model, loaded))
    for mine, its in zip(*optimizers, strict=True):
        np.testing.assert_array_equal(its.numpy(), mine.numpy())
    for each in (model, loaded):
        each.fit(train, epochs=1, verbose=0)
    for mine, its in zip(model.net.get_weights(), loaded.net.get_weights(), strict=True):
        np.testing.assert_allclose(its, mine, atol=1e-6)
    one, two = (m.evaluate(train, verbose=0, return_dict=True) for m in (model, loaded))
    assert one == pytest.approx(two, rel=1e-5)


LOAD = """
import sys
import keras, numpy as np, tfmtl
model = keras.models.load_model(sys.argv[1])
rows = dict(np.load(sys.argv[2]))
labels = {task: rows.pop(task) for task in model.tasks}
before = model.predict(rows, verbose=0)
model.fit(rows, labels, batch_size=40, shuffle=False, verbose=0)
after = {f"{task}_after": p for task, p in model.predict(rows, verbose=0).items()}
np.savez(sys.argv[3], **before, **after, balancer=type(model.balancer).__name__)
"""


def test_another_process_loads_and_goes_on(tmp_path, rows):
    weights = {"like": 2.0, "click": 0.5}
    model = make_model(
        optimizer=keras.optimizers.Adam(0.01), balancer=balancers.FixedWeights(weights)
    )
    model.fit(rows.batches(80), verbose=0)
    paths = [str(tmp_path / name) for name in ("model.keras", "rows.npz", "found.npz")]
    model.save(paths[0])
    np.savez(paths[1], **rows.columns, **rows.labels)
    before = model.predict(rows.columns, verbose=0)
    model.fit(rows.columns, rows.labels, batch_size=40, shuffle=False, verbose=0)
    after = model.predict(rows.columns, verbose=0)
    subprocess.run([sys.executable, "-c", LOAD, *paths], check=True)
    with np.load(paths[2]) as found:
        assert found["balancer"] == "FixedWeights"
        for task in model.tasks:
            np.testing.assert_allclose(found[task], before[task], atol=1e-6)
            np.testing.assert_allclose(found[f"{task}_after"], after[task], atol=1e-6)


def test_keras_callbacks_and_schedules_work(tmp_path, rows):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    model = make_model(
        optimizer=keras.optimizers.SGD(schedule), metrics={"like": [keras.metrics.AUC(name="auc")]}
    )
    best = tmp_path / "best.keras"
    model.fit(
        rows.batches(60),
        validation_data=rows.batches(60),
        epochs=3,
        verbose=0,
        callbacks=[
            keras.callbacks.ModelCheckpoint(
                str(best), monitor="val_like_auc", mode="max", save_best_only=True
            ),
            keras.callbacks.EarlyStopping("val_click_loss", mode="min", patience=5),
        ],
    )
    assert keras.models.load_model(best).tasks == ("like", "click")
    model = make_model()
    model.fit(
        rows.batches(60),
        epochs=3,
        verbose=0,
        callbacks=[
            keras.callbacks.ReduceLROnPlateau("like_loss", mode="min", min_delta=1e9, patience=1)
        ],
    )
    assert float(model.optimizer.learning_rate) < 0.1


@keras.saving.register_keras_serializable("test")
class MinimumNorm(balancers.Balancer):
    """The closed form of two tasks' shortest convex combination of gradients."""

    reads = "gramian"

    def call(self, losses, gramian=None):
        a, b, c = gramian[0, 0], gramian[0, 1], gramian[1, 1]
        first = tf.clip_by_value(tf.math.divide_no_nan(c - b, a + c - 2 * b), 0.0, 1.0)
        return tf.stack([first, 1 - first])


def test_a_gramian_balancer_weighs_the_shared_gradients_alone():
    rows = make_rows(32)
    rate = 0.5
    model = make_model(optimizer=keras.optimizers.SGD(rate), balancer=MinimumNorm())
    variables = model.net.trainable_variables
    before = [v.numpy() for v in variables]
    watched = [compat.tf_variable(v) for v in variables]
    with tf.GradientTape(persistent=True) as tape:
        predictions = model.net(rows.columns)
        losses = {
            t: tf.reduce_mean(keras.losses.binary_crossentropy(rows.labels[t][:, None], p))
            for t, p in predictions.items()
        }
    found = {
        t: [
            np.zeros(v.shape) if g is None else tf.convert_to_tensor(g).numpy()
            for v, g in zip(variables, tape.gradient(losses[t], watched), strict=True)
        ]
        for t in model.tasks
    }
    shared = names(model.shared_variables)
    jacobian = np.stack(
        [
            np.concatenate(
                [
                    g.ravel()
                    for v, g in zip(variables, found[t], strict=True)
                    if compat.variable_name(v) in shared
                ]
            )
            for t in model.tasks
        ]
    )
    (a, b), (_, c) = jacobian @ jacobian.T
    first = np.clip((c - b) / (a + c - 2 * b), 0, 1)
    model.fit(rows.batches(32), epochs=1, verbose=0)
    for i, variable in enumerate(variables):
        weights = (first, 1 - first) if compat.variable_name(variable) in shared else (1, 1)
        step = sum(w * found[t][i] for w, t in zip(weights, model.tasks, strict=True))
        np.testing.assert_allclose(variable.numpy(), before[i] - rate * step, atol=1e-5)


@keras.saving.register_keras_serializable("test")
class Ones(balancers.EqualWeights):
    """Equal weights by the way of one gradient per task; keeps the Gram matrices it meets."""

    reads = "gramian"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seen = []

    def call(self, losses, gramian=None):
        tf.py_function(lambda g: self.seen.append(g.numpy()), [gramian], [])
        return super().call(losses)


def regularised():
    """A functional model whose shared layer and towers are regularised."""
    x = keras.Input((5,), name="x")
    initial = keras.initializers.GlorotUniform(seed=3)
    options = {"kernel_regularizer": keras.regularizers.L2(0.1), "kernel_initializer": initial}
    hidden = keras.layers.Dense(4, "tanh", name="hidden", **options)(x)
    return keras.Model(
        {"x": x},
        {t: keras.layers.Dense(1, "sigmoid", name=t, **options)(hidden) for t in ("like", "click")},
    )


def test_regularisation_is_keras_own_whatever_the_balancer_reads():
    x, y = arrays()
    plain = regularised()
    plain.compile(keras.optimizers.SGD(0.1), loss=dict.fromkeys(y, "binary_crossentropy"))
    plain.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    for balancer in (balancers.EqualWeights(), Ones()):
        model = make_model(net=regularised(), balancer=balancer, jit_compile=False)
        model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        for mine, its in zip(model.net.get_weights(), plain.get_weights(), strict=True):
            np.testing.assert_allclose(mine, its, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Task .* had no label:RuntimeWarning")
def test_a_gramian_balancer_survives_absent_labels():
    rows = make_rows(32)
    rows.labels["like"][:] = np.nan
    model = make_model(balancer=MinimumNorm())
    history = model.fit(rows.batches(16), epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert all(np.isfinite(w).all() for w in model.net.get_weights())


def test_loss_scaling_does_not_reach_the_gramian():
    rows = make_rows(32)
    gramians = []
    for policy in ("float32", "mixed_float16"):
        before = keras.mixed_precision.global_policy().name
        keras.mixed_precision.set_global_policy(policy)
        try:
            optimizer = keras.optimizers.SGD(0.1)
            if policy == "mixed_float16":
                optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
            balancer = Ones()
            model = make_model(optimizer=optimizer, balancer=balancer, jit_compile=False)
            model.fit(rows.batches(32), verbose=0)
            gramians.append(balancer.seen[0])
        finally:
            keras.mixed_precision.set_global_policy(before)
    np.testing.assert_allclose(gramians[1], gramians[0], rtol=0.05, atol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_in_float32_where_it_matters(policy, rows):
    before = keras.mixed_precision.global_policy().name
    keras.mixed_precision.set_global_policy(policy)
    try:
        optimizer = keras.optimizers.Adam(0.01)
        if policy == "mixed_float16" and not compat.KERAS_3:
            optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
        model = make_model(optimizer=optimizer, balancer=balancers.NMT(["like", "click"]))
        start = model.net.get_weights()
        history = model.fit(rows.batches(80), epochs=2, verbose=0)
        ends = zip(start, model.net.get_weights(), strict=True)
        assert any(not np.array_equal(a, b) for a, b in ends)
        assert np.isfinite(history.history["loss"]).all()
        assert all(p.dtype == np.float32 for p in model.predict(rows.batches(80)).values())
    finally:
        keras.mixed_precision.set_global_policy(before)


class Constant(GramianBalancer):
    """Weights that do not depend on anything."""

    def __init__(self, values, **options):
        super().__init__(**options)
        self.values = values

    def weigh(self, losses, gramian):
        return tf.constant(self.values, losses.dtype)


@pytest.mark.parametrize("values", [[2.5, 0.5], [0.0, 3.0], [-1.0, 2.0], [1e-9, 10.0], [0.0, 0.0]])
@pytest.mark.parametrize("given", [False, True], ids=["found", "given"])
def test_a_step_between_searches_is_the_step_of_a_search(values, given):
    """The weights reach the shared variables alone, a weight of 0 loses no tower's gradient."""

    def trained(update_every):
        layers = keras.layers
        x = keras.Input((3,), name="x")
        hidden = layers.Dense(4, "tanh", kernel_regularizer="l2", name="hidden")(x)
        top = layers.Dense(4, "tanh", name="top")(hidden)
        one, two = layers.Dense(1, name="one"), layers.Dense(1, kernel_regularizer="l1", name="two")
        net = keras.Model({"x": x}, {"a": one(top), "b": two(top)})
        rng = np.random.default_rng(3)
        net.set_weights([rng.normal(size=w.shape).astype("float32") for w in net.get_weights()])
        shared = [net.get_layer("hidden").kernel, net.get_layer("one").kernel] if given else None
        model = tfmtl.MultiTaskModel(net, shared=shared)
        rate = 1e-2 / max(1, *map(abs, values))
        balancer = Constant(values, update_every=update_every)
        model.compile(keras.optimizers.SGD(rate), {"a": "mse", "b": "mse"}, balancer=balancer)
        x = {"x": rng.normal(size=(8, 3)).astype("float32")}
        y = {t: rng.normal(size=(8, 1)).astype("float32") for t in "ab"}
        before = net.get_weights()
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        return [(b - a) / rate for a, b in zip(before, net.get_weights(), strict=True)]

    for every, now_and_then in zip(trained(1), trained(2), strict=True):
        np.testing.assert_allclose(every, now_and_then, rtol=2e-3, atol=5e-3)
