"""Multi-gate Mixture-of-Experts."""

from __future__ import annotations

import keras

from tfmtl.models.gated import GatedModel, check_count, mix


@keras.saving.register_keras_serializable("tfmtl")
class MMoE(GatedModel):
    """Experts that all tasks share, mixed for each task by a gate of its own.

    Multi-gate Mixture-of-Experts (Ma et al., KDD 2018, equations 6 and 7): task k's tower reads
    ``sum_i g_k(x)_i f_i(x)``, where ``g_k(x) = softmax(W_k x)``. All experts are computed as one
    product and the mixing is a batched matrix product. Departure: gates have a bias, 0 at first.

    With several levels it is :class:`tfmtl.models.PLE` without experts of a task's own.

    Args:
        experts: how many.

    The other arguments are those of :class:`tfmtl.models.gated.GatedModel`; shapes and errors
    those of :class:`tfmtl.models.base.FeatureModel`.
    """

    trunk_defaults = {"experts": 4, **GatedModel.trunk_defaults}

    def build_experts(self, input_width, experts):
        check_count("experts", experts)
        self.experts = self.make_experts("experts", experts, input_width)
        self.gates = [self.make_gate(task, input_width, experts) for task in self.tasks]

    def trunk(self, embedded, training=None):
        experts = self.experts(embedded)
        weights = [gate(embedded, training=training) for gate in self.gates]
        return mix(weights, [[experts]] * len(weights))
