"""Optimizers that step by rows or clip, and task updates: what one would do for one task alone."""

from tfmtl.optimizers.clippy import Clippy
from tfmtl.optimizers.lazy import LazyAdagrad, LazyAdam, steps_by_rows
from tfmtl.optimizers.named import named
from tfmtl.optimizers.updates import SUPPORTED, rule_of

__all__ = ["SUPPORTED", "Clippy", "LazyAdagrad", "LazyAdam", "named", "rule_of", "steps_by_rows"]
