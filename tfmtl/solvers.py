"""Small problems over the tasks' Gram matrix, solved inside the graph.

Every function takes tensors of one floating dtype, computes in float64 (the matrices are at most
64 × 64), and returns the dtype it was given. All of it compiles with XLA.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

#: Newton steps of the interior-point methods; above need.
MOST_STEPS = 60


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
    """The cosines, lifted above the matrix' rounding, and the norms' reciprocals.

    A zero vector gets the row of the identity and a reciprocal of 0. What is not finite counts as
    0: the solver of linear equations would stop the program at it.
    """
    size = gramian.shape[0] or tf.shape(gramian)[0]
    squares = tf.linalg.diag_part(gramian)
    lengths = tf.sqrt(tf.where((squares > 0) & (squares < np.inf), squares, 0))
    inverse = tf.math.reciprocal_no_nan(lengths)
    cosines = gramian * inverse[:, None] * inverse[None, :]
    cosines = tf.where(tf.math.is_finite(cosines), tf.clip_by_value(cosines, -1, 1), 0)
    cosines = 0.5 * (cosines + tf.transpose(cosines))
    ridge = 8 * rounding * tf.cast(size, gramian.dtype)
    return tf.linalg.set_diag(cosines, tf.fill([size], 1 + ridge)), inverse


def _solve(matrix, vector):
    """``matrix⁻¹ vector``; compiled by XLA, several times as fast as by Cholesky's factors."""
    return tf.linalg.solve(matrix, vector[:, None])[:, 0]


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


def _step(matrix, v, s, residual, centre):
    """A step of Newton's method towards ``v s = centre`` and a ``residual`` of 0, where that is
    ``matrix v - s`` without a target, cut to leave ``v`` and ``s`` above 0.

    Returns:
        ``v``, ``s``, the part of the step that was taken, and the largest relative change of a
        number in the whole step.
    """
    missing = centre / v - s
    dv = _solve(matrix + tf.linalg.diag(s / v), missing - residual)
    ds = missing - s * dv / v
    change = tf.concat([dv / v, ds / s], 0)
    length = 0.95 / tf.maximum(-tf.reduce_min(change), 0.95)
    return v + length * dv, s + length * ds, length, tf.reduce_max(tf.abs(change))


@_in_float64
def bargaining(gramian, *, rounding):
    r"""The :math:`\alpha > 0` with :math:`G\alpha = 1/\alpha`, the Nash bargaining solution.

    It is the unique minimiser of :math:`\tfrac12\alpha^\top G\alpha - \sum_i\log\alpha_i`. Two
    vectors have a closed form, :math:`\alpha_i = 1/(\|g_i\|\sqrt{1 + \cos})`; for more the pair
    :math:`s = C v`, :math:`v_i s_i = 1` of the cosines :math:`C` is solved by Newton's method.

    Args:
        gramian: ``[n, n]``, positive semidefinite. Where it is singular, as with opposed vectors,
            the solution is that of cosines with a slightly larger diagonal.

    Returns:
        ``[n]``; 0 for a zero vector.
    """
    matrix, inverse = _normalise(gramian, rounding)
    if gramian.shape[0] == 2:
        return inverse * tf.math.rsqrt(tf.reduce_sum(matrix, axis=1))

    def wanting(v, s, change, before):
        # Near the solution a change is about the square of the one before, until rounding.
        return (change > 1e-9) & ((change < before) | (change > 0.1))

    def newton(v, s, change, before):
        residual = tf.linalg.matvec(matrix, v) - s
        v, s, _, now = _step(matrix, v, s, residual, 1.0)
        return v, s, now, change

    size = tf.cast(tf.shape(matrix)[0], matrix.dtype)
    start = tf.sqrt(size / tf.reduce_sum(matrix)) * tf.ones_like(inverse)
    far = tf.constant(np.inf, tf.float64)
    v, *_ = tf.while_loop(
        wanting, newton, (start, 1 / start, far, far), maximum_iterations=MOST_STEPS
    )
    return v * inverse


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
    zero = tf.cast(tf.equal(inverse, 0), gramian.dtype)
    target = tf.math.divide_no_nan(inverse, tf.reduce_max(inverse)) + zero
    if gramian.shape[0] == 1:
        found = tf.ones_like(target)
    elif gramian.shape[0] == 2:
        # Minimise over the segment: the stationary point, cut to it.
        other = tf.reverse(target, [0])
        found = tf.nn.relu(target - tf.clip_by_value(matrix[0, 1], -1, 1) * other)
    else:

        def aim(v, product):
            return tf.reduce_sum(target * v) / tf.reduce_sum(v * product), target

        found = _non_negative(matrix, aim, tf.ones_like(target))
    weights = shares(found * inverse)
    return tf.where(tf.reduce_sum(zero) > 0, shares(zero), weights)


def _non_negative(matrix, aim: Callable, start):
    """The ``v >= 0`` with ``s = matrix v - target >= 0`` and ``v s = 0``, by interior points.

    For a constant target it minimises ``½ v·matrix v − target·v`` over ``v >= 0``.

    Args:
        matrix: ``[n, n]``, positive definite.
        aim: gives, for ``v`` and ``matrix v``, the best factor on ``v`` and the target there.
        start: ``[n]``, above 0.

    Returns:
        ``[n]``, above 0, up to a factor.
    """

    def wanting(v, s, centring, gap):
        return gap > 1e-12

    def advance(v, s, centring, gap):
        product = tf.linalg.matvec(matrix, v)
        factor, target = aim(v, product)
        v, product = factor * v, factor * product
        residual = product - target - s
        mean = tf.reduce_mean(v * s)
        gap = (tf.reduce_max(tf.abs(residual)) + mean) / tf.maximum(tf.reduce_max(v), 1)
        v, s, length, _ = _step(matrix, v, s, residual, centring * mean)
        return v, s, tf.clip_by_value(1 - length, 0.01, 0.5), gap

    start = (start, tf.ones_like(start), tf.constant(0.1, tf.float64), np.float64(np.inf))
    return tf.while_loop(wanting, advance, start, maximum_iterations=MOST_STEPS)[0]


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

    The solution of :math:`\max_d \min_i \langle g_i, d\rangle` under
    :math:`\|d - g_0\| \le c\|g_0\|` is :math:`d = g_0 + \sum_i u_i g_i`, where :math:`u \ge 0` is
    positive for the worst-off tasks alone: with their common improvement :math:`\lambda`,

    .. math:: s_i = \langle g_i, d\rangle - \lambda \ge 0, \qquad u_i s_i = 0, \qquad
              \Big\|\sum_i u_i g_i\Big\| = c\|g_0\|.

    It is the problem of :func:`min_norm` with a target that :math:`\lambda` moves, and
    :math:`\lambda` is the value of CAGrad's dual, :math:`\langle g_w, g_0\rangle +
    c\|g_0\|\|g_w\|` with :math:`g_w = \sum_i w_i g_i`, at :math:`w = u/\sum_i u_i`: its error is
    the square of that of :math:`u`. Two vectors have a closed form.

    Args:
        gramian: ``[n, n]``, positive semidefinite.
        radius: :math:`c`, a scalar.

    Returns:
        ``[n]``: the coefficients of :math:`d` in the :math:`g_i`.
    """
    matrix, inverse = _normalise(gramian, rounding)
    lengths = tf.math.reciprocal_no_nan(inverse)
    lengths = tf.math.divide_no_nan(lengths, tf.reduce_max(lengths))
    matrix = matrix * lengths[:, None] * lengths[None, :]
    along = tf.reduce_mean(tf.linalg.set_diag(matrix, lengths**2), axis=1)
    # |g_0|, from here on the unit of length; in rounding's reach of 0 it counts as that.
    mean = tf.sqrt(tf.maximum(tf.reduce_mean(along), 1e-12))
    # Opposed and zero vectors leave u open: this takes the smallest.
    matrix = tf.linalg.set_diag(matrix, tf.linalg.diag_part(matrix) + 1e-10)
    along /= mean
    ball = tf.where(radius > 0, radius, 1)  # which vectors it would take matters for none

    even = tf.ones_like(along) / tf.cast(tf.size(along), along.dtype)
    if gramian.shape[0] == 2:
        found = _on_segment(matrix, along, ball)
    else:

        def aim(u, product):
            norm = tf.sqrt(tf.reduce_sum(u * product))
            worst = (tf.reduce_sum(u * along) + ball * norm) / tf.reduce_sum(u)
            return ball / norm, worst - along

        found = _non_negative(matrix, aim, even)
    norm = tf.sqrt(tf.reduce_sum(found * tf.linalg.matvec(matrix, found)))
    return even + radius * mean / norm * found


def _on_segment(matrix, along, ball):
    """The ``w`` of the simplex of two that minimises ``w·along + ball √(w·matrix w)``."""
    square = matrix[0, 0] + matrix[1, 1] - 2 * matrix[0, 1]  # of the segment's length
    nearest = (matrix[1, 1] - matrix[0, 1]) / square
    area = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] ** 2
    slope = along[0] - along[1]
    room = square * (ball**2 * square - slope**2)  # without it, an end is the solution
    shift = slope * tf.sqrt(area / square / tf.maximum(room, 1e-300))
    first = tf.clip_by_value(nearest - shift, 0, 1)
    return tf.stack([first, 1 - first])


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
