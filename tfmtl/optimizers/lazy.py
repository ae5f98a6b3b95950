"""Optimizers whose step costs by the rows of a table that a batch touches, not by the table."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl import compat, rows
from tfmtl.optimizers.updates import formula_of


def steps_by_rows(optimizer) -> bool:
    """Whether an optimizer, or the one behind float16's loss scaling, is a lazy one."""
    return isinstance(compat.unscaled(optimizer), Lazy)


class Lazy(keras.optimizers.Optimizer):
    """What makes an optimizer of Keras lazy: put before it among the bases of a class.

    A gradient that is ``tf.IndexedSlices``, as that of an embedding lookup is, moves the rows it
    names: their slots are read and written, and no other. Dense gradients are left to Keras.
    """

    _left_out = ("amsgrad", "use_ema")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        found = [name for name in self._left_out if getattr(self, name, False)]
        if getattr(self, "gradient_accumulation_steps", None):
            found.append("gradient_accumulation_steps")
        if found:
            raise ValueError(
                f"{type(self).__name__} must be without options that touch every row of a table. "
                f"Received: {found}"
            )

    def update_step(self, gradient, variable, *learning_rate):
        rate = learning_rate[0] if learning_rate else compat.learning_rate(self)
        rate = tf.cast(rate, tf.float32)
        decay = compat.weight_decay(self, variable)
        variable = compat.tf_variable(variable)
        if not isinstance(gradient, tf.IndexedSlices):
            if decay:
                variable.assign_sub(tf.cast(rate * decay, variable.dtype) * variable)
            super().update_step(gradient, variable, *learning_rate)
            return
        gradient = rows.merge(gradient)
        ids, rule = gradient.indices, formula_of(self)
        iteration = tf.cast(compat.tf_variable(self.iterations), tf.float32)
        values = rows.filled(tf.cast(gradient.values, tf.float32), ids)
        step, slots = rule.step(values, rule.read(variable, ids), iteration)
        for name, slot in slots.items():
            rows.put(rule.slot(name, variable), ids, slot)
        start = tf.cast(rows.read(variable, ids), tf.float32)
        if decay:
            start *= 1 - rate * decay
        rows.put(variable, ids, start - rate * step)

    def _apply_weight_decay(self, variables):
        """Nothing: of a table only the rows in a batch decay, each in its step."""

    def _clip_gradients(self, grads):
        # Of equal ids the sum is clipped, and what is left names rows once, as before.
        merged = [rows.merge(g) if isinstance(g, tf.IndexedSlices) else g for g in grads]
        values = [g.values if isinstance(g, tf.IndexedSlices) else g for g in merged]
        return [
            rows.MergedSlices(value, g.indices, g.dense_shape)
            if isinstance(g, tf.IndexedSlices)
            else value
            for g, value in zip(merged, super()._clip_gradients(values), strict=True)
        ]

    def _deduplicate_sparse_grad(self, grads):
        return grads


@keras.saving.register_keras_serializable("tfmtl")
class LazyAdam(Lazy, keras.optimizers.Adam):
    """Adam that leaves alone the rows of a table which a batch does not touch.

    Takes the arguments of ``keras.optimizers.Adam`` and is it for every dense gradient. Of a table
    whose gradient is row-sparse (``tf.IndexedSlices``: what :class:`tfmtl.models.Embedding`,
    the models of :mod:`tfmtl.models` and ``tf.nn.embedding_lookup`` give), only the rows of the
    batch take part. Departs from Adam there: moments of an untouched row do not decay and do not
    move it, so that a rare row takes up the moments where it last stood; the bias correction counts
    all steps. TensorFlow Addons' and PyTorch's (``SparseAdam``) lazy Adam are the same. It wants a
    larger learning rate than Adam; what it loses on KuaiRand is in docs/results.md.

    ``weight_decay`` is that of AdamW and reaches a row when it is touched. Gradients are clipped
    after those of equal ids were added up.

    State is in Keras' slots, of the table's shape: a table takes three times its own memory.

    Raises:
        ValueError: ``amsgrad``, ``use_ema`` or ``gradient_accumulation_steps``, which touch every
            row.
    """

    formula = keras.optimizers.Adam


@keras.saving.register_keras_serializable("tfmtl")
class LazyAdagrad(Lazy, keras.optimizers.Adagrad):
    """AdaGrad in the cost of the rows that a batch touches.

    Takes the arguments of ``keras.optimizers.Adagrad`` and makes the same steps: a row without a
    gradient stays where it is in either. Keras 3's own writes the whole table, and squares
    gradients of equal ids one by one instead of their sum.

    Raises:
        ValueError: ``use_ema`` or ``gradient_accumulation_steps``, which touch every row.
    """

    formula = keras.optimizers.Adagrad
