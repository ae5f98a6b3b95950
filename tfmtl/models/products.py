"""Outputs that are products of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from tfmtl import compat
from tfmtl.inputs import known_spec


@keras.saving.register_keras_serializable("tfmtl")
class Products(keras.Model):
    """Adds to a backbone's outputs products of some of them.

    The probability of a chain of events is a product: with ``{"ctcvr": ("click", "conversion")}``
    this is ESMM (Ma et al., SIGIR 2018, equation 1), pCTCVR = pCTR × pCVR, over any backbone.
    Trained on ``click`` and ``ctcvr`` with ``conversion`` left out of the loss
    (``loss={..., "conversion": None}``), the factor ``conversion`` learns from all rows what only
    the clicked ones show.

    Args:
        net: any Keras model that returns ``{task: prediction}``; the factors must be probabilities
            for their product to be one.
        products: for each new output the names of its factors, at least two: outputs of ``net``
            or products above it.

    Call: as ``net`` → its outputs and the products, each of its factors' shape, float32.

    A product of small probabilities is as exact as float32 (relatively, down to 1e-38). Keras'
    binary cross-entropy clips predictions to [1e-7, 1 - 1e-7] and has no gradient beyond.

    Raises:
        ValueError: ``net`` is not a Keras model, or a product with fewer than two factors; when
            called, outputs that are not a dict, a product that is named like an output of ``net``,
            or an unknown factor.
    """

    def __init__(self, net: keras.Model, products: Mapping[str, Sequence[str]], **kwargs):
        super().__init__(**kwargs)
        if not isinstance(net, keras.layers.Layer):
            raise ValueError(f"`net` must be a Keras model. Received: {net!r}")
        if not isinstance(products, Mapping) or not products:
            raise ValueError(
                "`products` must be a dict {output: (factor, factor, ...)}, not empty. "
                f"Received: {products!r}"
            )
        for name, factors in products.items():
            if isinstance(factors, str) or len(factors) < 2:
                raise ValueError(
                    f"`products[{name!r}]` must name at least two factors. Received: {factors!r}"
                )
        self.net = net
        self._factors = [(name, tuple(factors)) for name, factors in products.items()]
        self.built = net.built

    def build(self, input_shape=None) -> None:
        """Nothing: the backbone builds itself."""
        self.built = True

    def call(self, inputs, training=None):
        outputs = self.net(inputs, training=training)
        if not isinstance(outputs, Mapping):
            raise ValueError(
                "The backbone's output must be a dict {task: prediction}. "
                f"Received: {type(outputs).__name__}"
            )
        outputs = dict(outputs)
        for name, factors in self._factors:
            unknown = [each for each in factors if each not in outputs]
            if unknown:
                raise ValueError(
                    f"`products[{name!r}]` must name outputs. Expected some of: "
                    f"{sorted(outputs)}. Received: {list(factors)} (unknown: {unknown})"
                )
            if name in outputs:
                raise ValueError(f"`products` names {name!r}, which is an output of the backbone.")
            product = tf.cast(outputs[factors[0]], tf.float32)
            for factor in factors[1:]:
                product = product * tf.cast(outputs[factor], tf.float32)
            outputs[name] = product
        return outputs

    def input_spec_by_column(self):
        """Name, shape and dtype of the inputs, where the backbone tells."""
        return known_spec(self.net)

    def watch(self) -> dict:
        """What the backbone shows in the logs."""
        return self.net.watch() if hasattr(self.net, "watch") else {}

    def get_config(self) -> dict:
        return {
            "name": self.name,
            "net": compat.serialize(self.net),
            "products": {name: list(factors) for name, factors in self._factors},
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**{**config, "net": compat.deserialize(config["net"])})
