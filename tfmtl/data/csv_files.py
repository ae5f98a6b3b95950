"""Delimited text files of any length as streams, with what is learnt from them in one pass."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl.data.blocks import BLOCK_BYTES, Block, Table
from tfmtl.data.encode import Encoder
from tfmtl.data.files import Path, check_fraction, find_parts
from tfmtl.data.learning import Distinct, Lookup, Scaling
from tfmtl.data.rows import Splits
from tfmtl.data.stream import Share, Size, Stream, of_share


def csv_files(
    path: Mapping[str, Path],
    *,
    labels: Mapping[str, str],
    categorical: Iterable[str] | Mapping[str, int],
    numeric: Iterable[str] = (),
    log: Iterable[str] = (),
    groups: str | None = None,
    names: Sequence[str] | None = None,
    delimiter: str = ",",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    width: int | Mapping[str, int] = 8,
    buffer_blocks: int = 16,
    block_bytes: int = BLOCK_BYTES,
) -> Splits[Stream]:
    r"""Rows in delimited text that need not fit in memory.

    Every file is read once: all lines are checked, rows are counted, and vocabularies and scales
    are learnt from the training rows. Nothing is written. Later passes read, encode and forget
    block after block (see :class:`tfmtl.data.Stream`).

    Where there is no file for validation or for testing, a share of the training file's rows is
    held out: those whose seeded hash of the group (of the row's number, without ``groups``) is
    small enough. A pass over such a part reads the whole file.

    Args:
        path: ``{"train": file}``, with ``"validation"`` and ``"test"`` where they are files.
            Plain text, one line a row.
        labels: the column of each task, numbers; an empty value or ``\N`` is no label.
        categorical: columns of integers that become ids, learnt from the training rows; id 0 is
            for what they do not hold. Or ``{column: size}`` where the file's integers are ids in
            ``[0, size)`` already: these stay as they are and cost no vocabulary.
        numeric: columns that are scaled to mean 0 and standard deviation 1.
        log: those of them that are scaled after ``log(1 + x)``.
        groups: a column of integers that says which rows are a list: rows of one group stand
            together.
        names: the columns of files without a header.
        delimiter: between values.
        validation_fraction: the share of the training file for validation, in (0, 1), where it
            has no file.
        test_fraction: likewise for testing.
        seed: chooses the rows that are held out.
        width: width of the embeddings, one for all or one per categorical column.
        buffer_blocks: how many blocks are shuffled together.
        block_bytes: bytes a block.

    Raises:
        FileNotFoundError: a file is not there.
        ImportError: pyarrow is not installed.
        ValueError: a label or a column that stands twice, a label that is an input, a missing
            column, a compressed or empty file, a line that does not parse, an id outside its
            range, or fractions that leave no rows to train on.
    """
    labels = dict(labels)
    sizes = dict(categorical) if isinstance(categorical, Mapping) else {}
    categorical, numeric, log = tuple(categorical), tuple(numeric), frozenset(log)
    _check_columns(labels, categorical, numeric, log)
    parts = find_parts(path, (), required=("train",))
    shares = _shares(parts, validation_fraction, test_fraction, seed)
    tables = {
        part: Table(
            file, categorical, (*numeric, *labels.values()), groups, names, delimiter, block_bytes
        )
        for part, file in parts.items()
    }

    vocabularies = {name: Distinct() for name in categorical if name not in sizes}
    moments = {name: Scaling(name in log) for name in numeric}
    blocks: dict[str, list[Block]] = {}
    size = dict.fromkeys(shares, Size())
    sources = {part: part if part in parts else "train" for part in shares}
    for source, table in tables.items():
        blocks[source] = []
        for block, rows in table.scan():
            blocks[source].append(block)
            _check_ids(table, block, rows, sizes)
            for part in (part for part in shares if sources[part] == source):
                kept = of_share(rows, block, shares[part], groups)
                keys = kept[groups].to_numpy() if groups else None
                size[part] = size[part].plus(kept.num_rows, keys)
                if part == "train":
                    for name, distinct in vocabularies.items():
                        distinct.add(kept[name].drop_null().to_numpy())
                    for name, moment in moments.items():
                        moment.add(kept[name].to_numpy())

    encoder = Encoder(
        {
            name: range(sizes[name])
            if name in sizes
            else (None, *vocabularies[name].values().tolist())
            for name in categorical
        },
        {name: moment.scale() for name, moment in moments.items()},
    )
    lookups = {name: Lookup(values) for name, values in encoder.vocabularies.items()}
    streams = {
        part: Stream(
            tables[source],
            blocks[source],
            encoder,
            lookups,
            labels,
            size[part],
            shares[part],
            buffer_blocks,
        )
        for part, source in sources.items()
    }
    return Splits(
        **streams,
        features=encoder.features(width),
        tasks=tuple(labels),
        vocabularies=encoder.vocabularies,
        scales=encoder.scales,
    )


def _check_columns(labels, categorical, numeric, log) -> None:
    if not labels:
        raise ValueError("`labels` must name the column of at least one task. Received: {}")
    inputs = [*categorical, *numeric]
    twice = sorted({name for name in inputs if inputs.count(name) > 1})
    if twice:
        raise ValueError(
            f"`categorical` and `numeric` must name each column once. Received more than once: "
            f"{twice}"
        )
    leaked = {task: column for task, column in labels.items() if column in inputs}
    if leaked:
        raise ValueError(
            f"`labels` must not name columns that are inputs, or labels leak. Received: {leaked}"
        )
    if not log <= set(numeric):
        raise ValueError(
            f"`log` must name columns of `numeric`. Received: {sorted(log - set(numeric))}"
        )


def _shares(
    parts: Mapping[str, pathlib.Path], validation: float, test: float, seed: int
) -> dict[str, Share | None]:
    """Which rows of its file each part takes; ``None`` for all of them."""
    shares: dict[str, Share | None] = dict.fromkeys(("train", "validation", "test"))
    held_out = 0.0
    for part, fraction in (("test", test), ("validation", validation)):
        if part not in parts:
            check_fraction(f"{part}_fraction", fraction)
            shares[part] = Share(held_out, held_out + fraction, seed)
            held_out += fraction
    if held_out >= 1.0:
        raise ValueError(
            "`validation_fraction` and `test_fraction` must leave rows to train on. "
            f"Received: {validation} and {test}"
        )
    if held_out:
        shares["train"] = Share(held_out, 1.0, seed)
    return shares


def _check_ids(table: Table, block: Block, rows: Any, sizes: Mapping[str, int]) -> None:
    for name, size in sizes.items():
        values = rows[name].drop_null().to_numpy()
        wrong = values[(values < 0) | (values >= size)]
        if len(wrong):
            line = rows[name].to_pylist().index(wrong[0]) + block.first_row + 1
            line += table.names is None
            raise ValueError(
                f"{str(table.file)!r}, line {line}, column {name!r}: expected ids from 0 to "
                f"{size - 1}. Received: {np.int64(wrong[0])}"
            )
