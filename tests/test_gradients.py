"""Gram matrix and mixing: row-sparse gradients count as the dense ones they stand for."""

import numpy as np
import pytest
import tensorflow as tf

from tfmtl import gradients, rows

TABLE = 6


def sampled(seed=0):
    """Two tasks' gradients over a table (rows twice), a vector, one that only task 1 reaches."""
    rng = np.random.default_rng(seed)

    def table(indices):
        values = rng.normal(size=(len(indices), 3)).astype("float32")
        return tf.IndexedSlices(tf.constant(values), tf.constant(indices), tf.constant([TABLE, 3]))

    def vector():
        return tf.constant(rng.normal(size=4).astype("float32"))

    return [[table([0, 2, 2]), vector(), None], [table([2, 5]), vector(), vector()]]


def dense(gradient, like):
    return np.zeros(like.shape) if gradient is None else tf.convert_to_tensor(gradient).numpy()


def columns(found):
    return [gradients.Column.of(each) for each in zip(*found, strict=True)]


def in_a_graph(function):
    return tf.function(function, autograph=False)


LIKES = [tf.zeros([TABLE, 3]), tf.zeros([4]), tf.zeros([4])]


@pytest.mark.parametrize("run", [lambda f: f, in_a_graph], ids=["eager", "graph"])
def test_the_gramian_is_that_of_the_dense_jacobian(run):
    found = sampled()
    jacobian = np.stack(
        [
            np.concatenate([dense(g, x).ravel() for g, x in zip(task, LIKES, strict=True)])
            for task in found
        ]
    )
    gramian = run(lambda: gradients.gramian(columns(found)))()
    np.testing.assert_allclose(gramian, jacobian @ jacobian.T, rtol=1e-5)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_weighted_sum_is_the_dense_one_and_keeps_rows(which):
    pair = [task[which] for task in sampled()]
    mixed = columns(sampled())[which].weighted(tf.constant([0.5, -2.0]))
    expected = 0.5 * dense(pair[0], LIKES[which]) - 2.0 * dense(pair[1], LIKES[which])
    np.testing.assert_allclose(dense(mixed, LIKES[which]), expected, rtol=1e-5)
    assert isinstance(mixed, tf.IndexedSlices) == (which == 0)


def test_what_no_task_reaches_has_no_gradient():
    assert gradients.Column.of([None, None]).weighted(tf.ones(2)) is None


def test_a_dense_gradient_makes_the_column_dense():
    found = sampled()[0][0]
    mixed = gradients.Column.of([found, tf.ones([TABLE, 3])]).weighted(tf.constant([2.0, 3.0]))
    np.testing.assert_allclose(mixed, 2 * dense(found, LIKES[0]) + 3, rtol=1e-5)


def test_a_column_of_rows_is_the_dense_one():
    column = columns(sampled())[0]
    expected = np.stack([dense(task[0], LIKES[0]) for task in sampled()])
    np.testing.assert_allclose(column.dense().stack(), expected, rtol=1e-6)


@pytest.mark.parametrize("which", range(3))
def test_adding_is_that_of_dense_gradients(which):
    one, other = (task[0] for task in sampled())
    one, other = [(one, other), (tf.ones([TABLE, 3]), other), (one, tf.ones([TABLE, 3]))][which]
    added = gradients.add(one, other)
    np.testing.assert_allclose(
        dense(added, LIKES[0]), dense(one, LIKES[0]) + dense(other, LIKES[0]), rtol=1e-6
    )


# Merging


@pytest.mark.parametrize("size", [0, 1, 7, 200])
@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("jit", [False, True])
def test_merging_names_each_row_once_and_keeps_the_sum(size, dtype, jit):
    rng = np.random.default_rng(size)
    ids = rng.integers(0, 40, size).astype(dtype)
    values = rng.normal(size=(size, 2, 3)).astype("float32")

    @tf.function(autograph=False, jit_compile=jit)
    def merge(values, ids):
        merged = rows.merge(tf.IndexedSlices(values, ids, tf.constant([40, 2, 3])))
        assert rows.merge(merged) is merged
        places = rows.at(merged, ids) if size else values
        return merged.values, merged.indices, rows.named_once(merged.indices, 3), places

    values_found, indices, once, found = merge(tf.constant(values), tf.constant(ids))
    assert indices.dtype == dtype
    assert not jit or len(indices) == size
    expected = np.zeros((40, 2, 3))
    np.add.at(expected, ids, values)
    summed = np.zeros((40, 2, 3))
    np.add.at(summed, indices.numpy(), values_found.numpy())
    np.testing.assert_allclose(summed, expected, atol=1e-6)
    once = once.numpy().ravel() > 0
    np.testing.assert_array_equal(np.sort(indices.numpy()[once]), np.unique(ids))
    np.testing.assert_array_equal(values_found.numpy()[~once], 0)
    np.testing.assert_allclose(found, expected[ids], atol=1e-6)


def test_gradients_of_the_same_lookups_share_their_ids():
    """Ids are merged once, however many tasks there are."""
    table = tf.Variable(tf.ones([10, 3]))

    @in_a_graph
    def ids_of_two_tasks(first, second, third):
        with tf.GradientTape(persistent=True) as tape:
            looked_up = tf.nn.embedding_lookup(table, first)
            again = tf.nn.embedding_lookup(table, second)
            other = tf.nn.embedding_lookup(table, third)
            losses = [tf.reduce_sum(looked_up) + tf.reduce_sum(k * again) for k in (1.0, 2.0)]
            losses.append(tf.reduce_sum(other))
        found = [tape.gradient(loss, table) for loss in losses]
        same, values = rows.merge_all(found[:2])
        return same, values, rows.merge_all(found)

    first, second, third = [1, 2], [[2], [3]], [7, 7, 1]
    same, values, (every, each) = ids_of_two_tasks(*map(tf.constant, (first, second, third)))
    np.testing.assert_array_equal(same, [1, 2, 3])
    np.testing.assert_array_equal(values[1][:, 0], [1, 3, 2])
    np.testing.assert_array_equal(every, [1, 2, 3, 7])
    np.testing.assert_array_equal(each[2][:, 0], [1, 0, 0, 2])
