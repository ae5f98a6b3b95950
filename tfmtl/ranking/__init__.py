"""TF-Ranking's parsers, losses and metrics for multi-task training, on both stacks.

TF-Ranking (``pip install tensorflow-ranking``) is imported when one of these is first used.
"""

from tfmtl.ranking.losses import RankingLoss, adopt, loss
from tfmtl.ranking.metrics import RankingMetric, metric
from tfmtl.ranking.reading import dataset, parse

__all__ = ["RankingLoss", "RankingMetric", "adopt", "dataset", "loss", "metric", "parse"]
