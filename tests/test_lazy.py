"""Optimizers that step by rows: Keras' own where every row is touched, and only what is touched."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import compat, optimizers


def momentum_of_rows(*args, **kwargs):
    return optimizers.LazyAdam(*args, row_beta_1=None, **kwargs)


PAIRS = {
    "LazyAdam": (momentum_of_rows, keras.optimizers.Adam),
    "LazyAdagrad": (optimizers.LazyAdagrad, keras.optimizers.Adagrad),
}
ROWS = 6


def slices(ids, seed):
    values = np.random.default_rng(seed).normal(size=(len(ids), 3)).astype("float32")
    return tf.IndexedSlices(tf.constant(values), tf.constant(ids), tf.constant([ROWS, 3]))


def variables():
    start = np.random.default_rng(0).normal(size=(ROWS, 3)).astype("float32")
    return [keras.Variable(start) if compat.KERAS_3 else tf.Variable(start)]


def run(optimizer, steps, *, dense=False, graph=True):
    """The table after steps, each of ids or an array, and the optimizer's slots."""
    table = variables()
    optimizer.build(table)

    def step(gradient):
        optimizer.apply_gradients([(gradient, table[0])])

    compiled = tf.function(step, autograph=False) if graph else step
    for seed, ids in enumerate(steps):
        gradient = slices(ids, seed)
        compiled(tf.convert_to_tensor(gradient) if dense else gradient)
    slots = [
        np.array(v) for v in compat.optimizer_variables(optimizer) if tuple(v.shape) == (ROWS, 3)
    ]
    return np.array(table[0]), slots


OPTIONS = [
    {},
    {"clipnorm": 0.5},
    {"global_clipnorm": 0.5},
    {"clipvalue": 0.3},
    {"weight_decay": 0.1},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("graph", [True, False], ids=["graph", "eager"])
def test_where_every_row_is_touched_it_is_keras(name, options, graph):
    lazy, plain = PAIRS[name]
    steps = [[0, 1, 2, 3, 4, 5, 2, 2], [5, 4, 3, 2, 1, 0], [0, 0, 1, 1, 2, 3, 4, 5]]
    options = {"learning_rate": 0.1, **options}
    found, slots = run(lazy(**options), steps, graph=graph)
    expected, expected_slots = run(plain(**options), steps, dense=True, graph=graph)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)
    for one, other in zip(slots, expected_slots, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", PAIRS)
def test_a_dense_gradient_is_keras_to_the_bit(name):
    lazy, plain = PAIRS[name]
    steps = [[0, 1], [2, 2], [5]]
    found, _ = run(lazy(0.1), steps, dense=True)
    expected, _ = run(plain(0.1), steps, dense=True)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", PAIRS)
def test_rows_that_no_batch_names_stay(name):
    lazy, _ = PAIRS[name]
    found, slots = run(lazy(0.1, weight_decay=0.1), [[1, 3, 3], [3, 1]])
    untouched = [0, 2, 4, 5]
    np.testing.assert_array_equal(found[untouched], np.array(variables()[0])[untouched])
    for slot in slots:
        assert np.ptp(slot[untouched]) == 0
        assert (slot[[1, 3]] != slot[0]).all()


def test_rows_without_momentum_have_nothing_written_of_it():
    _, (m, v) = run(optimizers.LazyAdam(0.1), [[1, 3, 3], [3, 1]])
    assert np.abs(m).max() == 0
    assert np.count_nonzero(v) == 6


@pytest.mark.parametrize(("given", "first"), [(None, 0.9), (0.0, 0.0), (0.5, 0.5)])
def test_adam_by_rows_in_numpy(given, first):
    """Moments of the rows a step names alone, with the bias correction of all steps."""
    steps = [[0, 1, 1], [1], [2, 0], [1, 1, 1]]
    rate, second, epsilon = 0.1, 0.999, 1e-7
    optimizer = optimizers.LazyAdam(rate, row_beta_1=given)
    table = np.array(variables()[0])
    m, v = np.zeros_like(table), np.zeros_like(table)
    for seed, ids in enumerate(steps):
        values = slices(ids, seed).values.numpy()
        for row in set(ids):
            g = values[[i for i, each in enumerate(ids) if each == row]].sum(0)
            m[row] = first * m[row] + (1 - first) * g
            v[row] = second * v[row] + (1 - second) * g**2
            unbiased = np.sqrt(1 - second ** (seed + 1)) / (1 - first ** (seed + 1))
            table[row] -= rate * unbiased * m[row] / (np.sqrt(v[row]) + epsilon)
    found, _ = run(optimizer, steps)
    np.testing.assert_allclose(found, table, rtol=1e-4)


@pytest.mark.parametrize("before", [300, 10_000])
def test_a_row_goes_at_once_where_adam_moves_it_in_the_steps_behind(before):
    """A row in one batch, and then in none: all that Adam makes of it, by its own arithmetic."""
    ends = {}
    for kind in (optimizers.LazyAdam, keras.optimizers.Adam):
        table, optimizer = variables(), kind(0.01)
        optimizer.build(table)
        compat.tf_variable(optimizer.iterations).assign(before)
        start = np.array(table[0])
        lazy = kind is optimizers.LazyAdam
        gradient = slices([2], 0)
        optimizer.apply_gradients(
            [(gradient if lazy else tf.convert_to_tensor(gradient), table[0])]
        )
        for _ in range(0 if lazy else 150):
            optimizer.apply_gradients([(tf.zeros([ROWS, 3]), table[0])])
        ends[kind] = np.array(table[0]) - start
    lazy, dense = ends.values()
    np.testing.assert_allclose(lazy, dense, rtol=0.05, atol=1e-6)
    assert np.abs(lazy[2]).min() > 0.05


@pytest.mark.parametrize("row_beta_1", [-0.1, 1.0, float("nan")])
def test_the_momentum_of_rows_is_checked(row_beta_1):
    with pytest.raises(ValueError, match=r"`row_beta_1` must lie in \[0, 1\)"):
        optimizers.LazyAdam(row_beta_1=row_beta_1)


def test_adagrad_is_keras_whatever_is_touched():
    steps = [[0, 1, 1], [1], [2, 0], [1, 1, 1]]
    found, _ = run(optimizers.LazyAdagrad(0.1), steps)
    expected, _ = run(keras.optimizers.Adagrad(0.1), steps, dense=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_schedule_of_learning_rates_is_followed():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    steps = [list(range(ROWS))] * 3
    found, _ = run(momentum_of_rows(schedule), steps)
    expected, _ = run(keras.optimizers.Adam(schedule), steps, dense=True)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name, options", [("LazyAdam", {"amsgrad": True}), ("LazyAdagrad", {"use_ema": True})]
)
def test_what_touches_every_row_is_refused(name, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        PAIRS[name][0](**options)


@pytest.mark.parametrize("name", PAIRS)
def test_it_comes_back_from_its_configuration(name):
    optimizer = PAIRS[name][0](0.25, clipnorm=2.0)
    again = compat.deserialize(compat.serialize(optimizer))
    assert getattr(again, "row_beta_1", None) is None
    assert type(again) is type(optimizer)
    assert float(again.learning_rate) == 0.25 and again.clipnorm == 2.0


def table_sized(function, size):
    """Operations of a graph that have an output as large as the table, with those it calls."""
    graph = function.get_concrete_function().graph
    pending, found = [graph], []
    for each in pending:
        for op in each.get_operations():
            found += [
                op.name for out in op.outputs if out.shape.rank and size in out.shape.as_list()
            ]
    for definition in graph.as_graph_def().library.function:
        for node in definition.node_def:
            shapes = node.attr["_output_shapes"].list.shape
            found += [node.name for shape in shapes if any(dim.size == size for dim in shape.dim)]
    return found


@pytest.mark.parametrize("name", PAIRS)
def test_nothing_of_the_size_of_the_table_is_made(name):
    size = 54321
    table = tf.Variable(tf.zeros([size, 2]))
    optimizer = PAIRS[name][0](0.1)
    optimizer.build([table])

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.nn.embedding_lookup(table, tf.constant([1, 5, 5])))
        optimizer.apply_gradients([(tape.gradient(loss, table), table)])

    assert table_sized(step, size) == []
