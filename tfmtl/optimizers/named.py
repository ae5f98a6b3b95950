"""Optimizers by their names."""

from __future__ import annotations

import keras

from tfmtl.optimizers.clippy import Clippy
from tfmtl.optimizers.lazy import LazyAdagrad, LazyAdam

# Keras 2.15's `get` does not know all that it has.
_KINDS = {
    name.lower(): kind
    for name, kind in vars(keras.optimizers).items()
    if isinstance(kind, type) and issubclass(kind, keras.optimizers.Optimizer)
}
_KINDS |= {kind.__name__.lower(): kind for kind in (Clippy, LazyAdagrad, LazyAdam)}
for _wraps in ("optimizer", "lossscaleoptimizer"):
    _KINDS.pop(_wraps, None)


def named(name: str, **options) -> keras.optimizers.Optimizer:
    """An optimizer of Keras' or of :mod:`tfmtl.optimizers` by its name, in any case of letters.

    Args:
        name: ``"Adam"``, ``"LazyAdam"``.
        **options: arguments of it, ``learning_rate=1e-3``; its own defaults for the others.

    Raises:
        ValueError: there is none of that name.
    """
    if name.lower() not in _KINDS:
        known = sorted(kind.__name__ for kind in _KINDS.values())
        raise ValueError(f"`optimizer` must be one of {known}. Received: {name!r}")
    return _KINDS[name.lower()](**options)
