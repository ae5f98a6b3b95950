"""What is compared on which data, in one place, so that every method gets the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from tfmtl.names import MODELS


@dataclasses.dataclass(frozen=True)
class Settings:
    """Tasks in priority order, a network and the budget of every method.

    Args:
        tasks: the most important first.
        epochs: at most so many for each stage of training; all methods stop early.
        model: one of :data:`tfmtl.names.MODELS`.
        batch_size: rows a step.
        epoch_rows: an epoch ends after so many rows; by default after all.
        monitor: what early stopping goes by, on held-out rows: the ``"loss"`` (the sum of the
            tasks', with a weighted sum's own weights), the ``"mean"`` of the tasks' AUCs, or
            that of the ``"primary"`` one. NMT goes by its constraints. A regression task counts by
            the share of its labels' variance that is explained.
        scales: for some tasks a factor of the loss, as if it were measured in other units.
        similarity: measure how far the parameters move along the gradient (PUB, section III).
    """

    tasks: tuple[str, ...]
    epochs: int
    model: str = "mmoe"
    batch_size: int = 512
    epoch_rows: int | None = None
    monitor: str = "loss"
    scales: tuple[tuple[str, float], ...] = ()
    similarity: bool = False
    optimizer: str = "Adam"
    learning_rate: float = 1e-3
    experts: int = 4
    expert_units: tuple[int, ...] = (64,)
    tower_units: tuple[int, ...] = (32,)
    embedding_width: int = 8


#: A later task is learnt if it comes this far from 0.5 to its own single-task AUC.
LEARNT_SHARE = 0.85


def network(settings: Settings, features, seed: int, regression: Collection[str] = ()):
    """The model that is trained.

    Args:
        settings: which, and its widths. ``experts`` are those that all tasks read in OMoE and MMoE;
            PLE has half as many shared, and as many of each task's own, on one level; a shared
            bottom is of one expert's widths.
        features: the input columns.
        seed: of the initial weights.
        regression: the tasks that predict a number and not a probability.
    """
    units, half = settings.expert_units, max(1, settings.experts // 2)
    trunks: dict[str, dict] = {
        "shared_bottom": {"bottom_units": units},
        "omoe": {"experts": settings.experts, "expert_units": units},
        "mmoe": {"experts": settings.experts, "expert_units": units},
        "ple": {
            "levels": 1,
            "shared_experts": half,
            "task_experts": half,
            "expert_units": units,
        },
    }
    return MODELS[settings.model](
        settings.tasks,
        features,
        tower_units=settings.tower_units,
        output_activation={
            task: None if task in regression else "sigmoid" for task in settings.tasks
        },
        seed=seed,
        **trunks[settings.model],
    )
