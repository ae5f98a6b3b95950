"""Losses of pairs and their gradient at once, a tile of pairs after the other.

A tile holds for some higher items the pairs with a window of lower ones. Only tiles with pairs in
them are visited, and what one needs is gone when the next one is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tfmtl.losses.lists import Pairs, select, size_of

#: How many pairs are computed at once: few enough for the processor's cache, many enough that
#: the operations' fixed cost does not show.
CELLS = 2**17
#: Higher items that share their windows, and lower items in a window. They may be sparse among
#: those: measured to be a good compromise from one higher item a list to all of them.
HIGHER, WINDOW = 4, 64


class Sample(NamedTuple):
    """A systematic sample of ``size`` lower items for each higher one.

    Of n lower items those numbered ``(c n + start) // size`` for c = 0, 1, ..., ``size`` - 1: with
    a uniform start in {0, ..., n - 1} each has the same chance. All, where n is at most ``size``.

    Attributes:
        starts: int32 ``[items]``.
        size: at least 1.
    """

    starts: tf.Tensor
    size: int


class Gains(NamedTuple):
    """What a swap of two items would change: ``(gain_i - gain_j) |discount_i - discount_j|``.

    Attributes:
        gains: float32 ``[items]``.
        discounts: float32 ``[items]``.
    """

    gains: tf.Tensor
    discounts: tf.Tensor


def pair_sums(
    pair_loss: Callable[[tf.Tensor], tf.Tensor],
    scores,
    pairs: Pairs,
    weights=None,
    gains: Gains | None = None,
    sample: Sample | None = None,
):
    """The summed loss of each item's pairs as the higher one, and the gradient of all.

    Args:
        pair_loss: differences of scores to losses, elementwise.
        scores: float32 ``[items]``, in sorted order.
        pairs: which lower items are paired with each.
        weights: float32 ``[items]``, of a pair's higher item.
        gains: multiply each pair by what its swap would change.
        sample: take some of the lower items only.

    Returns:
        ``(losses, gradient)``, each float32 ``[items]`` in sorted order. The gradient is that of
        the sum of ``losses`` with respect to ``scores``; ``weights`` and ``gains`` are constants.
    """
    items = size_of(scores, 0)
    if isinstance(items, int) and items == 0:
        return tf.zeros_like(scores), tf.zeros_like(scores)
    higher, window = (HIGHER, WINDOW) if sample is None else (1, 1)

    # Blocks of higher items, those of one list side by side.
    compact = tf.argsort(
        tf.cast(pairs.ends > pairs.begins, tf.int32), direction="DESCENDING", stable=True
    )
    # An item that there is not has no lower one: it begins and ends at 0, as padding here does.
    block_items = _rows(compact, higher, beyond=items)
    table = [tf.pad(each, [[0, 1]]) for each in (pairs.begins, pairs.ends)]
    begins, ends = (tf.gather(each, block_items) for each in table)
    some = ends > begins
    nearest = tf.where(some, begins, tf.fill(tf.shape(begins), tf.int32.max))
    nearest = tf.reduce_min(nearest, axis=1) // window
    if sample is None:
        farthest = tf.reduce_max(tf.where(some, ends - 1, tf.zeros_like(ends)), axis=1) // window
        turns = tf.maximum(farthest - nearest + 1, 0)
    else:
        turns = tf.minimum((ends - begins)[:, 0], sample.size)

    # Tiles of blocks, from those whose lower items reach over most windows to those with none.
    longest = tf.argsort(turns, direction="DESCENDING", stable=True)
    side = CELLS // (higher * window)
    count = size_of(turns, 0)
    side = min(side, count) if isinstance(count, int) else tf.minimum(side, count)
    longest = _rows(longest, side, beyond=count)
    origins = tf.gather(tf.pad(block_items, [[0, 1], [0, 0]], constant_values=items), longest)
    nearest = tf.gather(tf.pad(nearest, [[0, 1]]), longest)
    turns = tf.gather(tf.pad(turns, [[0, 1]]), longest)
    begins, ends = (tf.gather(each, origins) for each in table)

    def of_higher(values):
        return tf.gather(tf.pad(values, [[0, 1]]), origins)[..., tf.newaxis]

    if sample is None:
        stretch, shift, size = tf.ones_like(turns), tf.zeros_like(turns), 1
    else:
        size = sample.size
        lower = (ends - begins)[..., 0]
        stretch = tf.maximum(lower, size)
        shift = tf.where(lower > size, of_higher(sample.starts)[..., 0, 0], tf.zeros_like(lower))
    windows = _rows(scores, window)
    last = size_of(windows, 0) - 1
    high_scores = of_higher(scores)
    high_weights = None if weights is None else of_higher(weights)
    if gains is not None:
        high_gains, high_discounts = of_higher(gains.gains), of_higher(gains.discounts)
        low_gains, low_discounts = _rows(gains.gains, window), _rows(gains.discounts, window)
    lanes = tf.range(window)
    # Behind the last tile stands one that has nothing left to do.
    reach = tf.concat([turns[:, 0], [0]], axis=0)

    def busy(turn, tile, *sums):
        return tf.gather(reach, tile) > turn

    def step(turn, tile, losses, high_slopes, low_slopes):
        def at(values):
            return tf.gather(values, tile)

        rows = at(nearest) + (turn * at(stretch) + at(shift)) // size
        places = (rows[:, tf.newaxis] * window + lanes)[:, tf.newaxis]
        rows = tf.clip_by_value(rows, 0, last)

        def low(values):
            return tf.gather(values, rows)[:, tf.newaxis]

        counted = (places >= at(begins)[..., tf.newaxis]) & (places < at(ends)[..., tf.newaxis])
        difference = at(high_scores) - low(windows)
        zero = tf.zeros_like(difference)
        with tf.GradientTape() as tape:
            tape.watch(difference)
            loss = pair_loss(difference)
        slope = tape.gradient(loss, difference)
        # Whatever other lists' scores are, they reach neither the loss nor its slope.
        loss, slope = select(counted, loss, zero), select(counted, slope, zero)
        factor = None if high_weights is None else at(high_weights)
        if gains is not None:
            change = (at(high_gains) - low(low_gains)) * tf.abs(
                at(high_discounts) - low(low_discounts)
            )
            factor = change if factor is None else factor * change
        if factor is not None:
            factor = tf.where(counted, factor, zero)
            loss, slope = loss * factor, slope * factor
        losses = tf.tensor_scatter_nd_add(losses, [[tile]], [tf.reduce_sum(loss, axis=2)])
        high_slopes = tf.tensor_scatter_nd_add(high_slopes, [[tile]], [tf.reduce_sum(slope, 2)])
        low_slopes = tf.tensor_scatter_nd_sub(
            low_slopes, rows[:, tf.newaxis], tf.reduce_sum(slope, axis=1)
        )
        more = tf.gather(reach, tile + 1) > turn
        return (
            tf.where(more, turn, turn + 1),
            tf.where(more, tile + 1, 0),
            losses,
            high_slopes,
            low_slopes,
        )

    empty = tf.zeros_like(high_scores[..., 0])
    _, _, losses, high_slopes, low_slopes = tf.while_loop(
        busy, step, [0, 0, empty, empty, tf.zeros_like(windows)], parallel_iterations=1
    )

    def back(values, base):
        base = tf.pad(base, [[0, 1]])
        places = tf.reshape(origins, [-1, 1])
        return tf.tensor_scatter_nd_add(base, places, tf.reshape(values, [-1]))[:-1]

    gradient = back(high_slopes, tf.reshape(low_slopes, [-1])[:items])
    return back(losses, tf.zeros_like(scores)), gradient


def _rows(values, width, beyond=0):
    """``[n]`` as ``[rows, width]``, with ``beyond`` behind the last."""
    missing = -size_of(values, 0) % width
    return tf.reshape(tf.pad(values, [[0, missing]], constant_values=beyond), [-1, width])
