"""KuaiRand-Pure: what users did with recommended short videos."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl.data.encode import Encoder, check_tasks, require
from tfmtl.data.rows import Rows, Splits

#: Each task's column of the log.
TASKS = {
    "click": "is_click",
    "like": "is_like",
    "long_view": "long_view",
    "finish": "finish",
    "follow": "is_follow",
    "comment": "is_comment",
    "forward": "is_forward",
}
#: Tasks whose labels are numbers: the logarithm of 1 + seconds watched, and these over the length.
REGRESSION_TASKS = {"play_time": "play_time_ms", "watch_ratio": "watch_ratio"}
#: What happened after the video was shown. None of it may ever be an input.
OUTCOMES = frozenset(TASKS.values()) | {
    "is_hate",
    "play_time_ms",
    "watch_ratio",
    "like",
    "long_watch",
    "is_positive",
    "profile_stay_time",
    "comment_stay_time",
    "is_profile_enter",
}
# Inputs are listed one by one: a column that is not named here cannot leak.
LOG_CATEGORICAL = ("user_id", "video_id", "author_id", "tag", "tab")
VIDEO_CATEGORICAL = ("video_type", "upload_type", "music_type")
USER_CATEGORICAL = (
    "user_active_degree",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{i}" for i in range(18)),
)
CATEGORICAL = (*LOG_CATEGORICAL, "hour", *VIDEO_CATEGORICAL, *USER_CATEGORICAL)
SKEWED = ("duration_ms",)
NUMERIC = (*SKEWED, "freshness_days")

LAST_TRAINING_DAY = 20220505
VALIDATION_DAY = 20220506


def kuairand(
    path: str | os.PathLike[str],
    *,
    tasks: Sequence[str] = ("click", "like"),
    width: int | Mapping[str, int] = 8,
) -> Splits:
    """KuaiRand-Pure (Kuaishou, CC BY-SA 4.0), split by day.

    Rows up to 5 May 2022 are for training, 6 May for validation, later days for testing.
    ``groups`` holds the raw user id of every row, to resample users rather than rows.

    Args:
        path: a folder with ``interactions_*.parquet`` (the log), ``user_features.csv.gz`` and
            ``video_features.csv.gz``.
        tasks: some of ``"click"``, ``"like"``, ``"long_view"``, ``"finish"``, ``"follow"``,
            ``"comment"`` and ``"forward"``, and for regression ``"play_time"``, the logarithm of
            1 + seconds watched, and ``"watch_ratio"``, the time watched over the video's length (0
            to 5, as published).
        width: width of the embeddings, one for all or one per categorical column.

    Returns:
        Splits with 34 categorical and 2 numeric columns, none of them an outcome.

    Raises:
        FileNotFoundError: the folder or one of its files is not there.
        ImportError: pandas or pyarrow is not installed.
        ValueError: an unknown task, a file without a column that is needed, or a day split
            that leaves a part empty.
    """
    columns_of = {**TASKS, **REGRESSION_TASKS}
    tasks = check_tasks(tasks, columns_of)
    folder = pathlib.Path(path)
    logs = sorted(folder.glob("interactions_*.parquet"))
    _check_files(folder, logs)

    labels = [columns_of[task] for task in tasks]
    wanted = [*LOG_CATEGORICAL, *NUMERIC, "date", "hourmin", *labels]
    pandas = require("pandas")
    frame = pandas.concat([_read_log(file, wanted) for file in logs], ignore_index=True)
    frame["hour"] = frame["hourmin"] // 100
    # The log writes 0 where a video's length is not known.
    frame["duration_ms"] = frame["duration_ms"].where(frame["duration_ms"] > 0)
    for name, key, columns in (
        ("user_features.csv.gz", "user_id", USER_CATEGORICAL),
        ("video_features.csv.gz", "video_id", VIDEO_CATEGORICAL),
    ):
        frame = frame.merge(
            _read_features(folder / name, key, columns), on=key, how="left", validate="many_to_one"
        )

    train = (frame["date"] <= LAST_TRAINING_DAY).to_numpy(bool)
    validation = (frame["date"] == VALIDATION_DAY).to_numpy(bool)
    encoder = Encoder.learn(frame[train], categorical=CATEGORICAL, numeric=NUMERIC, log=SKEWED)
    found = {task: frame[columns_of[task]].to_numpy("float32", na_value=np.nan) for task in tasks}
    if "play_time" in found:
        found["play_time"] = np.log1p(found["play_time"] / 1000)
    everything = Rows(
        encoder.encode(frame),
        found,
        groups=frame["user_id"].to_numpy("int64"),
    )
    return Splits(
        train=everything.take(train),
        validation=everything.take(validation),
        test=everything.take(~train & ~validation),
        features=encoder.features(width),
        tasks=tasks,
        vocabularies=encoder.vocabularies,
        scales=encoder.scales,
    )


def _check_files(folder: pathlib.Path, logs: Sequence[pathlib.Path]) -> None:
    missing = [] if logs else ["interactions_*.parquet"]
    missing += [
        name
        for name in ("user_features.csv.gz", "video_features.csv.gz")
        if not (folder / name).is_file()
    ]
    if missing:
        found = sorted(item.name for item in folder.iterdir()) if folder.is_dir() else "no folder"
        raise FileNotFoundError(
            "`path` must be a folder with interactions_*.parquet, user_features.csv.gz and "
            f"video_features.csv.gz. Missing: {missing}. Received: {str(folder)!r} with {found}"
        )


def _read_log(file: pathlib.Path, wanted: Iterable[str]) -> Any:
    parquet = require("pyarrow.parquet")
    _check_columns(file, wanted, parquet.read_schema(file).names)
    return require("pandas").read_parquet(file, columns=list(dict.fromkeys(wanted)))


def _read_features(file: pathlib.Path, key: str, columns: Iterable[str]) -> Any:
    read_csv = require("pandas").read_csv
    wanted = [key, *columns]
    _check_columns(file, wanted, read_csv(file, nrows=0).columns)
    return read_csv(file, usecols=wanted)


def _check_columns(file: pathlib.Path, wanted: Iterable[str], present: Iterable[str]) -> None:
    present = list(present)
    missing = [name for name in wanted if name not in present]
    if missing:
        raise ValueError(
            f"`path` holds {file.name} without the columns {missing}. Received columns: {present}"
        )
