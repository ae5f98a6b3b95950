"""Keras' embedding layer at the price of a batch's rows."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl import compat


@keras.saving.register_keras_serializable("tfmtl")
class Embedding(keras.layers.Embedding):
    """``keras.layers.Embedding`` that reads the batch's rows and never the whole table.

    Keras 3's layer hands its whole table to ``ops.take``: TensorFlow reads the table as one tensor
    first, and where the optimizer then writes into it, copies it. Here rows are gathered from the
    variable itself, and the gradient is row-sparse (``tf.IndexedSlices``). Keras 2.15's layer does
    so by itself.

    Arguments, weights, outputs, masks and the configuration are those of Keras' layer. Where a row
    is not the table's own, with LoRA or a quantised table, and for ids that are not a plain tensor,
    Keras' layer answers.

    Call: integers ``[...]`` → ``[..., output_dim]``.
    """

    def call(self, inputs):
        table = compat.unread_table(self)
        if table is None or not isinstance(inputs, tf.Tensor):
            return super().call(inputs)
        ids = inputs if inputs.dtype in (tf.int32, tf.int64) else tf.cast(inputs, tf.int32)
        ids = tf.where(ids < 0, ids + self.input_dim, ids)  # from the end, as Keras 3 counts them
        return tf.cast(tf.nn.embedding_lookup(table, ids), self.compute_dtype)
