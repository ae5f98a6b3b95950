"""The Gram matrix row by row is that of the tasks' gradients, whatever the network does."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmtl
from tests.conftest import make_model, make_net, make_rows
from tfmtl import balancers, compat, gradients, losses, models, optimizers, sequential


@pytest.mark.parametrize("kind", ["SharedBottom", "MMoE", "OMoE", "PLE"])
def test_it_is_the_gramian_of_the_gradients(kind):
    tasks = ("like", "click", "pay")
    rows = make_rows(40, tasks)
    net = make_net(tasks, kind)
    variables = [compat.tf_variable(v) for v in net.trainable_variables]

    @tf.function(autograph=False)
    def both():
        with tf.GradientTape(persistent=True) as tape:
            found = net(rows.columns, training=True)
            each = [
                tf.reduce_mean(
                    keras.losses.binary_crossentropy(rows.labels[task][:, None], found[task])
                )
                for task in tasks
            ]
            together = tf.stack(each)
        apart = [tape.gradient(loss, variables) for loss in each]
        columns = [gradients.Column.of(column) for column in zip(*apart, strict=True)]
        return sequential.gramian(tape, together, variables), gradients.gramian(columns)

    found, expected = both()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("update_every", [1, 2])
@pytest.mark.parametrize("optimizer", [keras.optimizers.Adam, optimizers.LazyAdam])
def test_a_model_trains_as_with_the_jacobian(optimizer, update_every):
    rows = make_rows(64)
    ends = []
    for accumulate in ("jacobian", "gramian"):
        balancer = balancers.MGDA(update_every, accumulate=accumulate)
        model = make_model(optimizer=optimizer(0.01, epsilon=1e-3), balancer=balancer)
        model.fit(rows.columns, rows.labels, batch_size=16, shuffle=False, verbose=0)
        ends.append(model.net.get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_pairwise_losses_go_through_it():
    rng = np.random.default_rng(0)
    columns = {name: rng.normal(size=(8, 5)).astype("float32") for name in ("a", "b")}
    labels = {t: rng.integers(0, 3, (8, 5)).astype("float32") for t in ("pay", "relevance")}
    ends = []
    for accumulate in ("jacobian", "gramian"):
        net = models.LTRTower({"categorical": {}, "numeric": ["a", "b"]}, seed=0, layout="lists")
        outputs = dict.fromkeys(labels, "score")
        model = tfmtl.MultiTaskModel(net, outputs=outputs, layout="lists")
        model.compile(
            keras.optimizers.SGD(0.1),
            loss={task: losses.PairwiseLogistic() for task in labels},
            balancer=balancers.MGDA(accumulate=accumulate),
        )
        model.train_on_batch(columns, labels)
        ends.append(model.net.get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: balancers.MGDA(accumulate="both"), "'jacobian' or 'gramian'. Received: 'both'"),
        (
            lambda: balancers.MGDA(accumulate="gramian", wrt="representation"),
            "must be 'jacobian' with",
        ),
        (lambda: balancers.PUB(accumulate="gramian"), "for a balancer that reads updates"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_it_comes_back_from_its_configuration():
    balancer = balancers.MGDA(accumulate="gramian")
    assert balancers.MGDA.from_config(balancer.get_config()).accumulate == "gramian"
