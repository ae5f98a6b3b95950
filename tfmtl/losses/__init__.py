"""Keras losses for ranking."""

from tfmtl.losses.pairwise import PairwiseLoss
from tfmtl.losses.pairwise_hinge import PairwiseHinge
from tfmtl.losses.pairwise_logistic import PairwiseLogistic
from tfmtl.losses.pairwise_squared import PairwiseSquared
from tfmtl.losses.scaled import Scaled

__all__ = ["PairwiseHinge", "PairwiseLogistic", "PairwiseLoss", "PairwiseSquared", "Scaled"]
