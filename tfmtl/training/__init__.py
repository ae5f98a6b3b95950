"""Training as a file or a command describes it: a table in, a served model out."""

from tfmtl.training.recipe import Recipe, read
from tfmtl.training.rows import scores, write_scores
from tfmtl.training.run import build, train

__all__ = ["Recipe", "build", "read", "scores", "train", "write_scores"]
