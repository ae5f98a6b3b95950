"""One training step: what is recorded forward, what goes backward, what the optimizer is given."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

from tfmtl import compat, gradients, optimizers, rows, sequential
from tfmtl.balancers.base import changing_only_if
from tfmtl.models.representation import recording
from tfmtl.objectives import LossSums

if TYPE_CHECKING:
    from tfmtl.model import MultiTaskModel

#: Kinds of fault: a loss in training, a label, a gradient though every loss is finite (a ReLU may
#: swallow a NaN going forward that comes back), and a label in evaluation.
NOT_FINITE, TRAINED_LABEL, GRADIENT_NOT_FINITE, EVALUATED_LABEL = range(4)


class Step:
    """A forward pass of a model on a batch, recorded, and the step that follows from it.

    Args:
        model: a compiled :class:`tfmtl.MultiTaskModel`.
        data: a batch of ``(x, y)`` or ``(x, y, sample_weight)``.
    """

    def __init__(self, model: MultiTaskModel, data):
        self._model = model
        self._balancer = model.balancer
        self._optimizer = model.optimizer
        self._by_rows = optimizers.steps_by_rows(self._optimizer)
        self._variables = model.net.trainable_variables
        self._watched = [compat.tf_variable(each) for each in self._variables]
        self._is_shared = model.is_shared()
        self._data = data
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
        #: ``[tasks]``, of the global batch; and finite.
        self._raw_losses = gradients.sum_over_replicas(share.means)
        self._losses = gradients.finite(self._raw_losses)

    def _takes_each(self) -> bool:
        """Whether a step may go backward from each task by itself."""
        return self._balancer.reads != "losses" and self._balancer.accumulate == "jacobian"

    def take(self) -> None:
        """Make the step."""
        balancer, model = self._balancer, self._model
        if balancer.reads == "updates":
            self._step_by_updates()
        else:
            self._apply(self._update())
        if balancer.looks_back:
            predictions = model.predictions(self._data[0], training=True)
            after = model.global_sums(self._data, predictions, update=False)
            means = gradients.finite(gradients.sum_over_replicas(after.means))
            balancer.look_back(self._losses, means)
        share = self._share
        sums = LossSums(self._raw_losses * share.counts, share.counts, share.misfits)
        model.track(sums)

    # What the optimizer is given for each trainable variable

    def _update(self) -> list:
        balancer = self._balancer
        if balancer.reads == "losses":
            return self._of_all(tf.stop_gradient(balancer(self._losses)), everywhere=True)
        if balancer.wrt == "representation":
            if balancer.reads == "gradients":
                return self._of_masked_representations()
            return self._of_all(self._now_and_then(self._gramian_at_representation))
        if balancer.reads == "gradients":
            return self._of_each(self._masked)
        if balancer.accumulate == "gramian":
            return self._of_all(self._now_and_then(self._gramian_by_rows))
        if balancer.update_every == 1:
            return self._of_each(self._weighed)
        due = balancer.due()
        if gradients.replicas() > 1:
            # Replicas cannot meet inside a branch: they search in every step, and undo it.
            return self._of_each(lambda columns: self._weighed(columns, due))
        present: list[bool] = []

        def without_none(update):
            present[:] = [each is not None for each in update]
            return [each for each in update if each is not None]

        found = iter(
            tf.cond(
                due,
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
        scale = compat.scale_loss(self._optimizer, tf.ones([]))
        return gradients.finite(gramian / scale**2)

    def _weighed(self, columns, due=None) -> list:
        """By a balancer's weights; where a search is not due, by the last ones."""
        weights = self._search(self._gramian(columns), due)
        return [column.weighted(weights) for column in columns]

    def _search(self, gramian, due=None):
        """The balancer's weights; where it is not due, the last ones, and nothing changed."""
        if due is None:
            return tf.stop_gradient(self._balancer(self._losses, gramian))
        last = self._balancer.last()
        with changing_only_if(due, self._balancer):
            weights = tf.where(due, self._balancer(self._losses, gramian), last)
        return tf.stop_gradient(weights)

    def _masked(self, columns) -> list:
        """What a balancer leaves of the gradients, entry by entry, shared among the replicas."""
        whole = gradients.summed(columns)
        found = self._balancer(self._losses, [column.stack() for column in whole])
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

    def _now_and_then(self, gramian: Callable):
        """A balancer's weights, from a Gram matrix that is made where a search is due."""
        balancer = self._balancer
        if balancer.update_every == 1:
            return self._search(gramian())
        due = balancer.due()
        if gradients.replicas() > 1:
            return self._search(gramian(), due)
        return tf.cond(due, lambda: self._search(gramian()), balancer.last)

    def _of_masked_representations(self) -> list:
        """As :meth:`_of_all`, the backward pass going on from masked gradients."""
        stacked = gradients.Column(self._at_representation()).stack()
        (kept,) = self._balancer(self._losses, [stacked])
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

    def _step_by_updates(self) -> None:
        balancer = self._balancer
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

        if balancer.update_every == 1 or balancer.own_moments:
            self._apply(self._of_each(combine), shifts)
            return
        due = balancer.due()
        if gradients.replicas() == 1:
            tf.cond(
                due,
                lambda: self._apply(self._of_each(combine), shifts),
                lambda: self._apply(self._of_all(balancer.last())),
            )
            return
        last = balancer.last()
        with changing_only_if(due, balancer):
            searched = self._of_each(combine)
        kept = self._of_all(last)
        update = [
            None if new is None else gradients.choose(due, new, old)
            for new, old in zip(searched, kept, strict=True)
        ]
        self._apply(update, shifts, due)

    def _shift(self, optimizer, shifts, before, rate, wanted) -> None:
        """Put the shared variables where the balancer moves them, not where the optimizer did."""
        shared = self._model.shared_variables
        for variable, shift, value in zip(shared, shifts, before, strict=True):
            there = compat.tf_variable(variable)
            ids = shift.indices if isinstance(shift, tf.IndexedSlices) else None
            decay = compat.weight_decay(optimizer, variable)
            value = tf.cast(value, tf.float32)
            moved = value * (1 - rate * decay) if decay else value
            moved -= rate * (shift if ids is None else shift.values)
            right = wanted & tf.reduce_all(tf.math.is_finite(moved))
            if gradients.replicas() == 1:
                tf.cond(right, functools.partial(_place, there, ids, moved), lambda: None)
                continue
            now = tf.cast(there if ids is None else rows.read(there, ids), tf.float32)
            _place(there, ids, tf.where(right, moved, now))

    # The optimizer

    def _not_finite(self, update: Sequence):
        """How many variables have a gradient that is not finite, a scalar.

        Under float16 that is the optimizer's own concern, which scales the loss by it.
        """
        if compat.unscaled(self._optimizer) is not self._optimizer:
            return tf.zeros([])
        values = [g.values if isinstance(g, tf.IndexedSlices) else g for g in update]
        wrong = [~tf.reduce_all(tf.math.is_finite(each)) for each in values if each is not None]
        return gradients.sum_over_replicas(tf.add_n([tf.cast(each, tf.float32) for each in wrong]))

    def _apply(self, update: Sequence, shifts: Sequence = (), shifting=True) -> None:
        """Take the step, unless a loss or gradient is not finite or a label not in its domain.

        Args:
            update: what the optimizer is given for each trainable variable.
            shifts: for each shared variable what moves it in the optimizer's place.
            shifting: whether it does.
        """
        model, optimizer = self._model, self._optimizer
        losses, misfits = self._raw_losses, self._share.misfits
        update = compat.unscale_gradients(optimizer, update)
        pairs = [(g, v) for g, v in zip(update, self._variables, strict=True) if g is not None]
        sound, noted = model.note_faults(losses, misfits, self._not_finite(update))
        similarity = model.similarity
        start = [tf.identity(each) for each in self._watched] if similarity else []

        def apply():
            inner = compat.unscaled(optimizer)
            shared = model.shared_variables if shifts else []
            before = [
                rows.read(compat.tf_variable(each), shift.indices)
                if isinstance(shift, tf.IndexedSlices)
                else tf.identity(compat.tf_variable(each))
                for each, shift in zip(shared, shifts, strict=False)
            ]
            rate = tf.cast(compat.learning_rate(inner), tf.float32) if shifts else None
            with tf.name_scope("optimizer"):
                optimizer.apply_gradients(pairs)
                if shifts:
                    self._shift(inner, shifts, before, rate, shifting)

        if gradients.replicas() == 1:
            tf.cond(sound, apply, lambda: None)
        else:
            # Replicas cannot meet inside a branch, so the step is stopped instead of skipped.
            with (
                tf.control_dependencies([noted]),
                tf.control_dependencies([tf.debugging.Assert(sound, [losses, misfits])]),
            ):
                apply()
        if similarity:
            moved = [a - b for a, b in zip(start, self._watched, strict=True)]
            summed = gradients.sum_over_replicas(list(update))
            similarity.update(summed, moved, self._is_shared, sound)
        model.count_step()


def _place(variable, ids, values) -> None:
    """Put values into a variable, or into the rows of a table that ``ids`` name."""
    if ids is not None:
        values = tf.IndexedSlices(rows.filled(values, ids), ids)
    gradients.assign(variable, values)
