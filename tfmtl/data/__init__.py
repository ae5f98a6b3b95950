"""Loaders of published data sets, and rows in memory as ``tf.data``."""

from tfmtl.data.census import census_income
from tfmtl.data.kuairand import kuairand
from tfmtl.data.letor import letor
from tfmtl.data.rows import Rows, Splits

__all__ = ["Rows", "Splits", "census_income", "kuairand", "letor"]
