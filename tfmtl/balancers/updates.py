"""What balancers have in common that read the tasks' updates instead of their gradients."""

from __future__ import annotations

import tensorflow as tf

from tfmtl import compat, optimizers, rows
from tfmtl.balancers.gramian import GramianBalancer
from tfmtl.gradients import finite, inner_products
from tfmtl.optimizers import clippy


class UpdateBalancer(GramianBalancer):
    """A balancer of what the optimizer would do for each task alone.

    In a step that searches, each task's gradient over the shared variables is made into an update
    by the optimizer's own formula and state; :meth:`weigh` finds the weights from the updates'
    Gram matrix; the shared variables move along the weighted updates, and the optimizer's moments
    advance with the weighted gradients. A task's own variables are the plain optimizer's, and so is
    every step between searches. What the network's regularisers add is shared out evenly among the
    tasks' gradients.

    With an optimizer that steps by rows (:class:`tfmtl.optimizers.LazyAdam`) the updates of a table
    are those of the rows in the batch; else they are dense, one for each task.
    """

    reads = "updates"

    #: Whether each task has moments of its own, which takes its gradient in every step.
    own_moments = False
    #: Whether moments advance ``"after"`` or ``"before"`` the shared variables move.
    moments = "after"
    #: Whether each update is clipped as Clippy does.
    clips = False
    #: Whether tasks are told apart by what of an update is due to their own gradient.
    own_part = False

    def __init__(self, update_every: int = 1, **kwargs):
        super().__init__(update_every, **kwargs)
        if self.wrt != "parameters":
            raise ValueError(
                "`wrt` must be 'parameters' for a balancer that reads updates. "
                f"Received: {self.wrt!r}"
            )
        if self.accumulate != "jacobian":
            raise ValueError(
                "`accumulate` must be 'jacobian' for a balancer that reads updates. "
                f"Received: {self.accumulate!r}"
            )
        # For each shared variable its shape and the initial values of its slots.
        self._planned: list[tuple] = []

    def check_optimizer(self, optimizer) -> None:
        """Raise ``ValueError`` for an optimizer whose updates are not known."""
        optimizers.rule_of(optimizer)

    def bind(self, tasks, variables=(), shared=(), optimizer=None):
        if self.own_moments and optimizer is not None and not self.tasks:
            rule = optimizers.rule_of(optimizer)
            self._planned = [(tuple(variable.shape) or (1,), rule.initial()) for variable in shared]
        super().bind(tasks, variables, shared, optimizer)

    def build(self, input_shape):
        n = len(self.tasks)
        self._moments = [
            {
                # Task behind task in one table, which can be read and written by rows.
                name: compat.add_state(
                    self, f"moments_{i}_{name}", (n * shape[0], *shape[1:]), initial=value
                )
                for name, value in initial.items()
            }
            for i, (shape, initial) in enumerate(self._planned)
        ]
        super().build(input_shape)

    def weigh(self, losses, gramian, whole=None):
        """The weights ``[tasks]``.

        Args:
            losses: ``[tasks]``.
            gramian: ``[tasks, tasks]`` of what the tasks are told apart by.
            whole: ``[tasks, tasks]`` of the whole updates; ``gramian`` by default.
        """
        raise NotImplementedError

    def call(self, losses, gramian=None, whole=None):
        weights = self.weigh(losses, gramian, whole)
        self.record(weights, gramian)
        return weights

    @property
    def step_variables(self):
        moments = {id(each) for slots in self._moments for each in slots.values()}
        return [each for each in self.variables if id(each) not in moments]

    def restart(self):
        """The next step searches, with fresh moments."""
        super().restart()
        for (_, initial), moments in zip(self._planned, self._moments, strict=True):
            for name, value in initial.items():
                moments[name].assign(tf.fill(moments[name].shape, value))

    def balance(self, losses, gradients, variables, optimizer, find=None):
        """Weights and shifts of one step.

        Args:
            losses: ``[tasks]``.
            gradients: for each shared variable the :class:`tfmtl.gradients.Column` of its gradients
                by each task, float32, over all replicas.
            variables: the shared variables.
            optimizer: a Keras optimizer that is built for them.
            find: whose :meth:`search` finds the weights; by default this layer.

        Returns:
            The weights ``[tasks]``; for each shared variable what the learning rate is to multiply
            and the variable to be lowered by, of a table perhaps some rows.
        """
        whole_rule = optimizers.rule_of(optimizer)
        iteration = tf.cast(compat.tf_variable(optimizer.iterations), tf.float32)
        rate = tf.cast(compat.learning_rate(optimizer), tf.float32)
        # The momentum of all tasks' steps is in every update and says nothing of any of them.
        apart = self.own_part and not self.own_moments
        updates, own_parts = [], []
        of_rows = whole_rule.of_rows()
        for i, (column, variable) in enumerate(zip(gradients, variables, strict=True)):
            gradient = column.stack()
            rule = whole_rule if column.ids is None else of_rows
            if self.own_moments:
                made = [self._advance(i, rule, gradient, column.ids, iteration)]
            else:
                slots = rule.read(variable, column.ids)
                if apart:
                    made = [*rule.parts(gradient, slots, iteration)]
                else:
                    made = [rule.step(gradient, slots, iteration)[0]]
            made = [column.without_padding(each) for each in made]
            if self.clips:
                value = compat.tf_variable(variable)
                value = value if column.ids is None else rows.read(value, column.ids)
                made = [clippy.clip(each, tf.cast(value, tf.float32), rate) for each in made]
            updates.append(made[0])
            own_parts.append(made[-1])
        whole = _gramian(updates)
        weights = (find or self).search(losses, _gramian(own_parts) if apart else whole, whole)
        shifts = [
            column.put(tf.tensordot(weights, update, 1))
            for column, update in zip(gradients, updates, strict=True)
        ]
        return weights, shifts

    def _advance(self, i, rule, gradient, ids, iteration):
        """The updates ``[tasks, ...]`` by each task's own moments, which advance with gradients
        that are finite.
        """
        sound = tf.reduce_all(tf.math.is_finite(gradient))
        gradient = finite(gradient)
        variables = {name: compat.tf_variable(self._moments[i][name]) for name in rule.names()}
        if ids is None:
            slots = {n: tf.reshape(each, tf.shape(gradient)) for n, each in variables.items()}
            update, after = rule.step(gradient, slots, iteration)
            for name, variable in variables.items():
                moved = tf.where(sound, after[name], slots[name])
                variable.assign(tf.reshape(moved, variable.shape))
            return update
        n, height = len(self.tasks), self._planned[i][0][0]
        places = tf.range(n, dtype=tf.int64)[:, None] * height + tf.cast(ids, tf.int64)
        places = tf.reshape(places, [-1])
        slots = {
            k: tf.reshape(rows.read(v, places), tf.shape(gradient)) for k, v in variables.items()
        }
        update, after = rule.step(gradient, slots, iteration)
        for name, variable in variables.items():
            slot = rows.filled(tf.where(sound, after[name], slots[name]), ids, axis=1)
            rows.put(variable, places, tf.reshape(slot, [-1, *variable.shape[1:]]))
        return update


def _gramian(stacked):
    """Of vectors in pieces ``[tasks, ...]``."""
    return tf.add_n([inner_products(each) for each in stacked])
