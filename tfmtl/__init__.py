"""Multi-task ranking models in Keras: balance the tasks, or put one first."""

import importlib
from typing import TYPE_CHECKING

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


def __getattr__(name: str):
    # Imported when asked for: what a process can do without. What Keras must know to load a model
    # is not among it.
    if name in ("data", "plots"):
        return importlib.import_module(f"tfmtl.{name}")
    if name == "profile":
        return importlib.import_module("tfmtl.profiling").profile
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
