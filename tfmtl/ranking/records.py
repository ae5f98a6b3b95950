"""TFRecord files: found, looked through before they are read, and read."""

from __future__ import annotations

import mmap
import os
import re
import struct
from collections.abc import Sequence

import tensorflow as tf

#: How many files are read in turns when the order is shuffled; the order depends on it.
FILES_AT_ONCE = 8
#: Before a file's name, stands for a record of it that cannot be read.
_LOST = b"\x00tfmtl: lost in "


def find_files(file_pattern: str | os.PathLike | Sequence) -> list[str]:
    """The files a pattern, or several of them, stand for, sorted, each once.

    Raises:
        ValueError: a pattern that stands for none.
    """
    if isinstance(file_pattern, (str, os.PathLike)):
        file_pattern = [file_pattern]
    files: set[str] = set()
    for pattern in file_pattern:
        found = tf.io.gfile.glob(os.fspath(pattern))
        if not found:
            raise ValueError(f"`file_pattern` must match files. Received: {os.fspath(pattern)!r}")
        files.update(found)
    if not files:
        raise ValueError(f"`file_pattern` must match files. Received: {file_pattern!r}")
    return sorted(files)


def first_records(file: str, number: int) -> list[bytes]:
    """The first records of a file, at most so many.

    Raises:
        ValueError: the file is not a TFRecord file, or is damaged there.
    """
    try:
        return list(tf.data.TFRecordDataset(file).take(number).as_numpy_iterator())
    except tf.errors.DataLossError as error:
        raise ValueError(
            f"{file!r} is not a TFRecord file, or is cut or damaged within its first {number} "
            f"records: {reason(error)}"
        ) from None


def reason(error: tf.errors.OpError) -> str:
    """What an error of TensorFlow's says, without the names of its nodes."""
    return re.sub(r"\{\{.*?\}\} ?|\[Op:.*|\n.*", "", error.message).strip()


def count_records(file: str) -> int | None:
    """The number of records of a local file, from their lengths; ``None`` for a remote one.

    It reads 8 bytes a record. A file of another kind is not told from a damaged one here, see
    :func:`first_records`.

    Raises:
        ValueError: the file does not end where a record ends.
    """
    if not os.path.exists(file):
        return None
    size = os.path.getsize(file)
    if size == 0:
        return 0
    count = position = 0
    with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as view:
        # A record is its length (8 bytes), a checksum (4), the data, and a checksum (4).
        while position + 12 <= size:
            position += 16 + struct.unpack_from("<Q", view, position)[0]
            count += 1
    if position != size:
        raise ValueError(
            f"{file!r} is cut short or damaged: "
            + (
                f"record {count} ends at byte {position} of {size}."
                if position > size
                else f"{size - position} bytes follow record {count}."
            )
        )
    return count


def read_records(files: Sequence[str], counts: Sequence[int | None], in_turns: bool):
    """A ``tf.data.Dataset`` of serialized records, string scalars, for :func:`without_lost`.

    Args:
        files: their paths.
        counts: the number of records of each, or ``None``. Where it is known, records that cannot
            be read are replaced by a sign with the file's name.
        in_turns: take records of :data:`FILES_AT_ONCE` files by turns, instead of file by file.
    """
    limits = tf.constant([-1 if count is None else count for count in counts], tf.int64)
    sources = tf.data.Dataset.from_tensor_slices((list(files), limits))
    at_once = min(FILES_AT_ONCE, len(files)) if in_turns else 1

    def read(file, count):
        records = tf.data.TFRecordDataset(file)
        if None in counts:
            return records
        lost = tf.data.Dataset.from_tensors(_LOST + file).repeat()
        return records.ignore_errors().concatenate(lost).take(count)

    return sources.interleave(
        read, cycle_length=at_once, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )


def without_lost(records):
    """Records ``[batch]``, unless one of them could not be read: then an error names its file.

    TensorFlow's own error does not, and a check of every single record would take ten times as
    long as to read it.

    Raises:
        tf.errors.InvalidArgumentError: when it runs.
    """
    lost = tf.equal(tf.strings.substr(records, 0, len(_LOST)), _LOST)
    which = tf.boolean_mask(records, lost)[:1]
    message = ["A TFRecord file is damaged, a record cannot be read:", which]
    with tf.control_dependencies([tf.debugging.Assert(~tf.reduce_any(lost), message)]):
        return tf.identity(records)
