"""A learning-to-rank tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from tfmtl.features import FeatureSpec
from tfmtl.models.base import FeatureModel
from tfmtl.models.layers import ParallelMLP, check_units


@keras.saving.register_keras_serializable("tfmtl")
class LTRTower(FeatureModel):
    """A network that gives each item one score, for one or several objectives to pull on.

    The score is ``w · h(x) + b`` with the hidden layers ``h``; items are scored one by one.

    Args:
        features: the input columns. Raw features that span orders of magnitude (LETOR's do) want
            ``sign(x) log(1 + |x|)`` before they come here.
        units: widths of the hidden layers.
        layer_norm: normalise what goes into each hidden layer's activation over its units.
        activation: of the hidden layers.
        output_activation: of the score; ``None`` leaves it a logit.
        layout: as a server is told, ``"rows"`` or ``"lists"``.
        seed: makes the initial weights reproducible.

    Call: rows ``{column: [batch]}`` → ``{"score": [batch, 1]}``, or padded lists
    ``{column: [batch, list]}`` → ``{"score": [batch, list]}``, float32.

    Raises:
        ValueError: as :class:`tfmtl.models.base.FeatureModel`.
    """

    trunk_defaults = {"units": (128, 64), "layer_norm": False}

    def __init__(
        self,
        features: FeatureSpec | Mapping,
        *,
        units: Sequence[int] = (128, 64),
        layer_norm: bool = False,
        activation: str = "relu",
        output_activation: str | None = None,
        layout: str = "rows",
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(
            ["score"],
            features,
            tower_units=(),
            activation=activation,
            output_activation=output_activation,
            layout=layout,
            seed=seed,
            units=units,
            layer_norm=layer_norm,
            **kwargs,
        )

    def build_trunk(self, input_width, units, layer_norm):
        units = check_units("units", units)
        self.hidden = ParallelMLP(
            1,
            input_width,
            units,
            self._seeds,
            activation=self.activation,
            layer_norm=layer_norm,
            name="hidden",
        )
        return units[-1]

    def trunk(self, embedded, training=None):
        return [tf.squeeze(self.hidden(embedded), axis=1)]

    def get_config(self):
        config = super().get_config()
        del config["tasks"], config["tower_units"]
        return {**config, "output_activation": self.output_activation["score"]}
