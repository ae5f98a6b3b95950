"""The parts the models are made of: embedded features, stacks of parallel experts, towers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import keras
import tensorflow as tf

from tfmtl.compat import tf_variable
from tfmtl.features import FeatureSpec


class FeatureEmbedding(keras.layers.Layer):
    """Embeds the categorical columns of a spec and appends the numeric ones.

    Columns of one width share one table, in which each has its own range of rows, so that a batch
    costs one lookup per distinct width, and one for each pooled column. It reads the batch's rows,
    never the whole table.

    Args:
        features: the columns.
        seeds: an iterator of initializer seeds.

    Call: ``{column: [batch]}`` → ``[[batch, sum of widths], [batch, number of numeric columns]]``,
    one of them where there are no others. Of lists ``{column: [batch, list]}`` every item is a row,
    list by list. A pooled column has one more dimension.
    """

    def __init__(self, features: FeatureSpec, seeds: Iterator[int | None], **kwargs):
        super().__init__(**kwargs)
        self.features = features
        groups: dict[int, list[str]] = {}
        for name, width in features.widths.items():
            groups.setdefault(width, []).append(name)
        self._groups = list(groups.items())
        self._tables = []
        self._offsets = []
        for width, names in self._groups:
            sizes = [features.categorical[name] for name in names]
            self._offsets.append([sum(sizes[:i]) for i in range(len(sizes))])
            self._tables.append(
                self.add_weight(
                    name=f"{self.name}_table_{width}",
                    shape=(sum(sizes), width),
                    initializer=keras.initializers.RandomNormal(stddev=0.05, seed=next(seeds)),
                    trainable=True,
                )
            )
        self.output_width = sum(features.widths.values()) + len(features.numeric)
        self.built = True

    def items(self, inputs):
        """How many items a list has; 1 where the columns are rows.

        Raises:
            ValueError: a column is missing, or they are neither all rows nor all lists of one size.
        """
        columns = [*self.features.categorical, *self.features.numeric]
        missing = [name for name in columns if name not in inputs]
        if missing:
            raise ValueError(
                "Inputs must have every column of the spec. "
                f"Expected: {columns}. Received: {sorted(inputs)} (missing: {missing})"
            )
        shapes = {name: tf.TensorShape(inputs[name].shape) for name in columns}
        for name in self.features.pooling:
            shapes[name] = shapes[name][:-1]
        flat = all(shape.rank in (1, 2) for shape in shapes.values())
        # A column vector [batch, 1] is rows and lists of one item alike.
        sizes = {1 if shape.rank == 1 else shape[1] for shape in shapes.values() if flat}
        known = sizes - {None}
        if not flat or len(known) > 1 or sizes == {1, None}:
            raise ValueError(
                "Columns must all be rows, [batch], or all be lists of one size, [batch, list]. "
                f"Received: { {name: str(shape) for name, shape in shapes.items()} }"
            )
        return known.pop() if known else tf.shape(inputs[columns[0]])[1]

    def call(self, inputs):
        self.items(inputs)
        parts = []
        for (width, names), table, offsets in zip(
            self._groups, self._tables, self._offsets, strict=True
        ):
            pooled = [name for name in names if name in self.features.pooling]
            single = [name for name in names if name not in self.features.pooling]
            offset = dict(zip(names, offsets, strict=True))
            if single:
                ids = [tf.cast(tf.reshape(inputs[name], [-1]), tf.int32) for name in single]
                ids = self._checked(single, tf.stack(ids, axis=1))
                ids += tf.constant([offset[name] for name in single], tf.int32)
                rows = tf.nn.embedding_lookup(tf_variable(table), ids)
                parts.append(tf.reshape(rows, [-1, len(single) * width]))
            for name in pooled:
                ids = tf.cast(inputs[name], tf.int32)
                ids = tf.reshape(ids, [-1, tf.shape(ids)[-1]])
                counts = ids >= 0
                ids = self._checked([name], tf.where(counts, ids, tf.zeros_like(ids)))
                rows = tf.nn.embedding_lookup(tf_variable(table), ids + offset[name])
                weight = tf.cast(counts, rows.dtype)[..., tf.newaxis]
                total = tf.reduce_sum(rows * weight, axis=1)
                if self.features.pooling[name] == "mean":
                    total = tf.math.divide_no_nan(total, tf.reduce_sum(weight, axis=1))
                parts.append(total)
        sides = [_beside(parts)] if parts else []
        if self.features.numeric:
            numeric = [tf.reshape(inputs[name], [-1]) for name in self.features.numeric]
            sides.append(tf.stack([tf.cast(column, tf.float32) for column in numeric], axis=1))
        return [tf.cast(side, self.compute_dtype) for side in sides]

    def _checked(self, names, ids):
        """Ids ``[rows, columns]``; beyond its own rows of the table one would read another
        column's. XLA skips this.
        """
        sizes = {name: self.features.categorical[name] for name in names}
        fits = (ids >= 0) & (ids < tf.constant(list(sizes.values()), tf.int32))
        message = f"Ids must be at least 0 and below the vocabulary size of their column: {sizes}"
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(fits), [message])]):
            return tf.identity(ids)

    def compute_output_shape(self, input_shape):
        widths = [sum(self.features.widths.values()), len(self.features.numeric)]
        return [(None, width) for width in widths if width]


class ParallelMLP(keras.layers.Layer):
    """Several equally shaped MLPs side by side, each layer computed as one batched product.

    Every copy draws its own initial weights (Glorot uniform of one copy's fans).

    Args:
        copies: how many.
        input_width: width of the input.
        units: widths of the layers; the last one is the output width.
        activation: of every layer but, with ``output_activation``, the last.
        output_activation: of the last layer; ``None`` takes ``activation``.
        layer_norm: normalise what goes into each activation over the layer's units (Ba et al.,
            2016), with a scale and a shift to learn.
        seeds: an iterator of initializer seeds.

    Call: ``[batch, input_width]``, which all copies read, or a list of tensors that make it up side
    by side → ``[batch, copies, units[-1]]``.
    """

    def __init__(
        self,
        copies: int,
        input_width: int,
        units: Sequence[int],
        seeds: Iterator[int | None],
        activation: str = "relu",
        output_activation: str | None = None,
        layer_norm: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.copies = copies
        self.units = tuple(units)
        self._activations = [keras.activations.get(activation)] * len(self.units)
        if output_activation is not None:
            self._activations[-1] = keras.activations.get(output_activation)
        self._kernels = []
        self._biases = []  # behind the normalisation, where there is one
        self._scales = []
        for i, (fan_in, fan_out) in enumerate(
            zip((input_width, *self.units[:-1]), self.units, strict=True)
        ):
            # Keras' Glorot would take the copies for a receptive field and start far too small.
            limit = math.sqrt(6.0 / (fan_in + fan_out))
            self._kernels.append(
                self.add_weight(
                    name=f"{self.name}_kernel_{i}",
                    shape=(copies, fan_in, fan_out),
                    initializer=keras.initializers.RandomUniform(-limit, limit, seed=next(seeds)),
                    trainable=True,
                )
            )
            self._biases.append(
                self.add_weight(
                    name=f"{self.name}_bias_{i}",
                    shape=(copies, 1, fan_out),
                    initializer="zeros",
                    trainable=True,
                )
            )
            if layer_norm:
                self._scales.append(
                    self.add_weight(
                        name=f"{self.name}_scale_{i}",
                        shape=(copies, 1, fan_out),
                        initializer="ones",
                        trainable=True,
                    )
                )
        self.built = True

    def call(self, inputs):
        # Copies read one input in the first layer, so that their kernels are laid side by side
        # and rows stay in front. Behind it products go copy by copy, copies in front.
        hidden = self._side_by_side(inputs, 0)
        for i in range(1, len(self.units)):
            if self.copies == 1:
                hidden = self._side_by_side(tf.reshape(hidden, [-1, self.units[i - 1]]), i)
                continue
            if i == 1:
                hidden = tf.transpose(hidden, [1, 0, 2])
            product = tf.matmul(hidden, tf.convert_to_tensor(self._kernels[i]))
            if self._scales:
                product = _standardise(product) * tf.convert_to_tensor(self._scales[i])
            hidden = self._activations[i](product + tf.convert_to_tensor(self._biases[i]))
        if self.copies > 1 and len(self.units) > 1:
            hidden = tf.transpose(hidden, [1, 0, 2])
        return hidden

    def _side_by_side(self, inputs, i):
        """A layer as a single product: ``[batch, fan_in]`` → ``[batch, copies, fan_out]``."""
        kernel = tf.convert_to_tensor(self._kernels[i])
        copies, fan_in, fan_out = kernel.shape
        kernel = tf.reshape(tf.transpose(kernel, [1, 0, 2]), [fan_in, copies * fan_out])
        bias = tf.convert_to_tensor(self._biases[i])[:, 0]
        parts = inputs if isinstance(inputs, list) else [inputs]
        if not self._scales:
            return self._activations[i](_affine(kernel, bias, *parts))
        product = _affine(kernel, tf.zeros_like(bias), *parts)
        scale = tf.convert_to_tensor(self._scales[i])[:, 0]
        return self._activations[i](_standardise(product) * scale + bias)

    def compute_output_shape(self, input_shape):
        if isinstance(input_shape, list):
            input_shape = input_shape[0]
        return (input_shape[0], self.copies, self.units[-1])


def _beside(parts):
    """One tensor of several side by side."""
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=1)


@tf.custom_gradient
def _affine(kernel, bias, *parts):
    """Product and bias in one, with the gradient of each part of the input a product of its own.

    The bias is a row of the kernel that meets a column of ones, so that its gradient is one of the
    kernel's as well: by itself the sum over the batch takes as long as an activation. Nor does
    TensorFlow take a relu into the product, where oneDNN makes 0 of NaN, so that a broken batch or
    weight would not show in the loss. The gradient of a batch's numbers nobody asks for, and it is
    left out of the graph; of the whole input all would be made and then cut.

    Args:
        kernel: ``[fan_in, copies * fan_out]``.
        bias: ``[copies, fan_out]``.
        parts: ``[batch, width]``, widths adding up to ``fan_in``.

    Returns:
        ``[batch, copies, fan_out]``.
    """
    inputs = tf.concat([*parts, tf.ones_like(parts[0][:, :1])], axis=1)
    outputs = tf.matmul(inputs, tf.concat([kernel, tf.reshape(bias, [1, -1])], axis=0))

    def backward(upstream):
        upstream = tf.reshape(upstream, [-1, kernel.shape[1]])
        kernels = tf.split(kernel, [part.shape[1] for part in parts])
        of_kernel = tf.matmul(inputs, upstream, transpose_a=True)
        return (
            of_kernel[:-1],
            tf.reshape(of_kernel[-1], bias.shape),
            *[tf.matmul(upstream, each, transpose_b=True) for each in kernels],
        )

    return tf.reshape(outputs, [-1, *bias.shape]), backward


def _standardise(values):
    """Mean 0 and variance 1 over the last axis; found in float32, 1e-6 added to the variance."""
    numbers = tf.cast(values, tf.float32)
    mean, variance = tf.nn.moments(numbers, axes=[-1], keepdims=True)
    return tf.cast((numbers - mean) * tf.math.rsqrt(variance + 1e-6), values.dtype)


def seeds_from(seed: int | None) -> Iterator[int | None]:
    """An endless row of distinct initializer seeds, or of ``None`` without a seed.

    One seed handed to every layer would start equally shaped layers with equal weights.
    """
    while True:
        yield seed
        if seed is not None:
            seed += 1


def check_units(name: str, units: Sequence[int], *, empty: bool = False) -> tuple[int, ...]:
    """``units`` as a tuple of positive widths."""
    units = tuple(units)
    if (not units and not empty) or any(not isinstance(u, int) or u < 1 for u in units):
        raise ValueError(f"`{name}` must be a sequence of positive integers. Received: {units}")
    return units


def per_task(name: str, value, tasks: Sequence[str]) -> dict[str, str | None]:
    """One value for all tasks, or a dict that names every one of them, as a dict."""
    if not isinstance(value, Mapping):
        return dict.fromkeys(tasks, value)
    if set(value) != set(tasks):
        raise ValueError(
            f"`{name}` must be one value or name every task. "
            f"Expected: {sorted(tasks)}. Received: {sorted(value)}"
        )
    return {task: value[task] for task in tasks}
