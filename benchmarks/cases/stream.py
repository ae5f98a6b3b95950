"""Rows streamed from files in AliExpress' format, alone and into training."""

import pathlib
import time

import numpy as np

from benchmarks.cases import Case, resident_peak

BATCH = 4096
IDS = 10_000
#: Batches over which one rate is taken.
WINDOW = 10


def write(folder: str, rows: int) -> Case:
    """A file to train on and a short one to test on."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    write_file(folder / "train.csv", rows, seed=0)
    write_file(folder / "test.csv", 1000, seed=1)
    return Case(figures={"MB on disk": (folder / "train.csv").stat().st_size / 2**20})


def write_file(file: pathlib.Path, rows: int, seed: int) -> None:
    """Random rows: searches of 1 to 20 impressions, labels that depend on a number and an id."""
    import pyarrow as pa
    from pyarrow import csv

    from tfmtl.data.aliexpress import CATEGORICAL, NUMERIC

    rng = np.random.default_rng(seed)
    names = ["search_id", *CATEGORICAL, *NUMERIC, "click", "conversion"]
    schema = pa.schema([(name, pa.float32() if name in NUMERIC else pa.int64()) for name in names])
    search = 0
    with csv.CSVWriter(file, schema) as out:
        for start in range(0, rows, 100_000):
            n = min(100_000, rows - start)
            searches = search + np.repeat(np.arange(n), rng.integers(1, 21, n))[:n]
            search = int(searches[-1]) + 1
            columns = {"search_id": searches}
            columns |= {name: rng.integers(0, IDS, n) for name in CATEGORICAL}
            columns |= {name: rng.random(n).round(6).astype("float32") for name in NUMERIC}
            liking = columns["numerical_1"] + columns["categorical_1"] / IDS
            columns["click"] = (liking > 2 * rng.random(n)).astype("int64")
            columns["conversion"] = columns["click"] * (liking > 4 * rng.random(n))
            out.write_table(pa.table(columns, schema=schema))


def read(folder: str, fit: bool) -> Case:
    """One pass over the training rows: through the input alone, or through ``fit``."""
    import keras

    import tfmtl

    keras.utils.set_random_seed(0)
    start = time.perf_counter()
    splits = tfmtl.data.aliexpress(folder, validation_fraction=0.01)
    learning = len(splits.train) / (time.perf_counter() - start)
    batches = splits.train.batches(BATCH, shuffle=True, seed=0, drop_remainder=True)
    times = []

    def tick(*_, **__):
        times.append((time.perf_counter(), time.process_time()))

    if fit:
        net = tfmtl.models.MMoE(
            splits.tasks, splits.features, experts=8, expert_units=(256,), seed=0
        )
        model = tfmtl.MultiTaskModel(net)
        model.compile(
            optimizer=tfmtl.optimizers.LazyAdam(1e-3),
            loss=dict.fromkeys(splits.tasks, "binary_crossentropy"),
        )
        clock = keras.callbacks.LambdaCallback(on_train_batch_end=tick)
        model.fit(batches, epochs=1, verbose=0, callbacks=[clock])
    else:
        for _ in batches:
            tick()
    # From the sixth batch on: tracing is behind it.
    wall, cpu = np.diff(np.array(times)[5::WINDOW], axis=0).T
    return Case(
        figures={
            "rows/s": (WINDOW * BATCH / wall).tolist(),
            "CPU µs/row": (1e6 * cpu / (WINDOW * BATCH)).tolist(),
            "learning, rows/s": learning,
            "MB": resident_peak(),
        }
    )
