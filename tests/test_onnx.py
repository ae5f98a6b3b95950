"""What tf2onnx makes of an exported model, run by ONNX Runtime."""

import sys

import numpy as np
import pytest
import tensorflow as tf

import tfmtl
from tfmtl import models, serving
from tfmtl.preprocessing import Category, Number, Preprocessor

ort = pytest.importorskip("onnxruntime")
convert = pytest.importorskip("tf2onnx.convert")

SPEC = tfmtl.FeatureSpec({"user": 30, "tags": 9}, ["age"], 4, {"tags": "mean"})
MODELS = {
    "mmoe": lambda: models.MMoE(["like", "click"], SPEC, experts=2, expert_units=(8,), seed=1),
    "ple": lambda: models.PLE(["like", "click"], SPEC, expert_units=(8,), seed=1),
    "ltr_tower": lambda: models.LTRTower(SPEC, units=(8,), layout="lists", seed=1),
}


def columns(*shape):
    draw = np.random.default_rng(len(shape))
    return {
        "user": draw.integers(0, 30, shape).astype("int32"),
        "tags": draw.integers(-1, 9, (*shape, 3)).astype("int32"),
        "age": draw.normal(size=shape).astype("float32"),
    }


def converted(folder):
    """The SavedModel and what tf2onnx makes of it, as functions from columns to outputs."""
    command = "tf2onnx.convert --tag serve --signature_def serving_default"
    files = ["--saved-model", str(folder / "1"), "--output", str(folder / "ranker.onnx")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*command.split(), *files])
        convert.main()
    session = ort.InferenceSession(folder / "ranker.onnx", providers=["CPUExecutionProvider"])
    loaded = tf.saved_model.load(str(folder / "1"))

    def served(inputs):
        tensors = {name: tf.constant(values) for name, values in inputs.items()}
        return loaded.signatures["serving_default"](**tensors)

    def run(inputs):
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, inputs), strict=True))

    return served, run


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_predictions_are_the_same_whatever_the_batch(tmp_path, kind):
    lists = kind == "ltr_tower"
    options = {"outputs": {"like": "score"}, "layout": "lists"} if lists else {}
    model = tfmtl.MultiTaskModel(MODELS[kind](), **options)
    model.predict(columns(4, 6) if lists else columns(8), verbose=0)
    score = None if lists else serving.PowerProduct({"like": 1.0, "click": 0.5})
    model.export(str(tmp_path / "1"), score=score)
    served, run = converted(tmp_path)
    for inputs in (columns(3, 9), columns(1, 2)) if lists else (columns(5), columns(1)):
        assert_same(run(inputs), served(inputs))


def test_words_and_numbers_are_taken_as_they_are(tmp_path):
    raw = {
        "country": np.array(["de", "fr", "", "it", "de"], object),
        "age": np.array([20, 30, np.nan, 40, 50], "float32"),
    }
    kinds = {"country": Category(vocabulary=["de", "fr"]), "age": Number()}
    made = Preprocessor(kinds).adapt(raw)
    model = tfmtl.MultiTaskModel(models.SharedBottom(["like", "click"], made.spec, seed=1))
    model.predict(made({name: tf.constant(values) for name, values in raw.items()}), verbose=0)
    model.export(str(tmp_path / "1"), preprocessor=made)
    served, run = converted(tmp_path)
    assert_same(run(raw), served(raw))
    other = {name: values[1:2] for name, values in raw.items()}
    assert_same(run(other), served(other))
