"""The made-up search log: what its knobs do, and that its front is the front."""

import keras
import numpy as np
import pytest
from sklearn.metrics import log_loss

import tfmtl
from tfmtl import data, losses, models


def test_labels_are_drawn_at_their_rates():
    found = data.synthetic(100_000, rates=(0.3, 0.02), seed=1)
    for task, rate in zip(found.tasks, (0.3, 0.02), strict=True):
        assert found.train.labels[task].mean() == pytest.approx(rate, rel=0.06)
        assert found.probabilities[task].mean() == pytest.approx(rate, rel=0.15)
    assert len(found.train) == 80_000 and len(found.validation) == len(found.test) == 10_000
    assert not set(found.train.groups) & set(found.test.groups)


@pytest.mark.parametrize(("conflict", "correlation"), [(0, 1), (0.5, 0), (1, -1)])
def test_conflict_is_the_angle_between_the_tasks(conflict, correlation):
    found = data.synthetic(20_000, conflict=conflict)
    odds = [np.log(p / (1 - p)) for p in found.probabilities.values()]
    assert np.corrcoef(odds)[0, 1] == pytest.approx(correlation, abs=0.1)


def test_without_conflict_the_front_is_a_point():
    found = data.synthetic(10_000, conflict=0, rates=(0.2, 0.2))
    assert np.ptp(found.front(), axis=0) == pytest.approx([0, 0], abs=1e-9)


def test_the_ends_of_the_front_are_the_tasks_alone():
    found = data.synthetic(200_000, conflict=0.7)
    front = found.front()
    for i, task in enumerate(found.tasks):
        end = front[0 if i == 0 else -1]
        truth = found.probabilities[task]
        assert end[i] == pytest.approx(log_loss(found.test.labels[task], truth), rel=0.02)
        assert end[i] == pytest.approx(front[:, i].min())
    # From end to end one task gets better and the other one worse, and the line is convex.
    assert (np.diff(front[:, 0]) > 0).all() and (np.diff(front[:, 1]) < 0).all()
    slopes = np.diff(front[:, 1]) / np.diff(front[:, 0])
    assert (np.diff(slopes) > 0).all()


def test_no_prediction_is_below_the_front():
    found = data.synthetic(2_000, conflict=0.8)
    rng = np.random.default_rng(0)
    first, second = found.probabilities.values()
    for share in (0.0, 0.3, 1.0):
        best = share * first + (1 - share) * second
        assert found.gap(best) == pytest.approx(0, abs=1e-6)
        for size in (0.01, 0.1, 1.0):
            odds = np.log(best / (1 - best)) + size * rng.normal(size=len(best))
            assert found.gap(1 / (1 + np.exp(-odds))) > 0


def test_a_score_that_learns_comes_near_the_front():
    found = data.synthetic(20_000, conflict=0.4, loss_scales=(1.0, 100.0))
    net = models.LTRTower(found.features, units=(32,), seed=0)
    model = tfmtl.MultiTaskModel(net, outputs=dict.fromkeys(found.tasks, "score"))
    model.compile(keras.optimizers.Adam(0.01), loss=found.losses(), balancer="MGDA")
    model.fit(found.train.batches(256, shuffle=True, seed=0), epochs=4, verbose=0)
    odds = model.predict(found.test.batches(512), verbose=0)
    odds = np.asarray(next(iter(odds.values())), float).ravel()
    assert -1e-3 < found.gap(1 / (1 + np.exp(-odds))) < 0.02


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rows": 99}, "`rows` must be a multiple of 10, at least 100. Received: 99"),
        ({"conflict": 1.5}, r"`conflict` must be in \[0, 1\]. Received: 1.5"),
        ({"rates": (0.1, 1.0)}, r"`rates` must be two numbers in \(0, 1\). Received: \(0.1, 1.0\)"),
        ({"loss_scales": (0, 1)}, "`loss_scales` must be two numbers above 0. Received:"),
    ],
)
def test_what_is_wrong_is_said(given, message):
    with pytest.raises(ValueError, match=message):
        data.synthetic(**given)


def test_a_scaled_loss_is_the_loss_in_other_units():
    labels, scores = np.array([[0.0], [1.0]]), np.array([[0.2], [0.7]])
    plain = keras.losses.BinaryCrossentropy()
    scaled = losses.Scaled(plain, 1000.0)
    np.testing.assert_allclose(scaled(labels, scores), 1000 * plain(labels, scores), rtol=1e-6)
    config = keras.saving.serialize_keras_object(scaled)
    again = keras.saving.deserialize_keras_object(config)
    np.testing.assert_allclose(again(labels, scores), scaled(labels, scores))
    with pytest.raises(ValueError, match=r"`factor` must be above 0\. Received: 0"):
        losses.Scaled(plain, 0)
    with pytest.raises(ValueError, match=r"`loss` must be a Keras loss of rows\. Received: 'mse'"):
        losses.Scaled("mse", 2)


def test_a_scaled_loss_keeps_the_domain_of_its_labels():
    found = data.synthetic(1_000)
    net = models.LTRTower(found.features, units=(4,), output_activation="sigmoid", seed=0)
    model = tfmtl.MultiTaskModel(net, outputs={"click": "score"})
    model.compile("adam", loss={"click": losses.Scaled(keras.losses.BinaryCrossentropy(), 3.0)})
    columns = found.train.columns
    with pytest.raises(ValueError, match=r"Labels of task 'click' must lie in \[0, 1\]"):
        model.fit(columns, {"click": found.train.labels["click"] + 1}, verbose=0)
