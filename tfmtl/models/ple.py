"""Progressive Layered Extraction."""

from __future__ import annotations

import keras

from tfmtl.models.gated import Gate, GatedModel, check_count, mix


@keras.saving.register_keras_serializable("tfmtl")
class PLE(GatedModel):
    """Experts of every task's own beside shared ones, in levels on top of each other.

    Progressive Layered Extraction (Tang et al., RecSys 2020, equations 5 to 9). At level j, task
    k's gate mixes its own experts and the shared ones, in this order, by what the level below gave
    it::

        g_k,j(x) = softmax(W_k,j g_k,j-1(x)) [E_k,j(g_k,j-1(x)); E_s,j(g_s,j-1(x))]

    with ``g_k,0(x) = g_s,0(x) = x``. At every level but the last a shared gate mixes all experts,
    the tasks' in their order and then the shared ones, by ``g_s,j-1(x)``, into ``g_s,j(x)``. The
    towers read the last level. One level is the paper's CGC, Customized Gate Control. Departure:
    gates have a bias, 0 at first.

    Experts are computed as one product a layer for every task's group and one for the shared
    group, so that a task's own are variables of their own. In the last level only their task
    reaches them; below, every task does, through the shared gate.

    Args:
        levels: how many extraction networks.
        task_experts: how many experts of its own each task has in a level. With none, one level
            is :class:`tfmtl.models.MMoE`, and several are an MMoE of as many levels.
        shared_experts: how many experts the tasks share in a level.

    In the logs gates are called by their task, with several levels ``level<j>_<task>`` (1 first),
    and the shared ones ``level<j>``.

    The other arguments are those of :class:`tfmtl.models.gated.GatedModel`; shapes and errors
    those of :class:`tfmtl.models.base.FeatureModel`.
    """

    trunk_defaults = {
        "levels": 2,
        "task_experts": 2,
        "shared_experts": 2,
        **GatedModel.trunk_defaults,
    }

    def build_experts(self, input_width, levels, task_experts, shared_experts):
        check_count("levels", levels)
        check_count("task_experts", task_experts, least=0)
        check_count("shared_experts", shared_experts)
        self.extractions = []
        width = input_width
        for level in range(1, levels + 1):
            prefix = f"level{level}_" if levels > 1 else ""
            last = level == levels
            self.extractions.append(
                _Extraction(self, prefix, width, task_experts, shared_experts, last)
            )
            width = self._expert_units[-1]

    def trunk(self, embedded, training=None):
        states = [embedded] * (len(self.tasks) + 1)
        for extraction in self.extractions:
            states = extraction(states, training=training)
        return states

    def all_gates(self) -> list[Gate]:
        return [gate for extraction in self.extractions for gate in extraction.gates]


class _Extraction(keras.layers.Layer):
    """A level: what the tasks and, last, the shared part read → what they read one level above.

    Args:
        model: whose level it is.
        prefix: of its layers' names, empty where there is one level.
        input_width: of what it reads.
        task_experts, shared_experts: how many.
        last: whether it is the last level, where nobody reads the shared part.

    Call: ``[batch, input_width]`` for each task and the shared part → ``[batch, units]`` for each
    task and, unless it is the last level, the shared part.
    """

    def __init__(
        self,
        model: PLE,
        prefix: str,
        input_width: int,
        task_experts: int,
        shared_experts: int,
        last: bool,
    ):
        super().__init__(name=f"{prefix}extraction")
        own = model.tasks if task_experts else ()
        self.task_experts = [
            model.make_experts(f"{prefix}experts_{task}", task_experts, input_width) for task in own
        ]
        self.shared_experts = model.make_experts(
            f"{prefix}experts_shared", shared_experts, input_width
        )
        readable = task_experts + shared_experts
        self.gates = [
            model.make_gate(f"{prefix}{task}", input_width, readable) for task in model.tasks
        ]
        if not last:
            everyone = len(model.tasks) * task_experts + shared_experts
            self.gates.append(model.make_gate(prefix.rstrip("_"), input_width, everyone))
        self.built = True

    def call(self, states, training=None):
        shared = self.shared_experts(states[-1])
        # One by one, as the gates: a product of all would hide whose variables are whose.
        own = [experts(state) for experts, state in zip(self.task_experts, states, strict=False)]
        groups = [[each, shared] for each in own] or [[shared]] * (len(states) - 1)
        groups.append([*own, shared])
        weights = [
            gate(state, training=training) for gate, state in zip(self.gates, states, strict=False)
        ]
        return mix(weights, groups[: len(weights)])
