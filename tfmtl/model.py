"""The Keras model that trains several tasks and leaves their weighting to a balancer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmtl import balancers, compat, export, gradients, inputs, metrics, optimizers
from tfmtl.callbacks import Reading, TrainingGuard
from tfmtl.models.representation import recording
from tfmtl.objectives import LossSums, Objectives, by_name
from tfmtl.similarity import Similarity
from tfmtl.steps import EVALUATED_LABEL, GRADIENT_NOT_FINITE, NOT_FINITE, TRAINED_LABEL, Step


@keras.saving.register_keras_serializable("tfmtl")
class MultiTaskModel(keras.Model):
    """Trains any Keras model that returns ``{task: prediction}``.

    Args:
        net: the backbone, functional or subclassed. Its output is a dict by task, or a single
            tensor, which is then called ``"score"``.
        shared: the variables that tasks share: names as in ``variable.path`` (``name`` in Keras
            2.15), positions in ``net.weights``, or the variables themselves. By default those
            that at least two tasks' losses reach.
        outputs: ``{task: output}`` for tasks that are trained on an output of another name. Several
            tasks may pull on one output: ``{"pay": "score", "relevance": "score"}``.
        layout: ``"rows"``: labels ``[batch]`` or ``[batch, 1]``, a row for each; or ``"lists"``:
            labels and predictions ``[batch, list]``, a query's items for each, where a label that
            is NaN or below 0 is padding.
        queries: with ``"rows"``, the column of the inputs (or the entry of the labels) that says
            which query a row belongs to, ``[batch]`` of integers: what pairwise losses and ranking
            metrics compare rows within.

    A task's loss is the mean over the rows of the (global) batch that carry a label (with a
    pairwise loss, over pairs or lists): a NaN label means *no label here* and leaves loss and
    metrics, and as in Keras sample weights multiply the rows' losses but not their count.

    Raises:
        ValueError: ``net`` is not a Keras model, ``shared`` names an unknown variable, ``outputs``
            an unknown output, an unknown ``layout``, or ``queries`` with lists.
    """

    def __init__(
        self,
        net: keras.Model,
        shared: Sequence | None = None,
        *,
        outputs: Mapping[str, str] | None = None,
        layout: str = "rows",
        queries: str | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not isinstance(net, keras.layers.Layer):
            raise ValueError(f"`net` must be a Keras model. Received: {net!r}")
        if layout not in ("rows", "lists"):
            raise ValueError(f"`layout` must be 'rows' or 'lists'. Received: {layout!r}")
        if queries is not None and layout == "lists":
            raise ValueError(
                "`queries` must be None with layout='lists', where a list is a query. "
                f"Received: {queries!r}"
            )
        self.net = net
        self.layout = layout
        self.queries = queries
        self._outputs = dict(outputs or {})
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
        # Of the variables, those below a marked representation; `None` where there is no mark.
        self._below_mark: frozenset[int] | None = None
        #: Cosines of gradients and updates, where a callback of the running `fit` asks for them.
        self.similarity: Similarity | None = None
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
        predictions = by_name(self.net(example, training=False))
        unknown = sorted(set(self._outputs.values()) - set(predictions))
        if unknown:
            raise ValueError(
                "`outputs` must name outputs of the backbone. "
                f"Expected some of: {sorted(predictions)}. Received: {unknown}"
            )
        self._reach = self._find_reach(example)
        if self._shared_given is not None:
            self._shared_ids = self._find_given(self._shared_given)
        self._signature = spec
        self.built = True

    def _find_reach(self, example) -> dict[str, frozenset[int]]:
        """For each output the ids of the floating weights it depends on, frozen or not."""
        weights = [each for each in self.net.weights if compat.is_floating(each)]
        reach: dict[str, frozenset[int]] = {}

        def trace(example):
            watched = [compat.tf_variable(each) for each in weights]
            with (
                tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape,
                recording() as marked,
            ):
                tape.watch(watched)
                outputs = by_name(self.net(example, training=True))

            def reached(output) -> frozenset[int]:
                found = tape.gradient(output, watched)
                return frozenset(
                    id(v) for v, g in zip(weights, found, strict=True) if g is not None
                )

            reach.update({task: reached(output) for task, output in outputs.items()})
            mark = marked.tensors()
            self._below_mark = reached(mark) if mark else None

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

    def output_of(self, task: str) -> str:
        """The output of the backbone that a task is trained on."""
        return self._outputs.get(task, task)

    def predictions(self, x, *, training: bool) -> dict:
        """What the backbone gives for each task, and for each output that is not trained."""
        found = by_name(self.net(x, training=training))
        names = (*self.tasks, *self._objectives.untrained)
        return {name: found[self.output_of(name)] for name in names}

    @property
    def tasks(self) -> tuple[str, ...]:
        """The trained tasks, in the order of ``compile(loss=...)``."""
        return self._objectives.tasks if self._objectives else ()

    def is_shared(self) -> list[bool]:
        """For each trainable variable whether it is shared."""
        tasks = self.tasks or self._reach
        reached = [self._reach[self.output_of(task)] for task in tasks]
        counts = [sum(id(v) in task for task in reached) for v in self.net.trainable_variables]
        if self._shared_ids is None:
            return [count > 1 for count in counts]
        return [
            count > 0 and id(v) in self._shared_ids
            for count, v in zip(counts, self.net.trainable_variables, strict=True)
        ]

    def owners(self) -> list[tuple[int, ...]]:
        """For each trainable variable the tasks that reach it, by their places in `tasks`."""
        reached = [self._reach[self.output_of(task)] for task in self.tasks]
        return [
            tuple(i for i, each in enumerate(reached) if id(v) in each)
            for v in self.net.trainable_variables
        ]

    @property
    def shared_variables(self) -> list:
        """The trainable variables that two tasks reach, or one and ``shared`` names them."""
        variables = self.net.trainable_variables
        return [v for v, shared in zip(variables, self.is_shared(), strict=True) if shared]

    @property
    def task_variables(self) -> dict[str, list]:
        """For each task the trainable variables that it reaches and that are not shared."""
        variables = list(zip(self.net.trainable_variables, self.is_shared(), strict=True))
        return {
            task: [
                v
                for v, shared in variables
                if id(v) in self._reach[self.output_of(task)] and not shared
            ]
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
            run_eagerly, steps_per_execution, jit_compile: as in Keras, but that a model with an
                optimizer that steps by rows is not compiled by XLA unless asked for: XLA
                reads and writes rows on one core (docs/performance.md).

        Raises:
            ValueError: tasks unknown or missing in any argument, a task that reaches no trainable
                variable, a negative learning rate, or a balancer that does not fit.
        """
        objectives = Objectives(
            loss or {}, metrics, weighted_metrics, self.layout, self.queries, self._outputs
        )
        balancer = balancers.get(balancer)
        balancer.check_tasks(objectives.tasks)
        optimizer = keras.optimizers.get(optimizer)
        compat.check_learning_rate(optimizer)
        balancer.check_optimizer(optimizer)
        if self._signature is not None:
            self._fit_together(objectives, balancer)
        extra = {} if jit_compile is None else {"jit_compile": jit_compile}
        if optimizers.steps_by_rows(optimizer):
            extra = {"jit_compile": False, **extra}
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
        lost = [t for t in objectives.tasks if not trainable & self._reach[self.output_of(t)]]
        if lost:
            raise ValueError(
                "Every task must reach a trainable variable of the backbone. "
                f"Received tasks that reach none: {lost}"
            )
        if balancer.wrt == "representation":
            self._check_mark(balancer)

    def _check_mark(self, balancer: balancers.Balancer) -> None:
        """Check that the backbone marks the representation that a balancer reads gradients at."""
        if self._below_mark is None:
            raise ValueError(
                f"`balancer={type(balancer).__name__}(wrt='representation')` needs a backbone that "
                "marks where its shared part ends with a `tfmtl.models.Representation`. "
                f"Received: {type(self.net).__name__} without one"
            )
        above = [
            compat.variable_name(v) for v in self.shared_variables if id(v) not in self._below_mark
        ]
        if balancer.reads == "gradients" and above:
            raise ValueError(
                f"`balancer={type(balancer).__name__}(wrt='representation')` needs every shared "
                f"variable below the `Representation`. Received others: {above}"
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
        watched = self.similarity.metrics if self.similarity else []
        return [*self._objectives.named_metrics.values(), *watched] if self._objectives else []

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
        similarity = self.similarity.result() if self.similarity else {}
        return {**self.balancer.watch(), **of_net, **similarity}

    # Steps

    def global_sums(self, data, predictions, *, update: bool) -> LossSums:
        """This replica's share of the losses over the counts of the global batch.

        Args:
            data: the batch, ``(x, y)`` or ``(x, y, sample_weight)``.
            predictions: by task, as from :meth:`predictions`.
            update: feed the metrics too.
        """
        local = self._objectives.sums(data, predictions, update=update)
        return LossSums(
            local.sums,
            gradients.sum_over_replicas(local.counts),
            gradients.sum_over_replicas(local.misfits),
        )

    def track(self, sums: LossSums) -> None:
        """Feed the loss metrics with a batch, losses and counts of all replicas."""
        self._objectives.track(sums)

    def note_faults(self, losses, misfits, not_finite):
        """Whether a step may be taken, and the operation that has noted why not.

        Args:
            losses, misfits: ``[tasks]``, of the global batch.
            not_finite: how many gradients are not finite.
        """
        gradient = tf.fill(tf.shape(losses), not_finite > 0)  # no task's in particular
        fault = tf.stack([~tf.math.is_finite(losses), misfits > 0, gradient])  # [kind, task]
        # With several steps an execution, those behind a bad one are skipped as well.
        stopped = self._fault[0] >= 0
        sound = ~(tf.reduce_any(fault) | stopped)
        first = tf.argmax(tf.cast(tf.reshape(fault, [-1]), tf.int32))
        tasks = tf.cast(len(self.tasks), tf.int64)
        step = compat.tf_variable(self.progress)[0]
        found = tf.stack([step, first % tasks, first // tasks])
        return sound, self._fault.assign(tf.where(sound | stopped, self._fault, found))

    def count_step(self) -> None:
        """Note that a training step has been made."""
        self.progress.assign_add(tf.constant([1, 0, 0], tf.int64))

    # Nothing in the steps is for AutoGraph to convert, and looking takes it seconds.
    @tf.autograph.experimental.do_not_convert
    def train_step(self, data):
        Step(self, data).take()
        return self.get_metrics_result()

    @tf.autograph.experimental.do_not_convert
    def test_step(self, data):
        predictions = self.predictions(data[0], training=False)
        sums = self._objectives.sums(data, predictions, update=True)
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
        self._watch_updates(_as_list(callbacks))
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

    def _watch_updates(self, callbacks: Sequence) -> None:
        """Measure gradients against updates where a callback has a true ``watches_updates``."""
        wanted = any(getattr(each, "watches_updates", False) for each in callbacks)
        if wanted == (self.similarity is not None):
            return
        with self.distribute_strategy.scope():
            self.similarity = Similarity() if wanted else None
        self.train_function = None  # the step is another one

    def evaluate(
        self, x=None, y=None, batch_size=None, verbose="auto", sample_weight=None, **kwargs
    ):
        """Keras' ``evaluate``."""
        sample_weight = inputs.for_every_task(sample_weight, y)
        if not self._complete:
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
        if not self._complete:
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

    @property
    def _complete(self) -> bool:
        """Whether the model is compiled and everything is built that a step needs."""
        return self._objectives is not None and bool(self.balancer.tasks)

    def _prepare(self, *sources: inputs.Source | None) -> None:
        """Build everything and check what can be checked before the first step."""
        if self._objectives is None:
            raise ValueError("Call `compile(optimizer, loss, ...)` before training.")
        self._fault.assign([-1, -1, -1])
        for source in sources:
            if source is None:
                continue
            x, y, sample_weight = source.first_batch()
            if not self._complete:
                with self.distribute_strategy.scope():
                    # A call or `predict` may have built the backbone already.
                    self._build_from_spec(_spec_of(x))
                    self._fit_together(self._objectives, self.balancer)
                    self._build_state()
            self._objectives.sums((x, y, sample_weight), self.predictions(x, training=False))
            self._check_labels(y)

    def _check_labels(self, labels: Mapping) -> None:
        """Look for labels outside their loss's domain in a batch."""
        for task in self.tasks:
            low, high = self._objectives.domain(task)
            values = np.asarray(self._objectives.without_padding(labels[task]))
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
        if kind == GRADIENT_NOT_FINITE:
            return FloatingPointError(
                f"A gradient is not finite at step {step}, though every loss is. Look for infinite "
                "or NaN inputs. The weights are those of the last finite step."
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
                predictions = self.predictions(batch[0], training=False)
                return (
                    self._objectives.sums(batch, predictions),
                    self._objectives.binary_rows(batch, predictions),
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
            "outputs": self._outputs,
            "layout": self.layout,
            "queries": self.queries,
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

    def export(self, filepath: str, *, parsers: Mapping[str, Callable] | None = None) -> None:
        """Write a SavedModel that serves ``{column: [batch, ...]}`` → ``{output: prediction}``.

        It loads with TensorFlow alone. The folder appears whole or not at all.

        Args:
            filepath: a folder that does not exist yet.
            parsers: further signatures by name, for what is sent serialized: functions from strings
                ``[batch]`` to the inputs, as :func:`tfmtl.ranking.parse` is with its specs. The
                argument of such a signature is called ``serialized``.

        Raises:
            ValueError: the model has not seen its inputs yet, or a parser named ``"serve"`` or
                ``"serving_default"``.
            FileExistsError: ``filepath`` exists.
        """
        if self._signature is None:
            raise ValueError("`export` needs a built model: call `fit`, or the model on a batch.")
        export.export(self.net, self._signature, filepath, parsers)


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
