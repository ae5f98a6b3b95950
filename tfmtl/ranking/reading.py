"""Files of lists as TF-Ranking stores them, read by its parsers into padded batches."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfmtl import compat
from tfmtl.ranking.records import (
    count_records,
    find_files,
    first_records,
    read_records,
    reason,
    without_lost,
)

FORMATS = ("ELWC", "SEQ", "EIE", "TFExample")
_LABEL = tf.io.FixedLenFeature([1], tf.float32, default_value=-1.0)
_MASK = "tfmtl/is_item"
#: How many records of a file are parsed beforehand.
_LOOKED_AT = 32


class Layout(NamedTuple):
    """What a record holds and how it is read.

    Attributes:
        data_format: see :data:`FORMATS`.
        context: specs of the features of the list.
        examples: specs of the features of an item, labels among them.
        labels: the features that are labels, by task.
        list_size: items a list, or ``None`` for those of the longest in a batch.
        mask: the name of the column that tells items from padding, or ``None``.
        repeat_context: whether every item has the list's features.
    """

    data_format: str
    context: Mapping[str, Any]
    examples: Mapping[str, Any]
    labels: Mapping[str, str]
    list_size: int | None
    mask: str | None
    repeat_context: bool


def dataset(
    file_pattern: str | os.PathLike | Sequence,
    *,
    context: Mapping[str, Any] | None = None,
    examples: Mapping[str, Any],
    labels: Mapping[str, str],
    list_size: int | None,
    batch_size: int,
    data_format: str = "ELWC",
    shuffle: bool = False,
    seed: int | None = None,
    shuffle_buffer: int = 10_000,
    drop_remainder: bool = False,
    mask: str | None = None,
    repeat_context: bool = True,
) -> tf.data.Dataset:
    """A data set for ``fit`` and ``evaluate`` from files that TF-Ranking reads.

    The files are looked through at once: their first 32 records are parsed and, where they are
    local files, the lengths of all records are followed to the end, so that a file of another kind
    or one that is cut short is found before training. A record of a local file that turns out
    damaged later stops the reading with a ``tf.errors.InvalidArgumentError`` that names the file.

    Args:
        file_pattern: TFRecord files: a pattern, a path, or a list of them.
        context: ``{feature: spec}`` of what belongs to the list, with ``tf.io.FixedLenFeature`` or
            ``VarLenFeature``. It is repeated for every item.
        examples: the same of what belongs to an item. In ``"ELWC"`` and ``"EIE"`` a
            ``FixedLenFeature`` needs a ``default_value``, which TF-Ranking's parser gives padding.
        labels: ``{task: feature of the item}``. A label feature is no column. It is read with its
            spec in ``examples`` if it has one there, and as one float32 otherwise.
        list_size: longer lists are cut to their first items, shorter ones padded. ``None`` leaves
            a batch as long as its longest list; a size known beforehand lets XLA compile once.
        batch_size: lists a batch; the last batch may be smaller.
        data_format: a record is in ``"ELWC"`` an ``ExampleListWithContext``, in ``"SEQ"`` a
            ``SequenceExample``, in ``"EIE"`` an ``Example`` with serialized ones in it (as
            ``tfr.data.make_parsing_fn``), in ``"TFExample"`` an ``Example`` that is one item, a
            list of its own (as ``tfr.data.parse_from_tf_example``).
        shuffle: whether each pass visits the lists in a new order.
        seed: makes the sequence of orders a function of this number (and of the files) alone.
        shuffle_buffer: how many lists are shuffled together, as serialized records.
        drop_remainder: leave the last batch out when it is smaller.
        mask: the name of one more column, bool ``[batch, list]``, true for items and false for
            padding, as models of ``tfr.keras.model.ModelBuilder`` want it.
        repeat_context: ``False`` leaves features of the list ``[batch]``, as these want them.

    Returns:
        Batches of ``({column: [batch, list]}, {task: [batch, list]})``. A column has its spec's
        dtype; a spec of shape ``[k]`` with k > 1, and a ``VarLenFeature``, have one more dimension.
        The latter is padded to the longest of the batch with ``""``, 0, or for integers -1, as
        pooled columns are. Items that pad a list are that in columns of a ``VarLenFeature``, and 0
        or ``""`` in others of ``examples``. Labels are float32, NaN for padding and where the file
        has a negative or no label. Its length is known where the files are local. Each pass reads
        the files anew.

    Raises:
        ImportError: TF-Ranking is not installed.
        ValueError: an argument is not as above; no file; a file that is not a TFRecord, is cut
            short, or whose first records cannot be parsed as told, with its name.
    """
    layout = _check(data_format, context, examples, labels, list_size, mask, repeat_context)
    if not labels:
        raise ValueError("`labels` must name the feature of at least one task. Received: {}")
    for argument, value in (("batch_size", batch_size), ("shuffle_buffer", shuffle_buffer)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"`{argument}` must be an integer of at least 1. Received: {value!r}")
    compat.tensorflow_ranking()
    files = find_files(file_pattern)
    counts = [_look_through(file, layout) for file in files]

    records = read_records(files, counts, in_turns=shuffle)
    if shuffle:
        records = records.shuffle(shuffle_buffer, seed=seed, reshuffle_each_iteration=True)
    batches = records.batch(batch_size, drop_remainder=drop_remainder)
    batches = batches.map(
        tf.autograph.experimental.do_not_convert(lambda batch: _read(without_lost(batch), layout)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    lists = sum(count or 0 for count in counts)
    if None not in counts:
        n_batches = lists // batch_size if drop_remainder else -(-lists // batch_size)
        if n_batches == 0:
            raise ValueError(
                f"`file_pattern` must match files with at least one batch of lists. "
                f"Received: {lists} lists in {files}"
            )
        batches = batches.apply(tf.data.experimental.assert_cardinality(n_batches))
    return batches.prefetch(tf.data.AUTOTUNE)


def parse(
    serialized,
    *,
    context: Mapping[str, Any] | None = None,
    examples: Mapping[str, Any],
    list_size: int | None = None,
    data_format: str = "ELWC",
    mask: str | None = None,
    repeat_context: bool = True,
) -> dict[str, tf.Tensor]:
    """The columns of serialized lists, for the signature of a server.

    Args:
        serialized: strings ``[batch]``.
        context: as in :func:`dataset`.
        examples: as in :func:`dataset`, without labels.
        list_size: as in :func:`dataset`.
        data_format: as in :func:`dataset`.
        mask: as in :func:`dataset`.
        repeat_context: as in :func:`dataset`.

    Returns:
        ``{column: [batch, list]}``, as :func:`dataset` has it. TensorFlow operations alone, so that
        a SavedModel with them loads without TF-Ranking.

    Raises:
        ImportError: TF-Ranking is not installed.
        ValueError: an argument is not as above.
    """
    serialized = tf.convert_to_tensor(serialized)
    if serialized.dtype != tf.string or serialized.shape.rank != 1:
        raise ValueError(
            "`serialized` must be strings of shape [batch]. "
            f"Received: {serialized.dtype.name} of shape {serialized.shape}"
        )
    layout = _check(data_format, context, examples, {}, list_size, mask, repeat_context)
    return _read(serialized, layout)[0]


def _check(data_format, context, examples, labels, list_size, mask, repeat_context) -> Layout:
    """The layout that checked arguments mean, its specs ready for TF-Ranking's parsers."""
    if data_format not in FORMATS:
        raise ValueError(f"`data_format` must be one of {list(FORMATS)}. Received: {data_format!r}")
    if list_size is not None and not (isinstance(list_size, int) and list_size >= 1):
        raise ValueError(
            f"`list_size` must be None or an integer of at least 1. Received: {list_size!r}"
        )
    if data_format == "TFExample" and list_size not in (None, 1):
        raise ValueError(
            "`list_size` must be None or 1 in the format 'TFExample', where an Example is an item. "
            f"Received: {list_size}"
        )
    for argument, given in (("context", context or {}), ("examples", examples)):
        if not isinstance(given, Mapping):
            raise ValueError(f"`{argument}` must be a dict {{feature: spec}}. Received: {given!r}")
        for name, spec in given.items():
            if not isinstance(spec, (tf.io.FixedLenFeature, tf.io.VarLenFeature)):
                raise ValueError(
                    f"`{argument}[{name!r}]` must be a tf.io.FixedLenFeature or VarLenFeature. "
                    f"Received: {spec!r}"
                )
    if not isinstance(labels, Mapping):
        raise ValueError(f"`labels` must be a dict {{task: feature}}. Received: {labels!r}")
    items = dict(examples)
    for task, name in labels.items():
        items[name] = _label_spec(task, items.get(name, _LABEL))
    both = sorted(set(context or {}) & set(items))
    if both:
        raise ValueError(f"`context` and `examples` must be different features. Received: {both}")
    if not set(items) - set(labels.values()) and not context:
        raise ValueError("`examples` must hold a feature that is not a label. Received: none")
    if mask is not None and (not isinstance(mask, str) or mask in {*(context or {}), *items}):
        raise ValueError(f"`mask` must be the name of no other column. Received: {mask!r}")
    if data_format in ("ELWC", "EIE"):
        for name, spec in items.items():
            if isinstance(spec, tf.io.FixedLenFeature) and spec.default_value is None:
                raise ValueError(
                    f"`examples[{name!r}]` must have a `default_value` in the format "
                    f"{data_format!r}, as TF-Ranking pads lists with it. Received: {spec}"
                )
    if data_format == "SEQ":
        items = {name: _without_vector_default(name, spec) for name, spec in items.items()}
    return Layout(
        data_format,
        {name: _at_least_vector(spec) for name, spec in (context or {}).items()},
        {name: _at_least_vector(spec) for name, spec in items.items()},
        dict(labels),
        1 if data_format == "TFExample" else list_size,
        mask,
        repeat_context,
    )


def _label_spec(task: str, spec):
    """A label's spec, which has a default so that an item without it has no label."""
    if not isinstance(spec, tf.io.FixedLenFeature) or list(spec.shape) not in ([], [1]):
        raise ValueError(
            f"`labels[{task!r}]` must be a tf.io.FixedLenFeature of one number. Received: {spec!r}"
        )
    default = -1 if spec.default_value is None else spec.default_value
    return tf.io.FixedLenFeature([1], spec.dtype, default)


def _at_least_vector(spec):
    """A spec as TF-Ranking's parser of SequenceExamples wants it: of shape [1] instead of []."""
    if isinstance(spec, tf.io.FixedLenFeature) and not list(spec.shape):
        return tf.io.FixedLenFeature([1], spec.dtype, spec.default_value)
    return spec


def _without_vector_default(name: str, spec):
    """A spec for TF-Ranking's parser of SequenceExamples, which knows a default for [1] alone."""
    if not isinstance(spec, tf.io.FixedLenFeature) or list(spec.shape) in ([], [1]):
        return spec
    if spec.default_value is not None and np.any(np.asarray(spec.default_value)):
        raise ValueError(
            f"`examples[{name!r}]` of shape {list(spec.shape)} must have a `default_value` of 0 in "
            f"the format 'SEQ'. Received: {spec.default_value}"
        )
    return tf.io.FixedLenFeature(spec.shape, spec.dtype)


def _look_through(file: str, layout: Layout) -> int | None:
    """The number of lists of a file if that is known, after its first lists were parsed."""
    records = first_records(file, _LOOKED_AT)
    count = count_records(file)
    if not records:
        return count
    try:
        _read(tf.constant(records), layout)
        found = _holds_an_item(tf.constant(records), layout)
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError, UnicodeDecodeError) as error:
        # TensorFlow quotes the bytes it could not parse, which may be no text.
        told = "" if isinstance(error, UnicodeDecodeError) else f": {reason(error)}"
        raise ValueError(
            f"{file!r} cannot be read in the format {layout.data_format!r} with these features"
            f"{told}"
        ) from None
    if not found:
        raise ValueError(
            f"{file!r}, read in the format {layout.data_format!r}, has no item with any of the "
            f"features {sorted(layout.examples)} in its first {len(records)} records. Check "
            "`data_format` and the names of the features."
        )
    return count


def _holds_an_item(serialized, layout: Layout) -> bool:
    """Whether any item has a value: what is missing becomes a default without complaint, and
    records of one format often parse as another.
    """
    specs = {name: tf.io.VarLenFeature(spec.dtype) for name, spec in layout.examples.items()}
    if layout.data_format == "SEQ":
        found = tf.io.parse_sequence_example(serialized, sequence_features=specs)[1]
    else:
        found = _parsed(serialized, layout._replace(context={}, examples=specs))
    return any(len(found[name].values) for name in specs)


def _read(serialized, layout: Layout):
    """Columns and labels of serialized lists ``[batch]``."""
    features = _parsed(serialized, layout)
    is_item = features.pop(_MASK)
    items = tf.shape(is_item)[1] if layout.list_size is None else layout.list_size
    columns, labels = {}, {}
    for name, spec in layout.context.items():
        value = _dense(features[name], spec, rank=2)
        if layout.repeat_context:
            shape = [None, layout.list_size, *value.shape[1:]]
            value = tf.ensure_shape(tf.repeat(value[:, tf.newaxis], items, axis=1), shape)
        columns[name] = value
    for name, spec in layout.examples.items():
        value = _dense(features[name], spec, rank=3)
        mask = is_item
        for _ in range(value.shape.rank - 2):
            mask = mask[..., tf.newaxis]
        columns[name] = tf.ensure_shape(
            tf.where(mask, value, _padding(spec)), [None, layout.list_size, *value.shape[2:]]
        )
    for task, name in layout.labels.items():
        label = tf.cast(columns[name], tf.float32)
        labels[task] = tf.where(is_item & (label >= 0), label, tf.constant(float("nan")))
    for name in set(layout.labels.values()):
        del columns[name]
    if layout.mask is not None:
        columns[layout.mask] = tf.ensure_shape(is_item, [None, layout.list_size])
    return columns, labels


def _parsed(serialized, layout: Layout) -> dict:
    """What TF-Ranking's parser makes of serialized lists, with the mask of items."""
    data = compat.tensorflow_ranking().data
    if layout.data_format == "TFExample":
        features = data.parse_from_tf_example(
            serialized,
            context_feature_spec=dict(layout.context),
            example_feature_spec=dict(layout.examples),
        )
        return {**features, _MASK: tf.ones([tf.shape(serialized)[0], 1], tf.bool)}
    parser = data.make_parsing_fn(
        getattr(data, layout.data_format),
        list_size=layout.list_size,
        context_feature_spec=dict(layout.context),
        example_feature_spec=dict(layout.examples),
        mask_feature_name=_MASK,
    )
    return parser(serialized)


def _padding(spec):
    """What stands where there is no value; a pooled column of ids counts 0 as one."""
    if spec.dtype == tf.string:
        return ""
    several = isinstance(spec, tf.io.VarLenFeature) and spec.dtype.is_integer
    return tf.constant(-1 if several else 0, spec.dtype)


def _dense(value, spec, rank: int):
    """A feature as a tensor, without the last dimension where that is one number."""
    if isinstance(value, tf.SparseTensor):
        return tf.ensure_shape(tf.sparse.to_dense(value, _padding(spec)), [None] * rank)
    return value[..., 0] if list(spec.shape) == [1] else value
