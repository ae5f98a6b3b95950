"""Multi-task ranking models in Keras: balance the tasks, or put one first."""

from tfmtl import (
    balancers,
    callbacks,
    data,
    distributed,
    losses,
    metrics,
    models,
    optimizers,
    plots,
    ranking,
)
from tfmtl.features import FeatureSpec
from tfmtl.model import MultiTaskModel
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
    "profile",
    "ranking",
]
