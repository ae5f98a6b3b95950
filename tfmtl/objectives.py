"""The losses and metrics of all tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from tfmtl import compat
from tfmtl.objective import LossSums, Objective, without_padding


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


def _weight_of(task: str, sample_weight):
    """A task's sample weights, ``None`` where none are given."""
    return sample_weight.get(task) if isinstance(sample_weight, Mapping) else sample_weight


def _as_list(value) -> list:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
