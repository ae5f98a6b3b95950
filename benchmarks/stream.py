"""Rows a second and resident memory of streaming, beside what a training step takes.

Writes files in AliExpress' format to a temporary folder, reads each through the input pipeline
alone and through ``fit`` of an MMoE, every reading in a process of its own, and prints a table.

    python benchmarks/stream.py                     # 0.5 and 2 million rows, 1 GB on disk
    python benchmarks/stream.py --rows 100000
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import click
import numpy as np

BATCH = 4096
IDS = 10_000


def write(file: pathlib.Path, rows: int, seed: int) -> None:
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


def read(folder: pathlib.Path, fit: bool) -> dict:
    """One reading, in this process: what it took, as numbers."""
    import keras

    import tfmtl

    keras.utils.set_random_seed(0)
    start = time.perf_counter()
    splits = tfmtl.data.aliexpress(folder, validation_fraction=0.01)
    found = {"learning": len(splits.train) / (time.perf_counter() - start)}
    batches = splits.train.batches(BATCH, shuffle=True, seed=0, drop_remainder=True)
    if fit:
        net = tfmtl.models.MMoE(
            splits.tasks, splits.features, experts=8, expert_units=(256,), seed=0
        )
        model = tfmtl.MultiTaskModel(net)
        model.compile(
            optimizer=keras.optimizers.Adam(1e-3),
            loss=dict.fromkeys(splits.tasks, "binary_crossentropy"),
        )
        clock = Clock()
        model.fit(batches, epochs=1, verbose=0, callbacks=[clock.callback()])
    else:
        clock = Clock()
        for _ in batches:
            clock.tick()
    return found | clock.readings() | {"memory": peak()}


class Clock:
    """What rows take from the sixth batch on: tracing is behind it."""

    def __init__(self):
        self.times = []

    def tick(self) -> None:
        self.times.append((time.perf_counter(), time.process_time()))

    def readings(self) -> dict:
        """Rows a second, and microseconds of CPU time a row, which others' load does not reach."""
        first = min(5, len(self.times) - 2)
        rows = (len(self.times) - 1 - first) * BATCH
        wall, cpu = np.subtract(self.times[-1], self.times[first])
        return {"rate": rows / wall, "cpu": 1e6 * cpu / rows}

    def callback(self):
        import keras

        return keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: self.tick())


def peak() -> float:
    """The largest resident memory of this process so far, in MB."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def measure(folder: pathlib.Path, kind: str) -> dict:
    command = [sys.executable, __file__, "--read", str(folder), "--kind", kind]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


@click.command()
@click.option("--rows", type=click.IntRange(min=40_000), default=2_000_000, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=pathlib.Path))
@click.option("--read", "folder", type=click.Path(path_type=pathlib.Path), hidden=True)
@click.option("--kind", type=click.Choice(["input", "fit"]), hidden=True)
def main(rows, out, folder, kind):
    """Stream a quarter of ROWS and ROWS, alone and into a training step."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if folder is not None:
        print(json.dumps(read(folder, kind == "fit")))
        return
    lines = [
        "| rows | MB on disk | learning, rows/s | input, rows/s | `fit`, rows/s "
        "| input, CPU µs/row | `fit`, CPU µs/row | input, peak MB | `fit`, peak MB |",
        "| ---: " * 9 + "|",
    ]
    with tempfile.TemporaryDirectory() as temporary:
        for n in (rows // 4, rows):
            place = pathlib.Path(temporary, str(n))
            place.mkdir()
            write(place / "train.csv", n, seed=0)
            write(place / "test.csv", 1000, seed=1)
            size = (place / "train.csv").stat().st_size / 2**20
            alone, fit = measure(place, "input"), measure(place, "fit")
            cells = [size, alone["learning"]]
            cells += [each[key] for key in ("rate", "cpu", "memory") for each in (alone, fit)]
            lines.append(" | ".join([f"| {n:,}", *(f"{cell:,.0f}" for cell in cells)]) + " |")
            (place / "train.csv").unlink()
    table = "\n".join(lines) + "\n"
    print(table)
    if out is not None:
        out.write_text(table)


if __name__ == "__main__":
    main()
