"""One task's loss and metrics, over the rows or the items that have a label."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def without_padding(labels):
    """Labels of lists as floats, with NaN for those below 0, which TF-Ranking pads with."""
    labels = tf.cast(labels, tf.float32)
    return tf.where(labels < 0, tf.fill(tf.shape(labels), math.nan), labels)


def _ones(like):
    return tf.ones_like(like, tf.float32)
