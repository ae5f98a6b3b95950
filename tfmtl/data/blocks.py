"""A delimited text file of any length, block by block."""

from __future__ import annotations

import dataclasses
import io
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfmtl.data.encode import require

#: Bytes read at once: 8,000 rows of AliExpress, 70,000 of TikTok.
BLOCK_BYTES = 1 << 22
#: What stands for a missing value, beside nothing at all.
MISSING = ["", "\\N", "NA", "NaN", "nan", "NULL", "null", "None"]


class Block(NamedTuple):
    """Whole lines of a file.

    Args:
        offset: of the first byte.
        length: in bytes.
        first_row: the number of the first row, 0 for the first of the file.
    """

    offset: int
    length: int
    first_row: int


@dataclasses.dataclass(frozen=True)
class Table:
    """A text file of rows: one line a row, no line breaks inside quotes.

    Args:
        file: not compressed, so that it can be entered anywhere.
        ids: columns of integers.
        numbers: columns of numbers.
        groups: the column of integers that says whose rows they are. Rows of a group stand
            together, and no block ends inside a group (unless a group is longer than a block).
        names: the columns where the file has no header; ``None`` if it has one.
        delimiter: between values.
        block_bytes: how much is read at once.

    Raises:
        ValueError: the file is compressed or empty, or lacks a column.
    """

    file: pathlib.Path
    ids: Sequence[str]
    numbers: Sequence[str]
    groups: str | None = None
    names: Sequence[str] | None = None
    delimiter: str = ","
    block_bytes: int = BLOCK_BYTES
    #: All columns of the file, and where its first row starts.
    columns: tuple[str, ...] = dataclasses.field(init=False)
    start: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        with open(self.file, "rb") as file:
            magic, header = file.read(2), file.readline()
        if magic in (b"\x1f\x8b", b"PK"):
            raise ValueError(
                "`path` must hold text that is not compressed, so that blocks of it can be read in "
                f"any order: decompress it first. Received: {str(self.file)!r}"
            )
        header = magic + header
        if not header.strip():
            raise ValueError(f"`path` must hold files with rows. Received: {str(self.file)!r}")
        present = self.names
        if present is None:
            text = header.decode("utf-8-sig").rstrip("\r\n")
            present = [name.strip().strip('"') for name in text.split(self.delimiter)]
        wanted = [*self.ids, *self.numbers, *([self.groups] if self.groups else [])]
        missing = [name for name in wanted if name not in present]
        if missing:
            raise ValueError(
                f"`path` holds {str(self.file)!r} without the columns {missing}. "
                f"Received columns: {list(present)}"
            )
        object.__setattr__(self, "columns", tuple(present))
        object.__setattr__(self, "start", 0 if self.names is not None else len(header))

    def scan(self) -> Iterator[tuple[Block, Any]]:
        """The file from start to end: its blocks, and the rows of each as a ``pyarrow.Table``.

        Raises:
            ValueError: a line with too few or too many values, a value that is no integer or
                number, or a missing group, with file and line.
        """
        with open(self.file, "rb") as text:
            offset, row = self.start, 0
            text.seek(offset)
            pending, is_last = b"", False
            while not is_last:
                read = text.read(self.block_bytes)
                is_last = len(read) < self.block_bytes
                pending += read
                # Empty lines at the end are no rows.
                lines = pending.rstrip(b"\r\n") if is_last else pending[: pending.rfind(b"\n") + 1]
                if not lines.strip():
                    continue
                table = self._parse(lines, row)
                if self.groups and not is_last:
                    n = _whole_groups(table[self.groups].to_numpy())
                    ends = np.flatnonzero(np.frombuffer(lines, "uint8") == ord("\n"))
                    lines, table = lines[: ends[n - 1] + 1], table.slice(0, n)
                yield Block(offset, len(lines), row), table
                offset, row = offset + len(lines), row + table.num_rows
                pending = pending[len(lines) :]

    def read(self, block: Block) -> Any:
        """The rows of a block that :meth:`scan` found."""
        with open(self.file, "rb") as text:
            text.seek(block.offset)
            return self._parse(text.read(block.length), block.first_row)

    def _parse(self, lines: bytes, first_row: int) -> Any:
        csv, arrow = require("pyarrow.csv"), require("pyarrow")
        types = dict.fromkeys(self.numbers, arrow.float32())
        types |= dict.fromkeys(self.ids, arrow.int64())
        if self.groups:
            types[self.groups] = arrow.int64()

        def parse(threads: bool) -> Any:
            return csv.read_csv(
                io.BytesIO(lines),
                csv.ReadOptions(
                    column_names=self.columns, use_threads=threads, block_size=len(lines) + 1
                ),
                csv.ParseOptions(delimiter=self.delimiter, ignore_empty_lines=False),
                csv.ConvertOptions(
                    include_columns=list(types), column_types=types, null_values=MISSING
                ),
            )

        try:
            table = parse(True)
        except arrow.ArrowInvalid:
            # Only a single thread knows the row.
            try:
                table = parse(False)
            except arrow.ArrowInvalid as error:
                raise self._error(str(error), first_row) from None
        # Arrow takes an empty line for a row without values.
        if all(column.null_count for column in table.itercolumns()):
            texts = [line.strip(b"\r") for line in lines.split(b"\n")[: table.num_rows]]
            if b"" in texts:
                raise self._error(f"Row #{texts.index(b'') + 1}: an empty line", first_row)
        if self.groups and table[self.groups].null_count:
            row = table[self.groups].is_null().to_numpy().argmax()
            raise self._error(f"Row #{row + 1}: no value in column {self.groups!r}", first_row)
        return table

    def _error(self, message: str, first_row: int) -> ValueError:
        found = re.search(r"Row #(\d+)", message)
        line = first_row + (self.names is None) + int(found[1]) if found else None
        where = f"{str(self.file)!r}, line {line}" if line else f"{str(self.file)!r}"
        # Arrow counts columns from 0, of those in the file.
        column = re.search(r"In CSV column #(\d+): (?:Row #\d+: )?", message)
        if column:
            where += f", column {self.columns[int(column[1])]!r}"
        message = re.sub(r"(CSV parse error: )?(In CSV column #\d+: )?(Row #\d+: )?", "", message)
        return ValueError(f"{where}: {message.strip()}")


def _whole_groups(groups: np.ndarray) -> int:
    """How many rows stand before the last group, whose rest may follow; all if it is the only."""
    changes = np.flatnonzero(groups[1:] != groups[:-1])
    return int(changes[-1]) + 1 if changes.size else len(groups)
