"""The Keras model that trains several tasks and leaves their weighting to a balancer."""

from __future__ import annotations

import contextlib
import errno
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tfmtl import (
    balancers,
    compat,
    distributed,
    export,
    files,
    gradients,
    inputs,
    loops,
    metrics,
    optimizers,
)
from tfmtl.callbacks import Reading, TrainingGuard
from tfmtl.faults import Faults, label_error
from tfmtl.objective import LossSums
from tfmtl.objectives import Objectives, by_name
from tfmtl.reach import Reach
from tfmtl.similarity import Similarity
from tfmtl.steps import Step

if TYPE_CHECKING:
    from tfmtl.preprocessing import Preprocessor


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
        distributed.check_strategy()
        self.train_function: Any
        self.test_function: Any
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
        #: Steps, epochs finished, passes begun over the training data, and steps that were skipped.
        self.progress = compat.add_state(self, "progress", (4,), "int64")
        self._objectives: Any = None  # Objectives, once compiled
        self._signature = None
        self._reach: Any = None  # Reach, once built
        self._evaluating = False
        #: Cosines of gradients and updates, where a callback of the running `fit` asks for them.
        self.similarity: Similarity | None = None
        self._faults = Faults()
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
        self._reach = Reach(self.net, example, self.distribute_strategy, self._shared_given)
        self._signature = spec
        self.built = True

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

    def _trained_outputs(self) -> list[str]:
        """The outputs of the tasks; before ``compile`` all of them."""
        return [self.output_of(task) for task in self.tasks or self._reach.outputs]

    def is_shared(self) -> list[bool]:
        """For each trainable variable whether it is shared."""
        return self._reach.is_shared(self._trained_outputs())

    def owners(self) -> list[tuple[int, ...]]:
        """For each trainable variable the tasks that reach it, by their places in `tasks`."""
        return self._reach.owners(self._trained_outputs())

    @property
    def shared_variables(self) -> list:
        """The trainable variables that two tasks reach, or one and ``shared`` names them."""
        variables = self.net.trainable_variables
        return [v for v, shared in zip(variables, self.is_shared(), strict=True) if shared]

    @property
    def task_variables(self) -> dict[str, list]:
        """For each task the trainable variables that it reaches and that are not shared."""
        found = list(
            zip(self.net.trainable_variables, self.owners(), self.is_shared(), strict=True)
        )
        return {
            task: [v for v, owners, shared in found if i in owners and not shared]
            for i, task in enumerate(self.tasks or self._reach.outputs)
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
        on_non_finite: str = "raise",
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
                reads and writes rows on one core (docs/performance.md). Several replicas are
                never compiled by XLA.
            on_non_finite: what follows a step whose losses or gradients are not finite, and
                which is therefore not made: ``"raise"`` a ``FloatingPointError``, or ``"skip"``
                it, warn once for each task, and show in the logs how many ``skipped_steps`` there
                were. Under float16 Keras' loss scaling skips steps whose gradients overflow either
                way.

        Raises:
            ValueError: tasks unknown or missing in any argument, a task that reaches no trainable
                variable, a negative learning rate, a balancer that does not fit, an unknown
                ``on_non_finite``, or ``jit_compile=True`` with several replicas.
        """
        if on_non_finite not in ("raise", "skip"):
            raise ValueError(
                f"`on_non_finite` must be 'raise' or 'skip'. Received: {on_non_finite!r}"
            )
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
        if distributed.is_distributed(self.distribute_strategy):
            if jit_compile is True:
                raise ValueError(
                    "`jit_compile` must be False or None with several replicas, whose sums XLA "
                    "does not compile. Received: True"
                )
            extra = {"jit_compile": False}
        super().compile(
            optimizer=optimizer,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            **extra,
        )
        with compat.unlocked(self):
            self._objectives = objectives
            self.balancer = balancer
        self.on_non_finite = on_non_finite
        self._faults.forget_warnings()
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
            "on_non_finite": on_non_finite,
        }
        if self._signature is not None:
            self._build_state()

    def _fit_together(self, objectives: Objectives, balancer: balancers.Balancer) -> None:
        """Check that tasks, backbone and balancer fit, once the backbone is built."""
        objectives.check_outputs(self._reach.outputs)
        lost = [t for t in objectives.tasks if not self._reach.trains(self.output_of(t))]
        if lost:
            raise ValueError(
                "Every task must reach a trainable variable of the backbone. "
                f"Received tasks that reach none: {lost}"
            )
        if balancer.wrt == "representation":
            self._check_mark(balancer)

    def _check_mark(self, balancer: balancers.Balancer) -> None:
        """Check that the backbone marks the representation that a balancer reads gradients at."""
        if not self._reach.marked:
            raise ValueError(
                f"`balancer={type(balancer).__name__}(wrt='representation')` needs a backbone that "
                "marks where its shared part ends with a `tfmtl.models.Representation`. "
                f"Received: {type(self.net).__name__} without one"
            )
        above = self._reach.above_mark(self.shared_variables)
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
        skipped = {}
        if self.on_non_finite == "skip" or compat.unscaled(self.optimizer) is not self.optimizer:
            steps = tf.cast(compat.tf_variable(self.progress), tf.float32)[3]
            skipped = {"skipped_steps": steps}
        return {**self.balancer.watch(), **of_net, **similarity, **skipped}

    # Steps

    def global_sums(self, data, predictions, *, update: bool) -> LossSums:
        """This replica's share of the losses over the counts of the global batch.

        Args:
            data: the batch, ``(x, y)`` or ``(x, y, sample_weight)``.
            predictions: by task, as from :meth:`predictions`.
            update: feed the metrics too.
        """
        local = self._objectives.sums(data, predictions, update=update)
        return LossSums(local.sums, *gradients.sum_over_replicas([local.counts, local.misfits]))

    def tasks_without_labels(self) -> list[str]:
        """Tasks that have had no label in training since the epoch began."""
        counts = self._objectives.labelled()
        return [task for task, count in zip(self.tasks, counts, strict=True) if not count]

    def track(self, sums: LossSums) -> None:
        """Feed the loss metrics with a batch, losses and counts of all replicas."""
        self._objectives.track(sums)

    def note_faults(self, losses, misfits, not_finite):
        """Take down what is wrong with a step.

        Args:
            losses, misfits: ``[tasks]``, of the global batch.
            not_finite: how many gradients are not finite.

        Returns:
            Whether the step may be made, a boolean scalar.
        """
        step = compat.tf_variable(self.progress)[0]
        raises = self.on_non_finite == "raise"
        return self._faults.note(step, losses, misfits, not_finite, raises=raises)

    def count_step(self, made) -> None:
        """Take down that a training step is over.

        Args:
            made: whether it moved the variables, a boolean scalar.
        """
        skipped = 1 - tf.cast(made, tf.int64)
        self.progress.assign_add(tf.stack([1, 0, 0, skipped]))
        self.balancer.count(made)
        self._faults.note_limit(self.balancer.limited())

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
        self._faults.note_evaluated(gradients.sum_over_replicas(sums.misfits))
        return self.get_metrics_result()

    def make_train_function(self, force=False):
        if not distributed.is_distributed(self.distribute_strategy):
            return super().make_train_function(force)
        if self.train_function is None or force:
            self.train_function = loops.train_function(self)
        return self.train_function

    def make_test_function(self, force=False):
        if not distributed.is_distributed(self.distribute_strategy):
            return super().make_test_function(force)
        if self.test_function is None or force:
            self.test_function = loops.test_function(self)
        return self.test_function

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras 3's `fit`. Everything is built before; several workers would fail in it
        # (keras-team/keras#20585).
        pass

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
        with compat.a_batch_an_execution(self):
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
            try:
                self.heed_faults()
            except (FloatingPointError, ValueError) as fault:
                raise fault from error
            raise
        self.heed_faults()

    @property
    def _complete(self) -> bool:
        """Whether the model is compiled and everything is built that a step needs."""
        return self._objectives is not None and bool(self.balancer.tasks)

    def _prepare(self, *sources: inputs.Source | None) -> None:
        """Build everything and check what can be checked before the first step."""
        if self._objectives is None:
            raise ValueError("Call `compile(optimizer, loss, ...)` before training.")
        self._faults.clear()
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

    def heed_faults(self) -> None:
        """Raise what went wrong since the last call, or warn of it once, as ``compile`` was told.

        Raises:
            FloatingPointError: a loss or gradient is not finite.
            ValueError: a label outside the domain of its loss.
        """
        raises = self.on_non_finite == "raise"
        self._faults.heed(self.tasks, self._objectives.domain, raises=raises)

    def warn_once(self, message: str, of: str | None = None) -> None:
        """Warn, unless it was done since ``compile``.

        Args:
            message: the warning.
            of: what it is about; by default its words.
        """
        self._faults.warn_once(message, of)

    # Looking at rows outside of a step

    def read(self, *, training: bool = False) -> Reading:
        """Losses and AUCs over the held-out rows of this ``fit``, or its training rows.

        For a loss that compares the items of a query the share of pairs in order stands in for the
        AUC; as of the loss, a query is what a batch holds of it.

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
                    self._objectives.ordered_pairs(batch, predictions),
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
        aucs = np.array(
            [metrics.binary_auc(task) for task in zip(*(b[1] for b in found), strict=True)]
        )
        right, pairs = np.sum([batch[2] for batch in found], axis=0).T
        figures = np.stack([losses, np.divide(right, pairs, out=aucs, where=pairs > 0)])
        return Reading(*distributed.of_chief(self.distribute_strategy, figures))

    def count_pass(self) -> None:
        """Note that a pass over the training data begins."""
        self.progress.assign_add(tf.constant([0, 0, 1, 0], tf.int64))

    @property
    def steps_taken(self) -> int:
        """Training steps so far, over all calls of ``fit``."""
        return int(self.progress.numpy()[0])

    # Saving

    def save(self, filepath, overwrite=True, **kwargs):
        """Keras' ``save``. A file appears whole or not at all; several workers have all to call
        this, and the first writes.

        Raises:
            FileExistsError: there is a file, and ``overwrite`` is false.
        """
        with self._written(filepath, overwrite) as beside:
            super().save(beside, **kwargs)

    def save_weights(self, filepath, overwrite=True, **kwargs):
        """Keras' ``save_weights``, in the way of :meth:`save`."""
        with self._written(filepath, overwrite) as beside:
            super().save_weights(beside, **kwargs)

    def load_weights(self, filepath, *args, **kwargs):
        """Keras' ``load_weights``.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is cut short, no file of weights, or one of another model. Of a model of
                other shapes some weights may have been loaded.
        """
        try:
            with compat.arrays_from_files():
                return super().load_weights(filepath, *args, **kwargs)
        except FileNotFoundError:
            raise
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(
                "`filepath` must be a whole file of weights of such a model. "
                f"Received: {os.fspath(filepath)!r} ({error})"
            ) from error

    def _written(self, filepath, overwrite: bool):
        if not overwrite and os.path.exists(filepath):
            raise FileExistsError(
                "`filepath` must not exist yet, or `overwrite` be true. "
                f"Received: {os.fspath(filepath)!r}"
            )
        if not os.fspath(filepath).endswith((".keras", ".h5")):
            # A folder, or a checkpoint of TensorFlow's, which moves its files into place itself.
            return contextlib.nullcontext(filepath)
        self._check_room(os.path.dirname(os.fspath(filepath)) or ".")
        return files.written(filepath, distributed.is_chief(self.distribute_strategy))

    def _check_room(self, folder: str) -> None:
        """Raise ``OSError`` where a disk has no room for what is saved: HDF5 would crash there."""
        optimizer = compat.optimizer_variables(self.optimizer) if self._objectives else []
        needed = sum(
            math.prod(each.shape) * tf.as_dtype(each.dtype).size
            for each in {id(v): v for v in (*self.weights, *optimizer)}.values()
        )
        free = files.free_bytes(folder)
        if free < needed:
            raise OSError(
                errno.ENOSPC,
                f"`filepath` needs {needed:,} bytes, and {free:,} are free. Nothing was written",
                folder,
            )

    def get_config(self):
        return {
            "name": self.name,
            "net": compat.serialize(self.net),
            "shared": self._reach.given_places() if self._reach else self._shared_given,
            "outputs": self._outputs,
            "layout": self.layout,
            "queries": self.queries,
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

    def export(
        self,
        filepath: str,
        *,
        parsers: Mapping[str, Callable] | None = None,
        preprocessor: Preprocessor | None = None,
        score: Callable | None = None,
    ) -> None:
        """Write a SavedModel that serves ``{column: [batch, ...]}`` → ``{output: prediction}``.

        It loads with TensorFlow alone. The folder appears whole or not at all.

        Args:
            filepath: a folder that does not exist yet.
            parsers: further signatures by name, for what is sent serialized: functions from strings
                ``[batch]`` to the inputs, as :func:`tfmtl.ranking.parse` is with its specs. The
                argument of such a signature is called ``serialized``.
            preprocessor: what made the model's inputs from raw columns: the server, and parsers,
                give raw columns then.
            score: makes one more output, ``"score"``, of the dict of the others, for example
                :class:`tfmtl.serving.PowerProduct`.

        Raises:
            ValueError: the model has not seen its inputs yet, a parser named ``"serve"`` or
                ``"serving_default"``, or ``score`` where an output has that name or is missing.
            FileExistsError: ``filepath`` exists.
        """
        if self._signature is None:
            raise ValueError("`export` needs a built model: call `fit`, or the model on a batch.")
        signature = self._signature if preprocessor is None else preprocessor.signature(self.layout)
        export.export(self.net, signature, filepath, parsers, preprocessor, score)


def _spec_of(value):
    """The specs of a batch of inputs."""
    return tf.nest.map_structure(inputs.spec_of, value)


def _as_list(callbacks) -> list:
    if callbacks is None:
        return []
    if isinstance(callbacks, keras.callbacks.Callback):
        return [callbacks]
    return list(callbacks)
