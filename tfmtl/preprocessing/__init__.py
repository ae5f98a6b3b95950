"""Raw columns, as a log or a request has them, to the ids and numbers that models read."""

from tfmtl.preprocessing.columns import KINDS, Category, Column, Cross, Number
from tfmtl.preprocessing.preprocessor import Preprocessor

__all__ = ["KINDS", "Category", "Column", "Cross", "Number", "Preprocessor"]
