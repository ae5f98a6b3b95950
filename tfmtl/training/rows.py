"""Rows of a file through a served model."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from tfmtl.data.encode import require
from tfmtl.data.table import columns_of, read

#: The signature that takes raw columns.
SIGNATURE = "serving_default"


def scores(
    model: str | os.PathLike, source: str | os.PathLike | Any, batch_size: int = 4096
) -> dict[str, np.ndarray]:
    """What an exported model says of rows.

    Args:
        model: the SavedModel of ``tfmtl train``, or another whose ``serving_default`` takes columns
            of one value a row.
        source: a CSV file with a header, a pandas DataFrame, or a TFRecord file of serialized
            ``tf.train.Example`` (``.tfrecord`` or ``.tfrecords``), which the signature
            ``"examples"`` takes.
        batch_size: rows at once.

    Returns:
        ``{output: [rows]}``, float32.

    Raises:
        FileNotFoundError: there is no such model or file.
        ImportError: pandas is not installed.
        ValueError: a column that the model reads is missing, or the model has not the signature.
    """
    folder = pathlib.Path(model)
    if not (folder / "saved_model.pb").exists():
        raise FileNotFoundError(f"`model` must be a SavedModel's folder. Received: {str(model)!r}")
    loaded = tf.saved_model.load(str(folder))  # its signatures go with it
    if str(source).endswith((".tfrecord", ".tfrecords")):
        batches = _examples(loaded, pathlib.Path(source), batch_size)
    else:
        batches = _rows(loaded, read(source), batch_size)
    found: dict[str, list[np.ndarray]] = {}
    for outputs in batches:
        for name, values in outputs.items():
            found.setdefault(name, []).append(np.asarray(values, np.float32).ravel())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _rows(loaded, frame, batch_size):
    serve = loaded.signatures[SIGNATURE]
    _, specs = serve.structured_input_signature
    missing = sorted(set(specs) - set(frame.columns))
    if missing:
        raise ValueError(
            f"`source` must have the columns that the model reads: {sorted(specs)}. "
            f"Received: {list(frame.columns)} (missing: {missing})"
        )
    columns = columns_of(frame, specs)
    for start in range(0, len(frame), batch_size):
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
