"""SavedModels that a server loads with TensorFlow alone."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

from tfmtl import compat
from tfmtl.objectives import by_name

#: The name of a signature that takes a feature dictionary; Keras makes it the default one.
SERVE = "serve"
#: The name of the output that puts others together.
SCORE = "score"


def export(
    net: keras.Model,
    input_spec,
    filepath: str | os.PathLike,
    parsers: Mapping[str, Callable] | None = None,
    preprocess: Callable | None = None,
    score: Callable | None = None,
) -> None:
    """Write the SavedModel of ``net`` with the signature ``serving_default``.

    It is written beside its place and renamed, so that a folder at ``filepath`` is always whole.

    Args:
        net: a model from the structure of ``input_spec`` to ``{task: prediction}``.
        input_spec: ``tf.TensorSpec`` of the inputs: a dict by column, or one spec.
        filepath: a folder that does not exist yet; its parents are made.
        parsers: for each further signature, by its name, what makes inputs from its only argument
            ``serialized``, strings ``[batch]``, inside the graph.
        preprocess: makes inputs of ``net`` from those of ``input_spec``, inside the graph.
        score: makes one more output, ``"score"``, of all others.

    Raises:
        FileExistsError: ``filepath`` exists.
        ValueError: inputs that are neither a tensor nor a dict of tensors, a parser whose name is
            taken, or ``score`` where there is an output of that name.
    """
    taken = sorted({SERVE, "serving_default"} & set(parsers or ()))
    if taken:
        raise ValueError(f"`parsers` must not name {taken}, which take inputs as they are.")
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
    new = not target.parent.exists()
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent)
    try:
        archive = keras.export.ExportArchive()
        archive.track(net)
        if preprocess is not None:
            archive.track(preprocess)

        def serve(raw):
            inputs = raw if preprocess is None else preprocess(raw)
            outputs = by_name(net(inputs, training=False))
            if score is not None and SCORE in outputs:
                raise ValueError(f"`score` makes an output {SCORE!r}, which the model has already.")
            return outputs if score is None else {**outputs, SCORE: score(outputs)}

        archive.add_endpoint(SERVE, serve, input_signature=[named])
        for name, parse in (parsers or {}).items():
            archive.add_endpoint(
                name,
                _parsed(serve, parse),
                input_signature=[tf.TensorSpec([None], tf.string, "serialized")],
            )
        compat.write_archive(archive, beside)
        os.chmod(beside, 0o755)
        os.rename(beside, target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        if new:
            target.parent.rmdir()
        raise


def _parsed(serve: Callable, parse: Callable) -> Callable:
    """From serialized inputs to predictions."""

    def served(serialized):
        return serve(parse(serialized))

    return served
