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


def test_bargaining_of_opposed_vectors_is_that_of_a_larger_diagonal():
    """Two opposed vectors beside a third that is orthogonal to both."""
    alpha = bargaining(gramian(np.array([[1.0, 0], [-1, 0], [0, 1]]), np.float32))
    ridge = 8 * 3 * np.finfo(np.float32).eps
    np.testing.assert_allclose(alpha, [ridge**-0.5, ridge**-0.5, 1], rtol=1e-4)


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
    [
        np.zeros((3, 3)),
        np.diag([1.0, 0, 2]),
        np.array([[1.0, -1], [-1, 1]]),
        np.array([[1.0, -1, 0], [-1, 1, 0], [0, 0, 1]]),
        np.array([[np.inf, 1, 0], [1, 1, 0], [0, 0, 1]]),
        np.full((3, 3), np.nan),
    ],
    ids=["zero", "one zero", "opposed", "opposed beside another", "one infinite", "no numbers"],
)
def test_zero_opposed_and_overflown_vectors_give_finite_weights(matrix, dtype):
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


def improvement(matrix, c, dtype=np.float64):
    """What :func:`conflict_averse` gives: the worst improvement, the dual's value at the point of
    the simplex behind the solution, which bounds every worst improvement from above, the length of
    what is added to the mean, relative to what it may be, and the weights of that.
    """
    mean, n = matrix.mean(0), len(matrix)
    weights = conflict_averse(gramian(matrix, dtype), tf.constant(c, tf.float64)).numpy()
    direction = weights.astype(float) @ matrix
    added = weights.astype(float) - 1 / n
    combined = added / added.sum() @ matrix
    radius = c * np.linalg.norm(mean)
    dual = combined @ mean + radius * np.linalg.norm(combined)
    return (matrix @ direction).min(), dual, np.linalg.norm(direction - mean) / radius, added


@pytest.mark.parametrize("c", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("n", SIZES)
def test_conflict_averse_is_optimal(n, c):
    """Its duality gap is nothing: the worst improvement equals the dual's value."""
    worst, dual, length, added = improvement(vectors(n, n, seed=1), c)
    np.testing.assert_allclose(length, 1, rtol=1e-5)
    assert added.min() >= -1e-9
    np.testing.assert_allclose(worst, dual, rtol=1e-5, atol=1e-7)


@every
@both
@pytest.mark.parametrize("c", [0.4, 2.0])
def test_conflict_averse_is_optimal_whatever_the_rank(matrix, dtype, c):
    """Where the ball reaches a point that helps all or where opposed gradients let none, too."""
    worst, dual, length, _ = improvement(matrix, c, dtype)
    unit = np.linalg.norm(matrix.mean(0)) * np.linalg.norm(matrix, axis=1).max()
    tolerance = 2e-3 if dtype == np.float32 else 2e-5
    assert abs(dual - worst) <= tolerance * unit
    assert length <= 1 + tolerance


@pytest.mark.parametrize("c", [0.1, 0.4, 1.5])
def test_conflict_averse_of_two_is_the_best_point_of_a_segment(c):
    for seed, cosine in itertools.product(range(3), (-0.99, -0.5, 0.0, 0.9)):
        lengths = np.random.default_rng(seed).uniform(0.1, 3, 2)
        angle = np.arccos(cosine)
        matrix = lengths[:, None] * np.array([[1, 0], [cosine, np.sin(angle)]])
        _, dual, _, _ = improvement(matrix, c)
        share = np.linspace(0, 1, 1001)
        tried = np.stack([share, 1 - share], 1) @ matrix
        mean = matrix.mean(0)
        values = tried @ mean + c * np.linalg.norm(mean) * np.linalg.norm(tried, axis=1)
        assert values.min() - 1e-4 <= dual <= values.min() + 1e-9


@pytest.mark.parametrize("solve", ["bargaining", "min_norm", "conflict_averse"])
def test_the_loops_end_by_themselves(solve, monkeypatch):
    """Singular matrices in float32, as in training, do not take the steps that are allowed."""
    arguments = (tf.constant(0.4),) if solve == "conflict_averse" else ()
    opposed = vectors(8, 8)
    opposed[1] = -opposed[0]
    given = [gramian(vectors(n, rank), np.float32) for n in (3, 32) for rank in (1, 2, n)]
    given.append(gramian(opposed, np.float32))
    found = []
    for most in (solvers.MOST_STEPS, 10 * solvers.MOST_STEPS):
        monkeypatch.setattr(solvers, "MOST_STEPS", most)
        solver = getattr(solvers, solve)
        compiled = tf.function(lambda *each, solver=solver: solver(*each), autograph=False)
        found.append([compiled(matrix, *arguments).numpy() for matrix in given])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


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
    divergence = np.sum(found * np.log(n * found))
    assert divergence <= radius + 1e-9
    assert (found > 0).all()
    logits = np.log(p) + 0.5 * rates
    free = np.exp(logits - logits.max()) / np.sum(np.exp(logits - logits.max()))
    if np.sum(free * np.log(np.maximum(n * free, 1e-300))) > radius:  # then it ends at the border
        assert divergence >= radius - 1e-9
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


@pytest.mark.parametrize(
    ("solve", "arguments"),
    [
        ("bargaining", ()),
        ("min_norm", ()),
        ("equal_projections", ()),
        ("conflict_averse", (0.4,)),
        ("mirror_ascent", ([1.0, 2, 3, 4, 5], 0.5, 0.1)),
    ],
)
@pytest.mark.parametrize("n", [2, 5])
def test_solvers_run_in_a_compiled_graph(solve, arguments, n):
    given = gramian(vectors(n, n), np.float32)
    if solve == "mirror_ascent":
        given = tf.fill([n], np.float32(1 / n))
        arguments = (tf.constant(arguments[0][:n]), *arguments[1:])
    solver = getattr(solvers, solve)
    compiled = tf.function(lambda matrix: solver(matrix, *arguments), jit_compile=True)
    np.testing.assert_allclose(compiled(given), solver(given, *arguments), rtol=1e-4)


def test_permuted_tasks_give_permuted_weights():
    matrix, order = vectors(6, 6), np.random.default_rng(3).permutation(6)
    radius = tf.constant(0.4, tf.float64)
    solve_all = (bargaining, min_norm, equal_projections, lambda m: conflict_averse(m, radius))
    for solve in solve_all:
        one, other = solve(gramian(matrix)).numpy(), solve(gramian(matrix[order])).numpy()
        np.testing.assert_allclose(one[order], other, rtol=1e-5, atol=1e-8)
