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


HELD_OUT = {"variant": "held_out", "patience": 10_000}
PAPER = {"variant": "paper", "patience": 10_000, "multiplier_rate": 0.5}


@pytest.mark.parametrize("options", [HELD_OUT, PAPER], ids=["held_out", "paper"])
def test_two_quadratics_end_at_the_exact_point_and_multiplier(options):
    # f₁ = ½(x² + y²), f₂ = ½((x−1)² + y²), f₁ ≤ r: x* = √(2r), ∇f₂ + λ∇f₁ = 0 gives λ* = 1/x* − 1.
    tolerance = 0.125
    ones = [1.0, 1.0]
    model = solve(
        {"first": [0.0, 0.0], "second": [1.0, 0.0]},
        {"first": ones, "second": ones},
        tolerance={"first": tolerance, "second": 0.0},
        epochs=50,
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
        epochs=75,
        **options,
    )
    np.testing.assert_allclose(model.net.x.numpy()[0], [0.5, 0.5], atol=1e-3)
    assert multiplier(model, "first") == pytest.approx(1.0, abs=1e-3)
    assert multiplier(model, "second") == pytest.approx(1.0, abs=1e-3)
