"""What a balancer is."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from tfmtl import compat
from tfmtl.gradients import finite

#: No weight is larger: it would make more than 1 of a gradient of length 1e-9, which is a task that
#: has nothing left to learn.
WEIGHT_LIMIT = 1e9


class Balancer(keras.layers.Layer):
    """A layer that is called with what it reads of a step and returns one weight per task.

    :class:`tfmtl.MultiTaskModel` binds it to the task names, then calls it once in every training
    step, inside the compiled graph. A method is a subclass that implements :meth:`call`.

    Call:
        losses: ``[tasks]``, float32, the mean loss of each task over the (global) batch.
        gramian: ``[tasks, tasks]``, float32, the inner products of the tasks' gradients over the
            shared variables. Only passed to a balancer with ``reads = "gramian"``.

    Returned are the weights ``[tasks]``, float32. No gradient flows through them.

    With ``reads = "losses"`` one backward pass of the weighted loss is made and the weights reach
    every variable. With ``reads = "gramian"`` each task's gradient is taken, the weights reach the
    shared variables alone, and a task's own variables follow their own, unweighted loss. With
    ``reads = "gradients"`` the balancer is called with the tasks' gradients themselves, a tensor
    ``[tasks, ...]`` for each shared variable, and returns what it leaves of them, to be summed
    (:class:`~tfmtl.balancers.GradDrop`). With ``reads = "updates"`` it is a
    :class:`~tfmtl.balancers.updates.UpdateBalancer`.

    A task without a label in the batch has a loss of 0. :meth:`call` reads finite numbers alone:
    what comes of others is undone, see :meth:`search`.
    """

    #: What :meth:`call` needs: ``"losses"``, ``"gramian"``, ``"gradients"`` or ``"updates"``.
    reads = "losses"

    #: Whether :meth:`look_back` is called after each step, for one more forward pass.
    looks_back = False

    #: With ``reads = "gramian"``: the weights are searched every so many steps.
    update_every = 1

    #: Where gradients are taken: at the shared ``"parameters"``, or at the ``"representation"``
    #: that the backbone marks with a :class:`tfmtl.models.Representation`.
    wrt = "parameters"

    #: With ``reads = "gramian"``: whether the tasks' gradients are held all at once, the
    #: ``"jacobian"``, or one by one, as the ``"gramian"`` allows.
    accumulate = "jacobian"

    #: Whether training is over, as it is for NMT when its last stage has ended.
    done = False

    def __init__(self, **kwargs):
        # Weights are found in float32 whatever the model computes in.
        super().__init__(dtype="float32", trainable=False, **kwargs)
        self.tasks: tuple[str, ...] = ()
        self._bound: list[tuple] = []

    def bind(
        self,
        tasks: Sequence[str],
        variables: Sequence = (),
        shared: Sequence = (),
        optimizer=None,
    ) -> None:
        """Tell the balancer what it balances, and create its state.

        Args:
            tasks: their names, in the order of its inputs.
            variables: the backbone's, for a method that keeps something for each of them.
            shared: those that the tasks share, and
            optimizer: that of the model, for a method that keeps what the optimizer would.

        Raises:
            ValueError: an argument of the balancer does not fit the tasks.
        """
        tasks = tuple(tasks)
        if tasks == self.tasks:
            return
        if self.tasks:
            raise ValueError(
                f"This {type(self).__name__} already belongs to a model with the tasks "
                f"{list(self.tasks)}. Make a new one for the tasks {list(tasks)}."
            )
        self.check_tasks(tasks)
        self.tasks = tasks
        self._bound = [(variable.shape, compat.dtype_name(variable)) for variable in variables]
        self.build((len(tasks),))
        self.built = True

    def check_tasks(self, tasks: tuple[str, ...]) -> None:
        """Raise ``ValueError`` where an argument does not fit the tasks."""

    def check_optimizer(self, optimizer) -> None:
        """Raise ``ValueError`` where the balancer cannot work with a Keras optimizer."""

    def build(self, input_shape) -> None:
        """Create the state; the tasks are known."""
        self.built = True

    def get_build_config(self):
        """Nothing: the model that a balancer is bound to rebuilds it."""
        return None

    def call(self, losses, gramian=None):
        raise NotImplementedError

    def search(self, losses, *matrices):
        """The weights ``[tasks]`` of a step, from what may not be finite.

        Where losses, matrices or the weights found are not finite, the balancer stays as it was
        and the weights are the last good ones. They are kept within :data:`WEIGHT_LIMIT`.

        Args:
            losses, matrices: as :meth:`call` takes them.
        """
        before, last = Before(self), self.last()
        given = [losses, *matrices]
        found = tf.stop_gradient(self(*map(finite, given)))
        sound = tf.reduce_all([tf.reduce_all(tf.math.is_finite(each)) for each in (*given, found)])
        before.back_unless(sound)
        return tf.where(sound, bounded(found), tf.ones_like(found) if last is None else last)

    def mask(self, losses, whole: Sequence) -> list:
        """What a balancer with ``reads = "gradients"`` leaves of the tasks' gradients.

        Where something is not finite it stays as it was, as in :meth:`search`.

        Args:
            losses: ``[tasks]``.
            whole: the gradients, ``[tasks, ...]`` for each shared variable.
        """
        before = Before(self)
        found = self(finite(losses), whole)
        given = (losses, *whole)
        before.back_unless(tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in given]))
        return found

    @property
    def step_variables(self) -> list:
        """The variables that a search or a look back may change."""
        return self.variables

    def last(self):
        """The weights of the last search, ``[tasks]``; ``None`` where each step has its own."""
        return None

    def limited(self):
        """The place of a task whose weight is at :data:`WEIGHT_LIMIT`, or -1; an int64 scalar."""
        last = self.last()
        if last is None:
            return tf.constant(-1, tf.int64)
        at_limit = tf.abs(last) >= WEIGHT_LIMIT
        first = tf.argmax(tf.cast(at_limit, tf.int32))
        return tf.where(tf.reduce_any(at_limit), first, tf.constant(-1, tf.int64))

    def record(self, weights, gramian=None) -> None:
        """Keep the weights ``[tasks]`` of a step, to be watched."""

    def own_weights(self):
        """Where weights reach the shared variables alone: those of the tasks' own, ``[tasks]``."""
        return tf.ones([len(self.tasks)])

    def restart(self) -> None:
        """Forget what belongs to the steps so far: training starts anew, as NMT's stages do."""

    def count(self, made) -> None:
        """Take down that a step is over.

        Args:
            made: whether it moved the variables, a boolean scalar. One that did not is not counted,
                so that a search that came to nothing is made again.
        """

    def look_back(self, losses, losses_after) -> None:
        """Learn from the losses ``[tasks]`` of a batch before and after the step on it."""

    def look_back_if(self, sound, losses, losses_after) -> None:
        """As :meth:`look_back`, where the step was made and all losses are finite.

        Args:
            sound: whether it was made, a boolean scalar.
            losses, losses_after: ``[tasks]``.
        """
        before = Before(self)
        self.look_back(finite(losses), finite(losses_after))
        before.back_unless(sound & tf.reduce_all(tf.math.is_finite(losses_after)))

    def total(self, losses):
        """The figure reported as ``loss``, from the tasks' mean losses ``[tasks]``: their sum."""
        return tf.reduce_sum(losses)

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Callbacks that ``fit`` runs before the user's own."""
        return []

    def watch(self) -> dict:
        """Scalars worth a line in the logs, by stable name."""
        return {}

    def get_config(self) -> dict:
        return {"name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class Before:
    """What a balancer's step variables hold now, to go back to.

    Unlike a branch of the graph, this works where replicas meet.

    Args:
        balancer: whose they are.
    """

    def __init__(self, balancer: Balancer):
        self._variables = [compat.tf_variable(each) for each in balancer.step_variables]
        self._values = [tf.identity(each) for each in self._variables]

    def back_unless(self, condition) -> None:
        """Undo what has happened since, unless a boolean scalar holds."""
        for variable, value in zip(self._variables, self._values, strict=True):
            variable.assign(tf.where(condition, variable, value))


def bounded(weights):
    """Weights within :data:`WEIGHT_LIMIT`."""
    return tf.clip_by_value(weights, -WEIGHT_LIMIT, WEIGHT_LIMIT)


def check_task_names(argument: str, names: Sequence[str], tasks: Sequence[str]) -> None:
    """Raise where ``names`` is not exactly the set of tasks, once each."""
    unknown = [name for name in names if name not in tasks]
    missing = [task for task in tasks if task not in names]
    if unknown or missing:
        raise ValueError(
            f"`{argument}` must name every task once. Expected: {sorted(tasks)}. "
            f"Received: {list(names)} (unknown: {unknown}, missing: {missing})."
        )


def check_wrt(wrt: str) -> str:
    """Where gradients are taken, or ``ValueError`` for anything else."""
    if wrt not in ("parameters", "representation"):
        raise ValueError(f"`wrt` must be 'parameters' or 'representation'. Received: {wrt!r}")
    return wrt


def check_non_negative(argument: str, values: float | Mapping[str, float]) -> None:
    """Raise where a number, or one of a dict of numbers, is negative or not finite."""
    items = values.items() if isinstance(values, Mapping) else [("", values)]
    for key, value in items:
        where = f"`{argument}[{key!r}]`" if key else f"`{argument}`"
        if not isinstance(value, numbers.Real) or not 0 <= value < float("inf"):
            raise ValueError(f"{where} must be a finite number of at least 0. Received: {value}")
