"""The small solvers against what defines their solutions."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tfmtl import solvers

# Compiled once for each shape: step by step their loops take long.
bargaining = tf.function(solvers.bargaining, autograph=False)
min_norm = tf.function(solvers.min_norm, autograph=False)
equal_projections = tf.function(solvers.equal_projections, autograph=False)
conflict_averse = tf.function(solvers.conflict_averse, autograph=False)
mirror_ascent = tf.function(solvers.mirror_ascent, autograph=False)

SIZES = (2, 3, 8, 32)
DTYPES = (np.float32, np.float64)


def vectors(n, rank, seed=0, spread=0.0):
    """``[n, 4n]`` of a rank, rows scaled from ``10**-spread`` to ``10**spread``."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, 4 * n)) / np.sqrt(rank)
    return found * np.logspace(-spread, spread, n)[:, None]


def gramian(matrix, dtype=np.float64):
    return tf.constant((matrix @ matrix.T).astype(dtype))


def matrices():
    """Gram matrices of all sizes, ranks and scales."""
    for n in SIZES:
        for rank, spread in itertools.product(sorted({1, 2, n // 2, n}), (0, 6)):
            yield pytest.param(vectors(n, rank, spread=spread), id=f"{n}-rank{rank}-1e{spread}")


every = pytest.mark.parametrize("matrix", list(matrices()))
both = pytest.mark.parametrize("dtype", DTYPES)


@both
@pytest.mark.parametrize("spread", [0, 6])
@pytest.mark.parametrize("n", SIZES)
def test_bargaining_solves_its_equation(n, spread, dtype):
    matrix = gramian(vectors(n, n, spread=spread), dtype)
    alpha = bargaining(matrix).numpy()
    residual = np.abs(alpha * (matrix.numpy().astype(float) @ alpha) - 1).max()
    assert alpha.dtype == dtype
    assert residual <= (1e-3 if dtype == np.float32 else 1e-9)
    assert (alpha > 0).all()


def test_bargaining_of_two_has_a_closed_form():
    for cosine in (-0.9, -0.3, 0.0, 0.5, 0.99):
        lengths = np.array([3.0, 0.01])
        matrix = np.outer(lengths, lengths) * np.array([[1, cosine], [cosine, 1]])
        expected = 1 / (lengths * np.sqrt(1 + cosine))
        np.testing.assert_allclose(bargaining(tf.constant(matrix)), expected, rtol=1e-8)


@every
@both
def test_everything_is_finite(matrix, dtype):
    for scale in (1e-6, 1, 1e6) if np.abs(matrix).max() < 1e3 else (1,):
        given = gramian(scale * matrix, dtype)
        for solve in (bargaining, min_norm, equal_projections):
            assert np.isfinite(solve(given)).all()
        assert np.isfinite(conflict_averse(given, tf.constant(0.5))).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "matrix",
    [np.zeros((3, 3)), np.diag([1.0, 0, 2]), np.array([[1.0, -1], [-1, 1]])],
    ids=["zero", "one zero", "opposed"],
)
def test_zero_and_opposed_vectors_give_finite_weights(matrix, dtype):
    given = tf.constant(matrix.astype(dtype))
    for solve in (bargaining, min_norm, equal_projections):
        assert np.isfinite(solve(given)).all()
    assert np.isfinite(conflict_averse(given, tf.constant(0.4))).all()


@every
@both
def test_min_norm_satisfies_its_kkt_conditions(matrix, dtype):
    weights = min_norm(gramian(matrix, dtype)).numpy().astype(float)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(), 1, atol=1e-6)
    combined = weights @ matrix
    lengths = np.linalg.norm(matrix, axis=1)
    # No vector projects on the combination less than the combination itself; none that is used
    # projects more. In the units of the shortest vector, which bounds the smallest norm.
    slack = (matrix @ combined - combined @ combined) / lengths / lengths.min()
    tolerance = 2e-3 if dtype == np.float32 else 1e-6
    assert slack.min() >= -tolerance
    assert np.abs(slack * weights * lengths / lengths.min()).max() <= tolerance


def test_min_norm_of_two_has_a_closed_form():
    for seed, (a, b) in itertools.product(range(5), ((1, 1), (1, 1e3), (1e-3, 1))):
        first, second = np.random.default_rng(seed).normal(size=(2, 5)) * [[a], [b]]
        share = (second - first) @ second / ((first - second) @ (first - second))
        expected = np.clip([share, 1 - share], 0, 1)
        found = min_norm(gramian(np.stack([first, second])))
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("spread", [0, 3])
@pytest.mark.parametrize("n", SIZES)
def test_equal_projections_are_equal(n, spread):
    matrix = vectors(n, n, spread=spread)
    weights = equal_projections(gramian(matrix)).numpy()
    projections = matrix @ (weights @ matrix) / np.linalg.norm(matrix, axis=1)
    np.testing.assert_allclose(projections, projections[0], rtol=1e-6)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)


@pytest.mark.parametrize("c", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("n", SIZES)
def test_conflict_averse_is_optimal(n, c):
    """Its duality gap is nothing: the worst improvement equals the dual's value."""
    matrix = vectors(n, n, seed=1)
    mean = matrix.mean(0)
    direction = conflict_averse(gramian(matrix), tf.constant(c, tf.float64)).numpy() @ matrix
    added = direction - mean
    np.testing.assert_allclose(np.linalg.norm(added), c * np.linalg.norm(mean), rtol=1e-5)
    worst = (matrix @ direction).min()
    # The dual bounds the worst improvement from above for any point of the simplex; the one
    # behind the solution lies in the direction of what was added.
    weights = conflict_averse(gramian(matrix), tf.constant(c, tf.float64)).numpy() - 1 / n
    combined = weights / weights.sum() @ matrix
    dual = combined @ mean + c * np.linalg.norm(mean) * np.linalg.norm(combined)
    assert weights.min() >= -1e-9
    np.testing.assert_allclose(worst, dual, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("scale", [1e-6, 1, 1e6, 1e30])
@pytest.mark.parametrize("radius", [0.0, 0.05, 0.3, 10.0])
@pytest.mark.parametrize("n", SIZES)
def test_mirror_ascent_stays_inside_its_ball(n, radius, scale):
    rates = scale * np.random.default_rng(n).normal(size=n)
    p = solvers.shares(tf.constant(np.random.default_rng(n + 1).uniform(0.9, 1.1, n)))
    found = mirror_ascent(
        p, tf.constant(rates), tf.constant(0.5), tf.constant(radius, tf.float64)
    ).numpy()
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-12)
    assert np.sum(found * np.log(n * found)) <= radius + 1e-9
    assert (found > 0).all()
    if radius == 10.0 and scale == 1:  # the ball is larger than the simplex
        expected = p * np.exp(0.5 * rates)
        np.testing.assert_allclose(found, expected / np.sum(expected), rtol=1e-9)


def test_mirror_ascent_solves_its_problem():
    """The step maximises η r·q − KL(q‖p) over the ball."""
    rng = np.random.default_rng(5)
    p, rates, step, radius = np.full(3, 1 / 3), np.array([1.0, 2.0, 4.0]), 1.0, 0.1

    def value(q):
        return step * rates @ q - np.sum(q * np.log(q / p))

    found = mirror_ascent(tf.constant(p), rates, step, radius).numpy()
    for _ in range(2000):
        q = rng.dirichlet(np.ones(3))
        if np.sum(q * np.log(3 * q)) <= radius:
            assert value(q) <= value(found) + 1e-9


@pytest.mark.parametrize("solve", ["bargaining", "min_norm", "equal_projections"])
def test_solvers_run_in_a_compiled_graph(solve):
    given = gramian(vectors(5, 5), np.float32)
    compiled = tf.function(getattr(solvers, solve), jit_compile=True)
    np.testing.assert_allclose(compiled(given), getattr(solvers, solve)(given), rtol=1e-4)


def test_permuted_tasks_give_permuted_weights():
    matrix, order = vectors(6, 6), np.random.default_rng(3).permutation(6)
    for solve in (bargaining, min_norm, equal_projections):
        one, other = solve(gramian(matrix)).numpy(), solve(gramian(matrix[order])).numpy()
        np.testing.assert_allclose(one[order], other, rtol=1e-5, atol=1e-8)
