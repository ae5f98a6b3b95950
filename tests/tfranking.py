"""TF-Ranking's numerics, for tests and benchmarks to compare with.

On TensorFlow 2.16 and later the package's ``__init__`` fails, as it wants ``tensorflow.estimator``.
These modules of it need TensorFlow alone and are loaded without it.
"""

import functools
import importlib
import importlib.util
import pathlib
import sys
import types
from unittest import mock

import tensorflow as tf


@functools.cache
def _load(name):
    spec = importlib.util.find_spec("tensorflow_ranking")
    if spec is None:
        raise ImportError("tensorflow-ranking is not installed")
    (folder,) = spec.submodule_search_locations
    # What is imported here is forgotten again: others may want the package itself.
    with mock.patch.dict(sys.modules):
        for other in [each for each in sys.modules if each.split(".")[0] == "tensorflow_ranking"]:
            del sys.modules[other]
        for path in ("tensorflow_ranking", "tensorflow_ranking.python"):
            sys.modules[path] = types.ModuleType(path)
            sys.modules[path].__path__ = [str(pathlib.Path(folder, *path.split(".")[1:]))]
        return importlib.import_module(f"tensorflow_ranking.python.{name}")


def losses_impl():
    """The module ``tensorflow_ranking.python.losses_impl``."""
    return _load("losses_impl")


def metrics_impl():
    """The module ``tensorflow_ranking.python.metrics_impl``."""
    return _load("metrics_impl")


def keras_losses():
    """``tfr.keras.losses``, or ``None`` where the package does not import."""
    if not hasattr(tf, "estimator"):
        return None
    return importlib.import_module("tensorflow_ranking").keras.losses
