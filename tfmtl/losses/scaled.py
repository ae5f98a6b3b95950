"""A loss in other units."""

from __future__ import annotations

import keras


@keras.saving.register_keras_serializable("tfmtl")
class Scaled(keras.losses.Loss):
    """A loss times a constant, as if it were measured in other units.

    To see what a method makes of losses whose scales differ. To weigh tasks there is
    :class:`tfmtl.balancers.FixedWeights`.

    Args:
        loss: a Keras loss of rows, such as ``keras.losses.MeanSquaredError()``.
        factor: above 0.

    Raises:
        ValueError: the factor is not above 0, or the loss compares the items of a query.
    """

    def __init__(self, loss, factor: float):
        if not factor > 0:
            raise ValueError(f"`factor` must be above 0. Received: {factor!r}")
        if hasattr(loss, "sums") or not isinstance(loss, keras.losses.Loss):
            raise ValueError(f"`loss` must be a Keras loss of rows. Received: {loss!r}")
        super().__init__(name=loss.name)
        self.loss = loss
        #: Tells the name of the loss, and which labels it is for.
        self.fn = getattr(loss, "fn", loss)
        self.factor = factor

    def call(self, y_true, y_pred):
        return self.factor * self.loss.call(y_true, y_pred)

    def get_config(self):
        return {"loss": keras.saving.serialize_keras_object(self.loss), "factor": self.factor}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["loss"]), config["factor"])
