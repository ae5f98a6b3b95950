"""Where the shared part of a network ends."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence

import keras
import tensorflow as tf

_local = threading.local()


class Recorded:
    """What the :class:`Representation` of a network let through in one forward pass."""

    def __init__(self) -> None:
        self.found: list = []

    def tensors(self) -> list[tf.Tensor]:
        """All of it."""
        return tf.nest.flatten(self.found)

    def of_tasks(self, tasks: Sequence[str]) -> list[tf.Tensor]:
        """The representation that each task reads.

        Raises:
            ValueError: no mark or several, or a task that is missing.
        """
        if len(self.found) != 1:
            raise ValueError(
                "A network must have one `Representation`, called once. "
                f"Received: {len(self.found)} calls"
            )
        (marked,) = self.found
        if not isinstance(marked, Mapping):
            return [marked] * len(tasks)
        missing = [task for task in tasks if task not in marked]
        if missing:
            raise ValueError(
                "`Representation` must be given one tensor for all tasks or one for each. "
                f"Expected: {sorted(tasks)}. Received: {sorted(marked)} (missing: {missing})"
            )
        return [marked[task] for task in tasks]


@contextlib.contextmanager
def recording() -> Iterator[Recorded]:
    """Within, what a :class:`Representation` lets through on this thread is recorded."""
    outer = getattr(_local, "recorded", None)
    _local.recorded = Recorded()
    try:
        yield _local.recorded
    finally:
        _local.recorded = outer


@keras.saving.register_keras_serializable("tfmtl")
class Representation(keras.layers.Layer):
    """Marks the shared representation: what it is given, it hands on.

    A balancer with ``wrt="representation"`` compares the tasks' gradients here instead of at the
    parameters, for the price of the towers' backward passes and one of the whole network (MGDA-UB:
    Sener and Koltun, *Multi-Task Learning as Multi-Objective Optimization*, NeurIPS 2018,
    section 3.3). The models of :mod:`tfmtl.models` have one before their towers; any other backbone
    may place one.

    Call: a tensor that all tasks read, or ``{task: tensor}`` of one shape for each task. In the
    second case a task's gradient is that at its own tensor, and those of the tasks are compared
    entry by entry, as LibMTL does.
    """

    def call(self, inputs):
        # Tensors of its own, which gradients can be asked for.
        outputs = tf.nest.map_structure(tf.identity, inputs)
        recorded = getattr(_local, "recorded", None)
        if recorded is not None:
            recorded.found.append(outputs)
        return outputs

    def compute_output_shape(self, input_shape):
        return input_shape
