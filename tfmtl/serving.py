"""What a model server needs beside a model: one score of several tasks, versions, a warm-up."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfmtl import files

#: Where a server looks for requests to warm up with, within the model's folder.
WARM_UP = "assets.extra/tf_serving_warmup_requests"
#: A probability below this counts as this in a product of powers.
LEAST = 1e-12


@dataclasses.dataclass(frozen=True)
class PowerProduct:
    r"""Outputs as one score :math:`\prod_t p_t^{e_t}`, as ranking systems put probabilities and
    times together.

    Args:
        exponents: of each output that counts, by name.

    Call: ``{output: [batch, ...]}`` → ``[batch, ...]``, float32. Outputs below 1e-12 count as that.

    Raises:
        ValueError: no exponent, or one that is not finite; when called, an output that is missing.
    """

    exponents: Mapping[str, float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "exponents", _checked("exponents", self.exponents))

    def __call__(self, outputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        logs = {
            name: tf.math.log(tf.maximum(tf.cast(outputs[name], tf.float32), LEAST))
            for name in _present(self.exponents, outputs)
        }
        return tf.exp(tf.add_n([self.exponents[name] * value for name, value in logs.items()]))


@dataclasses.dataclass(frozen=True)
class WeightedSum:
    """Outputs as one score, their weighted sum.

    Args:
        weights: of each output that counts, by name.

    Call and errors as of :class:`PowerProduct`.
    """

    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _checked("weights", self.weights))

    def __call__(self, outputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.add_n(
            [
                self.weights[name] * tf.cast(outputs[name], tf.float32)
                for name in _present(self.weights, outputs)
            ]
        )


def score_of(text: str) -> PowerProduct | WeightedSum:
    """A score as a command has it: ``"product:click=1,like=0.5"`` or ``"sum:click=1,like=2"``.

    Raises:
        ValueError: it is none.
    """
    kind, _, rest = text.partition(":")
    pairs = [part.partition("=")[::2] for part in rest.split(",")]
    try:
        values = {name.strip(): float(value) for name, value in pairs}
        kinds: dict[str, type[PowerProduct] | type[WeightedSum]]
        kinds = {"product": PowerProduct, "sum": WeightedSum}
        return kinds[kind](values)
    except (KeyError, ValueError) as error:
        raise ValueError(
            "`score` must be 'product:OUTPUT=EXPONENT,...' or 'sum:OUTPUT=WEIGHT,...'. "
            f"Received: {text!r}"
        ) from error


def next_version(folder: str | os.PathLike) -> pathlib.Path:
    """The place of the next version below a model's folder: ``folder/1`` first, then one more than
    the largest number there. A server takes the largest.
    """
    base = pathlib.Path(folder)
    taken = [int(p.name) for p in base.glob("*") if p.name.isdigit()] if base.is_dir() else []
    return base / str(max(taken, default=0) + 1)


def protocols() -> tuple[Any, Any]:
    """TensorFlow Serving's messages of a request and of a log of requests.

    Raises:
        ImportError: ``tensorflow-serving-api`` is not installed.
    """
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError as error:
        raise ImportError(
            f"A warm-up request needs `tensorflow_serving`, which does not import: {error}. "
            'Try: pip install "tfmtl[serving]"'
        ) from error
    return predict_pb2, prediction_log_pb2


def write_warm_up(
    folder: str | os.PathLike,
    inputs: Mapping[str, np.ndarray],
    *,
    model: str | None = None,
    signature: str = "serving_default",
) -> pathlib.Path:
    """Write a request that TensorFlow Serving sends itself when it loads the model, so that the
    first user does not wait for it.

    Args:
        folder: an exported model.
        inputs: what a request holds, by the signature's arguments, a row or more.
        model: the name the server knows the model by; by default that of the folder above the
            version.
        signature: which one is asked.

    Returns:
        The file.

    Raises:
        ImportError: ``tensorflow-serving-api`` is not installed.
        FileNotFoundError: there is no model.
        ValueError: the model has no such signature, or it takes other inputs.
    """
    predict_pb2, prediction_log_pb2 = protocols()
    place = pathlib.Path(folder)
    if not (place / "saved_model.pb").exists():
        raise FileNotFoundError(f"`folder` must hold a SavedModel. Received: {str(folder)!r}")
    served = tf.saved_model.load(str(place)).signatures
    if signature not in served:
        raise ValueError(f"`signature` must be one of {sorted(served)}. Received: {signature!r}")
    _, expected = served[signature].structured_input_signature
    if set(inputs) != set(expected):
        raise ValueError(
            f"`inputs` must be {sorted(expected)}, as signature {signature!r} takes them. "
            f"Received: {sorted(inputs)}"
        )
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model or place.absolute().parent.name
    request.model_spec.signature_name = signature
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values, expected[name].dtype))
    log = prediction_log_pb2.PredictionLog(
        predict_log=prediction_log_pb2.PredictLog(request=request)
    )
    target = place / WARM_UP
    with files.written(target) as beside, tf.io.TFRecordWriter(beside) as writer:
        writer.write(log.SerializeToString())
    return target


def _checked(name: str, values: Mapping[str, float]) -> dict[str, float]:
    if not values or not all(math.isfinite(value) for value in values.values()):
        raise ValueError(f"`{name}` must hold finite numbers by output. Received: {dict(values)}")
    return {key: float(value) for key, value in values.items()}


def _present(wanted: Mapping[str, float], outputs: Mapping) -> Mapping[str, float]:
    missing = sorted(set(wanted) - set(outputs))
    if missing:
        raise ValueError(
            f"A score needs outputs of the model. Expected some of: {sorted(outputs)}. "
            f"Received: {missing}"
        )
    return wanted
