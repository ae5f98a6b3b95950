"""What the columns of a data set are, for those who read rows and those who embed them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

#: How the embeddings of several values of a row become one.
POOLINGS = ("mean", "sum")


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """The input columns of a model.

    A model built from a spec takes a dict ``{column: tensor}`` in which a categorical column is
    an integer tensor ``[batch]`` with ids in ``[0, vocabulary size)`` and a numeric column is a
    floating tensor ``[batch]``. A pooled column has several ids a row, ``[batch, ids]``, padded
    with ids below 0.

    Args:
        categorical: the number of ids of each categorical column.
        numeric: names of the numeric columns.
        width: width of every embedding, or a dict with the width of each categorical column.
        pooling: ``"mean"`` or ``"sum"`` of each pooled column, one of the categorical ones. A row
            without an id has the embedding 0.

    Raises:
        ValueError: a size or width below 1, a column named twice, no column at all, a width dict
            whose keys are not the categorical columns, or a ``pooling`` of another column or of
            another kind.
    """

    categorical: Mapping[str, int]
    numeric: tuple[str, ...] = ()
    width: int | Mapping[str, int] = 8
    pooling: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "categorical", dict(self.categorical))
        object.__setattr__(self, "numeric", tuple(self.numeric))
        object.__setattr__(self, "pooling", dict(self.pooling))
        if isinstance(self.width, Mapping):
            object.__setattr__(self, "width", dict(self.width))
        names = [*self.categorical, *self.numeric]
        if not names:
            raise ValueError("`categorical` and `numeric` are both empty: a model needs a column.")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"Column names must be unique. Received more than once: {twice}")
        for name, size in self.categorical.items():
            if size < 1:
                raise ValueError(
                    f"`categorical[{name!r}]` must be a vocabulary size of at least 1. "
                    f"Received: {size}"
                )
        if isinstance(self.width, dict) and set(self.width) != set(self.categorical):
            raise ValueError(
                "`width` must be an integer or name every categorical column. "
                f"Expected: {sorted(self.categorical)}. Received: {sorted(self.width)}"
            )
        for name, width in self.widths.items():
            if width < 1:
                raise ValueError(f"`width` of {name!r} must be at least 1. Received: {width}")

        for name, pooling in self.pooling.items():
            if name not in self.categorical or pooling not in POOLINGS:
                raise ValueError(
                    f"`pooling` must give categorical columns one of {POOLINGS}. "
                    f"Received: {pooling!r} for {name!r}"
                )

    @property
    def widths(self) -> dict[str, int]:
        """The embedding width of each categorical column."""
        width = self.width
        return {n: width[n] if isinstance(width, Mapping) else width for n in self.categorical}

    def get_config(self) -> dict:
        """A JSON-serialisable description; ``FeatureSpec(**config)`` restores it."""
        return {
            "categorical": dict(self.categorical),
            "numeric": list(self.numeric),
            "width": dict(self.width) if isinstance(self.width, Mapping) else self.width,
            "pooling": dict(self.pooling),
        }
