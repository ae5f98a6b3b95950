"""Ranking models with one output per task."""

from tfmtl.models.mmoe import MMoE
from tfmtl.models.representation import Representation
from tfmtl.models.shared_bottom import SharedBottom

__all__ = ["MMoE", "Representation", "SharedBottom"]
