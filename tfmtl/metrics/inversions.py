"""How many pairs are out of order, without looking at pairs."""

from __future__ import annotations

import tensorflow as tf


def count(permutation) -> tf.Tensor:
    """For each number how many larger ones come before it.

    Sorts by one bit more of the numbers at a time, from the highest: within numbers that agree in
    the bits so far, one whose next bit is 0 comes after as many larger ones as have had a 1 there.
    O(n log n) operations and O(n) memory. A block of numbers that agree in the high bits starts at
    the place of its smallest one, because no number is missing.

    Args:
        permutation: int32 ``[n]``, of 0 to n - 1.

    Returns:
        int32 ``[n]``, the count for 0 first.
    """
    size = tf.size(permutation)
    bits = tf.math.log(tf.cast(tf.maximum(size, 2), tf.float64)) / tf.math.log(
        tf.constant(2.0, tf.float64)
    )

    def step(bit, numbers, counts):
        high = tf.bitwise.left_shift(tf.ones_like(bit), bit)
        start = tf.bitwise.bitwise_and(numbers, -2 * high)
        is_one = tf.bitwise.bitwise_and(numbers, high) > 0
        ones = tf.cumsum(tf.cast(is_one, tf.int32), exclusive=True)
        ones -= tf.gather(ones, start)
        zeros = tf.range(size) - start - ones
        place = start + tf.where(is_one, high + ones, zeros)
        counts += tf.where(is_one, tf.zeros_like(ones), ones)
        columns = tf.scatter_nd(place[:, tf.newaxis], tf.stack([numbers, counts], 1), [size, 2])
        columns = tf.ensure_shape(columns, [permutation.shape[0], 2])
        return bit - 1, columns[:, 0], columns[:, 1]

    # One bit too many changes nothing, where the logarithm is rounded up.
    state = (tf.cast(bits, tf.int32), permutation, tf.zeros_like(permutation))
    return tf.while_loop(lambda bit, *_: bit >= 0, step, state)[2]
