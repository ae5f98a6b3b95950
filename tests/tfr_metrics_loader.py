"""TF-Ranking's metrics on both stacks: its Keras metrics where they load, their formulas else."""

import importlib
import pathlib
import sys
import types
import warnings
from importlib.util import find_spec

import numpy as np

#: Its Keras metric and the class of formulas behind it.
NAMES = {
    "ndcg": ("NDCGMetric", "NDCGMetric"),
    "mrr": ("MRRMetric", "MRRMetric"),
    "map": ("MeanAveragePrecisionMetric", "MeanAveragePrecisionMetric"),
    "precision": ("PrecisionMetric", "PrecisionMetric"),
    "opa": ("OPAMetric", "OPAMetric"),
}


def mean(name, labels, scores, weights=None, **options):
    """A metric's mean over lists, in TF-Ranking's words."""
    arrays = [np.asarray(each, np.float32) for each in (labels, scores)]
    weights = None if weights is None else np.asarray(weights, np.float32)
    if name != "opa":
        options = {"topn": None, **options}
    keras_name, formulas = NAMES[name]
    if find_spec("tensorflow_estimator") is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import tensorflow_ranking as tfr
        metric = getattr(tfr.keras.metrics, keras_name)(name=name, **options)
        metric.update_state(*arrays, sample_weight=weights)
        return float(metric.result())
    metric = getattr(_formulas(), formulas)(name, **options)
    values, worth = metric.compute(*arrays, weights)
    return float((values * worth).numpy().sum() / worth.numpy().sum())


def _formulas():
    """``metrics_impl`` without the package's ``__init__``, which asks for an estimator."""
    module = "tensorflow_ranking.python.metrics_impl"
    if module not in sys.modules:
        root = pathlib.Path(find_spec("tensorflow_ranking").origin).parent
        for name, folder in (
            ("tensorflow_ranking", root),
            ("tensorflow_ranking.python", root / "python"),
        ):
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__path__ = [str(folder)]
        sys.modules["tensorflow_ranking"].python = sys.modules["tensorflow_ranking.python"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module)
