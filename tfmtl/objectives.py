"""The losses and metrics of the tasks, over the rows that have a label."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from tfmtl import compat, ranking
from tfmtl.metrics.ranking import weighted_sums
from tfmtl.metrics.values import pair_accuracy

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


class Rows(NamedTuple):
    """What a task's loss made of a batch.

    Args:
        sums: of the weighted losses, of what counts, and of the misfits, as in
            :class:`LossSums`; scalars.
        labels: with 0 where there is none.
        prediction: of the labels' shape or, with sparse labels, one dimension more.
        present: which labels there are, bool, ``[rows]`` or ``[batch, list]``.
        weight: the sample weights, of that shape.
    """

    sums: LossSums
    labels: tf.Tensor
    prediction: tf.Tensor
    present: tf.Tensor
    weight: tf.Tensor


class Objective:
    """One task's loss and metrics.

    Args:
        task: its name.
        loss: a Keras loss, its name, a function ``(y_true, y_pred) -> [batch, ...]``, or a loss
            that compares the items of a query and has a method ``sums``, as those of
            :mod:`tfmtl.losses` do.
        metrics: Keras metrics or their names, over labelled rows, each row counting once.
        weighted_metrics: the same, each row counting by its sample weight.
        lists: whether labels and predictions are ``[batch, list]``.
        queries: whether query ids come with the rows.
    """

    def __init__(
        self,
        task: str,
        loss,
        metrics: Sequence = (),
        weighted_metrics: Sequence = (),
        *,
        lists: bool = False,
        queries: bool = False,
    ):
        self.task = task
        self.loss_identifier = loss
        self._lists = lists
        loss = compat.get_loss(loss)
        if not callable(loss):
            raise ValueError(f"`loss[{task!r}]` must be a Keras loss. Received: {loss!r}")
        loss = ranking.adopt(loss) or loss
        #: Whether the loss compares the items of a query.
        self.compares = hasattr(loss, "sums")
        if self.compares and not lists and not queries:
            raise ValueError(
                f"`loss[{task!r}]` compares the items of a query: expected "
                "MultiTaskModel(..., layout='lists'), or queries='COLUMN' that says which query a "
                "row belongs to. Received neither"
            )
        if not self.compares and getattr(loss, "reduction", None) == "sum":
            raise ValueError(
                f"`loss[{task!r}]` has reduction='sum'. Expected a loss that is a mean over rows, "
                "since a task's loss is the mean over its labelled rows."
            )
        self._loss = loss
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

    def rows(self, labels, prediction, weight=None, queries=None) -> Rows:
        """Losses of a batch.

        Args:
            labels: ``[batch]``, ``[batch, ...]``; with lists ``[batch, list]``.
            prediction: as many.
            weight: sample weights ``[batch]`` or, with lists, ``[batch, list]``; 1 by default.
            queries: ``[batch]``, the query of each row, for a loss that compares rows.
        """
        if self._lists:
            labels, prediction, weight = self._of_lists(labels, prediction, weight)
        if self.compares:
            return self._compared(labels, prediction, weight, queries)
        return self._row_by_row(labels, prediction, weight)

    def _of_lists(self, labels, prediction, weight) -> tuple:
        """Labels with NaN as padding and weights, of the prediction's shape ``[batch, list]``; as
        rows ``[batch · list, 1]`` for a loss that looks at them one by one.
        """
        labels = without_padding(labels)
        if prediction.shape.rank == labels.shape.rank + 1 and prediction.shape[-1] == 1:
            prediction = prediction[..., 0]
        if labels.shape.rank != 2 or not labels.shape.is_compatible_with(prediction.shape):
            raise ValueError(
                f"Labels and predictions of task {self.task!r} must be [batch, list]. "
                f"Received: {labels.shape} and {prediction.shape}"
            )
        if weight is not None:
            weight = tf.cast(weight, tf.float32)
            weight = tf.reshape(weight, [-1, 1]) if weight.shape.rank == 1 else weight
            weight = tf.broadcast_to(weight, tf.shape(labels))
        if self.compares:
            return labels, prediction, weight
        return tf.reshape(labels, [-1, 1]), tf.reshape(prediction, [-1, 1]), weight

    def _compared(self, labels, prediction, weight, queries) -> Rows:
        """By a loss of pairs or lists."""
        prediction = tf.cast(prediction, tf.float32)
        if not self._lists:
            labels = tf.cast(self.align(labels, prediction), tf.float32)
            labels, prediction = tf.reshape(labels, [-1]), tf.reshape(prediction, [-1])
        weight = _ones(prediction) if weight is None else tf.reshape(weight, tf.shape(prediction))
        found, count = self._loss.sums(labels, prediction, queries, weight)
        # The loss may pass over an item whose score is lost.
        lost = tf.reduce_any(tf.math.is_nan(prediction))
        found = tf.where(lost, tf.constant(math.nan), found)
        absent = tf.math.is_nan(labels)
        labels = tf.where(absent, tf.zeros_like(labels), labels)
        sums = LossSums(found, count, tf.zeros([]))
        return Rows(sums, labels, prediction, ~absent, weight)

    def ordered_pairs(self, labels, prediction, weight=None, queries=None) -> tuple:
        """The sum of the shares of pairs that are in order and what they count: every pair alike,
        or every list, as the loss has it. Arguments as those of :meth:`rows`.
        """
        if self._lists:
            labels, prediction, weight = self._of_lists(labels, prediction, weight)
        else:
            labels = tf.reshape(self.align(labels, prediction), [-1])
            prediction = tf.reshape(prediction, [-1])
        counting = {"weighting": getattr(self._loss, "over", "lists")}
        return weighted_sums(pair_accuracy, counting, labels, prediction, weight, queries)

    def _row_by_row(self, labels, prediction, weight) -> Rows:
        """By a loss that looks at each row alone."""
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
        weight = _ones(values) if weight is None else tf.reshape(tf.cast(weight, tf.float32), [-1])
        sums = LossSums(
            tf.reduce_sum(values * weight),
            tf.reduce_sum(tf.cast(present, tf.float32)),
            tf.reduce_sum(tf.cast(misfit, tf.float32)),
        )
        return Rows(sums, labels, prediction, present, weight)

    def update_metrics(self, rows: Rows, queries=None, lists=None) -> None:
        """Feed the metrics with the labelled rows of a batch.

        Args:
            rows: as from :meth:`rows`.
            queries: the query of each row.
            lists: the shape of lists that were made into rows, for metrics that rank.
        """
        present = tf.cast(rows.present, tf.float32)
        for metrics, weight in (
            (self.metrics, present),
            (self.weighted_metrics, present * rows.weight),
        ):
            for metric in metrics:
                labels, prediction = rows.labels, rows.prediction
                # Keras' own look at items one by one.
                ranks = type(metric).__module__.partition(".")[0] != "keras"
                shape = [-1, 1] if self.compares else None
                if ranks and self._lists:
                    there = tf.reshape(rows.present, tf.shape(labels))
                    labels, shape = tf.where(there, labels, -tf.ones_like(labels)), lists
                elif ranks and self.compares:
                    shape = None
                parts = [labels, prediction, weight]
                if shape is not None:
                    parts = [tf.reshape(each, shape) for each in parts]
                asked = queries is not None and getattr(metric, "takes_queries", False)
                ids = {"queries": queries} if asked else {}
                metric.update_state(*parts[:2], sample_weight=parts[2], **ids)


class Objectives:
    """The objectives of all tasks, in the order of ``loss``.

    Args:
        loss: a loss for every task; ``None`` for an output that is not trained.
        metrics: lists of metrics by task.
        weighted_metrics: the same, honouring sample weights.
        layout: ``"rows"`` or ``"lists"``.
        queries: the column of inputs or entry of labels with the query of each row.
        outputs: the output of a task that is trained on one of another name.
    """

    def __init__(
        self,
        loss: Mapping,
        metrics: Mapping | None,
        weighted_metrics: Mapping | None,
        layout: str = "rows",
        queries: str | None = None,
        outputs: Mapping[str, str] | None = None,
    ):
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
        unknown = sorted(set(outputs or ()) - set(self.tasks))
        if unknown:
            raise ValueError(
                "`loss` must have every task that `outputs` names. "
                f"Expected: {sorted(outputs or ())}. Received: {sorted(loss)} (missing: {unknown})"
            )
        self._lists = layout == "lists"
        self._queries = queries
        self._outputs = dict(outputs or {})
        self._all = [
            Objective(
                task,
                loss[task],
                by_task["metrics"][task],
                by_task["weighted_metrics"][task],
                lists=self._lists,
                queries=queries is not None,
            )
            for task in self.tasks
        ]
        self.named_metrics: dict[str, keras.metrics.Metric] = {}
        for objective in self._all:
            self.named_metrics.update(objective.named_metrics())

    def check_outputs(self, outputs) -> None:
        """Raise ``ValueError`` where the backbone's outputs are not those that are trained.

        Args:
            outputs: their names.
        """
        trained = {self._outputs.get(task, task) for task in self.tasks}
        expected = sorted(trained | set(self.untrained))
        if sorted(outputs) != expected:
            raise ValueError(
                "`loss` must name every output of the backbone (with None for one that is not "
                f"trained), or `outputs` say which one a task means. Expected: {sorted(outputs)}. "
                f"Received: {expected}"
            )

    def sums(self, data, predictions: Mapping, *, update: bool = False) -> LossSums:
        """Sums and counts of a batch.

        Args:
            data: ``(x, y)`` or ``(x, y, sample_weight)``: labels ``{task: [batch] or
                [batch, ...]}``, NaN where a row has none; weights ``[batch]`` for all tasks, or
                ``{task: [batch]}``.
            predictions: ``{task: [batch, ...]}``.
            update: feed the metrics too.
        """
        x, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if not isinstance(labels, Mapping):
            raise ValueError(
                f"Labels must be a dict {{task: labels}}. Received: {type(labels).__name__}"
            )
        queries = self._queries_of(x, labels)
        also = [*self.untrained, *([] if self._queries is None else [self._queries])]
        check_subset("labels", labels, self.tasks, complete=True, also=also)
        if isinstance(sample_weight, Mapping):
            check_subset("sample_weight", sample_weight, self.tasks, also=also)
        parts = []
        for objective in self._all:
            task = objective.task
            weight = _weight_of(task, sample_weight)
            rows = objective.rows(labels[task], predictions[task], weight, queries)
            if update:
                lists = tf.shape(labels[task]) if self._lists else None
                objective.update_metrics(rows, queries, lists)
            parts.append(rows.sums)
        return LossSums(*(tf.stack(column) for column in zip(*parts, strict=True)))

    def _queries_of(self, x, labels: Mapping):
        """The query of each row, ``[batch]``."""
        if self._queries is None:
            return None
        for source in (labels, x):
            if isinstance(source, Mapping) and self._queries in source:
                return tf.reshape(source[self._queries], [-1])
        raise ValueError(
            f"`queries` must be a column of the inputs or an entry of the labels. "
            f"Expected: {self._queries!r}. Received: {sorted(labels)} as labels and "
            f"{sorted(x) if isinstance(x, Mapping) else type(x).__name__} as inputs"
        )

    def without_padding(self, labels):
        """Labels whose padding is NaN."""
        return without_padding(labels) if self._lists else labels

    def binary_rows(self, data, predictions: Mapping) -> list:
        """For each task ``(labels, scores, weights)``, each ``[batch]``, where a row has one label
        and one score of its own; of no rows elsewhere. An absent label has weight 0.
        """
        _, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        found = []
        for objective in self._all:
            task = objective.task
            label, score = self.without_padding(labels[task]), predictions[task]
            score = tf.cast(score, tf.float32)
            if not self._lists:
                label = objective.align(label, score)
            label = tf.cast(label, tf.float32)
            single = label.shape.rank == score.shape.rank and all(n == 1 for n in score.shape[1:])
            if objective.compares or not (single or self._lists):
                found.append((tf.zeros([0]),) * 3)
                continue
            weight = _weight_of(task, sample_weight)
            weight = tf.ones_like(score) if weight is None else tf.cast(weight, tf.float32)
            if self._lists and weight.shape.rank == 1:
                weight = tf.broadcast_to(weight[:, None], tf.shape(label))
            label, score, weight = (tf.reshape(each, [-1]) for each in (label, score, weight))
            absent = tf.math.is_nan(label)
            found.append((label, score, tf.where(absent, tf.zeros_like(weight), weight)))
        return found

    def ordered_pairs(self, data, predictions: Mapping) -> list:
        """For each task whose loss compares items the sum of the shares of pairs in order and what
        they count, float64 scalars; two zeros elsewhere.
        """
        x, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        queries = self._queries_of(x, labels)
        found = []
        for objective in self._all:
            if objective.compares:
                weight = _weight_of(objective.task, sample_weight)
                rows = (labels[objective.task], predictions[objective.task], weight, queries)
                found.append(objective.ordered_pairs(*rows))
            else:
                found.append((tf.zeros([], tf.float64),) * 2)
        return found

    def track(self, sums: LossSums) -> None:
        """Feed the loss trackers, each with its mean over the rows that have a label."""
        for i, objective in enumerate(self._all):
            objective.tracker.update_state(sums.means[i], sample_weight=sums.counts[i])

    def task_means(self) -> list:
        """The tracked mean loss of each task since the last reset."""
        return [objective.tracker.result() for objective in self._all]

    def labelled(self) -> list[float]:
        """How many labels of each task were tracked since the last reset."""
        return [float(compat.tf_variable(each.tracker.count).numpy()) for each in self._all]

    def domain(self, task: str) -> tuple[float, float]:
        """The labels the task's loss is defined for."""
        return self._all[self.tasks.index(task)].domain


def by_name(outputs) -> Mapping:
    """A backbone's outputs by name: a single one is called ``"score"``.

    Raises:
        ValueError: neither a tensor nor a dict of tensors.
    """
    if isinstance(outputs, Mapping):
        return outputs
    if isinstance(outputs, (list, tuple)):
        raise ValueError(
            "The backbone's output must be a dict {task: prediction}, or one tensor. "
            f"Received: {type(outputs).__name__}"
        )
    return {"score": outputs}


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


def without_padding(labels):
    """Labels of lists as floats, with NaN for those below 0, which TF-Ranking pads with."""
    labels = tf.cast(labels, tf.float32)
    return tf.where(labels < 0, tf.fill(tf.shape(labels), math.nan), labels)


def _weight_of(task: str, sample_weight):
    """A task's sample weights, ``None`` where none are given."""
    return sample_weight.get(task) if isinstance(sample_weight, Mapping) else sample_weight


def _ones(like):
    return tf.ones_like(like, tf.float32)


def _as_list(value) -> list:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
