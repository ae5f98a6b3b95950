"""The data sets that are compared: their loaders and tasks, and the budget of every method."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable

import numpy as np

from tfmtl import data
from tfmtl.data import Rows, Splits, Stream
from tfmtl.data.aliccp import TASKS as ALICCP
from tfmtl.data.aliexpress import TASKS as ALIEXPRESS
from tfmtl.data.census import REGRESSION_TASKS as CENSUS_REGRESSION
from tfmtl.data.census import TASKS as CENSUS
from tfmtl.data.kuairand import REGRESSION_TASKS as KUAIRAND_REGRESSION
from tfmtl.data.kuairand import TASKS as KUAIRAND
from tfmtl.data.qk_video import TASKS as QK_VIDEO
from tfmtl.data.tiktok import TASKS as TIKTOK
from tfmtl.experiments.settings import Settings
from tfmtl.training.recipe import read as read_recipe


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set.

    Args:
        load: its loader, called with the path, if it has one, ``tasks`` and ``width``.
        tasks: all it has; none of a table, which is asked.
        settings: its tasks by default, and the budget of every method.
        path: what ``--path`` is; ``None`` for a data set that needs none.
        regression: the tasks whose labels are numbers and not 0 and 1.
        held_margin: the primary task is held if its mean test AUC falls no further than this below
            training alone. No part of a run: it may change without training anything again.
        demo_epochs: so that the demo ends within ten minutes on two cores; ``None`` for those of
            the settings.
    """

    load: Callable[..., Splits]
    tasks: tuple[str, ...]
    settings: Settings
    path: str | None = None
    regression: frozenset[str] = frozenset()
    held_margin: float = 0.003
    demo_epochs: int | None = None


def _table(path: pathlib.Path, *, tasks: tuple[str, ...], width: int) -> Splits:
    """A CSV file of your own, or the recipe of ``tfmtl train`` for it, which says what is ignored,
    whose rows go together and what the columns are.
    """
    if path.suffix in (".yaml", ".yml"):
        recipe = read_recipe(path)
        splits = data.table(
            recipe.file,
            tasks=tasks,
            columns=recipe.columns,
            ignore=sorted({*recipe.ignore, *recipe.tasks} - set(tasks)),
            groups=recipe.groups,
            time=recipe.time,
            validation_fraction=recipe.validation_fraction,
            test_fraction=recipe.test_fraction,
            seed=recipe.split_seed,
            width=width,
        )
    else:
        splits = data.table(path, tasks=tasks, width=width)
    for task, labels in splits.train.labels.items():
        if not np.isin(labels[~np.isnan(labels)], (0, 1)).all():
            raise ValueError(
                f"`tasks` must have labels of 0 and 1 in a comparison. Received: {task!r}, which "
                "has others"
            )
    return splits


_PUBLISHED = functools.partial(Settings, epochs=2, batch_size=4096)

SOURCES = {
    "census": Source(
        data.census_income,
        (*CENSUS, *CENSUS_REGRESSION),
        Settings(tasks=("income", "never_married"), epochs=10),
        regression=frozenset(CENSUS_REGRESSION),
        held_margin=0.001,
        demo_epochs=8,
    ),
    "kuairand": Source(
        data.kuairand,
        (*KUAIRAND, *KUAIRAND_REGRESSION),
        Settings(tasks=("click", "like"), epochs=4),
        path="the folder of KuaiRand's files",
        regression=frozenset(KUAIRAND_REGRESSION),
    ),
    "aliexpress": Source(
        data.aliexpress,
        tuple(ALIEXPRESS),
        _PUBLISHED(tasks=("click", "conversion")),
        path="the folder of a country's train.csv and test.csv",
    ),
    "tiktok": Source(
        data.tiktok,
        tuple(TIKTOK),
        _PUBLISHED(tasks=("like", "finish")),
        path="the file final_track1_train.txt or that of track 2",
    ),
    "qk_video": Source(
        data.qk_video,
        tuple(QK_VIDEO),
        _PUBLISHED(tasks=("like", "click")),
        path="the file QK-video.csv",
    ),
    "aliccp": Source(
        data.aliccp,
        tuple(ALICCP),
        _PUBLISHED(tasks=("click", "purchase")),
        path="the folder of ali_ccp_train.csv and its test rows",
    ),
    "table": Source(
        _table,
        (),
        Settings(tasks=(), epochs=10),
        path="a CSV file, or a recipe of `tfmtl train`",
    ),
}


def load(name: str, path: str | None, tasks: tuple[str, ...], width: int) -> Splits:
    """The rows of a data set; those that are held out, in memory.

    Args:
        name: one of :data:`SOURCES`, or as from :func:`identified`.
        path: where it is.
        tasks: in priority order.
        width: of embeddings.

    Raises:
        ValueError: an unknown name or task, or ``path`` missing where the data set needs one.
        FileNotFoundError: ``path`` does not hold the data set.
    """
    source = source_of(name)
    if source.path is None:
        return source.load(tasks=tasks, width=width)
    if path is None:
        raise ValueError(f"`path` must be {source.path}. Received: None")
    splits = source.load(pathlib.Path(path), tasks=tasks, width=width)
    return dataclasses.replace(
        splits, validation=in_memory(splits.validation), test=in_memory(splits.test)
    )


def source_of(name: str) -> Source:
    """The data set of a name, or of one as from :func:`identified`."""
    found = SOURCES.get(name.partition(":")[0])
    if found is None:
        raise ValueError(f"`data` must be one of {sorted(SOURCES)}. Received: {name!r}")
    return found


def identified(name: str, path: str | pathlib.Path | None) -> str:
    """The data set's name in runs: that of a table with a digest of its file and recipe, so that
    another table's runs are others.
    """
    if name != "table" or path is None:
        return name
    path = pathlib.Path(path)
    digest = hashlib.sha256(path.read_bytes())
    if path.suffix in (".yaml", ".yml"):
        digest.update(pathlib.Path(read_recipe(path).file).read_bytes())
    return f"{name}:{digest.hexdigest()[:10]}"


def in_memory(part: Rows | Stream) -> Rows:
    """A part's rows."""
    return part.rows() if isinstance(part, Stream) else part


def check_tasks(name: str, tasks: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless these are two or more tasks of the data set, each once."""
    known = sorted(SOURCES[name].tasks)
    right = not known or set(tasks) <= set(known)
    if len(tasks) < 2 or len(set(tasks)) < len(tasks) or not right:
        which = known or "the table's columns of labels"
        raise ValueError(
            f"`tasks` must name two or more of {which}, each once. Received: {list(tasks)}"
        )
