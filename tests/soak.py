"""Train, kill at random moments, start again; in the end compare with an unbroken run.

    make soak ARGS="--kills 100"

Each run is `examples/resume.py`: NMT through all its stages with a backup after each epoch. A kill
comes at any moment from the first import on. When a run has ended, the next one begins in another
folder, until there were enough kills.
"""

from __future__ import annotations

import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

import click
import h5py
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

SCRIPT = pathlib.Path(__file__).parents[1] / "examples" / "resume.py"


def start(folder: pathlib.Path, epochs: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), str(epochs)], stdout=subprocess.PIPE, text=True
    )


def epochs_of(lines: list[str]) -> list[int]:
    return [int(line.split()[1]) for line in lines if line.startswith("epoch")]


def check_readable(folder: pathlib.Path) -> None:
    """Every backup that has its name is whole."""
    for file in (folder / "backup").glob("epoch-*"):
        with h5py.File(file, "r") as opened:
            opened.visititems(lambda name, item: item[()] if hasattr(item, "shape") else None)


@click.command(help=__doc__.splitlines()[0])
@click.option("--kills", default=100, show_default=True)
@click.option("--minutes", default=30.0, show_default=True, help="Stop after so long, too.")
@click.option("--epochs", default=16, show_default=True, help="Of a run.")
@click.option("--seed", default=0, show_default=True)
def main(kills: int, minutes: float, epochs: int, seed: int) -> None:
    draw = random.Random(seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        unbroken = pathlib.Path(scratch) / "unbroken"
        moment = time.monotonic()
        printed = start(unbroken, epochs).communicate()[0].splitlines()
        whole = time.monotonic() - moment
        assert epochs_of(printed) == list(range(1, epochs + 1)), printed
        with np.load(unbroken / "final.npz") as file:
            expected = dict(file)
        done = runs = 0
        columns = (TextColumn("kills"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns) as progress:
            bar = progress.add_task("kills", total=kills)
            while done < kills and time.monotonic() - began < 60 * minutes:
                folder = pathlib.Path(scratch) / f"run-{runs}"
                last = 0
                while True:
                    process = start(folder, epochs)
                    lines: list[str] = []
                    reader = threading.Thread(
                        target=lambda p=process, to=lines: to.extend(p.stdout)
                    )
                    reader.start()
                    try:
                        process.wait(draw.uniform(0.0, whole) if done < kills else None)
                    except subprocess.TimeoutExpired:
                        process.send_signal(signal.SIGKILL)
                    process.wait()
                    reader.join()
                    found = epochs_of(lines)
                    if found:
                        # What was reported was backed up before, and is not made again.
                        assert found[0] in (last + 1, last + 2), (last, found)
                        last = found[-1]
                    check_readable(folder)
                    if process.returncode == -signal.SIGKILL:
                        done += 1
                        progress.advance(bar)
                        if (folder / "final.npz").exists():
                            break  # it came when all was done
                        continue
                    assert process.returncode == 0, process.returncode
                    break
                with np.load(folder / "final.npz") as file:
                    for name, value in expected.items():
                        np.testing.assert_array_equal(file[name], value)
                runs += 1
    seconds = time.monotonic() - began
    print(f"{done} kills in {runs} runs of {epochs} epochs, {seconds:.0f} s: every epoch that was")
    print("reported was kept, every backup readable, all final weights those of the unbroken run.")


if __name__ == "__main__":
    main()
