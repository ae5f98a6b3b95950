"""Rows of a file through a served model."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfmtl import words
from tfmtl.data.encode import require
from tfmtl.data.table import columns_of, read

#: The signature that takes raw columns.
SIGNATURE = "serving_default"


def scores(
    model: str | os.PathLike,
    source: str | os.PathLike | Any,
    batch_size: int = 4096,
    *,
    keep: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """What an exported model says of rows.

    Args:
        model: the SavedModel of ``tfmtl train``, or another whose ``serving_default`` takes columns
            of one value a row. One that reads lists scores each item by itself, as those of
            ``tfmtl train`` do: it is given lists of one.
        source: a CSV file with a header, a pandas DataFrame, or a TFRecord file of serialized
            ``tf.train.Example`` (``.tfrecord`` or ``.tfrecords``), which the signature
            ``"examples"`` takes.
        batch_size: rows at once.
        keep: columns of a table that come in front, as they are.

    Returns:
        ``{output: [rows]}``, float32, by name and ``"score"`` last.

    Raises:
        FileNotFoundError: there is no such model or file.
        ImportError: pandas is not installed.
        ValueError: a column that the model reads or that is to be kept is missing, or the model has
            not the signature.
    """
    folder = pathlib.Path(model)
    if not (folder / "saved_model.pb").exists():
        raise FileNotFoundError(f"`model` must be a SavedModel's folder. Received: {str(model)!r}")
    loaded = tf.saved_model.load(str(folder))  # its signatures go with it
    kept: dict[str, np.ndarray] = {}
    if str(source).endswith((".tfrecord", ".tfrecords")):
        batches = _examples(loaded, pathlib.Path(source), batch_size)
    else:
        frame = read(source)
        columns = _columns(loaded, frame, keep)
        batches = _rows(loaded, columns, batch_size)
        kept = {name: frame[name].to_numpy() for name in keep}
    found: dict[str, list[np.ndarray]] = {}
    for outputs in batches:
        for name, values in outputs.items():
            found.setdefault(name, []).append(np.asarray(values, np.float32).ravel())
    names = sorted(found, key=lambda name: (name == "score", name))
    return {**kept, **{name: np.concatenate(found[name]) for name in names}}


def _columns(loaded, frame, keep) -> dict[str, np.ndarray]:
    """What the model reads of a table, which has that and the columns to be kept."""
    _, specs = loaded.signatures[SIGNATURE].structured_input_signature
    for argument, wanted in (("keep", set(keep)), ("source", set(specs))):
        missing = sorted(wanted - set(frame.columns))
        if missing:
            what = "name columns of the rows" if argument == "keep" else "have the model's columns"
            raise ValueError(
                f"`{argument}` must {what}. Missing: {missing}"
                f"{words.hint(missing[0], frame.columns)}. There are: {list(frame.columns)}"
            )
    columns = columns_of(frame, specs)
    if all(spec.shape.rank > 1 for spec in specs.values()):
        columns = {name: values[:, None] for name, values in columns.items()}
    return columns


def _rows(loaded, columns, batch_size):
    serve = loaded.signatures[SIGNATURE]
    _, specs = serve.structured_input_signature
    for start in range(0, len(next(iter(columns.values()))), batch_size):
        part = slice(start, start + batch_size)
        given = {n: tf.constant(v[part].tolist(), specs[n].dtype) for n, v in columns.items()}
        yield serve(**given)


def _examples(loaded, file, batch_size):
    if not file.exists():
        raise FileNotFoundError(f"`source` must be a file. Received: {str(file)!r}")
    if "examples" not in loaded.signatures:
        raise ValueError(
            "`model` must have the signature 'examples' for a TFRecord file. "
            f"Received: {sorted(loaded.signatures)}"
        )
    for batch in tf.data.TFRecordDataset(str(file)).batch(batch_size):
        yield loaded.signatures["examples"](serialized=batch)


def write_scores(path, found: dict[str, np.ndarray]) -> None:
    """Write outputs to a CSV file, a path or an open one, a column each."""
    require("pandas").DataFrame(found).to_csv(path, index=False)
