"""The text format of learning-to-rank data: ``label qid:query feature:value ... # comment``."""

from __future__ import annotations

import array
import gzip
import pathlib
import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# Matching takes 11 of the 29 microseconds that a line of MSLR's 136 features takes, and everything
# after it may trust the line. Block parsing with NumPy was tried and is slower (33).
_LINE = re.compile(rb"\s*([^\s:#]+)\s+qid:(\d+)((?:\s+\d+:[^\s:#]+)*)\s*(?:#.*)?", re.DOTALL)
_LARGEST = float(np.finfo("float32").max)
_BLANK = re.compile(rb"\s*(?:#.*)?", re.DOTALL)


class Judged(NamedTuple):
    """The rows of a file.

    Args:
        labels: the judged labels, float32 ``[n]``.
        queries: the query ids, int64 ``[n]``.
        features: float32 ``[n, features]``; feature 1 is column 0, what a line leaves out is 0.
    """

    labels: np.ndarray
    queries: np.ndarray
    features: np.ndarray


def read(file: pathlib.Path, features: int | None = None) -> Judged:
    """Read a file line by line, plain or gzip (``.gz``). Only the rows themselves are kept.

    Args:
        file: the file. Lines that are empty or a comment are passed over.
        features: how many features there are; ``None`` for the largest number in the file.

    Raises:
        ValueError: a line that is not in the format, a number that is not finite or twice in a
            line, a feature below 1 or above ``features`` (all with file and line number), a file
            without rows, or a compressed file that is cut short or broken.
    """
    labels, queries = array.array("f"), array.array("q")
    matrix = np.zeros((1024, features or 0), "float32")
    last: list[bytes] | None = None
    columns = np.zeros(0, "int64")
    for number, line in enumerate(_lines(file), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            if _BLANK.fullmatch(line):
                continue
            raise _error(file, number, "`label qid:query feature:value ...`", line)
        tokens = match[3].replace(b":", b" ").split()
        names = tokens[::2]
        # Most files list the same features in every line.
        if names != last:
            columns = _columns(file, number, names, features)
            last = names
            width = int(columns.max(initial=-1)) + 1
            if width > matrix.shape[1]:
                matrix = np.pad(matrix, ((0, 0), (0, width - matrix.shape[1])))
        try:
            label = float(match[1])
            values = [float(token) for token in tokens[1::2]]
        except ValueError:
            raise _error(file, number, "numbers as label and values", line) from None
        # One sum finds NaN, infinity and what float32 cannot hold.
        if not abs(label + sum(values)) <= _LARGEST:
            raise _error(file, number, "finite numbers", line)
        n = len(labels)
        if n == len(matrix):
            # Grows in place: large arrays move without a copy. New rows are zeros.
            matrix.resize((2 * n, matrix.shape[1]), refcheck=False)
        matrix[n, columns] = values
        labels.append(label)
        queries.append(int(match[2]))
    if not labels:
        raise ValueError(f"`path` must hold files with rows. Received: no row in {str(file)!r}")
    matrix.resize((len(labels), matrix.shape[1]), refcheck=False)
    return Judged(np.asarray(labels), np.asarray(queries), matrix)


def _lines(file: pathlib.Path) -> Iterator[bytes]:
    try:
        with gzip.open(file) if file.suffix == ".gz" else open(file, "rb") as lines:
            yield from lines
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"`path` holds a compressed file that is cut short or broken: {error}. "
            f"Received: {str(file)!r}"
        ) from error


def _columns(
    file: pathlib.Path, number: int, names: list[bytes], features: int | None
) -> np.ndarray:
    columns = np.asarray([int(name) - 1 for name in names], "int64")
    below, above = columns.min(initial=0), columns.max(initial=-1)
    if below < 0 or (features is not None and above >= features):
        limit = "1 and up" if features is None else f"1 to {features}"
        received = above + 1 if below >= 0 else 0
        raise ValueError(
            f"{str(file)!r}, line {number}: expected features {limit}. Received: {received}"
        )
    if len(set(names)) < len(names) or len(np.unique(columns)) < len(columns):
        raise ValueError(f"{str(file)!r}, line {number}: a feature stands more than once in it.")
    return columns


def _error(file: pathlib.Path, number: int, expected: str, line: bytes) -> ValueError:
    text = line.decode(errors="replace").rstrip()
    text = text if len(text) <= 80 else text[:77] + "..."
    return ValueError(f"{str(file)!r}, line {number}: expected {expected}. Received: {text!r}")
