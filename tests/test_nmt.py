"""NMT: optimality on convex problems, the controller's promises, stages, state."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmtl
from tfmtl import balancers


@keras.saving.register_keras_serializable("test")
class Point(keras.Model):
    """A point x, handed out as every task's prediction, whatever the input."""

    def __init__(self, tasks, start, **kwargs):
        super().__init__(**kwargs)
        self.tasks = tasks
        self.start = start
        self.x = self.add_weight(
            name="x",
            shape=(1, len(start)),
            initializer=lambda shape, dtype=None: tf.constant([start], dtype),
            trainable=True,
        )
        self.built = True

    def call(self, inputs):
        row = tf.zeros_like(tf.reshape(inputs, [-1, 1])) + tf.convert_to_tensor(self.x)
        return dict.fromkeys(self.tasks, row)


def quadratic(weights):
    """1 + ½ Σ wᵢ (xᵢ − cᵢ)² for labels c, one value per row."""

    def loss(y_true, y_pred):
        return 1.0 + 0.5 * tf.reduce_sum(tf.constant(weights) * (y_pred - y_true) ** 2, axis=-1)

    return loss


def solve(centers, weights, *, epochs, steps=16, rate=0.9, start=None, **options):
    """Train NMT on quadratics with the given centers; returns the model."""
    tasks = list(centers)
    dimension = len(next(iter(centers.values())))
    model = tfmtl.MultiTaskModel(Point(tasks, start or [2.0] * dimension))
    model.compile(
        optimizer=keras.optimizers.SGD(rate),
        loss={task: quadratic(weights[task]) for task in tasks},
        balancer=balancers.NMT(priority=tasks, **options),
    )
    rows = np.zeros((steps, 1), "float32")
    labels = {task: np.tile(np.float32([center]), (steps, 1)) for task, center in centers.items()}
    one_row = (rows[:1], {task: values[:1] for task, values in labels.items()})
    model.fit(
        rows, labels, batch_size=1, epochs=epochs, verbose=0, shuffle=False, validation_data=one_row
    )
    return model


def multiplier(model, task):
    """λ of a task against the last stage's own."""
    return model.balancer.trace()[-1][f"lambda_{task}"]


#: Long epochs of many readings: an epoch has a cost of its own.
LONG = {"steps": 64, "readings": 16, "patience": 10_000}
HELD_OUT = {"variant": "held_out", **LONG}
PAPER = {"variant": "paper", "multiplier_rate": 0.5, **LONG}


@pytest.mark.parametrize("options", [HELD_OUT, PAPER], ids=["held_out", "paper"])
def test_two_quadratics_end_at_the_exact_point_and_multiplier(options):
    # f₁ = ½(x² + y²), f₂ = ½((x−1)² + y²), f₁ ≤ r: x* = √(2r), ∇f₂ + λ∇f₁ = 0 gives λ* = 1/x* − 1.
    tolerance = 0.125
    ones = [1.0, 1.0]
    model = solve(
        {"first": [0.0, 0.0], "second": [1.0, 0.0]},
        {"first": ones, "second": ones},
        tolerance={"first": tolerance, "second": 0.0},
        epochs=13,
        **options,
    )
    np.testing.assert_allclose(model.net.x.numpy()[0], [0.5, 0.0], atol=1e-3)
    assert multiplier(model, "first") == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("options", [HELD_OUT, PAPER], ids=["held_out", "paper"])
def test_three_quadratics_end_at_the_exact_point_and_multipliers(options):
    # f₁ = ½x² ≤ ⅛ and f₂ = ½(y−1)² ≤ ⅛, f₃ = ½((x−1)² + y²): x* = y* = ½, λ₁ = λ₂ = 1.
    model = solve(
        {"first": [0.0, 0.0], "second": [0.0, 1.0], "third": [1.0, 0.0]},
        {"first": [1.0, 0.0], "second": [0.0, 1.0], "third": [1.0, 1.0]},
        tolerance={"first": 0.125, "second": 0.125, "third": 0.0},
        epochs=19,
        **options,
    )
    np.testing.assert_allclose(model.net.x.numpy()[0], [0.5, 0.5], atol=1e-3)
    assert multiplier(model, "first") == pytest.approx(1.0, abs=1e-3)
    assert multiplier(model, "second") == pytest.approx(1.0, abs=1e-3)


def two_tasks(n=600, seed=0):
    """Rows on which two binary tasks pull an item's embedding in opposite directions."""
    rng = np.random.default_rng(seed)
    item = rng.integers(0, 20, n)
    taste = rng.normal(size=20)[item]
    labels = {
        "like": (rng.normal(size=n) - 0.5 * taste > 1).astype("float32"),
        "click": (rng.normal(size=n) + taste > 0).astype("float32"),
    }
    return tfmtl.data.Rows({"item": item}, labels)


def train(priority, *, epochs=4, tasks=("like", "click"), loss="binary_crossentropy", **options):
    rows = two_tasks()
    spec = tfmtl.FeatureSpec({"item": 20}, width=4)
    net = tfmtl.models.SharedBottom(list(tasks), spec, bottom_units=(8,), tower_units=(4,), seed=3)
    model = tfmtl.MultiTaskModel(net)
    losses = {task: loss if task in priority else None for task in tasks}
    model.compile(
        keras.optimizers.Adam(0.02, epsilon=1e-15),
        loss=losses,
        balancer=balancers.NMT(priority, **options),
    )
    history = model.fit(
        rows.take(slice(0, 400)).batches(50, shuffle=True, seed=1),
        validation_data=rows.take(slice(400, None)).batches(200),
        epochs=epochs,
        verbose=0,
    )
    return model, history


def test_the_last_stage_is_shown_as_it_was_when_it_has_ended():
    model, history = train(["like", "click"], epochs=30, patience=2)
    assert model.balancer.done and model.stop_training
    assert set(history.history["stage"]) == {1, 2}
    assert history.history["lambda_like"][-1] == pytest.approx(multiplier(model, "like"), rel=0.5)


def test_stage_one_trains_the_first_task_alone():
    model, history = train(["like", "click"], patience=100)
    trace = model.balancer.trace()
    assert [row["stage"] for row in trace] == [1] * 8 + [2] * 8
    assert all(row["weight_like"] == 1 and row["weight_click"] == 0 for row in trace[:8])
    assert all(0 < row["weight_like"] < 1 for row in trace[8:])
    assert history.history["stage"] == [1, 1, 2, 2]
    assert all(np.isfinite(history.history["lambda_like"]))


def test_one_task_is_single_task_training_that_stops_by_itself():
    model, history = train(["like"], epochs=40, patience=3)
    trace = model.balancer.trace()
    assert len(history.history["loss"]) < 40
    best = max(trace, key=lambda row: row["auc_like"])
    assert trace.index(best) == len(trace) - 1 - 3
    at = trace.index(best)
    levels = [
        np.mean([row["auc_like"] for row in trace[i : i + 3]])
        for i in range(max(0, at - 2), min(at, len(trace) - 3) + 1)
    ]
    baseline = model.balancer.baselines()["like"]["auc"]
    assert baseline == pytest.approx(max(levels), abs=1e-6)
    assert baseline <= best["auc_like"] + 1e-6


@pytest.mark.parametrize("variant", ["held_out", "paper"])
def test_the_result_is_the_reading_that_the_trace_calls_best(variant):
    model, _ = train(["like", "click"], variant=variant, patience=100)
    second = [row for row in model.balancer.trace() if row["stage"] == 2]
    if variant == "held_out":
        feasible = [row for row in second if row["feasible"]]
        if feasible:
            expected = max(feasible, key=lambda row: row["auc_click"])
        else:
            expected = min(second, key=lambda row: row["violation_like"])
    else:
        expected = second[-1]
    assert model.balancer.kept()[1] == pytest.approx(expected, nan_ok=True)
    reading = model.read()
    np.testing.assert_allclose(
        reading.losses, [expected["loss_like"], expected["loss_click"]], rtol=1e-5
    )


def test_the_order_of_the_losses_does_not_matter():
    # One network, so that only the order in which compile names the tasks differs.
    traces = []
    for order in (["like", "click"], ["click", "like"]):
        rows = two_tasks()
        spec = tfmtl.FeatureSpec({"item": 20}, width=4)
        net = tfmtl.models.SharedBottom(["like", "click"], spec, bottom_units=(8,), seed=3)
        model = tfmtl.MultiTaskModel(net)
        model.compile(
            keras.optimizers.SGD(0.1),
            loss=dict.fromkeys(order, "binary_crossentropy"),
            balancer=balancers.NMT(["like", "click"], patience=100),
        )
        held_out = rows.take(slice(400, None)).batches(200)
        model.fit(
            rows.take(slice(0, 400)).batches(50), validation_data=held_out, epochs=4, verbose=0
        )
        traces.append(model.balancer.trace())
    for one, other in zip(*traces, strict=True):
        for key, value in one.items():
            assert other[key] == pytest.approx(value, rel=1e-3, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_multipliers_are_free_of_the_losses_scale(factor):
    def scaled(y_true, y_pred):
        return factor * keras.losses.binary_crossentropy(y_true, y_pred)

    # Adam does not feel a factor on the whole gradient.
    plain, _ = train(["like", "click"], patience=100)
    other, _ = train(["like", "click"], patience=100, loss=scaled)
    for one, two in zip(plain.balancer.trace()[:10], other.balancer.trace()[:10], strict=True):
        assert two["lambda_like"] == pytest.approx(one["lambda_like"], rel=0.05)


@pytest.mark.parametrize(
    ("known", "at_once", "stages"),
    # Six batches an epoch. Of unknown length, the first epoch has one reading, the others four.
    [(True, 10, [1, 1, 2, 2]), (False, 1, [1] * 6 + [2] * 7)],
    ids=["known", "unknown"],
)
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
def test_stages_share_the_readings_that_there_are(known, at_once, stages):
    rows = two_tasks()
    batches = rows.batches(100)
    if not known:
        batches = batches.filter(lambda *_: True)
    model = tfmtl.MultiTaskModel(
        tfmtl.models.SharedBottom(["like", "click"], tfmtl.FeatureSpec({"item": 20}, width=4))
    )
    model.compile(
        loss=dict.fromkeys(["like", "click"], "binary_crossentropy"),
        balancer=balancers.NMT(["like", "click"], patience=100),
        steps_per_execution=at_once,
    )
    model.fit(batches, validation_data=rows.batches(300), epochs=4, verbose=0)
    assert [row["stage"] for row in model.balancer.trace()] == stages


def test_a_fit_that_is_too_short_for_all_stages_says_so():
    with pytest.warns(RuntimeWarning, match=r"ended in stage 1 of 2: \['click'\] have not"):
        train(["like", "click"], epochs=1, readings=1)


def test_three_tasks_run_through_three_stages():
    rows = two_tasks()
    labels = {**rows.labels, "long": np.roll(rows.labels["click"], 1)}
    rows = tfmtl.data.Rows(rows.columns, labels)
    spec = tfmtl.FeatureSpec({"item": 20}, width=4)
    tasks = ["like", "long", "click"]
    model = tfmtl.MultiTaskModel(tfmtl.models.MMoE(tasks, spec, experts=2, expert_units=(8,)))
    model.compile(loss=dict.fromkeys(tasks, "binary_crossentropy"), balancer=balancers.NMT(tasks))
    history = model.fit(rows.batches(100), validation_data=rows.batches(300), epochs=6, verbose=0)
    stages = [row["stage"] for row in model.balancer.trace()]
    assert sorted(set(stages)) == [1, 2, 3]
    assert stages == sorted(stages)
    assert len(history.history["loss"]) <= 6
    assert set(model.balancer.baselines()) == set(tasks)


def test_state_survives_saving_in_the_middle(tmp_path):
    model, _ = train(["like", "click"], epochs=2, patience=100)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert loaded.balancer.get_config() == model.balancer.get_config()
    assert loaded.balancer.stage == model.balancer.stage
    for mine, theirs in zip(model.balancer.weights, loaded.balancer.weights, strict=True):
        np.testing.assert_array_equal(theirs.numpy(), mine.numpy())


def test_without_held_out_rows_the_training_rows_are_read():
    rows = two_tasks()
    net = tfmtl.models.SharedBottom(["like", "click"], tfmtl.FeatureSpec({"item": 20}), seed=3)
    model = tfmtl.MultiTaskModel(net)
    losses = dict.fromkeys(["like", "click"], "binary_crossentropy")
    model.compile(loss=losses, balancer=balancers.NMT(["like", "click"]))
    model.fit(rows.batches(100), epochs=2, verbose=0)
    last = model.balancer.trace()[-1]
    assert np.isfinite([last["loss_like"], last["auc_click"]]).all()


def test_a_baseline_over_training_rows_honours_weights_and_absent_labels():
    # The paper's f₁(θ*) is the mean over labelled rows; a weight multiplies a row's loss.
    rows = np.zeros((4, 1), "float32")
    labels = {
        "first": np.float32([[1.0], [3.0], [np.nan], [2.0]]),
        "second": np.zeros((4, 1), "float32"),
    }
    weight = {"first": np.float32([1.0, 2.0, 5.0, 0.0]), "second": np.ones(4, "float32")}
    model = tfmtl.MultiTaskModel(Point(["first", "second"], [2.0]))
    model.compile(
        keras.optimizers.SGD(1e-7),
        loss={"first": "mse", "second": "mse"},
        balancer=balancers.NMT(["first", "second"], variant="paper", readings=1),
    )
    model.fit(rows, labels, sample_weight=weight, batch_size=3, epochs=2, verbose=0)
    # Losses at x = 2: 1, 1, absent, 0; weighted 1, 2, absent, 0 over three labelled rows.
    assert model.balancer.baselines()["first"]["loss"] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"priority": ["a", "a"]}, "`priority` must name every task once"),
        ({"priority": "a"}, "`priority` must name every task once"),
        ({"priority": []}, "`priority` must name every task once"),
        ({"priority": ["a"], "variant": "letter"}, "`variant` must be 'held_out' or 'paper'"),
        ({"priority": ["a"], "tolerance": -1.0}, "`tolerance` must be a finite number"),
        ({"priority": ["a"], "tolerance": {"a": -1.0}}, r"`tolerance\['a'\]` must be"),
        ({"priority": ["a"], "multiplier_rate": -0.1}, "`multiplier_rate` must be"),
        ({"priority": ["a"], "multiplier": float("nan")}, "`multiplier` must be"),
        ({"priority": ["a"], "patience": 0}, "`patience` must be a positive integer"),
        ({"priority": ["a"], "readings": 1.5}, "`readings` must be a positive integer"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        balancers.NMT(**arguments)


@pytest.mark.parametrize("priority", [["like"], ["like", "click", "share"], ["like", "share"]])
def test_a_priority_that_does_not_name_the_tasks_is_refused_by_compile(priority):
    net = tfmtl.models.SharedBottom(["like", "click"], tfmtl.FeatureSpec({"item": 20}))
    losses = dict.fromkeys(["like", "click"], "binary_crossentropy")
    with pytest.raises(ValueError, match=r"`priority` must name every task.*Received"):
        tfmtl.MultiTaskModel(net).compile(loss=losses, balancer=balancers.NMT(priority))
