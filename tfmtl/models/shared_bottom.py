"""Shared-Bottom."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl.models.base import FeatureModel
from tfmtl.models.layers import ParallelMLP, check_units


@keras.saving.register_keras_serializable("tfmtl")
class SharedBottom(FeatureModel):
    """One network that all tasks share, and a tower for each (Caruana, *Multitask Learning*, 1997).

    Args:
        bottom_units: widths of the shared layers.

    The other arguments, shapes and errors are those of :class:`tfmtl.models.base.FeatureModel`.
    """

    trunk_defaults = {"bottom_units": (64,)}

    def build_trunk(self, input_width, bottom_units):
        units = check_units("bottom_units", bottom_units)
        self.bottom = ParallelMLP(
            1, input_width, units, self._seeds, activation=self.activation, name="bottom"
        )
        return units[-1]

    def trunk(self, embedded, training=None):
        return [tf.squeeze(self.bottom(embedded), axis=1)] * len(self.tasks)
