"""The losses and metrics of the tasks, over the rows that have a label."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from tfmtl import compat

#: Labels a Keras loss is defined for; others give a number without a meaning.
LABEL_DOMAINS: dict[str, tuple[float, float]] = {
    "binary_crossentropy": (0.0, 1.0),
    "binary_focal_crossentropy": (0.0, 1.0),
    "categorical_crossentropy": (0.0, 1.0),
    "categorical_focal_crossentropy": (0.0, 1.0),
    "sparse_categorical_crossentropy": (0.0, math.inf),
    "kl_divergence": (0.0, 1.0),
    "poisson": (0.0, math.inf),
    "mean_squared_logarithmic_error": (0.0, math.inf),
}


class LossSums(NamedTuple):
    """Per task, float32 ``[tasks]``: the sum of the weighted losses, the number of labelled rows,
    and the number of labelled rows whose label lies outside the loss's domain.
    """

    sums: tf.Tensor
    counts: tf.Tensor
    misfits: tf.Tensor

    @property
    def means(self) -> tf.Tensor:
        """The mean over labelled rows; 0 for a task without any."""
        return tf.math.divide_no_nan(self.sums, self.counts)


class Objective:
    """One task's loss and metrics.

    Args:
        task: its name.
        loss: a Keras loss, its name, or a function ``(y_true, y_pred) -> [batch, ...]``.
        metrics: Keras metrics or their names, over labelled rows, each row counting once.
        weighted_metrics: the same, each row counting by its sample weight.
    """

    def __init__(self, task: str, loss, metrics: Sequence = (), weighted_metrics: Sequence = ()):
        self.task = task
        self.loss_identifier = loss
        loss = compat.get_loss(loss)
        if not callable(loss):
            raise ValueError(f"`loss[{task!r}]` must be a Keras loss. Received: {loss!r}")
        if getattr(loss, "reduction", None) == "sum":
            raise ValueError(
                f"`loss[{task!r}]` has reduction='sum'. Expected a loss that is a mean over rows, "
                "since a task's loss is the mean over its labelled rows."
            )
        self._rowwise = loss.call if isinstance(loss, keras.losses.Loss) else loss
        self._loss_name = compat.loss_name(loss)
        #: The labels the loss is defined for, lowest and highest.
        self.domain = LABEL_DOMAINS.get(self._loss_name, (-math.inf, math.inf))
        self.tracker = keras.metrics.Mean(name=f"{task}_loss")
        self.metrics = [self._metric(metric) for metric in metrics]
        self.weighted_metrics = [self._metric(metric) for metric in weighted_metrics]

    def _metric(self, identifier) -> keras.metrics.Metric:
        if identifier not in ("accuracy", "acc"):
            return compat.get_metric(identifier)
        # Keras' own `Accuracy` asks for equality; which one is meant follows from the loss.
        if self._loss_name.startswith("sparse_categorical"):
            return keras.metrics.SparseCategoricalAccuracy(name=identifier)
        if self._loss_name.startswith("categorical"):
            return keras.metrics.CategoricalAccuracy(name=identifier)
        return keras.metrics.BinaryAccuracy(name=identifier)

    def named_metrics(self) -> dict[str, keras.metrics.Metric]:
        """Every metric under its name in logs and History."""
        named = {self.tracker.name: self.tracker}
        for metric in [*self.metrics, *self.weighted_metrics]:
            name = f"{self.task}_{metric.name}"
            if name in named:
                raise ValueError(
                    f"`metrics[{self.task!r}]` has two metrics that report as {name!r}. "
                    "Give one of them another `name`."
                )
            named[name] = metric
        return named

    def align(self, labels, prediction):
        """Labels with the rank of the prediction, as floats where they may be absent.

        Raises:
            ValueError: their shapes disagree.
        """
        labels = tf.convert_to_tensor(labels)
        expected = prediction.shape
        sparse = "sparse" in self._loss_name
        if not sparse:
            if labels.shape.rank == expected.rank - 1 and expected[-1] == 1:
                labels = labels[..., tf.newaxis]
            elif labels.shape.rank == expected.rank + 1 and labels.shape[-1] == 1:
                labels = labels[..., 0]
        compared = labels.shape[: expected.rank - 1] if sparse else labels.shape
        if not compared.is_compatible_with(expected[: len(compared)] if sparse else expected):
            raise ValueError(
                f"Labels and predictions of task {self.task!r} disagree in shape. "
                f"Expected labels like the prediction, {expected}. Received: {labels.shape}"
            )
        return labels

    def rows(self, labels, prediction):
        """Loss of each row, whether it has a label, whether that label is in the loss's domain.

        Returns:
            ``values`` float32 ``[batch]``, 0 where there is no label, NaN where the prediction
            is; ``present`` and ``misfit``,
            bool ``[batch]``; and the labels with 0 for absent ones.
        """
        labels = self.align(labels, prediction)
        inner = list(range(1, labels.shape.rank))
        if labels.dtype.is_floating:
            present = ~tf.reduce_any(tf.math.is_nan(labels), axis=inner)
            labels = tf.where(tf.math.is_nan(labels), tf.zeros_like(labels), labels)
        else:
            present = tf.ones_like(labels, tf.bool)
            present = tf.reduce_all(present, axis=inner)
        if self._loss_name == "sparse_categorical_crossentropy":
            self.domain = (0.0, float(prediction.shape[-1] - 1))
        low, high = self.domain
        numbers = tf.cast(labels, tf.float32)
        outside = (numbers < low) | (numbers > high)
        misfit = present & tf.reduce_any(outside, axis=inner)
        if self.domain != (-math.inf, math.inf):
            # The step is not taken, and some losses fail on such a label.
            labels = tf.where(outside, tf.zeros_like(labels), labels)
        values = tf.cast(self._rowwise(labels, prediction), tf.float32)
        if values.shape.rank == 0:
            raise ValueError(
                f"`loss[{self.task!r}]` must return one value per row, shape [batch]. "
                "Received a function that returns a scalar."
            )
        values = tf.reduce_mean(tf.reshape(values, [tf.shape(values)[0], -1]), axis=1)
        values = tf.where(present, values, tf.zeros_like(values))
        # The gradient of such a row is NaN, labelled or not, even where the loss hides it: XLA on
        # TensorFlow 2.15 clips NaN to a number.
        lost = tf.reduce_any(tf.math.is_nan(prediction), axis=list(range(1, prediction.shape.rank)))
        values = tf.where(lost, tf.constant(math.nan), values)
        return values, present, misfit, labels

    def update_metrics(self, labels, prediction, present, weight) -> None:
        """Feed the metrics with the labelled rows of a batch."""
        present = tf.cast(present, tf.float32)
        for metric in self.metrics:
            metric.update_state(labels, prediction, sample_weight=present)
        for metric in self.weighted_metrics:
            metric.update_state(labels, prediction, sample_weight=present * weight)


class Objectives:
    """The objectives of all tasks, in the order of ``loss``.

    Args:
        loss: a loss for every task; ``None`` for an output that is not trained.
        metrics: lists of metrics by task.
        weighted_metrics: the same, honouring sample weights.
    """

    def __init__(self, loss: Mapping, metrics: Mapping | None, weighted_metrics: Mapping | None):
        if not isinstance(loss, Mapping):
            raise ValueError(f"`loss` must be a dict {{task: loss}}. Received: {loss!r}")
        self.untrained = tuple(task for task, each in loss.items() if each is None)
        self.tasks = tuple(task for task, each in loss.items() if each is not None)
        if not self.tasks:
            raise ValueError(f"`loss` must have a loss for at least one task. Received: {loss}")
        by_task = {}
        for argument, given in (("metrics", metrics), ("weighted_metrics", weighted_metrics)):
            if given is not None and not isinstance(given, Mapping):
                raise ValueError(
                    f"`{argument}` must be a dict {{task: [metric, ...]}}. Received: {given!r}"
                )
            unknown = sorted(set(given or ()) - set(self.tasks))
            if unknown:
                raise ValueError(
                    f"`{argument}` names tasks without a loss. Expected some of: "
                    f"{sorted(self.tasks)}. Received: {unknown}"
                )
            by_task[argument] = {task: _as_list((given or {}).get(task)) for task in self.tasks}
        self._all = [
            Objective(task, loss[task], by_task["metrics"][task], by_task["weighted_metrics"][task])
            for task in self.tasks
        ]
        self.named_metrics: dict[str, keras.metrics.Metric] = {}
        for objective in self._all:
            self.named_metrics.update(objective.named_metrics())

    def check_outputs(self, predictions) -> None:
        """Raise ``ValueError`` where the backbone's output does not carry the tasks."""
        if not isinstance(predictions, Mapping):
            raise ValueError(
                "The backbone's output must be a dict {task: prediction}. "
                f"Received: {type(predictions).__name__}"
            )
        expected = sorted([*self.tasks, *self.untrained])
        if sorted(predictions) != expected:
            raise ValueError(
                "`loss` must name every output of the backbone (with None for one that is not "
                f"trained). Expected: {sorted(predictions)}. Received: {expected}"
            )

    def sums(self, labels, predictions, sample_weight=None, *, update: bool = False) -> LossSums:
        """Sums and counts of a batch.

        Args:
            labels: ``{task: [batch] or [batch, ...]}``; NaN where a row has no label.
            predictions: ``{task: [batch, ...]}``.
            sample_weight: ``[batch]`` for all tasks, or ``{task: [batch]}``.
            update: feed the metrics too.
        """
        if not isinstance(labels, Mapping):
            raise ValueError(
                f"Labels must be a dict {{task: labels}}. Received: {type(labels).__name__}"
            )
        check_subset("labels", labels, self.tasks, complete=True, also=self.untrained)
        if isinstance(sample_weight, Mapping):
            check_subset("sample_weight", sample_weight, self.tasks)
        parts = []
        for objective in self._all:
            task = objective.task
            values, present, misfit, clean = objective.rows(labels[task], predictions[task])
            weight = _weight_of(task, sample_weight, values)
            if update:
                objective.update_metrics(clean, predictions[task], present, weight)
            parts.append(
                [
                    tf.reduce_sum(values * weight),
                    tf.reduce_sum(tf.cast(present, tf.float32)),
                    tf.reduce_sum(tf.cast(misfit, tf.float32)),
                ]
            )
        return LossSums(*(tf.stack(column) for column in zip(*parts, strict=True)))

    def binary_rows(self, labels, predictions, sample_weight=None) -> list:
        """For each task ``(labels, scores, weights)``, each ``[batch]``, where a row has one label
        and one score; of no rows elsewhere. An absent label has weight 0.
        """
        rows = []
        for objective in self._all:
            score = tf.cast(predictions[objective.task], tf.float32)
            label = tf.cast(objective.align(labels[objective.task], score), tf.float32)
            single = label.shape.rank == score.shape.rank and all(n == 1 for n in score.shape[1:])
            if not single:
                rows.append((tf.zeros([0]),) * 3)
                continue
            label, score = tf.reshape(label, [-1]), tf.reshape(score, [-1])
            weight = _weight_of(objective.task, sample_weight, score)
            absent = tf.math.is_nan(label)
            rows.append((label, score, tf.where(absent, tf.zeros_like(weight), weight)))
        return rows

    def track(self, sums: LossSums) -> None:
        """Feed the loss trackers, each with its mean over the rows that have a label."""
        for i, objective in enumerate(self._all):
            objective.tracker.update_state(sums.means[i], sample_weight=sums.counts[i])

    def task_means(self) -> list:
        """The tracked mean loss of each task since the last reset."""
        return [objective.tracker.result() for objective in self._all]

    def domain(self, task: str) -> tuple[float, float]:
        """The labels the task's loss is defined for."""
        return self._all[self.tasks.index(task)].domain


def check_subset(
    argument: str, given: Mapping, tasks: Sequence[str], *, complete=False, also: Sequence[str] = ()
) -> None:
    """Raise where a dict by task has an unknown key or, if ``complete``, lacks a task."""
    unknown = sorted(set(given) - set(tasks) - set(also))
    missing = sorted(set(tasks) - set(given)) if complete else []
    if unknown or missing:
        raise ValueError(
            f"`{argument}` must {'name every task' if complete else 'name tasks'}. "
            f"Expected: {sorted(tasks)}. Received: {sorted(given)} "
            f"(unknown: {unknown}, missing: {missing})."
        )


def _weight_of(task: str, sample_weight, like) -> tf.Tensor:
    """A task's sample weights as float32 ``[batch]``; 1 where none are given."""
    if isinstance(sample_weight, Mapping):
        sample_weight = sample_weight.get(task)
    if sample_weight is None:
        return tf.ones_like(like)
    return tf.reshape(tf.cast(sample_weight, tf.float32), [-1])


def _as_list(value) -> list:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
