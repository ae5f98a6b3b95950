"""The Keras model that trains several tasks and leaves their weighting to a balancer."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfmtl import balancers, compat, export, gradients, inputs, metrics
from tfmtl.balancers.base import changing_only_if
from tfmtl.callbacks import Reading, TrainingGuard
from tfmtl.objectives import LossSums, Objectives

#: Kinds of fault: a loss in training, a label in training or in evaluation.
NOT_FINITE, TRAINED_LABEL, EVALUATED_LABEL = range(3)


class _Step(NamedTuple):
    """What a training step has recorded.

    Args:
        together: the tape of all losses, persistent.
        apart: a tape for each task, for a balancer that reads more than losses.
        objectives: the tasks' losses ``[tasks]`` and, behind them, what the backbone's
            regularisers add: this replica's share, scaled for float16.
        each_task: the tasks' losses again, as scalars.
        losses: ``[tasks]``, of the global batch, finite.
    """

    together: tf.GradientTape
    apart: list[tf.GradientTape]
    objectives: list
    each_task: list
    losses: tf.Tensor


@keras.saving.register_keras_serializable("tfmtl")
class MultiTaskModel(keras.Model):
    """Trains any Keras model that returns ``{task: prediction}``.

    Args:
        net: the backbone, functional or subclassed. Its output is a dict by task.
        shared: the variables that tasks share: names as in ``variable.path`` (``name`` in Keras
            2.15), positions in ``net.weights``, or the variables themselves. By default those
            that at least two tasks' losses reach.

    A task's loss is the mean over the rows of the (global) batch that carry a label: a NaN label
    means *no label here* and leaves loss and metrics, and as in Keras sample weights multiply the
    rows' losses but not their count.

    Raises:
        ValueError: ``net`` is not a Keras model, or ``shared`` names an unknown variable.
    """

    def __init__(self, net: keras.Model, shared: Sequence | None = None, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(net, keras.layers.Layer):
            raise ValueError(f"`net` must be a Keras model. Received: {net!r}")
        self.net = net
        self._shared_given = None
        if shared is not None:
            self._shared_given = [
                each if isinstance(each, (str, int)) else compat.variable_name(each)
                for each in shared
            ]
        #: Steps taken, epochs finished, and passes begun over the training data.
        self.progress = compat.add_state(self, "progress", (3,), "int64")
        self._objectives: Any = None  # Objectives, once compiled
        self._signature = None
        # Ids of variables: by output those it depends on, and those that `shared` means.
        self._reach: dict[str, frozenset[int]] = {}
        self._shared_ids: frozenset[int] | None = None
        self._evaluating = False
        # What went wrong: step, task and kind, or -1.
        self._fault = tf.Variable(
            [-1, -1, -1],
            dtype=tf.int64,
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        spec = inputs.known_spec(net)
        if spec is not None:
            self._build_from_spec(spec)

    # What trains what

    def _build_from_spec(self, spec) -> None:
        """Build the backbone and find which task reaches which variable."""
        if self._signature is not None:
            return
        example = tf.nest.map_structure(inputs.zeros, spec)
        predictions = self.net(example, training=False)
        if not isinstance(predictions, Mapping):
            raise ValueError(
                "The backbone's output must be a dict {task: prediction}. "
                f"Received: {type(predictions).__name__}"
            )
        self._reach = self._find_reach(example)
        if self._shared_given is not None:
            self._shared_ids = self._find_given(self._shared_given)
        self._signature = spec
        self.built = True

    def _find_reach(self, example) -> dict[str, frozenset[int]]:
        """For each output the ids of the floating weights it depends on, frozen or not."""
        weights = [each for each in self.net.weights if compat.is_floating(each)]
        reach = {}

        def trace(example):
            watched = [compat.tf_variable(each) for each in weights]
            with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
                tape.watch(watched)
                outputs = self.net(example, training=True)
            for task, output in outputs.items():
                found = tape.gradient(output, watched)
                reached = (v for v, g in zip(weights, found, strict=True) if g is not None)
                reach[task] = frozenset(map(id, reached))

        # Through the strategy: a mirrored variable can be watched within its replicas only.
        tf.function(
            lambda example: self.distribute_strategy.run(trace, (example,)), autograph=False
        ).get_concrete_function(example)
        return reach

    def _find_given(self, given: Sequence[str | int]) -> frozenset[int]:
        """The ids of the variables that ``shared`` means."""
        trainable = set(map(id, self.net.trainable_variables))
        known = {
            i: (each, compat.variable_name(each))
            for i, each in enumerate(self.net.weights)
            if id(each) in trainable
        }
        names = sorted(name for _, name in known.values())
        unknown = [each for each in given if each not in known and each not in names]
        if unknown:
            raise ValueError(
                "`shared` must name trainable variables of the backbone. "
                f"Expected some of: {names}. Received: {unknown}"
            )
        return frozenset(id(v) for i, (v, name) in known.items() if i in given or name in given)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The trained tasks, in the order of ``compile(loss=...)``."""
        return self._objectives.tasks if self._objectives else ()

    def _is_shared(self) -> list[bool]:
        """For each trainable variable whether it is shared."""
        reached = [self._reach[task] for task in self.tasks or self._reach]
        counts = [sum(id(v) in task for task in reached) for v in self.net.trainable_variables]
        if self._shared_ids is None:
            return [count > 1 for count in counts]
        return [
            count > 0 and id(v) in self._shared_ids
            for count, v in zip(counts, self.net.trainable_variables, strict=True)
        ]

    @property
    def shared_variables(self) -> list:
        """The trainable variables that two tasks reach, or one and ``shared`` names them."""
        variables = self.net.trainable_variables
        return [v for v, shared in zip(variables, self._is_shared(), strict=True) if shared]

    @property
    def task_variables(self) -> dict[str, list]:
        """For each task the trainable variables that it reaches and that are not shared."""
        variables = list(zip(self.net.trainable_variables, self._is_shared(), strict=True))
        return {
            task: [v for v, shared in variables if id(v) in self._reach[task] and not shared]
            for task in self.tasks or tuple(self._reach)
        }

    # Compiling

    def compile(
        self,
        optimizer="adam",
        loss: Mapping | None = None,
        metrics: Mapping | None = None,
        balancer=None,
        *,
        weighted_metrics: Mapping | None = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str | None = None,
    ) -> None:
        """Set how to train.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: ``{task: loss}`` for every output of the backbone, any Keras loss; ``None`` for
                an output that is served but not trained.
            metrics: ``{task: [metric, ...]}``, over labelled rows. ``"accuracy"`` means the one
                that fits the task's loss: binary, categorical or sparse categorical.
            balancer: a :class:`tfmtl.balancers.Balancer`, its name, or ``None`` for equal weights.
            weighted_metrics: as ``metrics``, honouring sample weights.
            run_eagerly, steps_per_execution, jit_compile: as in Keras.

        Raises:
            ValueError: tasks unknown or missing in any argument, a task that reaches no trainable
                variable, a negative learning rate, or a balancer that does not fit.
        """
        objectives = Objectives(loss or {}, metrics, weighted_metrics)
        balancer = balancers.get(balancer)
        balancer.check_tasks(objectives.tasks)
        optimizer = keras.optimizers.get(optimizer)
        compat.check_learning_rate(optimizer)
        balancer.check_optimizer(optimizer)
        if self._signature is not None:
            self._fit_together(objectives, balancer)
        extra = {} if jit_compile is None else {"jit_compile": jit_compile}
        super().compile(
            optimizer=optimizer,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            **extra,
        )
        with compat.unlocked(self):
            self._objectives = objectives
            self.balancer = balancer
        self._read_function: Any = None
        self._compiled_with = {
            "optimizer": self.optimizer,
            "loss": dict(loss or {}),
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
            "balancer": balancer,
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
        }
        if self._signature is not None:
            self._build_state()

    def _fit_together(self, objectives: Objectives, balancer: balancers.Balancer) -> None:
        """Check that tasks, backbone and balancer fit, once the backbone is built."""
        objectives.check_outputs(self._reach)
        trainable = set(map(id, self.net.trainable_variables))
        lost = [task for task in objectives.tasks if not trainable & self._reach[task]]
        if lost:
            raise ValueError(
                "Every task must reach a trainable variable of the backbone. "
                f"Received tasks that reach none: {lost}"
            )

    def _build_state(self) -> None:
        """Create what optimizer and balancer keep for the variables, once all are known."""
        compat.build_optimizer(self.optimizer, self.net.trainable_variables)
        self.balancer.bind(self.tasks, self.net.weights, self.shared_variables, self.optimizer)

    @property
    def trainable_variables(self):
        return self.net.trainable_variables

    def build(self, input_shape=None) -> None:
        """Nothing: a backbone without a spec of its own is built from the first rows it meets."""
        self.built = True

    def call(self, inputs, training=None):
        if self._signature is None and tf.executing_eagerly():
            self._build_from_spec(_spec_of(inputs))
        return self.net(inputs, training=training)

    @property
    def metrics(self):
        return list(self._objectives.named_metrics.values()) if self._objectives else []

    def get_metrics_result(self):
        """Total, each task's loss, each metric, and in training what balancer and backbone show.

        The total is the plain sum of the tasks' losses, or the weighted one with fixed weights:
        a figure that means the same in every epoch.
        """
        total = self.balancer.total(tf.stack(self._objectives.task_means()))
        named = self._objectives.named_metrics
        watched = {} if self._evaluating else self._watch()
        return {
            "loss": total,
            **{name: metric.result() for name, metric in named.items()},
            **watched,
        }

    def _watch(self) -> dict:
        """What the balancer shows, and a backbone that has a ``watch()`` of its own."""
        of_net = self.net.watch() if hasattr(self.net, "watch") else {}
        return {**self.balancer.watch(), **of_net}

    # Steps

    def _global_sums(self, y, predictions, sample_weight, *, update: bool) -> LossSums:
        """This replica's share of the losses over the counts of the global batch."""
        local = self._objectives.sums(y, predictions, sample_weight, update=update)
        return LossSums(
            local.sums,
            gradients.sum_over_replicas(local.counts),
            gradients.sum_over_replicas(local.misfits),
        )

    # Nothing in the steps is for AutoGraph to convert, and looking takes it seconds.
    @tf.autograph.experimental.do_not_convert
    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        balancer = self.balancer
        with contextlib.ExitStack() as stack:
            # One for all losses at once, and where they are asked for, one for each task.
            together = stack.enter_context(tf.GradientTape(persistent=True))
            apart = [
                stack.enter_context(tf.GradientTape())
                for _ in (() if balancer.reads == "losses" else self.tasks)
            ]
            predictions = self.net(x, training=True)
            share = self._global_sums(y, predictions, sample_weight, update=True)
            penalty = [tf.add_n(self.net.losses)] if self.net.losses else []
            penalty = [tf.cast(each, tf.float32) / gradients.replicas() for each in penalty]
            objectives = [share.means, *penalty]
            objectives = [compat.scale_loss(self.optimizer, each) for each in objectives]
            each_task = [objectives[0][i] for i in range(len(self.tasks))]
        losses = gradients.sum_over_replicas(share.means)
        step = _Step(together, apart, objectives, each_task, _finite(losses))
        if balancer.reads == "updates":
            self._step_by_updates(step, losses, share.misfits)
        else:
            self._apply(self._update(step), losses, share.misfits)
        if balancer.looks_back:
            after = self._global_sums(y, self.net(x, training=True), sample_weight, update=False)
            after = gradients.sum_over_replicas(after.means)
            balancer.look_back(step.losses, _finite(after))
        self._objectives.track(LossSums(losses * share.counts, share.counts, share.misfits))
        return self.get_metrics_result()

    def _update(self, step: _Step) -> list:
        """What the optimizer is given for each trainable variable."""
        balancer = self.balancer
        if balancer.reads == "losses":
            return self._of_all(step, tf.stop_gradient(balancer(step.losses)), everywhere=True)
        if balancer.reads == "gradients":
            return self._of_each(step, self._drop)
        if balancer.update_every == 1:
            return self._of_each(step, self._weigh)
        due = balancer.due()
        if gradients.replicas() > 1:
            # Replicas cannot meet inside a branch: they search in every step, and undo it.
            return self._of_each(step, functools.partial(self._weigh_if, due))
        present: list[bool] = []

        def without_none(update):
            present[:] = [each is not None for each in update]
            return [each for each in update if each is not None]

        found = iter(
            tf.cond(
                due,
                lambda: without_none(self._of_each(step, self._weigh)),
                lambda: without_none(self._of_all(step, balancer.last())),
            )
        )
        return [next(found) if there else None for there in present]

    def _of_all(self, step: _Step, weights, *, everywhere: bool = False) -> list:
        """The gradients of the weighted loss in one backward pass.

        The weights reach the shared variables alone, or every variable.
        """
        variables = self.net.trainable_variables
        shared = [everywhere or is_shared for is_shared in self._is_shared()]
        update: dict[int, Any] = {}
        for factors, wanted in ((weights, True), (tf.ones_like(weights), False)):
            chosen = [i for i, is_shared in enumerate(shared) if is_shared is wanted]
            found = step.together.gradient(
                step.objectives,
                [compat.tf_variable(variables[i]) for i in chosen],
                output_gradients=[factors, *(tf.ones([]) for _ in step.objectives[1:])],
            )
            update.update(zip(chosen, found, strict=True))
        return [compat.for_optimizer(update[i]) for i in range(len(variables))]

    def _of_each(self, step: _Step, combine: Callable) -> list:
        """The gradients of the tasks one by one, those of the shared variables combined."""
        shared = self._is_shared()
        watched = [compat.tf_variable(each) for each in self.net.trainable_variables]
        found = [
            tape.gradient(objective, watched)
            for tape, objective in zip(step.apart, step.each_task, strict=True)
        ]
        penalties = (
            step.together.gradient(step.objectives[1:], watched)
            if step.objectives[1:]
            else [None] * len(watched)
        )
        columns = [list(column) for column in zip(*found, strict=True)]
        combined = iter(
            combine(step, [c for c, is_shared in zip(columns, shared, strict=True) if is_shared])
        )
        ones = [1.0] * len(found)
        update = [
            next(combined) if is_shared else gradients.weighted_sum(column, ones)
            for column, is_shared in zip(columns, shared, strict=True)
        ]
        return [
            compat.for_optimizer(gradients.weighted_sum(both, [1.0, 1.0]))
            for both in zip(update, penalties, strict=True)
        ]

    def _gramian(self, columns):
        """Of the tasks' gradients over the shared variables, summed over replicas."""
        scale = compat.scale_loss(self.optimizer, tf.ones([]))
        summed = gradients.sum_over_replicas(columns)
        return _finite(gradients.gramian([list(task) for task in zip(*summed)]) / scale**2)

    def _weigh(self, step: _Step, columns) -> list:
        weights = tf.stop_gradient(self.balancer(step.losses, self._gramian(columns)))
        return [gradients.weighted_sum(column, weights) for column in columns]

    def _weigh_if(self, due, step: _Step, columns) -> list:
        """As in a search that is due, else with the last weights and nothing changed."""
        last = self.balancer.last()
        gramian = self._gramian(columns)
        with changing_only_if(due, self.balancer):
            weights = tf.where(due, self.balancer(step.losses, gramian), last)
        return [gradients.weighted_sum(column, weights) for column in columns]

    def _drop(self, step: _Step, columns) -> list:
        """What a balancer makes of the gradients entry by entry, shared among the replicas."""
        stacked = [gradients.stack(column) for column in gradients.sum_over_replicas(columns)]
        found = self.balancer(step.losses, stacked)
        return [each / gradients.replicas() for each in found]

    def _step_by_updates(self, step: _Step, losses, misfits) -> None:
        """A step of a balancer that weighs what the optimizer would do for each task."""
        balancer = self.balancer
        shifts: list = []

        def combine(step, columns):
            scale = compat.scale_loss(self.optimizer, tf.ones([]))
            stacked = [
                tf.cast(gradients.stack(column), tf.float32) / scale
                for column in gradients.sum_over_replicas(columns)
            ]
            weights, found = balancer.balance(
                step.losses, [_finite(each) for each in stacked], self.shared_variables, optimizer
            )
            shifts[:] = found if balancer.moments == "after" else []
            return [gradients.weighted_sum(column, weights) for column in columns]

        optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        if balancer.update_every == 1 or balancer.own_moments:
            self._apply(self._of_each(step, combine), losses, misfits, shifts)
            return
        due = balancer.due()
        if gradients.replicas() == 1:
            tf.cond(
                due,
                lambda: self._apply(self._of_each(step, combine), losses, misfits, shifts),
                lambda: self._apply(self._of_all(step, balancer.last()), losses, misfits),
            )
            return
        last = balancer.last()
        with changing_only_if(due, balancer):
            searched = self._of_each(step, combine)
        kept = self._of_all(step, last)
        update = [
            None
            if new is None
            else tf.where(due, tf.convert_to_tensor(new), tf.convert_to_tensor(old))
            for new, old in zip(searched, kept, strict=True)
        ]
        self._apply(update, losses, misfits, shifts, due)

    def _shift(self, optimizer, shifts, before, rate, wanted) -> None:
        """Put the shared variables where the balancer moves them, not where the optimizer did."""
        for variable, shift, value in zip(self.shared_variables, shifts, before, strict=True):
            there = compat.tf_variable(variable)
            value = tf.cast(value, tf.float32)
            moved = value * (1 - rate * compat.weight_decay(optimizer, variable)) - rate * shift
            moved = tf.where(wanted & tf.reduce_all(tf.math.is_finite(moved)), moved, there)
            gradients.assign(there, tf.cast(moved, there.dtype))

    def _apply(self, update, losses, misfits, shifts=(), shifting=True) -> None:
        """Take the step, unless a loss is not finite or a label not in its domain.

        Args:
            update: what the optimizer is given for each trainable variable.
            losses, misfits: ``[tasks]``, of the global batch.
            shifts: for each shared variable what moves it in the optimizer's place.
            shifting: whether it does.
        """
        update = compat.unscale_gradients(self.optimizer, update)
        variables = self.net.trainable_variables
        pairs = [(g, v) for g, v in zip(update, variables, strict=True) if g is not None]
        fault = tf.stack([~tf.math.is_finite(losses), misfits > 0])  # [kind, task]
        # With several steps an execution, those behind a bad one are skipped as well.
        stopped = self._fault[0] >= 0
        sound = ~(tf.reduce_any(fault) | stopped)
        first = tf.argmax(tf.cast(tf.reshape(fault, [-1]), tf.int32))
        tasks = tf.cast(len(self.tasks), tf.int64)
        step = compat.tf_variable(self.progress)[0]
        found = tf.stack([step, first % tasks, first // tasks])
        noted = self._fault.assign(tf.where(sound | stopped, self._fault, found))

        def apply():
            inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
            before = [tf.identity(compat.tf_variable(v)) for v in self.shared_variables if shifts]
            rate = tf.cast(compat.learning_rate(inner), tf.float32) if shifts else None
            self.optimizer.apply_gradients(pairs)
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
        self.progress.assign_add(tf.constant([1, 0, 0], tf.int64))

    @tf.autograph.experimental.do_not_convert
    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        predictions = self.net(x, training=False)
        sums = self._objectives.sums(y, predictions, sample_weight, update=True)
        self._objectives.track(sums)
        misfits = gradients.sum_over_replicas(sums.misfits)
        found = tf.stack([tf.zeros([], tf.int64), tf.argmax(misfits), EVALUATED_LABEL])
        self._fault.assign(tf.where(tf.reduce_any(misfits > 0), found, self._fault))
        return self.get_metrics_result()

    # Fitting

    def fit(
        self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, **kwargs
    ):
        """Keras' ``fit``; the balancer's own callbacks run before the given ones."""
        validation_split = kwargs.pop("validation_split", 0.0)
        sample_weight = inputs.for_every_task(kwargs.pop("sample_weight", None), y)
        if validation_split and kwargs.get("validation_data") is None:
            (x, y, sample_weight), kwargs["validation_data"] = inputs.split(
                x, y, sample_weight, validation_split
            )
        kwargs["validation_data"] = inputs.with_weights(kwargs.get("validation_data"))
        training = inputs.Source(x, y, sample_weight, batch_size, kwargs.get("steps_per_epoch"))
        held_out = inputs.Source.of(
            kwargs.get("validation_data"),
            kwargs.get("validation_batch_size") or batch_size,
            kwargs.get("validation_steps"),
        )
        self._prepare(training, held_out)
        self._sources = (training, held_out)
        guard = TrainingGuard(training)
        if training.is_dataset:
            kwargs["shuffle"] = False  # Keras 3 warns of anything else
        with self._raising():
            return super().fit(
                x,
                y,
                batch_size=batch_size,
                epochs=epochs,
                verbose=verbose,
                callbacks=[
                    guard,
                    *self.balancer.callbacks(),
                    *_as_list(callbacks),
                    guard.after_restore(),
                ],
                sample_weight=sample_weight,
                **kwargs,
            )

    def evaluate(
        self, x=None, y=None, batch_size=None, verbose="auto", sample_weight=None, **kwargs
    ):
        """Keras' ``evaluate``."""
        sample_weight = inputs.for_every_task(sample_weight, y)
        if self._signature is None:
            self._prepare(inputs.Source(x, y, sample_weight, batch_size))
        self._evaluating = True
        try:
            with self._raising():
                return super().evaluate(
                    x, y, batch_size, verbose, sample_weight=sample_weight, **kwargs
                )
        finally:
            self._evaluating = False

    def predict(self, x, *args, **kwargs):
        """Keras' ``predict``."""
        if self._signature is None:
            self._build_from_spec(_spec_of(inputs.Source(x).first_inputs()))
        return super().predict(x, *args, **kwargs)

    def train_on_batch(self, x, y=None, sample_weight=None, **kwargs):
        """Keras' ``train_on_batch``."""
        sample_weight = inputs.for_every_task(sample_weight, y)
        if self._signature is None:
            self._prepare(inputs.Source(x, y, sample_weight))
        with self._raising():
            return super().train_on_batch(x, y, sample_weight, **kwargs)

    @contextlib.contextmanager
    def _raising(self):
        """Raise what was found wrong within, in the place of what Keras made of it."""
        try:
            yield
        except tf.errors.InvalidArgumentError as error:
            fault = self.fault()
            if fault is None:
                raise
            raise fault from error
        fault = self.fault()
        if fault is not None:
            raise fault

    def _prepare(self, *sources: inputs.Source | None) -> None:
        """Build everything and check what can be checked before the first step."""
        if self._objectives is None:
            raise ValueError("Call `compile(optimizer, loss, ...)` before training.")
        self._fault.assign([-1, -1, -1])
        for source in sources:
            if source is None:
                continue
            x, y, sample_weight = source.first_batch()
            if self._signature is None:
                with self.distribute_strategy.scope():
                    self._build_from_spec(_spec_of(x))
                    self._fit_together(self._objectives, self.balancer)
                    self._build_state()
            predictions = self.net(x, training=False)
            self._objectives.sums(y, predictions, sample_weight)
            self._check_labels(y)

    def _check_labels(self, labels: Mapping) -> None:
        """Look for labels outside their loss's domain in a batch."""
        for task in self.tasks:
            low, high = self._objectives.domain(task)
            values = np.asarray(labels[task])
            wrong = values[(values < low) | (values > high)]
            if wrong.size:
                raise ValueError(label_error(task, low, high, wrong.flat[0]))

    def fault(self) -> Exception | None:
        """What went wrong since the last call: an error to raise, or ``None``."""
        step, task, kind = (int(value) for value in self._fault.numpy())
        if step < 0:
            return None
        self._fault.assign([-1, -1, -1])
        name = self.tasks[task]
        if kind == NOT_FINITE:
            return FloatingPointError(
                f"The loss of task {name!r} is not finite at step {step}. "
                "The weights are those of the last finite step."
            )
        where = f"at step {step}" if kind == TRAINED_LABEL else "in evaluation"
        low, high = self._objectives.domain(name)
        return ValueError(label_error(name, low, high, f"another value {where}"))

    # Looking at rows outside of a step

    def read(self, *, training: bool = False) -> Reading:
        """Losses and AUCs over the held-out rows of this ``fit``, or its training rows.

        Metrics and weights stay as they are; sample weights and absent labels count as in
        training.

        Args:
            training: read the training rows. They stand in for held-out rows where there are none.
        """
        if self._read_function is None:

            def read(batch):
                x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
                predictions = self.net(x, training=False)
                return (
                    self._objectives.sums(y, predictions, sample_weight),
                    self._objectives.binary_rows(y, predictions, sample_weight),
                )

            self._read_function = (
                read
                if self.run_eagerly
                else tf.function(read, reduce_retracing=True, autograph=False)
            )
        source = self._sources[0] if training or self._sources[1] is None else self._sources[1]
        if source is self._sources[0]:
            self.count_pass()
        found = [self._read_function(batch) for batch in source.dataset()]
        sums = np.sum([batch[0].sums for batch in found], axis=0, dtype=np.float64)
        counts = np.sum([batch[0].counts for batch in found], axis=0, dtype=np.float64)
        losses = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
        aucs = [metrics.binary_auc(task) for task in zip(*(b[1] for b in found), strict=True)]
        return Reading(losses, np.array(aucs))

    def count_pass(self) -> None:
        """Note that a pass over the training data begins."""
        self.progress.assign_add(tf.constant([0, 0, 1], tf.int64))

    @property
    def steps_taken(self) -> int:
        """Training steps so far, over all calls of ``fit``."""
        return int(self.progress.numpy()[0])

    # Saving

    def get_config(self):
        return {
            "name": self.name,
            "net": compat.serialize(self.net),
            "shared": self._shared_config(),
        }

    def _shared_config(self):
        """``shared`` by position: a layer's automatic name is another one after loading."""
        if self._shared_ids is None:
            return self._shared_given
        return [i for i, each in enumerate(self.net.weights) if id(each) in self._shared_ids]

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**{**config, "net": compat.deserialize(config["net"])})

    def get_build_config(self):
        return {"inputs": inputs.spec_to_config(self._signature)}

    def build_from_config(self, config):
        if config.get("inputs") is not None:
            self._build_from_spec(inputs.spec_from_config(config["inputs"]))

    def get_compile_config(self):
        if self._objectives is None:
            return {}
        return tf.nest.map_structure(compat.serialize, self._compiled_with)

    def compile_from_config(self, config):
        self.compile(**compat.deserialize_tree(config))

    def export(self, filepath: str, **kwargs) -> None:
        """Write a SavedModel that serves ``{column: [batch, ...]}`` → ``{task: prediction}``.

        It loads with TensorFlow alone. The folder appears whole or not at all.

        Args:
            filepath: a folder that does not exist yet.

        Raises:
            ValueError: the model has not seen its inputs yet.
            FileExistsError: ``filepath`` exists.
        """
        if self._signature is None:
            raise ValueError("`export` needs a built model: call `fit`, or the model on a batch.")
        export.export(self.net, self._signature, filepath, **kwargs)


def _finite(values):
    """Values with 0 for what is not finite: such a step is not taken."""
    return tf.where(tf.math.is_finite(values), values, tf.zeros_like(values))


def _spec_of(value):
    """The specs of a batch of inputs."""
    return tf.nest.map_structure(inputs.spec_of, value)


def label_error(task: str, low: float, high: float, received) -> str:
    """The message for a label that a task's loss is not defined for."""
    return (
        f"Labels of task {task!r} must lie in [{low:g}, {high:g}] for its loss, or be NaN for "
        f"'no label'. Received: {received}"
    )


def _as_list(callbacks) -> list:
    if callbacks is None:
        return []
    if isinstance(callbacks, keras.callbacks.Callback):
        return [callbacks]
    return list(callbacks)
