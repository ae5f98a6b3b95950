"""Gates over experts, and what the models that have some share: their arguments and their logs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import tensorflow as tf

from tfmtl import compat
from tfmtl.models.base import FeatureModel
from tfmtl.models.layers import ParallelMLP, check_units


class Gate(ParallelMLP):
    """Weights that add up to 1, ``softmax(W x)``, for :func:`mix` to mix experts by.

    Args:
        label: what its figures are called in the logs.
        input_width: width of what it reads.
        hidden_units: widths of its hidden layers.
        experts: how many it mixes.
        seeds: an iterator of initializer seeds.
        activation: of the hidden layers.

    Call: ``[batch, input_width]`` → ``[batch, experts]``.
    """

    def __init__(
        self,
        label: str,
        input_width: int,
        hidden_units: Sequence[int],
        experts: int,
        seeds: Iterator[int | None],
        activation: str,
    ):
        super().__init__(
            1,
            input_width,
            (*hidden_units, experts),
            seeds,
            activation=activation,
            output_activation="softmax",
            name=f"gate_{label}",
        )
        self.label = label
        self._last_batch = _Sums(experts)

    def call(self, inputs, training=None):
        weights = tf.squeeze(super().call(inputs), axis=1)
        if training:
            self._last_batch.note(weights)
        return weights

    def mean_weights(self):
        """The weight that each expert had on average over the rows of the last training batch.

        ``[experts]``, float32, adding up to 1; NaN before any training.
        """
        return self._last_batch.means()


class _Sums:
    """Sums of a gate's weights over the rows of the (global) batch.

    Held where Keras does not look: as weights of the model they would be saved, copied and set
    back with it, and change in a step that is not taken.
    """

    def __init__(self, experts: int):
        self._sums = tf.Variable(
            tf.zeros([experts]), trainable=False, aggregation=tf.VariableAggregation.SUM
        )

    def note(self, weights) -> None:
        self._sums.assign(tf.reduce_sum(tf.cast(weights, tf.float32), axis=0))

    def means(self):
        sums = tf.convert_to_tensor(self._sums)
        return sums / tf.reduce_sum(sums)


def mix(weights: Sequence, groups: Sequence[Sequence]) -> list:
    """``sum_i w_i f_i`` for every gate.

    Gates are mixed one by one, and so are groups, so that what reaches one gate's or group's
    variables is not said to reach another's.

    Args:
        weights: of each gate, ``[batch, experts that it reads]``.
        groups: for each gate the outputs of its experts, in the order of its weights, each
            ``[batch, experts of this group, units]``. Gates that read a group name one tensor.

    Returns:
        For each gate ``[batch, units]``.
    """
    readers: dict[int, tuple] = {}
    for gate, (weight, read) in enumerate(zip(weights, groups, strict=True)):
        parts = tf.split(weight, [group.shape[1] for group in read], axis=1)
        for part, group in zip(parts, read, strict=True):
            readers.setdefault(id(group), (group, {}))[1][gate] = part
    mixed: list[list] = [[] for _ in weights]
    for group, parts in readers.values():
        for gate, each in zip(parts, _mix_group(list(parts.values()), group), strict=True):
            mixed[gate].append(each)
    return [tf.add_n(each) for each in mixed]


def _mix_group(weights: list, experts) -> list:
    """Of one group, for each of the weights ``[batch, experts]``: ``[batch, units]``."""
    if len(weights) == 1 or compat.compiled_by_xla():
        # XLA makes one loop of what the gates send back, their sum and what follows.
        return [tf.squeeze(tf.matmul(each[:, None], experts), axis=1) for each in weights]

    # Elsewhere what each gate sends back, as large as the experts' outputs, would be written out
    # and then added up. Here each gate mixes the experts behind a loan of zeros, to which goes the
    # gradient of what is mixed, and all loans are paid back to the experts in one product.
    @tf.custom_gradient
    def lend(experts):
        def backward(*upstream):
            return tf.matmul(tf.stack(weights, axis=2), tf.stack(upstream, axis=1))

        return [tf.zeros_like(experts[:, 0]) for _ in weights], backward

    @tf.custom_gradient
    def mix_one(weight, loan):
        def backward(upstream):
            return tf.squeeze(tf.matmul(experts, upstream[:, :, None]), axis=2), upstream

        return tf.squeeze(tf.matmul(weight[:, None], experts), axis=1), backward

    return [mix_one(*each) for each in zip(weights, lend(experts), strict=True)]


class GatedModel(FeatureModel):
    """A model whose tasks read experts through gates.

    Args:
        expert_units: widths of each expert's layers.
        gate_units: hidden widths of the gates; the papers' gates are linear, hence ``()``.
        watch_experts: log the mean weight of every expert in every gate, too.

    The other arguments, shapes and errors are those of :class:`tfmtl.models.base.FeatureModel`.
    """

    trunk_defaults = {"expert_units": (64,), "gate_units": (), "watch_experts": False}

    def build_trunk(self, input_width, expert_units, gate_units, watch_experts, **config):
        units = check_units("expert_units", expert_units)
        gate_units = check_units("gate_units", gate_units, empty=True)
        self._expert_units, self._gate_units = units, gate_units
        self._watch_experts = bool(watch_experts)
        self.build_experts(input_width, **config)
        return units[-1]

    def build_experts(self, input_width: int, **config) -> None:
        """Make experts and gates, with :meth:`make_experts` and :meth:`make_gate`."""
        raise NotImplementedError

    def make_experts(self, name: str, count: int, input_width: int) -> ParallelMLP:
        """A group of experts, computed as one product a layer."""
        return ParallelMLP(
            count,
            input_width,
            self._expert_units,
            self._seeds,
            activation=self.activation,
            name=name,
        )

    def make_gate(self, label: str, input_width: int, experts: int) -> Gate:
        """A gate over so many experts."""
        return Gate(label, input_width, self._gate_units, experts, self._seeds, self.activation)

    def all_gates(self) -> list[Gate]:
        """Every gate."""
        return list(self.gates)

    def watch(self) -> dict:
        """Scalars for the logs, of the rows of the last training batch.

        ``gate_entropy_<gate>`` is the entropy in nats of the experts' mean weights in a gate: the
        logarithm of their number where all are used alike, 0 where one is used alone. With
        ``watch_experts`` also ``gate_<gate>_<i>``, the mean weight of expert i, from 0.
        """
        figures = {}
        for gate in self.all_gates():
            weights = gate.mean_weights()
            entropy = -tf.reduce_sum(tf.math.xlogy(weights, weights))
            figures[f"gate_entropy_{gate.label}"] = entropy
            if self._watch_experts:
                for i in range(weights.shape[0]):
                    figures[f"gate_{gate.label}_{i}"] = weights[i]
        return figures


def check_count(name: str, value, least: int = 1) -> int:
    """An integer of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        wanted = "a positive integer" if least == 1 else f"an integer of at least {least}"
        raise ValueError(f"`{name}` must be {wanted}. Received: {value}")
    return value
