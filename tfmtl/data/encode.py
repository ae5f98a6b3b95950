"""From the raw values of a table to ids and scaled numbers, learnt on training rows."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from tfmtl.features import FeatureSpec


class Scale(NamedTuple):
    """How a number is scaled: ``(x - mean) / std``, with ``log(1 + x)`` for ``x`` if ``log``."""

    mean: float
    std: float
    log: bool

    @classmethod
    def learn(cls, values: np.ndarray, log: bool = False) -> Scale:
        """The scale of ``values`` ``[n]``; missing values (NaN) are left out."""
        values = logarithm(values) if log else np.asarray(values, "float64")
        known = values[np.isfinite(values)]
        if not known.size:
            return cls(0.0, 1.0, log)
        # A constant column has no scale of its own and becomes 0.
        return cls(float(known.mean()), float(known.std()) or 1.0, log)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Scaled ``values``, float32 ``[n]``; a missing value becomes 0, the training mean."""
        values = logarithm(values) if self.log else np.asarray(values, "float64")
        scaled = (values - self.mean) / self.std
        return np.where(np.isfinite(scaled), scaled, 0.0).astype("float32")


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Vocabularies and scales of a table's columns; :meth:`learn` makes one.

    Args:
        vocabularies: ``{column: values}`` in id order, ``None`` first: id 0 is for every value
            that is missing or was not met in training.
        scales: ``{column: scale}`` of the numeric columns.
    """

    vocabularies: Mapping[str, Sequence]
    scales: Mapping[str, Scale]

    @classmethod
    def learn(
        cls,
        frame: Any,
        *,
        categorical: Iterable[str],
        numeric: Iterable[str] = (),
        log: Iterable[str] = (),
    ) -> Encoder:
        """Learn from the training rows.

        Args:
            frame: a pandas DataFrame with the training rows and no others.
            categorical: columns whose values become ids.
            numeric: columns that are scaled to mean 0 and standard deviation 1.
            log: those of the numeric columns that are skewed and not negative: they are scaled
                after ``log(1 + x)``.
        """
        log = frozenset(log)
        return cls(
            {name: (None, *_distinct(frame[name])) for name in categorical},
            {name: Scale.learn(_floats(frame[name]), name in log) for name in numeric},
        )

    def encode(self, frame: Any) -> dict[str, np.ndarray]:
        """``{column: [n]}``: int32 ids and float32 numbers of the rows of a DataFrame."""
        columns = {}
        for name, vocabulary in self.vocabularies.items():
            ids = {value: i for i, value in enumerate(vocabulary)}
            # Look each distinct value up once. A missing value has position -1: the entry added
            # at the end.
            positions, distinct = frame[name].factorize()
            table = [*(ids.get(value, 0) for value in distinct.tolist()), 0]
            columns[name] = np.asarray(table, "int32")[positions]
        for name, scale in self.scales.items():
            columns[name] = scale(_floats(frame[name]))
        return columns

    def features(self, width: int | Mapping[str, int]) -> FeatureSpec:
        """The encoded columns as a feature spec with embeddings of this width."""
        sizes = {name: len(vocabulary) for name, vocabulary in self.vocabularies.items()}
        return FeatureSpec(sizes, tuple(self.scales), width)


def require(module: str, what: str = "Reading this data set") -> ModuleType:
    """Import a module that only loaders or plots need.

    Args:
        module: its name.
        what: what needs it, as the error's first words.

    Raises:
        ImportError: it is missing or broken; says which extra brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        # Installed but broken is not the same as missing (pyarrow 26 with NumPy 1, for one).
        extra = "tables" if module in ("pandas", "yaml") else "demo"
        raise ImportError(
            f"{what} needs `{module}`, which does not import: {error}. "
            f'Try: pip install "tfmtl[{extra}]"'
        ) from error


def check_tasks(tasks: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """The tasks as a tuple.

    Raises:
        ValueError: no task, a task twice, or one that the data set does not have.
    """
    known = list(known)
    names = (tasks,) if isinstance(tasks, str) else tuple(tasks)
    if not names or len(set(names)) < len(names) or not set(names) <= set(known):
        raise ValueError(
            f"`tasks` must name one or more of {known}, each once. Received: {list(names)}"
        )
    return names


def _distinct(column: Any) -> list:
    """Sorted, so that ids do not depend on the order of the rows."""
    return sorted(column.dropna().unique().tolist())


def _floats(column: Any) -> np.ndarray:
    return column.to_numpy(dtype="float64", na_value=np.nan)


def logarithm(values: np.ndarray) -> np.ndarray:
    """``log(1 + x)`` of values that are not negative, float64; what is below 0 counts as 0."""
    return np.log1p(np.maximum(np.asarray(values, "float64"), 0.0))
