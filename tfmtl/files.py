"""Files that are whole at any moment, whatever stops the process that writes them."""

from __future__ import annotations

import contextlib
import csv
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator


def free_bytes(folder: str | os.PathLike) -> int:
    """How much room a disk has, by a folder on it that may not have been made yet."""
    place = pathlib.Path(folder).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


@contextlib.contextmanager
def written(filepath: str | os.PathLike, keeps: bool = True) -> Iterator[str]:
    """Where to write a file to that is to take its place at the end of the block.

    A full disk or a kill leaves the old file as it was. What a killed process has left beside it
    (``.writing-NAME``) the next one takes over.

    Args:
        filepath: the place; its folder is made where there is none. A remote one, which storage
            services write as a whole, is given out as it is.
        keeps: whether this process is the one to write it; of another the file is thrown away.
    """
    path = os.fspath(filepath)
    folder, name = os.path.split(path)
    if not keeps:
        with tempfile.TemporaryDirectory() as elsewhere:
            yield os.path.join(elsewhere, name)
        return
    if "://" in path:
        yield path
        return
    if folder:
        os.makedirs(folder, exist_ok=True)
    beside = os.path.join(folder, f".writing-{name}")
    try:
        yield beside
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(beside)
        raise


def write_csv(path: pathlib.Path, rows: list[dict]) -> None:
    """Write rows, beside the place first; a key that a row does not have is an empty cell."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with written(path) as beside, open(beside, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a CSV file as dicts of strings."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
