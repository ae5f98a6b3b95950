"""SavedModels that a server loads with TensorFlow alone."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile

import keras
import tensorflow as tf

from tfmtl import compat


def export(net: keras.Model, input_spec, filepath: str | os.PathLike) -> None:
    """Write the SavedModel of ``net`` with the signature ``serving_default``.

    It is written beside its place and renamed, so that a folder at ``filepath`` is always whole.

    Args:
        net: a model from the structure of ``input_spec`` to ``{task: prediction}``.
        input_spec: ``tf.TensorSpec`` of the inputs: a dict by column, or one spec.
        filepath: a folder that does not exist yet; its parents are made.

    Raises:
        FileExistsError: ``filepath`` exists.
        ValueError: inputs that are neither a tensor nor a dict of tensors.
    """
    target = pathlib.Path(filepath)
    if target.exists():
        raise FileExistsError(f"`filepath` must not exist yet. Received: {str(filepath)!r}")
    if isinstance(input_spec, dict):
        named = {name: tf.TensorSpec(s.shape, s.dtype, name) for name, s in input_spec.items()}
    elif isinstance(input_spec, tf.TensorSpec):
        named = tf.TensorSpec(input_spec.shape, input_spec.dtype, "inputs")
    else:
        raise ValueError(
            "`export` serves a backbone whose input is a tensor or a dict of tensors. "
            f"Received: {type(input_spec).__name__}"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent)
    try:
        archive = keras.export.ExportArchive()
        archive.track(net)
        archive.add_endpoint("serve", lambda x: net(x, training=False), input_signature=[named])
        compat.write_archive(archive, beside)
        os.chmod(beside, 0o755)
        os.rename(beside, target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
