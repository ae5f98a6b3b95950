"""One training step: what is recorded forward, what goes backward, what the optimizer is given."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

from tfmtl import compat, distributed, gradients, optimizers, rows, sequential
from tfmtl.models.representation import recording
from tfmtl.objective import LossSums

if TYPE_CHECKING:
    from tfmtl.model import MultiTaskModel


def takes_turns(balancer) -> bool:
    """Whether a balancer searches its weights in some steps and keeps them in the others."""
    return (
        balancer.reads in ("gramian", "updates")
        and balancer.update_every > 1
        and not getattr(balancer, "own_moments", False)
    )


class Step:
    """A forward pass of a model on a batch, recorded, and the step that follows from it.

    Where there is one replica, :meth:`take` makes the step. Several replicas meet, to add up what
    they have, in :meth:`find`, :meth:`apply` and :meth:`finish`, and cannot meet inside a branch:
    whoever makes their steps branches between the three (:mod:`tfmtl.loops`).

    Args:
        model: a compiled :class:`tfmtl.MultiTaskModel`.
        data: a batch of ``(x, y)`` or ``(x, y, sample_weight)``.
        searching: whether a balancer that takes turns (:func:`takes_turns`) searches its weights;
            ``None``: the step asks it.
    """

    def __init__(self, model: MultiTaskModel, data, searching: bool | None = None):
        self._model = model
        self._balancer = model.balancer
        self._optimizer = model.optimizer
        self._by_rows = optimizers.steps_by_rows(self._optimizer)
        self._variables = model.net.trainable_variables
        self._watched = [compat.tf_variable(each) for each in self._variables]
        self._is_shared = model.is_shared()
        self._data = data
        self._searching = searching if takes_turns(self._balancer) else True
        tasks = model.tasks
        with contextlib.ExitStack() as stack:
            # One tape for all losses at once, and where they are asked for, one for each task.
            self._together = stack.enter_context(tf.GradientTape(persistent=True))
            self._apart = [
                stack.enter_context(tf.GradientTape())
                for _ in (tasks if self._takes_each() else ())
            ]
            marked = stack.enter_context(recording())
            stack.enter_context(tf.name_scope("forward"))
            predictions = model.predictions(data[0], training=True)
            share = model.global_sums(data, predictions, update=True)
            penalty = [tf.add_n(model.net.losses)] if model.net.losses else []
            penalty = [tf.cast(each, tf.float32) / gradients.replicas() for each in penalty]
            objectives = [share.means, *penalty]
            #: Losses ``[tasks]`` and, behind them, what the backbone's regularisers add: this
            #: replica's share, scaled for float16.
            self._objectives = [compat.scale_loss(self._optimizer, each) for each in objectives]
            self._each_task = [self._objectives[0][i] for i in range(len(tasks))]
        #: What each task's tower reads, where gradients are taken at it.
        self._representations = (
            marked.of_tasks([model.output_of(task) for task in tasks])
            if self._balancer.wrt == "representation"
            else []
        )
        self._share = share
        #: ``[tasks]``, of the global batch.
        self._losses = gradients.sum_over_replicas(share.means)

    def _takes_each(self) -> bool:
        """Whether the step may go backward from each task by itself."""
        balancer = self._balancer
        return (
            balancer.reads != "losses"
            and balancer.accumulate == "jacobian"
            and self._searching is not False
        )

    def take(self) -> None:
        """Make the step, where there is one replica."""
        if self._balancer.reads == "updates" and self._searching is None:
            tf.cond(self._balancer.due(), lambda: self._take(True), lambda: self._take(False))
        else:
            self._take(self._searching)

    def _take(self, searching: bool | None) -> None:
        tf.cond(self.find(searching), self.apply, lambda: None)
        self.finish()

    def find(self, searching: bool | None = None):
        """Find what moves the variables.

        Args:
            searching: as of the class; by default what that was given.

        Returns:
            Whether the step is to be made: every loss and gradient is finite and every label in
            its domain. A boolean scalar, the same on all replicas.
        """
        model = self._model
        searching = self._searching if searching is None else searching
        shifts: list = []
        if self._balancer.reads == "updates":
            update, shifts = self._update_by_updates(searching)
        else:
            update = self._update(searching)
        self._given = compat.unscale_gradients(self._optimizer, update)
        #: For each shared variable what moves it in the optimizer's place.
        self._shifts = shifts
        #: How many variables have a gradient that is not finite, a scalar.
        self._lost = self._not_finite(self._given)
        # Under float16 the optimizer, which scales the loss by it, passes over such a step.
        scaled = compat.unscaled(self._optimizer) is not self._optimizer
        faults = tf.zeros([]) if scaled else self._lost
        self._sound = model.note_faults(self._losses, self._share.misfits, faults)
        self._start = [tf.identity(each) for each in self._watched] if model.similarity else []
        return self._sound

    def apply(self) -> None:
        """Move the variables."""
        optimizer = self._optimizer
        pairs = zip(self._given, self._variables, strict=True)
        inner = compat.unscaled(optimizer)
        shared = self._model.shared_variables if self._shifts else []
        before = [
            rows.read(compat.tf_variable(each), shift.indices)
            if isinstance(shift, tf.IndexedSlices)
            else tf.identity(compat.tf_variable(each))
            for each, shift in zip(shared, self._shifts, strict=True)
        ]
        rate = tf.cast(compat.learning_rate(inner), tf.float32) if self._shifts else None
        with tf.name_scope("optimizer"):
            optimizer.apply_gradients([(g, v) for g, v in pairs if g is not None])
            if self._shifts:
                self._shift(inner, before, rate)

    def finish(self) -> None:
        """Take down what the step did."""
        balancer, model, share = self._balancer, self._model, self._share
        if model.similarity:
            moved = [a - b for a, b in zip(self._start, self._watched, strict=True)]
            summed = gradients.sum_over_replicas(list(self._given))
            model.similarity.update(summed, moved, self._is_shared, self._sound)
        model.count_step(self._sound & (self._lost == 0))
        if balancer.looks_back:
            predictions = model.predictions(self._data[0], training=True)
            after = model.global_sums(self._data, predictions, update=False)
            means = gradients.sum_over_replicas(after.means)
            balancer.look_back_if(self._sound, self._losses, means)
        # A step that is skipped leaves no trace in the epoch's figures.
        counts = tf.where(self._sound, share.counts, tf.zeros_like(share.counts))
        sums = tf.where(self._sound, self._losses * counts, tf.zeros_like(counts))
        model.track(LossSums(sums, counts, share.misfits))

    # What the optimizer is given for each trainable variable

    def _update(self, searching: bool | None) -> list:
        balancer = self._balancer
        if balancer.reads == "losses":
            return self._of_all(balancer.search(self._losses), everywhere=True)
        if balancer.wrt == "representation":
            if balancer.reads == "gradients":
                return self._of_masked_representations()
            return self._of_all(self._weights(searching, self._gramian_at_representation))
        if balancer.reads == "gradients":
            return self._of_each(self._masked)
        if balancer.accumulate == "gramian":
            return self._of_all(self._weights(searching, self._gramian_by_rows))
        if searching is not None:
            return self._of_each(self._weighed) if searching else self._of_all(balancer.last())
        present: list[bool] = []

        def without_none(update):
            present[:] = [each is not None for each in update]
            return [each for each in update if each is not None]

        found = iter(
            tf.cond(
                balancer.due(),
                lambda: without_none(self._of_each(self._weighed)),
                lambda: without_none(self._of_all(balancer.last())),
            )
        )
        return [next(found) if there else None for there in present]

    def _of_all(self, weights, *, everywhere: bool = False) -> list:
        """The gradients of the weighted loss in one backward pass.

        The weights reach the shared variables alone, or every variable.
        """
        with tf.name_scope("backward"):
            if everywhere:
                factors = [weights, *(tf.ones([]) for _ in self._objectives[1:])]
                found = self._together.gradient(
                    self._objectives, self._watched, output_gradients=factors
                )
                return [self._for_optimizer(each) for each in found]
            penalties = self._penalties()
            if self._balancer.reads == "updates":
                # An update takes the regularisers along with the tasks, see `_with_penalties`.
                along = tf.reduce_mean(weights)
                penalties = [
                    gradients.scaled(each, along) if shared else each
                    for each, shared in zip(penalties, self._is_shared, strict=True)
                ]
            return self._add(self._shared_by_weights(weights), penalties)

    def _shared_by_weights(self, weights) -> list:
        """The tasks' gradients added up: with the weights where variables are shared."""
        own = self._balancer.own_weights()
        # What one task alone reaches comes with the same pass, times the task's weight, which is
        # taken out again. So it must not be 0: this little of a task is lost in rounding.
        least = 1e-12 * tf.maximum(tf.reduce_max(tf.abs(weights)), 1e-12)
        weights = tf.where(tf.abs(weights) < least, least, weights)
        # Float16 has no room for what a small weight leaves.
        half = compat.unscaled(self._optimizer) is not self._optimizer
        owners = dict(enumerate(self._model.owners()))
        shared = [i for i in owners if self._is_shared[i]]
        alone = [i for i in owners if i not in shared and len(owners[i]) == 1 and not half]
        others = [i for i in owners if i not in shared and i not in alone]
        update: dict = {}
        for places, factors in (([*shared, *alone], weights), (others, own)):
            wanted = [self._watched[i] for i in places]
            found = self._together.gradient(self._objectives[0], wanted, output_gradients=factors)
            update.update(zip(places, found, strict=True))
        for i in alone:
            update[i] = gradients.scaled(update[i], (own / weights)[owners[i][0]])
        return [update[i] for i in owners]

    def _of_each(self, combine: Callable) -> list:
        """The gradients of the tasks one by one, those of the shared variables combined."""
        with tf.name_scope("backward"):
            found = [
                tape.gradient(objective, self._watched)
                for tape, objective in zip(self._apart, self._each_task, strict=True)
            ]
            penalties = self._penalties()
            if self._balancer.reads == "updates":
                found = self._with_penalties(found, penalties)
            columns = [gradients.Column.of(column) for column in zip(*found, strict=True)]
        with tf.name_scope("weights"):
            combined = iter(
                combine([c for c, shared in zip(columns, self._is_shared, strict=True) if shared])
            )
        own = self._balancer.own_weights()
        with tf.name_scope("backward"):
            update = [
                next(combined) if shared else column.weighted(own)
                for column, shared in zip(columns, self._is_shared, strict=True)
            ]
            return self._add(update, penalties)

    def _penalties(self) -> list:
        """The gradients of what the regularisers add."""
        if not self._objectives[1:]:
            return [None] * len(self._watched)
        return self._together.gradient(self._objectives[1:], self._watched)

    def _with_penalties(self, found: Sequence, penalties: list) -> list:
        """Tasks' gradients that bring a part of the regularisers' with them, as updates need it.

        Those of the shared variables are taken out of ``penalties``.
        """
        found = [list(task) for task in found]
        for i, shared in enumerate(self._is_shared):
            if shared and penalties[i] is not None:
                part = tf.convert_to_tensor(penalties[i]) / len(found)
                for task in found:
                    task[i] = gradients.add(task[i], part)
                penalties[i] = None
        return found

    def _add(self, update: Sequence, penalties: Sequence) -> list:
        added = map(gradients.add, update, penalties)
        return [self._for_optimizer(each) for each in added]

    def _for_optimizer(self, gradient):
        """A gradient in the form that the optimizer steps right by."""
        return gradient if self._by_rows else compat.for_optimizer(gradient)

    # How a balancer is asked

    def _gramian(self, columns):
        """Of the tasks' gradients over the shared variables, summed over replicas."""
        return self._unscaled(gradients.gramian(gradients.summed(columns)))

    def _unscaled(self, gramian):
        return gramian / compat.scale_loss(self._optimizer, tf.ones([])) ** 2

    def _weighed(self, columns) -> list:
        """By the weights that a search finds."""
        weights = self._balancer.search(self._losses, self._gramian(columns))
        return [column.weighted(weights) for column in columns]

    def _masked(self, columns) -> list:
        """What a balancer leaves of the gradients, entry by entry, shared among the replicas."""
        whole = gradients.summed(columns)
        found = self._balancer.mask(self._losses, [column.stack() for column in whole])
        return [
            column.put(tf.reduce_sum(each, 0) / gradients.replicas())
            for column, each in zip(whole, found, strict=True)
        ]

    def _at_representation(self) -> list:
        """Each task's gradient at what its tower reads: the backward pass of a tower alone."""
        return [
            tape.gradient(objective, representation)
            for tape, objective, representation in zip(
                self._apart, self._each_task, self._representations, strict=True
            )
        ]

    def _gramian_at_representation(self):
        # Rows of the batch lie on one replica each: products are summed, not gradients.
        local = gradients.gramian([gradients.Column(self._at_representation())])
        return self._unscaled(gradients.sum_over_replicas(local))

    def _gramian_by_rows(self):
        shared = zip(self._watched, self._is_shared, strict=True)
        variables = [variable for variable, is_shared in shared if is_shared]
        found = sequential.gramian(self._together, self._objectives[0], variables)
        return self._unscaled(found)

    def _weights(self, searching: bool | None, gramian: Callable):
        """A balancer's weights, from a Gram matrix that is made where they are searched."""
        balancer = self._balancer

        def search():
            return balancer.search(self._losses, gramian())

        if searching is None:
            return tf.cond(balancer.due(), search, balancer.last)
        return search() if searching else balancer.last()

    def _of_masked_representations(self) -> list:
        """As :meth:`_of_all`, the backward pass going on from masked gradients."""
        stacked = gradients.Column(self._at_representation()).stack()
        (kept,) = self._balancer.mask(self._losses, [stacked])
        below = self._together.gradient(
            self._representations, self._watched, output_gradients=tf.unstack(kept)
        )
        own = self._together.gradient(
            self._objectives[0], self._watched, output_gradients=self._balancer.own_weights()
        )
        update = [
            b if shared else o for b, o, shared in zip(below, own, self._is_shared, strict=True)
        ]
        return self._add(update, self._penalties())

    # A balancer that weighs what the optimizer would do for each task

    def _update_by_updates(self, searching: bool | None) -> tuple[list, list]:
        """What the optimizer is given, and what moves the shared variables in its place."""
        balancer = self._balancer
        if not searching:
            return self._of_all(balancer.last()), []
        optimizer = compat.unscaled(self._optimizer)
        shared = self._model.shared_variables
        shifts: list = []

        def combine(columns):
            scale = compat.scale_loss(self._optimizer, tf.ones([]))
            scaled = optimizer is not self._optimizer

            def unscaled(gradient):
                gradient = tf.cast(gradient, tf.float32)
                return gradient / scale if scaled else gradient

            whole = [
                # An optimizer that moves every row of a table has an update for every row.
                (column if self._by_rows else column.dense()).map(unscaled)
                for column in gradients.summed(columns)
            ]
            weights, found = balancer.balance(self._losses, whole, shared, optimizer)
            shifts[:] = found if balancer.moments == "after" else []
            return [column.weighted(weights) for column in columns]

        return self._of_each(combine), shifts

    def _shift(self, optimizer, before, rate) -> None:
        """Put the shared variables where the balancer moves them, not where the optimizer did."""
        shared = self._model.shared_variables
        for variable, shift, value in zip(shared, self._shifts, before, strict=True):
            there = compat.tf_variable(variable)
            ids = shift.indices if isinstance(shift, tf.IndexedSlices) else None
            decay = compat.weight_decay(optimizer, variable)
            value = tf.cast(value, tf.float32)
            moved = value * (1 - rate * decay) if decay else value
            moved -= rate * (shift if ids is None else shift.values)
            right = tf.reduce_all(tf.math.is_finite(moved))
            if not distributed.is_distributed(tf.distribute.get_strategy()):
                tf.cond(right, functools.partial(_place, there, ids, moved), lambda: None)
                continue
            now = tf.cast(there if ids is None else rows.read(there, ids), tf.float32)
            _place(there, ids, tf.where(right, moved, now))

    # The optimizer

    def _not_finite(self, update: Sequence):
        """How many variables have a gradient that is not finite, over all replicas, a scalar."""
        values = [g.values if isinstance(g, tf.IndexedSlices) else g for g in update]
        wrong = [~tf.reduce_all(tf.math.is_finite(each)) for each in values if each is not None]
        return gradients.sum_over_replicas(tf.add_n([tf.cast(each, tf.float32) for each in wrong]))


def _place(variable, ids, values) -> None:
    """Put values into a variable, or into the rows of a table that ``ids`` name."""
    if ids is not None:
        values = tf.IndexedSlices(rows.filled(values, ids), ids)
    gradients.assign(variable, values)
