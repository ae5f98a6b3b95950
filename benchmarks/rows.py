"""The rows and the shape of the model, the same for all: NumPy alone."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Shape:
    """A model and its batches; by default the backbone of the papers.

    Args:
        tasks: how many, each with a binary cross-entropy.
        rows: of all embedding tables together.
        columns: categorical columns, each of ``rows // columns`` ids.
        width: of an embedding.
        numbers: numeric columns.
        batch: rows a step.
        experts: of an MMoE, a layer of ``units`` each; 0 for a shared bottom of one such layer.
        units: see ``experts``.
        tower: width of a tower's hidden layer.
        seed: of rows and weights.
    """

    tasks: int = 2
    rows: int = 160_000
    columns: int = 16
    width: int = 16
    numbers: int = 63
    batch: int = 4096
    experts: int = 8
    units: int = 256
    tower: int = 32
    seed: int = 0

    @property
    def vocabulary(self) -> int:
        return self.rows // self.columns

    @property
    def input_width(self) -> int:
        return self.columns * self.width + self.numbers

    @property
    def task_names(self) -> list[str]:
        return [f"task_{i}" for i in range(self.tasks)]


def batches(shape: Shape, count: int = 8):
    """Ids ``[count, batch, columns]`` int32, numbers ``[count, batch, numbers]`` float32 and
    labels ``[count, batch, tasks]`` float32 of 0 and 1.
    """
    rng = np.random.default_rng(shape.seed)
    size = (count, shape.batch)
    ids = rng.integers(0, shape.vocabulary, (*size, shape.columns), dtype=np.int32)
    numbers = rng.standard_normal((*size, shape.numbers), dtype=np.float32)
    labels = rng.integers(0, 2, (*size, shape.tasks)).astype(np.float32)
    return ids, numbers, labels


def lists(batch: int, size: int, labels: str):
    """Labels and scores ``[batch, size]``, float32: grades 0 to 4, or 5 % positive."""
    rng = np.random.default_rng(0)
    graded = rng.integers(0, 5, (batch, size))
    few = rng.random((batch, size)) < 0.05
    chosen = graded if labels == "graded" else few
    # No two scores of a list are equal: TF-Ranking has a gradient of 0 there instead of -1/2.
    scores = rng.permuted(np.tile(np.linspace(-3, 3, size), (batch, 1)), axis=1)
    return chosen.astype("float32"), scores.astype("float32")


def gramians(count: int, tasks: int, rank: int):
    """Random Gram matrices ``[count, tasks, tasks]``, float32, of gradients that span ``rank``
    dimensions and whose lengths differ.
    """
    rng = np.random.default_rng(0)
    spanned = rng.standard_normal((count, tasks, rank)) @ rng.standard_normal((count, rank, 256))
    gradients = spanned * np.exp(rng.standard_normal((count, tasks, 1)))
    return (gradients @ gradients.swapaxes(1, 2)).astype(np.float32)
