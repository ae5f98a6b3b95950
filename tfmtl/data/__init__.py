"""Loaders of published data sets; rows in memory or in their files, as ``tf.data``."""

from tfmtl.data.aliccp import aliccp
from tfmtl.data.aliexpress import aliexpress
from tfmtl.data.census import census_income
from tfmtl.data.csv_files import csv_files
from tfmtl.data.kuairand import kuairand
from tfmtl.data.letor import letor
from tfmtl.data.qk_video import qk_video
from tfmtl.data.rows import Rows, Splits
from tfmtl.data.stream import Stream
from tfmtl.data.synthetic import Synthetic, synthetic
from tfmtl.data.table import table
from tfmtl.data.tiktok import tiktok

__all__ = [
    "Rows",
    "Splits",
    "Stream",
    "Synthetic",
    "aliccp",
    "aliexpress",
    "census_income",
    "csv_files",
    "kuairand",
    "letor",
    "qk_video",
    "synthetic",
    "table",
    "tiktok",
]
