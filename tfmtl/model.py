"""The Keras model that trains several tasks and leaves their weighting to a balancer."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmtl import balancers, compat, export, gradients, inputs, metrics
from tfmtl.callbacks import Reading, TrainingGuard
from tfmtl.objectives import LossSums, Objectives


@keras.saving.register_keras_serializable("tfmtl")
class MultiTaskModel(keras.Model):
    """Trains any Keras model that returns ``{task: prediction}``.

    Args:
        net: the backbone, functional or subclassed. Its output is a dict by task.
        shared: the variables that tasks share: names as in ``variable.path`` (``name`` in Keras
            2.15) or the variables themselves. By default those that at least two tasks' losses
            reach.

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
        self._shared_names = None
        if shared is not None:
            self._shared_names = [
                each if isinstance(each, str) else compat.variable_name(each) for each in shared
            ]
        #: Steps taken, epochs finished, and passes begun over the training data.
        self.progress = compat.add_state(self, "progress", (3,), "int64")
        self._objectives: Any = None  # Objectives, once compiled
        self._signature = None
        self._reach: dict[str, list[int]] = {}
        self._evaluating = False
        # What stopped the training: step, task and kind, or -1.
        self._fault = tf.Variable([-1, -1, -1], dtype=tf.int64, trainable=False)
        spec = inputs.known_spec(net)
        if spec is not None:
            self._build_from_spec(spec)

    # What trains what

    def _build_from_spec(self, spec) -> None:
        """Build the backbone and find which task reaches which variable."""
        if self._signature is not None:
            return
        self._signature = spec
        example = tf.nest.map_structure(inputs.zeros, spec)
        predictions = self.net(example, training=False)
        if not isinstance(predictions, Mapping):
            raise ValueError(
                "The backbone's output must be a dict {task: prediction}. "
                f"Received: {type(predictions).__name__}"
            )
        variables = self.net.trainable_variables

        @tf.function
        def trace(example):
            watched = [compat.tf_variable(variable) for variable in variables]
            with tf.GradientTape(persistent=True) as tape:
                outputs = self.net(example, training=True)
            for task, output in outputs.items():
                reached = tape.gradient(output, watched)
                self._reach[task] = [i for i, each in enumerate(reached) if each is not None]

        trace.get_concrete_function(example)
        self.built = True
        if self._shared_names is not None:
            known = {compat.variable_name(variable) for variable in variables}
            unknown = sorted(set(self._shared_names) - known)
            if unknown:
                raise ValueError(
                    "`shared` must name trainable variables of the backbone. "
                    f"Expected some of: {sorted(known)}. Received: {unknown}"
                )

    @property
    def tasks(self) -> tuple[str, ...]:
        """The trained tasks, in the order of ``compile(loss=...)``."""
        return self._objectives.tasks if self._objectives else ()

    def _is_shared(self) -> list[bool]:
        variables = self.net.trainable_variables
        if self._shared_names is not None:
            return [compat.variable_name(each) in self._shared_names for each in variables]
        trained = self.tasks or tuple(self._reach)
        return [sum(i in self._reach[task] for task in trained) > 1 for i in range(len(variables))]

    @property
    def shared_variables(self) -> list:
        """The trainable variables that at least two tasks reach (or that ``shared`` names)."""
        variables = self.net.trainable_variables
        return [v for v, shared in zip(variables, self._is_shared(), strict=True) if shared]

    @property
    def task_variables(self) -> dict[str, list]:
        """For each task the trainable variables that it reaches and that are not shared."""
        variables = self.net.trainable_variables
        shared = self._is_shared()
        return {
            task: [variables[i] for i in self._reach[task] if not shared[i]]
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
            metrics: ``{task: [metric, ...]}``, over labelled rows.
            balancer: a :class:`tfmtl.balancers.Balancer`, its name, or ``None`` for equal weights.
            weighted_metrics: as ``metrics``, honouring sample weights.
            run_eagerly, steps_per_execution, jit_compile: as in Keras.

        Raises:
            ValueError: tasks unknown or missing in any argument, or a balancer that does not fit.
        """
        objectives = Objectives(loss or {}, metrics, weighted_metrics)
        balancer = balancers.get(balancer)
        balancer.check_tasks(objectives.tasks)
        extra = {} if jit_compile is None else {"jit_compile": jit_compile}
        super().compile(
            optimizer=optimizer,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            **extra,
        )
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
            self._bind()

    def _bind(self) -> None:
        """Fit tasks, backbone, optimizer and balancer together, once the backbone is built."""
        self._objectives.check_outputs(self._reach)
        lost = [task for task in self.tasks if not self._reach[task]]
        if lost:
            raise ValueError(
                "Every task must reach a trainable variable of the backbone. "
                f"Received tasks that reach none: {lost}"
            )
        self.balancer.bind(self.tasks, self.net.weights)
        compat.build_optimizer(self.optimizer, self.net.trainable_variables)

    @property
    def trainable_variables(self):
        return self.net.trainable_variables

    def call(self, inputs, training=None):
        return self.net(inputs, training=training)

    @property
    def metrics(self):
        return list(self._objectives.named_metrics.values()) if self._objectives else []

    def get_metrics_result(self):
        """Total, each task's loss, each metric, and in training what the balancer shows.

        The total is the plain sum of the tasks' losses, or the weighted one with fixed weights:
        a figure that means the same in every epoch.
        """
        total = self.balancer.total(tf.stack(self._objectives.task_means()))
        named = self._objectives.named_metrics
        watched = {} if self._evaluating else self.balancer.watch()
        return {
            "loss": total,
            **{name: metric.result() for name, metric in named.items()},
            **watched,
        }

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
        per_task = self.balancer.reads == "gramian"
        with contextlib.ExitStack() as stack:
            tapes = [
                stack.enter_context(tf.GradientTape()) for _ in (self.tasks if per_task else [None])
            ]
            predictions = self.net(x, training=True)
            share = self._global_sums(y, predictions, sample_weight, update=True)
            losses = gradients.sum_over_replicas(tf.stop_gradient(share.means))
            penalty = tf.add_n(self.net.losses) if self.net.losses else tf.zeros([])
            penalty = tf.cast(penalty, tf.float32) / gradients.replicas()
            if per_task:
                objectives = [share.means[i] for i in range(len(self.tasks))]
                objectives[0] += 0.0 * penalty
            else:
                weights = tf.stop_gradient(self.balancer(losses))
                # A weight of 0 must silence a task whatever its loss.
                parts = tf.math.multiply_no_nan(share.means, weights)
                objectives = [tf.reduce_sum(parts) + penalty]
            objectives = [compat.scale_loss(self.optimizer, each) for each in objectives]
        variables = self.net.trainable_variables
        watched = [compat.tf_variable(variable) for variable in variables]
        found = [
            tape.gradient(objective, watched)
            for tape, objective in zip(tapes, objectives, strict=True)
        ]
        update = self._mix(losses, found) if per_task else found[0]
        self._apply(update, variables, losses, share.misfits)
        self._objectives.track(LossSums(losses * share.counts, share.counts, share.misfits))
        return self.get_metrics_result()

    def _mix(self, losses, found):
        """Weights from the tasks' gradients over the shared variables, then one gradient."""
        shared = self._is_shared()
        only_shared = [
            [
                gradients.sum_over_replicas(g)
                for g, is_shared in zip(each, shared, strict=True)
                if is_shared
            ]
            for each in (compat.unscale_gradients(self.optimizer, task) for task in found)
        ]
        weights = tf.stop_gradient(self.balancer(losses, gradients.gramian(only_shared)))
        ones = tf.ones_like(weights)
        return [
            gradients.weighted_sum(column, weights if is_shared else ones)
            for column, is_shared in zip(zip(*found, strict=True), shared, strict=True)
        ]

    def _apply(self, update, variables, losses, misfits) -> None:
        """Take the step, unless a loss is not finite or a label not in its domain."""
        update = compat.unscale_gradients(self.optimizer, update)
        pairs = [(g, v) for g, v in zip(update, variables, strict=True) if g is not None]
        fault = tf.stack([~tf.math.is_finite(losses), misfits > 0])  # [kind, task]
        # With several steps an execution, those behind a bad one are skipped as well.
        stopped = self._fault[0] >= 0
        sound = ~(tf.reduce_any(fault) | stopped)
        first = tf.argmax(tf.cast(tf.reshape(fault, [-1]), tf.int32))
        tasks = tf.cast(len(self.tasks), tf.int64)
        step = compat.tf_variable(self.progress)[0]
        self._fault.assign(
            tf.where(sound | stopped, self._fault, tf.stack([step, first % tasks, first // tasks]))
        )

        def apply():
            self.optimizer.apply_gradients(pairs)

        if gradients.replicas() == 1:
            tf.cond(sound, apply, lambda: None)
        else:
            # Replicas cannot meet inside a branch, so the step is stopped instead of skipped.
            with tf.control_dependencies([tf.debugging.Assert(sound, [losses, misfits])]):
                apply()
        self.progress.assign_add(tf.constant([1, 0, 0], tf.int64))

    @tf.autograph.experimental.do_not_convert
    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        predictions = self.net(x, training=False)
        sums = self._objectives.sums(y, predictions, sample_weight, update=True)
        self._objectives.track(sums)
        return self.get_metrics_result()

    # Fitting

    def fit(
        self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, **kwargs
    ):
        """Keras' ``fit``; the balancer's own callbacks run before the given ones."""
        validation_split = kwargs.pop("validation_split", 0.0)
        sample_weight = kwargs.pop("sample_weight", None)
        if validation_split and kwargs.get("validation_data") is None:
            (x, y, sample_weight), kwargs["validation_data"] = inputs.split(
                x, y, sample_weight, validation_split
            )
        training = inputs.Source(x, y, sample_weight, batch_size, kwargs.get("steps_per_epoch"))
        held_out = inputs.Source.of(
            kwargs.get("validation_data"),
            kwargs.get("validation_batch_size") or batch_size,
            kwargs.get("validation_steps"),
        )
        self._prepare(training)
        self._sources = (training, held_out)
        guard = TrainingGuard(training)
        if training.is_dataset:
            kwargs["shuffle"] = False  # Keras 3 warns of anything else
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

    def evaluate(self, x=None, y=None, **kwargs):
        if self._signature is None:
            self._prepare(
                inputs.Source(x, y, kwargs.get("sample_weight"), kwargs.get("batch_size"), 1)
            )
        self._evaluating = True
        try:
            return super().evaluate(x, y, **kwargs)
        finally:
            self._evaluating = False

    def _prepare(self, source: inputs.Source) -> None:
        """Build everything and check what can be checked before the first step."""
        if self._objectives is None:
            raise ValueError("Call `compile(optimizer, loss, ...)` before training.")
        x, y, sample_weight = source.first_batch()
        with self.distribute_strategy.scope():
            if self._signature is None:
                self._build_from_spec(tf.nest.map_structure(inputs.spec_of, x))
                self._bind()
        self._check_labels(y)
        predictions = self.net(x, training=False)
        self._objectives.sums(y, predictions, sample_weight)

    def _check_labels(self, labels) -> None:
        """Look for labels outside their loss's domain in the first batch."""
        if not isinstance(labels, Mapping):
            return
        for task in self.tasks:
            low, high = self._objectives.domain(task)
            values = np.asarray(labels.get(task, 0.0))
            wrong = values[(values < low) | (values > high)]
            if wrong.size:
                raise ValueError(label_error(task, low, high, wrong.flat[0]))

    def fault(self) -> Exception | None:
        """What stopped the last step: an error to raise, or ``None``."""
        step, task, kind = (int(value) for value in self._fault.numpy())
        if step < 0:
            return None
        self._fault.assign([-1, -1, -1])
        name = self.tasks[task]
        if kind == 0:
            return FloatingPointError(
                f"The loss of task {name!r} is not finite at step {step}. "
                "The weights are those of the last finite step."
            )
        low, high = self._objectives.domain(name)
        return ValueError(label_error(name, low, high, f"another value at step {step}"))

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
        return int(compat.tf_variable(self.progress)[0])

    # Saving

    def get_config(self):
        return {
            "name": self.name,
            "net": compat.serialize(self.net),
            "shared": self._shared_names,
        }

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
