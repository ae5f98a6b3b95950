"""One-gate Mixture-of-Experts."""

from __future__ import annotations

import keras

from tfmtl.models.gated import GatedModel, check_count, mix


@keras.saving.register_keras_serializable("tfmtl")
class OMoE(GatedModel):
    """Experts that all tasks share, mixed by one gate for all of them.

    One-gate Mixture-of-Experts (Ma et al., KDD 2018, equation 5): every tower reads
    ``sum_i g(x)_i f_i(x)``, where ``g(x) = softmax(W x)``. The gate is called ``shared`` in the
    logs. Departure: it has a bias, 0 at first.

    Args:
        experts: how many.

    The other arguments are those of :class:`tfmtl.models.gated.GatedModel`; shapes and errors
    those of :class:`tfmtl.models.base.FeatureModel`.
    """

    trunk_defaults = {"experts": 4, **GatedModel.trunk_defaults}

    def build_experts(self, input_width, experts):
        check_count("experts", experts)
        self.experts = self.make_experts("experts", experts, input_width)
        self.gates = [self.make_gate("shared", input_width, experts)]

    def trunk(self, embedded, training=None):
        weights = self.gates[0](embedded, training=training)
        return mix([weights], [[self.experts(embedded)]]) * len(self.tasks)
