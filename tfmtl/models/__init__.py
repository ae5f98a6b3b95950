"""Ranking models with one output per task."""

from tfmtl.models.embedding import Embedding
from tfmtl.models.ltr_tower import LTRTower
from tfmtl.models.mmoe import MMoE
from tfmtl.models.omoe import OMoE
from tfmtl.models.ple import PLE
from tfmtl.models.products import Products
from tfmtl.models.representation import Representation
from tfmtl.models.shared_bottom import SharedBottom

__all__ = [
    "PLE",
    "Embedding",
    "LTRTower",
    "MMoE",
    "OMoE",
    "Products",
    "Representation",
    "SharedBottom",
]
