"""What goes wrong within a compiled step, noted in the graph and told outside of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import tensorflow as tf

#: Kinds of fault: a label in training, a loss, a gradient though every loss is finite (a ReLU may
#: swallow a NaN going forward that comes back), and a label in evaluation.
TRAINED_LABEL, NOT_FINITE, GRADIENT_NOT_FINITE, EVALUATED_LABEL = range(4)
_NONE = [-1, -1, -1, -1]


class Faults:
    """The first fault since it was last heeded, and the task whose weight is at its limit."""

    def __init__(self):
        # Step, task and kind of the fault, and a task whose weight is at its limit; or -1.
        self._noted = tf.Variable(
            _NONE,
            dtype=tf.int64,
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        self._warned: set[str] = set()

    def clear(self) -> None:
        """Forget what was noted."""
        self._noted.assign(_NONE)

    def forget_warnings(self) -> None:
        """Warn anew of what was warned of."""
        self._warned = set()

    # In the graph

    def note(self, step, losses, misfits, not_finite, *, raises: bool):
        """Take down what is wrong with a step.

        Args:
            step: its number, int64.
            losses, misfits: ``[tasks]``, of the global batch: the losses, and how many labels are
                outside of their domain.
            not_finite: how many gradients are not finite.
            raises: whether losses and gradients that are not finite end the training.

        Returns:
            Whether the step may be made, a boolean scalar.
        """
        gradient = tf.fill(tf.shape(losses), not_finite > 0)  # no task's in particular
        fault = tf.stack([misfits > 0, ~tf.math.is_finite(losses), gradient])  # [kind, task]
        wrong = tf.reduce_any(fault)
        first = tf.argmax(tf.cast(tf.reshape(fault, [-1]), tf.int32))
        tasks = losses.shape[0]
        found = tf.stack([step, first % tasks, first // tasks, -1])
        noted = self._noted[0] >= 0
        # With several steps an execution, those behind one that ends the training are not made.
        ends = noted & ((self._noted[2] == TRAINED_LABEL) | raises)
        kept = ends | ~wrong | (noted & (found[2] != TRAINED_LABEL))
        self._noted.assign(tf.where(kept, self._noted, found))
        return ~(wrong | ends)

    def note_evaluated(self, misfits) -> None:
        """Take down labels outside of their domain, ``[tasks]``, in an evaluation."""
        found = tf.stack([tf.zeros([], tf.int64), tf.argmax(misfits), EVALUATED_LABEL, -1])
        self._noted.assign(tf.where(tf.reduce_any(misfits > 0), found, self._noted))

    def note_limit(self, task) -> None:
        """Take down the task whose weight is at its limit, by its place, or -1."""
        noted = tf.convert_to_tensor(self._noted)
        self._noted.assign(tf.where([False] * 3 + [True], task, noted))

    # Outside

    def heed(
        self,
        tasks: Sequence[str],
        domain: Callable[[str], tuple[float, float]],
        *,
        raises: bool,
    ) -> None:
        """Raise what was noted since the last call, or warn of it once.

        Args:
            tasks: their names.
            domain: where the labels of a task have to lie.
            raises: as in :meth:`note`; else such steps are warned of.

        Raises:
            FloatingPointError: a loss or gradient is not finite.
            ValueError: a label outside the domain of its loss.
        """
        step, task, kind, limited = self._noted.numpy().tolist()
        if limited >= 0:
            self.warn_once(
                f"The balancer's weight of task {tasks[limited]!r} has reached its limit, as "
                "the task's gradient has almost vanished. It is kept there."
            )
        if step < 0:
            return
        self.clear()
        if kind in (TRAINED_LABEL, EVALUATED_LABEL):
            where = f"at step {step}" if kind == TRAINED_LABEL else "in evaluation"
            received = f"another value {where}"
            raise ValueError(label_error(tasks[task], *domain(tasks[task]), received))
        lost = kind == GRADIENT_NOT_FINITE
        name = "A gradient" if lost else f"The loss of task {tasks[task]!r}"
        if not raises:
            message = f"{name} is not finite, first at step {step}. Such steps are skipped."
            self.warn_once(message, of=name)
            return
        hint = ", though every loss is. Look for infinite or NaN inputs" if lost else ""
        raise FloatingPointError(
            f"{name} is not finite at step {step}{hint}. "
            "The weights are those of the last finite step."
        )

    def warn_once(self, message: str, of: str | None = None) -> None:
        """Warn, unless it was done before.

        Args:
            message: the warning.
            of: what it is about; by default its words.
        """
        if (of or message) not in self._warned:
            self._warned.add(of or message)
            warnings.warn(message, RuntimeWarning, stacklevel=3)


def label_error(task: str, low: float, high: float, received) -> str:
    """The message for a label that a task's loss is not defined for."""
    return (
        f"Labels of task {task!r} must lie in [{low:g}, {high:g}] for its loss, or be NaN for "
        f"'no label'. Received: {received}"
    )
