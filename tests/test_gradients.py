"""Gram matrix and mixing: row-sparse gradients count as the dense ones they stand for."""

import numpy as np
import pytest
import tensorflow as tf

from tfmtl import gradients


def sampled(seed=0):
    """Two tasks' gradients over a table (rows twice), a vector, one that only task 1 reaches."""
    rng = np.random.default_rng(seed)

    def rows(indices):
        values = rng.normal(size=(len(indices), 3)).astype("float32")
        return tf.IndexedSlices(tf.constant(values), tf.constant(indices), tf.constant([6, 3]))

    def vector():
        return tf.constant(rng.normal(size=4).astype("float32"))

    return [[rows([0, 2, 2]), vector(), None], [rows([2, 5]), vector(), vector()]]


def dense(gradient, like):
    return np.zeros(like.shape) if gradient is None else tf.convert_to_tensor(gradient).numpy()


def test_the_gramian_is_that_of_the_dense_jacobian():
    found = sampled()
    likes = [tf.zeros([6, 3]), tf.zeros([4]), tf.zeros([4])]
    jacobian = np.stack(
        [
            np.concatenate([dense(g, x).ravel() for g, x in zip(task, likes, strict=True)])
            for task in found
        ]
    )
    np.testing.assert_allclose(gradients.gramian(found).numpy(), jacobian @ jacobian.T, rtol=1e-5)


@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_weighted_sum_is_the_dense_one_and_keeps_rows(column):
    pair = [task[column] for task in sampled()]
    mixed = gradients.weighted_sum(pair, tf.constant([0.5, -2.0]))
    like = tf.zeros([6, 3]) if column == 0 else tf.zeros([4])
    expected = 0.5 * dense(pair[0], like) - 2.0 * dense(pair[1], like)
    np.testing.assert_allclose(dense(mixed, like), expected, rtol=1e-5)
    assert isinstance(mixed, tf.IndexedSlices) == (column == 0)


def test_what_no_task_reaches_has_no_gradient():
    assert gradients.weighted_sum([None, None], tf.ones(2)) is None


def test_rows_and_a_dense_gradient_mix():
    rows = sampled()[0][0]
    mixed = gradients.weighted_sum([rows, tf.ones([6, 3])], tf.constant([2.0, 3.0]))
    expected = 2 * dense(rows, tf.zeros([6, 3])) + 3
    np.testing.assert_allclose(mixed.numpy(), expected, rtol=1e-5)
