"""Multi-gate Mixture-of-Experts."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfmtl.models.base import FeatureModel
from tfmtl.models.layers import ParallelMLP, check_units


@keras.saving.register_keras_serializable("tfmtl")
class MMoE(FeatureModel):
    """Experts that all tasks share, mixed for each task by a gate of its own.

    Multi-gate Mixture-of-Experts (Ma et al., KDD 2018, equations 6 and 7): task k's tower reads
    ``sum_i g_k(x)_i f_i(x)``, where ``g_k(x) = softmax(W_k x)``. All experts are computed as one
    product and the mixing is a batched matrix product.

    Args:
        experts: how many.
        expert_units: widths of each expert's layers.
        gate_units: hidden widths of the gates; the paper's gates are linear, hence ``()``.

    The other arguments, shapes and errors are those of :class:`tfmtl.models.base.FeatureModel`.
    """

    trunk_defaults = {"experts": 4, "expert_units": (64,), "gate_units": ()}

    def build_trunk(self, input_width, experts, expert_units, gate_units):
        if not isinstance(experts, int) or experts < 1:
            raise ValueError(f"`experts` must be a positive integer. Received: {experts}")
        units = check_units("expert_units", expert_units)
        gate_units = check_units("gate_units", gate_units, empty=True)
        self.experts = ParallelMLP(
            experts, input_width, units, self._seeds, activation=self.activation, name="experts"
        )
        self.gates = [
            ParallelMLP(
                1,
                input_width,
                (*gate_units, experts),
                self._seeds,
                activation=self.activation,
                output_activation="softmax",
                name=f"gate_{task}",
            )
            for task in self.tasks
        ]
        return units[-1]

    def trunk(self, embedded):
        experts = tf.transpose(self.experts(embedded), [1, 0, 2])  # [batch, experts, units]
        # Task by task: mixed in one product, every gate would seem to reach every task.
        gates = [tf.transpose(gate(embedded), [1, 0, 2]) for gate in self.gates]
        return [tf.matmul(gate, experts)[:, 0] for gate in gates]
