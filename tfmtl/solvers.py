"""Small problems over the tasks' Gram matrix, solved inside the graph.

Every function takes tensors of one floating dtype, computes in float64 (the matrices are at most
64 × 64), and returns the dtype it was given. All of it compiles with XLA.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

#: Newton steps of the bargaining problem and of the interior-point methods; far above need.
MOST_STEPS = 200


def _in_float64(solve):
    """Compute in float64, return the dtype of the first argument."""

    @functools.wraps(solve)
    def solved(matrix, *arguments):
        matrix = tf.convert_to_tensor(matrix)
        numbers = [
            tf.cast(argument if tf.is_tensor(argument) else np.float64(argument), tf.float64)
            for argument in arguments
        ]
        rounding = float(np.finfo(matrix.dtype.as_numpy_dtype).eps)
        found = solve(tf.cast(matrix, tf.float64), *numbers, rounding=rounding)
        return tf.cast(found, matrix.dtype)

    del solved.__wrapped__  # tf.function would take its arguments for those of this function
    return solved


def _normalise(gramian, rounding):
    """The cosines, lifted above the matrix' rounding, the norms' reciprocals, which are zero.

    A zero vector gets the row of the identity and a reciprocal of 0.
    """
    size = gramian.shape[0] or tf.shape(gramian)[0]
    lengths = tf.sqrt(tf.maximum(tf.linalg.diag_part(gramian), 0))
    inverse = tf.math.divide_no_nan(tf.ones_like(lengths), lengths)
    cosines = tf.clip_by_value(gramian * inverse[:, None] * inverse[None, :], -1, 1)
    cosines = 0.5 * (cosines + tf.transpose(cosines))
    ridge = 8 * rounding * tf.cast(size, gramian.dtype)
    return tf.linalg.set_diag(cosines, tf.fill([size], 1 + ridge)), inverse


def _solve(matrix, vector):
    """``matrix⁻¹ vector`` for a positive definite matrix."""
    return tf.linalg.cholesky_solve(tf.linalg.cholesky(matrix), vector[:, None])[:, 0]


@_in_float64
def cosines(gramian, *, rounding):
    """Cosines of the angles between the vectors; 0 beside a zero vector.

    Args:
        gramian: ``[n, n]``.

    Returns:
        ``[n, n]`` with ones on the diagonal.
    """
    found, _ = _normalise(gramian, rounding)
    return tf.linalg.set_diag(found, tf.ones_like(found[0]))


@_in_float64
def bargaining(gramian, *, rounding):
    r"""The :math:`\alpha > 0` with :math:`G\alpha = 1/\alpha`, the Nash bargaining solution.

    It is the unique minimiser of :math:`\tfrac12\alpha^\top G\alpha - \sum_i\log\alpha_i`, a
    self-concordant function, found by damped Newton steps on the cosines.

    Args:
        gramian: ``[n, n]``, positive semidefinite. Where it is singular, as with opposed vectors,
            the solution is that of cosines with a slightly larger diagonal.

    Returns:
        ``[n]``; 0 for a zero vector.
    """
    matrix, inverse = _normalise(gramian, rounding)

    def wanting(step, scaled, decrement):
        return (step < MOST_STEPS) & (decrement > 1e-13)

    def newton(step, scaled, decrement):
        slope = tf.linalg.matvec(matrix, scaled) - 1 / scaled
        change = _solve(matrix + tf.linalg.diag(1 / scaled**2), slope)
        decrement = tf.sqrt(tf.maximum(tf.reduce_sum(slope * change), 0))
        rate = tf.where(decrement > 0.25, 1 / (1 + decrement), tf.ones_like(decrement))
        return step + 1, tf.maximum(scaled - rate * change, 1e-3 * scaled), decrement

    total = tf.reduce_sum(matrix)
    start = tf.sqrt(tf.cast(tf.shape(matrix)[0], matrix.dtype) / tf.maximum(total, 1e-3))
    start = start * tf.ones_like(inverse)
    _, scaled, _ = tf.while_loop(
        wanting, newton, (0, start, tf.constant(np.inf, tf.float64)), maximum_iterations=MOST_STEPS
    )
    return scaled * inverse


@_in_float64
def min_norm(gramian, *, rounding):
    r"""The convex combination of the vectors with the smallest norm.

    With :math:`v_i = w_i\|g_i\|` up to a factor, :math:`v` minimises
    :math:`\tfrac12 v^\top C v - \sum_i v_i/\|g_i\|` over :math:`v \ge 0`, where :math:`C` has the
    cosines: a problem that does not know the vectors' scales. Two vectors have a closed form; more
    are left to a primal-dual interior-point method.

    Args:
        gramian: ``[n, n]``, positive semidefinite.

    Returns:
        ``[n]``, at least 0, of sum 1. A zero vector takes all.
    """
    matrix, inverse = _normalise(gramian, rounding)
    lengths = tf.sqrt(tf.maximum(tf.linalg.diag_part(gramian), 0))
    zero = tf.cast(tf.equal(lengths, 0), gramian.dtype)
    target = tf.math.divide_no_nan(inverse, tf.reduce_max(inverse))
    if gramian.shape[0] == 1:
        found = tf.ones_like(target)
    elif gramian.shape[0] == 2:
        # Minimise over the segment: the stationary point, cut to it.
        other = tf.reverse(target, [0])
        found = tf.nn.relu(target - tf.clip_by_value(matrix[0, 1], -1, 1) * other)
    else:
        found = _non_negative(matrix, target)
    weights = shares(found * inverse)
    return tf.where(tf.reduce_sum(zero) > 0, shares(zero), weights)


def _non_negative(matrix, target):
    """The minimiser of ``½ v·matrix v − target·v`` over ``v >= 0``, by interior points."""

    def wanting(step, v, s, gap):
        return (step < MOST_STEPS) & (gap > 1e-15)

    def advance(step, v, s, gap):
        residual = tf.linalg.matvec(matrix, v) - target - s
        centre = 0.1 * tf.reduce_mean(v * s)
        right = -residual + (centre - v * s) / v
        dv = _solve(matrix + tf.linalg.diag(s / v), right)
        ds = (centre - v * s - s * dv) / v
        longest = tf.reduce_max(tf.concat([-dv / v, -ds / s], 0))
        length = tf.minimum(tf.ones([], v.dtype), 0.99 / tf.maximum(longest, 1e-300))
        v, s = v + length * dv, s + length * ds
        residual = tf.linalg.matvec(matrix, v) - target - s
        gap = tf.reduce_max(tf.abs(residual)) + tf.reduce_mean(v * s)
        return step + 1, v, s, gap

    ones = tf.ones_like(target)
    start = (0, ones, ones, tf.constant(np.inf, tf.float64))
    return tf.while_loop(wanting, advance, start, maximum_iterations=MOST_STEPS)[1]


@_in_float64
def equal_projections(gramian, *, rounding):
    r"""The weights of sum 1 whose combination projects equally onto every vector.

    :math:`\alpha_i \propto (C^{-1}\mathbf 1)_i / \|g_i\|` with the cosines :math:`C`.

    Args:
        gramian: ``[n, n]``, positive semidefinite.

    Returns:
        ``[n]``, of either sign; 0 for a zero vector. Where their sum vanishes, their absolute
        values sum to 1 instead.
    """
    matrix, inverse = _normalise(gramian, rounding)
    known = tf.cast(inverse > 0, inverse.dtype)
    found = known * _solve(matrix, known) * tf.math.divide_no_nan(inverse, tf.reduce_max(inverse))
    total, size = tf.reduce_sum(found), tf.reduce_sum(tf.abs(found))
    total = tf.where(tf.abs(total) > 1e-3 * size, total, size)
    return tf.math.divide_no_nan(found, total)


@_in_float64
def conflict_averse(gramian, radius, *, rounding):
    r"""What CAGrad adds to the mean gradient :math:`g_0`, as weights.

    The dual of :math:`\max_d \min_i \langle g_i, d\rangle` under
    :math:`\|d - g_0\| \le c\|g_0\|`: the :math:`w` of the simplex that minimises
    :math:`\langle g_w, g_0\rangle + c\|g_0\|\|g_w\|`, :math:`g_w = \sum_i w_i g_i`; then
    :math:`d = g_0 + c\|g_0\| g_w/\|g_w\|`.

    Args:
        gramian: ``[n, n]``, positive semidefinite.
        radius: :math:`c`, a scalar.

    Returns:
        ``[n]``: the coefficients of :math:`d` in the :math:`g_i`.
    """
    size = gramian.shape[0] or tf.shape(gramian)[0]
    scale = tf.reduce_max(tf.linalg.diag_part(gramian))
    matrix = tf.math.divide_no_nan(gramian, scale)
    matrix = matrix + tf.eye(size, dtype=matrix.dtype) * rounding
    mean = tf.reduce_mean(matrix, axis=1)
    length = radius * tf.sqrt(tf.maximum(tf.reduce_mean(mean), 0))

    def derivatives(w):
        product = tf.linalg.matvec(matrix, w)
        norm = tf.sqrt(tf.maximum(tf.reduce_sum(w * product), 1e-30))
        slope = mean + length * product / norm
        outer = product[:, None] * product[None, :] / norm**2
        return slope, length * (matrix - outer) / norm

    found = on_simplex(derivatives, mean)
    product = tf.linalg.matvec(matrix, found)
    norm = tf.sqrt(tf.maximum(tf.reduce_sum(found * product), 0))
    return (
        tf.ones_like(found) / tf.cast(size, found.dtype)
        + tf.math.divide_no_nan(length, norm) * found
    )


def on_simplex(derivatives: Callable, like):
    """The minimiser of a convex function over the simplex, by a primal-dual interior point method.

    Args:
        derivatives: gives gradient ``[n]`` and Hessian ``[n, n]`` at a point of the simplex.
        like: a float64 tensor ``[n]``.

    Returns:
        ``[n]``, float64, at least 0, of sum 1.
    """
    size = tf.cast(tf.shape(like)[0], like.dtype)
    ones = tf.ones_like(like)

    def wanting(step, w, s, error):
        return (step < MOST_STEPS) & (error > 1e-11) & (tf.reduce_mean(w * s) > 1e-20)

    def advance(step, w, s, error):
        slope, curvature = derivatives(w)
        multiplier = tf.reduce_sum(w * (slope - s))
        error = tf.reduce_max(tf.abs(slope - s - multiplier)) + tf.reduce_max(w * s)
        centre = 0.1 * tf.reduce_mean(w * s)
        # A step of sum 0 does not see a constant that is added to the curvature, which would
        # else be singular in the direction of `w` for a function that is homogeneous.
        matrix = curvature + tf.reduce_mean(tf.linalg.diag_part(curvature)) + tf.linalg.diag(s / w)
        # Of the two equations for the step and the multiplier of the sum, the second is
        # eliminated.
        first = _solve(matrix, centre / w - slope)
        second = _solve(matrix, ones)
        dw = first - second * tf.reduce_sum(first) / tf.reduce_sum(second)
        ds = (centre - w * s - s * dw) / w
        longest = tf.reduce_max(tf.concat([-dw / w, -ds / s], 0))
        length = tf.minimum(tf.ones([], w.dtype), 0.99 / tf.maximum(longest, 1e-300))
        w, s = w + length * dw, s + length * ds
        return step + 1, w / tf.reduce_sum(w), s, error

    start = (0, ones / size, ones, tf.constant(np.inf, tf.float64))
    return tf.while_loop(wanting, advance, start, maximum_iterations=MOST_STEPS)[1]


@_in_float64
def mirror_ascent(p, rates, step, radius, *, rounding):
    r"""One step of mirror ascent with the entropy, inside a ball around the uniform distribution.

    :math:`q_i \propto \exp\big((\log p_i + \eta r_i)/(1 + \lambda)\big)` with the least
    :math:`\lambda \ge 0` for which :math:`\sum_i q_i\log(n q_i)` is at most the radius (BanditMTL,
    Mao et al., 2021; EMTL, equation 12), found among many at once in an interval that shrinks.

    Args:
        p: ``[n]``, of sum 1.
        rates: ``[n]``, finite, of any size and sign.
        step: :math:`\eta`, a scalar.
        radius: of the ball, a scalar of at least 0.

    Returns:
        ``[n]``, above 0, of sum 1.
    """
    size = tf.cast(tf.shape(p)[0], p.dtype)
    logits = tf.math.log(tf.maximum(p, 1e-30)) + step * rates
    logits = logits - tf.reduce_max(logits)

    def at(exponents):
        return tf.nn.log_softmax(logits * tf.exp(-exponents)[:, None])

    def narrow(low, high):
        tried = low + (high - low) * np.linspace(0, 1, 33)
        logs = at(tried)
        inside = tf.reduce_sum(tf.exp(logs) * logs, axis=1) + tf.math.log(size) <= radius
        low, high = tf.where(inside, low, tried), tf.where(inside, tried, high)
        return tf.reduce_max(low), tf.reduce_min(high)

    ends = (tf.zeros([], p.dtype), tf.math.log1p(-tf.reduce_min(logits)) + 40.0)
    _, exponent = tf.while_loop(lambda low, high: True, narrow, ends, maximum_iterations=9)
    return shares(tf.maximum(tf.exp(at(exponent[None])[0]), 1e-30))


def shares(values):
    """Non-negative values divided by their sum; all equal where that is 0."""
    total = tf.reduce_sum(values)
    even = tf.ones_like(values) / tf.cast(tf.size(values), values.dtype)
    return tf.where(total > 0, tf.math.divide_no_nan(values, total), even)
