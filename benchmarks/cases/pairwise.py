"""The pairwise logistic loss, forward and backward: ours, TF-Ranking's, keras-rs'."""

import numpy as np
import tensorflow as tf

from benchmarks.cases import Case, resident_peak
from benchmarks.rows import lists

BATCH = 256


def loss(whose: str, size: int, labels: str, jit: bool = False) -> Case:
    """The mean over all pairs of 256 lists and its gradient.

    Args:
        whose: ``"tfmtl"``, ``"tf-ranking"`` or ``"keras-rs"``.
        size: items in a list.
        labels: of :func:`benchmarks.rows.lists`.
        jit: compiled by XLA; with ours by its own ``jit_compile``.
    """
    step = make_step(whose, jit)
    rows = [tf.constant(each) for each in lists(BATCH, size, labels)]

    def run(steps):
        for _ in range(steps):
            found = step(*rows)
        found[1].numpy()

    value, gradient = (each.numpy() for each in step(*rows))
    expected_value, expected_gradient = expected(*lists(BATCH, size, labels))
    np.testing.assert_allclose(value, expected_value, rtol=1e-4)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-3, atol=1e-8)
    return Case(run)


def memory(whose: str, size: int, labels: str, jit: bool = False) -> Case:
    """How much the peak of this process' resident memory grows over three steps."""
    step = make_step(whose, jit)
    step(*(tf.constant(each) for each in lists(2, 8, labels)))
    rows = [tf.constant(each) for each in lists(BATCH, size, labels)]
    before = resident_peak()
    for _ in range(3):
        step(*rows)[1].numpy()
    return Case(figures={"MB": resident_peak() - before})


def make_step(whose: str, jit: bool):
    """Labels and scores to the mean over pairs and its gradient."""
    value = {"tfmtl": ours, "tf-ranking": tf_ranking, "keras-rs": keras_rs}[whose](jit)

    def step(labels, scores):
        with tf.GradientTape() as tape:
            tape.watch(scores)
            found = value(labels, scores)
        return found, tape.gradient(found, scores)

    return tf.function(step, autograph=False, jit_compile=jit and whose != "tfmtl")


def ours(jit: bool):
    from tfmtl.losses import PairwiseLogistic

    loss = PairwiseLogistic(jit_compile=jit)

    def value(labels, scores):
        total, count = loss.sums(labels, scores)
        return total / count

    return value


def tf_ranking(jit: bool):
    from tfmtl import compat

    loss = compat.tensorflow_ranking().losses_impl.PairwiseLogisticLoss(name="theirs")

    def value(labels, scores):
        each, weights = loss.compute_unreduced_loss(labels, scores)
        return tf.reduce_sum(each * weights) / tf.reduce_sum(weights)

    return value


def keras_rs(jit: bool):
    from keras_rs.losses import PairwiseLogisticLoss

    loss = PairwiseLogisticLoss(reduction=None)

    def value(labels, scores):
        each, weights = loss.compute_unreduced_loss(labels, scores)
        return tf.reduce_sum(each * weights) / tf.reduce_sum(weights)

    return value


def expected(labels, scores):
    """The same list by list in NumPy, float64."""
    total, count, gradient = 0.0, 0, np.zeros(scores.shape)
    for i, (grades, row) in enumerate(zip(labels, scores.astype(np.float64))):
        above = grades[:, None] > grades[None, :]
        apart = row[:, None] - row[None, :]
        total += np.logaddexp(0, -apart)[above].sum()
        count += above.sum()
        pull = np.where(above, -1 / (1 + np.exp(apart)), 0)
        gradient[i] = pull.sum(1) - pull.sum(0)
    return total / count, gradient / count
