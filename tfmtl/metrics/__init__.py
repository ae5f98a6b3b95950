"""Ranking metrics as Keras metrics and of whole arrays; Δm%."""

from tfmtl.metrics.auc import auc, binary_auc
from tfmtl.metrics.delta import delta_m
from tfmtl.metrics.ranking import GAUC, MAP, MRR, NDCG, PairAccuracy, PrecisionAtK, RankingMetric
from tfmtl.metrics.whole import (
    gauc,
    mean_average_precision,
    mean_reciprocal_rank,
    ndcg,
    pair_accuracy,
    precision_at_k,
)

__all__ = [
    "GAUC",
    "MAP",
    "MRR",
    "NDCG",
    "PairAccuracy",
    "PrecisionAtK",
    "RankingMetric",
    "auc",
    "binary_auc",
    "delta_m",
    "gauc",
    "mean_average_precision",
    "mean_reciprocal_rank",
    "ndcg",
    "pair_accuracy",
    "precision_at_k",
]
