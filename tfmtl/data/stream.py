"""Rows that stay in their files, with the batches and lists of rows in memory."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfmtl.data import passes
from tfmtl.data.blocks import Block, Table
from tfmtl.data.encode import Encoder
from tfmtl.data.learning import Lookup
from tfmtl.data.rows import Rows, Structure


class Share(NamedTuple):
    """The rows whose hash lies in ``[low, high)``, of rows hashed to ``[0, 1)``.

    What is hashed is the group where there is one, so that a group is in one share whole, and
    the row's number in the file otherwise.
    """

    low: float
    high: float
    seed: int

    def mask(self, groups: np.ndarray | None, first_row: int, n: int) -> np.ndarray:
        """Which of ``n`` rows belong to it, bool ``[n]``."""
        keys = np.arange(first_row, first_row + n) if groups is None else groups
        hashed = _hash(keys, self.seed)
        return (self.low <= hashed) & (hashed < self.high)


def of_share(rows: Any, block: Block, share: Share | None, groups: str | None) -> Any:
    """Those rows of a block that belong to a share, all if that is ``None``."""
    if share is None:
        return rows
    keys = rows[groups].to_numpy() if groups else None
    return rows.filter(share.mask(keys, block.first_row, rows.num_rows))


class Size(NamedTuple):
    """How much a stream holds, and how many rows its longest list has."""

    rows: int = 0
    lists: int = 0
    longest: int = 0

    def plus(self, n: int, groups: np.ndarray | None) -> Size:
        """With ``n`` rows more, of these groups."""
        if groups is None or not n:
            return self._replace(rows=self.rows + n)
        _, lengths = _runs(groups)
        longest = max(self.longest, int(lengths.max()))
        return Size(self.rows + n, self.lists + len(lengths), longest)


class _Buffer(NamedTuple):
    """Encoded rows: ids ``[n, columns]``, numbers and labels likewise, groups ``[n]``."""

    ids: np.ndarray
    numbers: np.ndarray
    labels: np.ndarray
    groups: np.ndarray

    def take(self, rows: Any) -> _Buffer:
        return _Buffer(*(part[rows] for part in self))

    @classmethod
    def join(cls, buffers: Sequence[_Buffer]) -> _Buffer:
        return cls(*(np.concatenate(parts) for parts in zip(*buffers)))


@dataclasses.dataclass(frozen=True)
class Stream:
    """Rows of a text file that are read, encoded and forgotten, pass by pass.

    :func:`tfmtl.data.csv_files` makes them, and so do the loaders of large data sets.
    :meth:`batches` and :meth:`lists` are those of :class:`tfmtl.data.Rows`. ``len`` tells the rows,
    which were counted when vocabularies and scales were learnt.

    A shuffled pass visits the file's blocks (4 MB each) in a new order, ``buffer_blocks`` at a
    time, and shuffles the rows (or lists) of these together. The order is a function of the seed
    and the number of the pass alone. While one buffer is given out, the next is read: two
    buffers are all that is ever in memory, whatever the file's length.

    Args:
        table: the file and its columns.
        blocks: its blocks.
        encoder: vocabularies and scales.
        lookups: the vocabularies as tables, which the parts of a data set share.
        labels: each task's column.
        size: how much there is.
        share: which rows of the file belong to the stream; ``None`` for all.
        buffer_blocks: how many blocks are shuffled together.
    """

    table: Table
    blocks: Sequence[Block]
    encoder: Encoder
    lookups: Mapping[str, Lookup] = dataclasses.field(repr=False)
    labels: Mapping[str, str]
    size: Size
    share: Share | None = None
    buffer_blocks: int = 16

    def __post_init__(self) -> None:
        if self.buffer_blocks < 1:
            raise ValueError(f"`buffer_blocks` must be at least 1. Received: {self.buffer_blocks}")

    def __len__(self) -> int:
        return self.size.rows

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int | None = None,
        drop_remainder: bool = False,
        first_epoch: int = 0,
    ) -> tf.data.Dataset:
        """A data set of ``({column: [batch]}, {task: [batch]})`` for ``fit`` and ``evaluate``.

        Arguments, result and errors are those of :meth:`tfmtl.data.Rows.batches`. The rows of a
        batch come from one buffer, apart from what a buffer left over.
        """
        n_batches = passes.check(batch_size, first_epoch, len(self), drop_remainder, "rows")

        def units(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return np.arange(len(groups)), np.ones(len(groups), "int64")

        def rows(starts, lengths, rng, padding):
            return starts

        read = _Pass(self, batch_size, shuffle, drop_remainder, units, rows)
        return self._dataset(read, [], shuffle, seed, first_epoch, n_batches)

    def lists(
        self,
        batch_size: int,
        list_size: int | None = None,
        *,
        shuffle: bool = False,
        seed: int | None = None,
        drop_remainder: bool = False,
        first_epoch: int = 0,
    ) -> tf.data.Dataset:
        """A data set of ``({column: [batch, list]}, {task: [batch, list]})``, a list a group.

        As :meth:`tfmtl.data.Rows.lists`, but a list is made of rows of a group that stand one
        after the other: the file must be ordered by group.
        """
        passes.check_list_size(list_size)
        if self.table.groups is None:
            raise ValueError("`lists` needs `groups`, whose rows make a list each. Received: None")
        n_batches = passes.check(batch_size, first_epoch, self.size.lists, drop_remainder, "lists")
        width = self.size.longest if list_size is None else list_size

        def rows(starts, lengths, rng, padding):
            return _places(lengths, width, rng if shuffle else None, starts, padding)

        read = _Pass(self, batch_size, shuffle, drop_remainder, _runs, rows)
        return self._dataset(read, [width], shuffle, seed, first_epoch, n_batches)

    def rows(self) -> Rows:
        """All rows, read into memory."""
        whole = _Buffer.join([self._encode(self._read(block)) for block in self.blocks])
        names, numbers = self.encoder.vocabularies, self.encoder.scales
        return Rows(
            {name: whole.ids[:, i] for i, name in enumerate(names)}
            | {name: whole.numbers[:, i] for i, name in enumerate(numbers)},
            {task: whole.labels[:, i] for i, task in enumerate(self.labels)},
            groups=whole.groups if self.table.groups else None,
        )

    def _dataset(self, read, inner, shuffle, seed, first_epoch, n_batches) -> tf.data.Dataset:
        key, count = passes.key(seed) if shuffle else 0, itertools.count(first_epoch)
        size = read.batch_size if read.drop_remainder else None
        ids, numbers = tuple(self.encoder.vocabularies), tuple(self.encoder.scales)
        signature = tuple(
            tf.TensorSpec([size, *inner, len(names)], dtype)
            for names, dtype in ((ids, tf.int32), (numbers, tf.float32), (self.labels, tf.float32))
        )
        # One tensor a dtype crosses over from Python, not one a column.
        dataset = tf.data.Dataset.from_generator(
            lambda: read.run(np.random.default_rng([key % 2**63, next(count)])),
            output_signature=signature,
        )
        structure = Structure((*ids, *numbers), ids, numbers, tuple(self.labels))
        return passes.finish(dataset.map(structure), n_batches)

    def buffers(self, rng: np.random.Generator | None) -> Iterator[list[_Buffer]]:
        """The encoded blocks of a pass, in the file's order or, with a generator, in a new one."""
        order, size = np.arange(len(self.blocks)), 1
        if rng is not None:
            order, size = rng.permutation(order), self.buffer_blocks
        chunks = [order[i : i + size] for i in range(0, len(order), size)]

        def load(chunk: np.ndarray) -> list[_Buffer]:
            return [self._encode(self._read(self.blocks[i])) for i in chunk]

        with concurrent.futures.ThreadPoolExecutor(1, "stream") as reader:
            ahead = collections.deque([reader.submit(load, chunks[0])])
            for chunk in chunks[1:]:
                ahead.append(reader.submit(load, chunk))
                # Not kept here: its reader decides how long it lives.
                yield ahead.popleft().result()
            yield ahead.popleft().result()

    def _read(self, block: Block) -> Any:
        return of_share(self.table.read(block), block, self.share, self.table.groups)

    def _encode(self, rows: Any) -> _Buffer:
        n = rows.num_rows
        vocabularies, scales = self.encoder.vocabularies, self.encoder.scales
        ids = np.empty((n, len(vocabularies)), "int32")
        for i, name in enumerate(vocabularies):
            ids[:, i] = self.lookups[name](rows[name].fill_null(0).to_numpy())
            if rows[name].null_count:
                ids[rows[name].is_null().to_numpy(), i] = 0
        numbers = np.empty((n, len(scales)), "float32")
        for i, (name, scale) in enumerate(scales.items()):
            numbers[:, i] = scale(rows[name].to_numpy())
        labels = np.empty((n, len(self.labels)), "float32")
        for i, name in enumerate(self.labels.values()):
            labels[:, i] = rows[name].to_numpy()
        groups = rows[self.table.groups].to_numpy() if self.table.groups else np.zeros(n, "int64")
        return _Buffer(ids, numbers, labels, groups)


class _Pass(NamedTuple):
    """How a stream is cut into batches of units: of rows, or of lists.

    Args:
        stream: what is read.
        batch_size: units a batch.
        shuffle: whether in a new order.
        drop_remainder: whether a smaller last batch is left out.
        units: from groups ``[n]`` to where units start and how many rows they have.
        rows: from some units' starts and lengths, a generator and the row of padding to the
            rows that make a batch.
    """

    stream: Stream
    batch_size: int
    shuffle: bool
    drop_remainder: bool
    units: Callable[..., tuple[np.ndarray, np.ndarray]]
    rows: Callable[..., np.ndarray]

    def run(self, rng: np.random.Generator) -> Iterator[tuple]:
        """The batches of one pass as ``(ids, numbers, labels)``."""
        stream = self.stream
        padding = _Buffer(
            np.zeros((1, len(stream.encoder.vocabularies)), "int32"),
            np.zeros((1, len(stream.encoder.scales)), "float32"),
            np.full((1, len(stream.labels)), np.nan, "float32"),
            np.zeros(1, "int64"),
        )
        left, left_lengths = padding.take(slice(0)), np.zeros(0, "int64")
        for blocks in stream.buffers(rng if self.shuffle else None):
            # Block by block, as they were counted: which blocks are neighbours changes.
            units = [self.units(block.groups) for block in blocks]
            ends = np.cumsum([len(block.groups) for block in blocks])
            starts = np.concatenate(
                [first + end - len(b.groups) for (first, _), end, b in zip(units, ends, blocks)]
            )
            lengths = np.concatenate([each for _, each in units])
            order = rng.permutation(len(starts)) if self.shuffle else np.arange(len(starts))
            # What the last buffer left over comes first, then this one in its order.
            n = len(left.groups)
            starts = np.concatenate([np.cumsum(left_lengths) - left_lengths, starts[order] + n])
            lengths = np.concatenate([left_lengths, lengths[order]])
            buffer = _Buffer.join([left, *blocks, padding])
            blocks.clear()
            whole = len(starts) - len(starts) % self.batch_size
            for i in range(0, whole, self.batch_size):
                yield self._batch(buffer, starts[i:], lengths[i:], rng)
            left_lengths = lengths[whole:]
            left = buffer.take(_flat(starts[whole:], left_lengths))
        if len(left_lengths) and not self.drop_remainder:
            starts = np.cumsum(left_lengths) - left_lengths
            yield self._batch(_Buffer.join([left, padding]), starts, left_lengths, rng)

    def _batch(self, buffer, starts, lengths, rng) -> tuple:
        size = self.batch_size
        rows = self.rows(starts[:size], lengths[:size], rng, len(buffer.groups) - 1)
        return buffer.ids[rows], buffer.numbers[rows], buffer.labels[rows]


def _runs(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where runs of equal groups ``[n]`` start and how long they are."""
    if not len(groups):
        return np.zeros(0, "int64"), np.zeros(0, "int64")
    starts = np.flatnonzero(np.concatenate([[True], groups[1:] != groups[:-1]]))
    return starts, np.diff(np.append(starts, len(groups)))


def _flat(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The rows of units, one unit after the other."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


def _places(lengths, width, rng, starts, padding) -> np.ndarray:
    """The rows of lists ``[batch, width]``: the first ones, or with ``rng`` a random subset."""
    places = np.broadcast_to(np.arange(width), (len(lengths), width))
    longest = int(lengths.max())
    if rng is not None and longest > width:
        noise = rng.random((len(lengths), longest))
        # Places behind the end come last, and stay behind the end when sorted.
        noise[np.arange(longest) >= lengths[:, None]] = 2.0
        places = np.sort(np.argpartition(noise, width - 1, axis=1)[:, :width], axis=1)
    return np.where(places < lengths[:, None], starts[:, None] + places, padding)


def _hash(keys: np.ndarray, seed: int) -> np.ndarray:
    """Integers to float64 in [0, 1), evenly: the finaliser of SplitMix64 (Steele et al., 2014)."""
    x = keys.astype("int64").view("uint64") + np.random.default_rng(seed).integers(
        2**63, dtype="uint64"
    )
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)) / float(2**53)
