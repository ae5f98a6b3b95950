"""PUB's cosine between gradient and update."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_model, make_net, make_rows
from tfmtl import balancers, compat
from tfmtl.similarity import Similarity


class Watching(keras.callbacks.Callback):
    watches_updates = True


def fit(optimizer, balancer=None, callbacks=(), epochs=1):
    model = make_model(net=make_net(kind="SharedBottom"), optimizer=optimizer, balancer=balancer)
    history = model.fit(
        make_rows(32).batches(16), epochs=epochs, verbose=0, callbacks=list(callbacks)
    )
    return model, history.history


@pytest.mark.parametrize("balancer", [None, "MGDA", "FAMO"])
def test_sgd_moves_along_the_gradient(balancer):
    _, history = fit(keras.optimizers.SGD(0.1), balancer, [Watching()])
    np.testing.assert_allclose(history["similarity_shared"], 1, atol=1e-5)
    np.testing.assert_allclose(history["similarity_task"], 1, atol=1e-5)
    np.testing.assert_allclose(history["difference"], 0, atol=1e-5)


def test_adams_first_step_is_the_gradients_sign():
    rows = make_rows(16)
    model = make_model(
        net=make_net(kind="SharedBottom"), optimizer=keras.optimizers.Adam(0.01, epsilon=1e-30)
    )
    with tf.GradientTape() as tape:
        predictions = model.net(rows.columns, training=True)
        loss = tf.add_n(
            [
                tf.reduce_mean(keras.losses.binary_crossentropy(rows.labels[t][:, None], p))
                for t, p in predictions.items()
            ]
        )
    found = tape.gradient(loss, [compat.tf_variable(v) for v in model.net.trainable_variables])
    found = [tf.convert_to_tensor(each).numpy() for each in found]
    history = model.fit(rows.batches(16), verbose=0, callbacks=[Watching()]).history
    expected = {}
    for name, wanted in (("shared", True), ("task", False)):
        flat = np.concatenate(
            [g.ravel() for g, s in zip(found, model.is_shared(), strict=True) if s is wanted]
        )
        expected[name] = np.abs(flat).sum() / np.linalg.norm(flat) / np.sqrt((flat != 0).sum())
        np.testing.assert_allclose(history[f"similarity_{name}"], expected[name], rtol=1e-3)
    difference = 2 * abs(expected["task"] - expected["shared"]) / sum(expected.values())
    np.testing.assert_allclose(history["difference"], difference, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("name", ["PUB", "AdaTask", "NMT"])
def test_it_is_watched_under_every_kind_of_step(name):
    balancer = balancers.NMT(("like", "click")) if name == "NMT" else name
    _, history = fit(keras.optimizers.Adam(0.01), balancer, [Watching()])
    assert 0 < history["similarity_shared"][0] <= 1 + 1e-6


def test_it_is_measured_only_while_asked_for_and_anew_in_each_epoch():
    model, history = fit(keras.optimizers.SGD(0.1))
    assert "difference" not in history
    weights = model.net.get_weights()
    history = model.fit(make_rows(32).batches(16), verbose=0, callbacks=[Watching()]).history
    assert history["similarity_shared"][0] == pytest.approx(1, abs=1e-5)
    assert np.abs(weights[0] - model.net.get_weights()[0]).max() > 0
    history = model.fit(make_rows(32).batches(16), verbose=0).history
    assert "difference" not in history


def test_a_step_that_is_not_taken_does_not_count():
    similarity = Similarity()
    one, other = tf.constant([1.0, 0.0]), tf.constant([1.0, 1.0])
    similarity.update([one], [one], [True], True)
    similarity.update([one], [other], [True], False)
    similarity.update([None], [other], [True], True)
    similarity.update([tf.constant([1e30, 0.0])], [other], [True], True)
    expected = (1 + np.sqrt(0.5)) / 2
    assert float(similarity.result()["similarity_shared"]) == pytest.approx(expected, rel=1e-5)
