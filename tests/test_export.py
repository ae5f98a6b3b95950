"""The SavedModel: the same predictions without this package."""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_model, make_rows
from tests.test_model import Foreign, arrays, functional

SERVE = """
import sys
sys.modules["tfmtl"] = sys.modules["keras"] = None  # any import of them fails
import numpy as np, tensorflow as tf
rows = np.load(sys.argv[2])
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
np.savez(sys.argv[3], **serve(**{name: tf.constant(rows[name]) for name in rows}))
"""


def exported(folder):
    """A trained model's SavedModel, rows, and its own predictions of them."""
    rows = make_rows(20)
    model = make_model()
    model.fit(rows.batches(10), verbose=0)
    model.export(str(folder / "1"))
    np.savez(folder / "rows.npz", **rows.columns)
    return rows, model.predict(rows.batches(20), verbose=0)


def test_it_serves_without_the_package(tmp_path):
    _, expected = exported(tmp_path)
    paths = [str(tmp_path / name) for name in ("1", "rows.npz", "served.npz")]
    subprocess.run([sys.executable, "-c", SERVE, *paths], check=True, cwd=tmp_path)
    with np.load(tmp_path / "served.npz") as served:
        for task, values in expected.items():
            np.testing.assert_allclose(served[task], values, atol=1e-5)


def test_saved_model_cli_runs_it(tmp_path):
    rows, expected = exported(tmp_path)
    for name, values in rows.columns.items():
        np.save(tmp_path / f"{name}.npy", values)
    command = pathlib.Path(sys.executable).with_name("saved_model_cli")
    inputs = ";".join(f"{name}={tmp_path / name}.npy" for name in rows.columns)
    options = ["--tag_set", "serve", "--signature_def", "serving_default", "--inputs", inputs]
    subprocess.run(
        [command, "run", "--dir", tmp_path / "1", *options, "--outdir", tmp_path / "out"],
        check=True,
    )
    for task, values in expected.items():
        np.testing.assert_allclose(np.load(tmp_path / "out" / f"{task}.npy"), values, atol=1e-5)


def tensor_in():
    """A functional model whose input is a single tensor."""
    x = keras.Input((5,))
    return keras.Model(
        x, {t: keras.layers.Dense(1, "sigmoid", name=t)(x) for t in ("like", "click")}
    )


@pytest.mark.parametrize("kind", ["columns", "tensor", "foreign"])
def test_any_backbone_is_served(tmp_path, capsys, kind):
    net = {"columns": functional, "tensor": tensor_in, "foreign": Foreign}[kind]()
    x, y = arrays()
    x = x["x"] if kind == "tensor" else x
    model = make_model(net=net)
    model.fit(x, y, verbose=0)
    model.export(str(tmp_path / "a" / "1"))
    assert capsys.readouterr().out == ""
    serve = tf.saved_model.load(str(tmp_path / "a" / "1")).signatures["serving_default"]
    given = {"inputs": x} if kind == "tensor" else x
    served = serve(**{name: tf.constant(value) for name, value in given.items()})
    for task, expected in model.predict(x, verbose=0).items():
        np.testing.assert_allclose(served[task], expected, atol=1e-5)


def test_a_model_that_never_saw_a_row_cannot_be_served(tmp_path):
    model = make_model(net=Foreign())
    with pytest.raises(ValueError, match="`export` needs a built model"):
        model.export(str(tmp_path / "1"))
    model.predict(arrays()[0], verbose=0)
    model.export(str(tmp_path / "1"))
