"""Multi-task ranking models in Keras: balance the tasks, or put one first."""

import importlib
import pathlib
import sys
from typing import TYPE_CHECKING

# TensorFlow takes seconds to import. In the command `tfmtl`, which also tells how to use it and
# completes words, it comes when it is needed; elsewhere at once, because Keras must know the
# classes of a model before it can load one.
if pathlib.PurePath(*sys.argv[:1]).stem != "tfmtl":
    from tfmtl import (
        balancers,
        callbacks,
        distributed,
        losses,
        metrics,
        models,
        optimizers,
        preprocessing,
        ranking,
    )
    from tfmtl.features import FeatureSpec
    from tfmtl.model import MultiTaskModel
if TYPE_CHECKING:
    from tfmtl import data, plots
    from tfmtl.profiling import profile

__version__ = "0.1.0"

__all__ = [
    "FeatureSpec",
    "MultiTaskModel",
    "balancers",
    "callbacks",
    "data",
    "distributed",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "plots",
    "preprocessing",
    "profile",
    "ranking",
]

#: What is no module by itself, and where it is.
_INSIDE = {"FeatureSpec": "features", "MultiTaskModel": "model", "profile": "profiling"}


def __getattr__(name: str):
    if name in _INSIDE:
        return getattr(importlib.import_module(f"tfmtl.{_INSIDE[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"tfmtl.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
