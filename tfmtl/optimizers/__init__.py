"""Task updates: what an optimizer would do for one task alone."""

from tfmtl.optimizers.clippy import Clippy
from tfmtl.optimizers.updates import SUPPORTED, rule_of

__all__ = ["SUPPORTED", "Clippy", "rule_of"]
