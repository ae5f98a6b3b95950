"""Optimizers by their names."""

from __future__ import annotations

import keras

from tfmtl.optimizers.clippy import Clippy
from tfmtl.optimizers.lazy import LazyAdagrad, LazyAdam

_OURS = {kind.__name__.lower(): kind for kind in (Clippy, LazyAdagrad, LazyAdam)}


def named(name: str, **options) -> keras.optimizers.Optimizer:
    """An optimizer of Keras' or of :mod:`tfmtl.optimizers` by its name, in any case of letters.

    Args:
        name: ``"Adam"``, ``"LazyAdam"``.
        **options: arguments of it, ``learning_rate=1e-3``; its own defaults for the others.

    Raises:
        ValueError: there is none of that name.
    """
    if name.lower() in _OURS:
        return _OURS[name.lower()](**options)
    try:
        return keras.optimizers.get({"class_name": name, "config": options})
    except (ValueError, TypeError) as error:
        raise ValueError(
            "`optimizer` must be the name of one of Keras' optimizers, 'adam', or of tfmtl's. "
            f"Received: {name!r}"
        ) from error
