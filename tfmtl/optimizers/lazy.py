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
        ids, rule = gradient.indices, formula_of(self).of_rows()
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
    r"""Adam that leaves alone the rows of a table which a batch does not touch.

    Takes the arguments of ``keras.optimizers.Adam`` and is it for every dense gradient. Of a table
    whose gradient is row-sparse (``tf.IndexedSlices``: what :class:`tfmtl.models.Embedding`,
    the models of :mod:`tfmtl.models` and ``tf.nn.embedding_lookup`` give), only the rows of the
    batch take part. Departs from Adam there:

    * After a batch Adam goes on moving the rows it touched, for dozens of steps, on what is left of
      their momentum: in all by :math:`\frac{1-\beta_1}{1-\beta_1/\sqrt{\beta_2}} \approx 1`
      times what its second moment alone would make of the gradient. A row that is not touched again
      soon would never make that way. So by default rows have no momentum and make it at once
      (``row_beta_1=0``). ``row_beta_1=None`` has ``beta_1`` for rows too, as TensorFlow Addons' and
      PyTorch's (``SparseAdam``) lazy Adam have it; rare rows then learn about ten times more
      slowly. What either means on real rows is in docs/results.md.
    * The second moment of an untouched row does not decay; the bias correction counts all steps.

    ``weight_decay`` is that of AdamW and reaches a row when it is touched. Gradients are clipped
    after those of equal ids were added up.

    State is in Keras' slots, of the table's shape: a table takes three times its own memory.

    Args:
        row_beta_1: the decay of the first moment of rows, in [0, 1), or ``None`` for ``beta_1``.

    Raises:
        ValueError: ``row_beta_1`` outside of [0, 1), or ``amsgrad``, ``use_ema`` or
            ``gradient_accumulation_steps``, which touch every row.
    """

    formula = keras.optimizers.Adam

    def __init__(self, *args, row_beta_1: float | None = 0.0, **kwargs):
        super().__init__(*args, **kwargs)
        if row_beta_1 is not None and not 0 <= row_beta_1 < 1:
            raise ValueError(f"`row_beta_1` must lie in [0, 1) or be None. Received: {row_beta_1}")
        self.row_beta_1 = row_beta_1

    def get_config(self):
        return {**super().get_config(), "row_beta_1": self.row_beta_1}


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
