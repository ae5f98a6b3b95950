"""Scalars in TensorBoard's event files, written and read with TensorFlow alone.

``tf.summary.scalar`` needs the tensorboard package, which TensorFlow 2.21 no longer brings, and
takes 100 times as long as a record of all scalars of a step.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

#: Scalars reach the disk this many seconds after they were written, if not before.
FLUSH_SECONDS = 30.0

_START = tf.compat.v1.SessionLog.START
_numbers = itertools.count()


class ScalarWriter:
    """An event file of scalars; one more in a folder goes on where the others end.

    Args:
        folder: is made where there is none.
        step: the first that may follow. What earlier files hold of this step and later ones comes
            from a run that was killed, and TensorBoard drops it.
    """

    def __init__(self, folder: str, step: int):
        tf.io.gfile.makedirs(folder)
        # TensorBoard reads the files of a folder in the order of their names.
        name = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers):04d}"
        self._file = tf.io.TFRecordWriter(os.path.join(folder, f"events.out.tfevents.{name}"))
        self._record(file_version="brain.Event:2")
        self._record(step=step, session_log=tf.compat.v1.SessionLog(status=_START))
        self.flush()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write scalars, rounded to float32, by tag."""
        values = [
            tf.compat.v1.Summary.Value(tag=tag, simple_value=value)
            for tag, value in scalars.items()
        ]
        self._record(step=step, summary=tf.compat.v1.Summary(value=values))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Hand everything written to the file system."""
        self._file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()

    def _record(self, **content) -> None:
        event = tf.compat.v1.Event(wall_time=time.time(), **content)
        self._file.write(event.SerializeToString())


def read_scalars(folder: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What :class:`ScalarWriter` has written to a folder, whichever runs it holds.

    A file may still be written to, or may have lost its end to a kill.

    Returns:
        For each tag the steps, int64 ``[values]``, increasing, and the values, float64
        ``[values]``.

    Raises:
        ValueError: the folder is missing or holds no event file.
    """
    found: dict[str, dict[int, float]] = {}
    for path in _files(folder):
        for event in _events(path):
            if event.session_log.status == _START:
                for values in found.values():
                    for step in [step for step in values if step >= event.step]:
                        del values[step]
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.setdefault(value.tag, {})[event.step] = value.simple_value
    return {
        tag: (np.array(sorted(values)), np.array([values[step] for step in sorted(values)]))
        for tag, values in found.items()
        if values
    }


def _files(folder: str) -> list[str]:
    names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    found = sorted(os.path.join(folder, name) for name in names if ".tfevents." in name)
    if not found:
        raise ValueError(f"`source` must be a folder with event files. Received: {folder!r}")
    return found


def _events(path: str) -> Iterator:
    try:
        for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
            yield tf.compat.v1.Event.FromString(record)
    except tf.errors.DataLossError:
        return  # the record that was being written
