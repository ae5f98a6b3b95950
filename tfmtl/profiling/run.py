"""Running a model's training steps under TensorFlow's profiler."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tfmtl import compat
from tfmtl.profiling import trace
from tfmtl.profiling.parts import Scopes
from tfmtl.profiling.report import Memory, Profile, write_whole


def profile(
    model: keras.Model,
    dataset: tf.data.Dataset,
    steps: int = 10,
    *,
    warm_up: int = 5,
    folder: str | os.PathLike | None = None,
    title: str = "",
    verbose: bool = False,
) -> Profile:
    """Train a compiled model for some steps and find where their time goes.

    >>> print(tfmtl.profile(model, dataset))

    The model's ``fit`` takes ``warm_up + 2 * steps`` steps: the first ones compile, ``steps`` are
    timed as they are and as many under TensorFlow's profiler. The model learns in them, so profile
    one that is to be thrown away.

    Args:
        model: a compiled :class:`tfmtl.MultiTaskModel` or any other Keras model.
        dataset: what it trains on; repeated as often as it takes.
        steps: how many to time, and to profile. With weights that are searched every so many
            steps, take a multiple.
        warm_up: how many to take before.
        folder: gets ``profile.md``, ``ops.csv``, and the trace: ``plugins/profile/<time>/`` for
            TensorBoard's profile plugin, in it ``trace.json.gz`` for https://ui.perfetto.dev.
        title: stands above the tables.
        verbose: show progress.

    Returns:
        The tables: ``print`` shows them.

    With ``jit_compile`` on TensorFlow 2.15 the ops of a compiled step are seen only if XLA has
    compiled nothing before in this process.

    Raises:
        ValueError: the model is not compiled, ``dataset`` not a ``tf.data.Dataset``, or ``steps``
            or ``warm_up`` below 1.
    """
    if not isinstance(model, keras.Model) or getattr(model, "optimizer", None) is None:
        raise ValueError(f"`model` must be a compiled Keras model. Received: {model!r}")
    if not isinstance(dataset, tf.data.Dataset):
        raise ValueError(
            f"`dataset` must be a tf.data.Dataset of batches. Received: {type(dataset).__name__}"
        )
    for name, value in (("steps", steps), ("warm_up", warm_up)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"`{name}` must be a positive integer. Received: {value!r}")
    with _workplace(folder) as place, _progress(verbose, warm_up + 2 * steps) as progress:
        callback = _Profiler(place, warm_up, steps, progress)
        try:
            with compat.xla_ops_in_traces():
                model.fit(
                    dataset.repeat(),
                    steps_per_epoch=warm_up + 2 * steps,
                    verbose=0,
                    callbacks=[callback],
                )
        finally:
            callback.stop()
        if not callback.steps:
            raise ValueError(
                f"`steps` must be at least the model's `steps_per_execution`. Received: {steps}"
            )
        progress("Reading the trace", warm_up + 2 * steps)
        (file,) = place.rglob("*.xplane.pb")
        found = Profile(
            trace.read(file),
            callback.steps,
            _scopes(model),
            unprofiled=callback.milliseconds,
            cpu=callback.cpu,
            memory=callback.memory,
            title=title,
        )
        if folder is not None:
            write_whole(file.with_name("trace.json.gz"), trace.trace_events(file))
            runs = pathlib.Path(folder) / "plugins" / "profile"
            runs.mkdir(parents=True, exist_ok=True)
            os.rename(file.parent, runs / file.parent.name)
            found.write(folder)
    return found


def _scopes(model) -> Scopes:
    """What the parts of a model's step are called in the graph."""
    optimizer = compat.unscaled(model.optimizer)
    return Scopes(
        getattr(model, "net", model).name,
        getattr(getattr(model, "balancer", None), "name", None),
        getattr(optimizer, "name", None),
    )


class _Profiler(keras.callbacks.Callback):
    """Takes ``fit`` through the warm-up, the timed and the profiled steps.

    Where an execution holds several steps a phase begins with the next one.
    """

    def __init__(self, place: pathlib.Path, warm_up: int, steps: int, progress):
        super().__init__()
        # Keras 2.15 turns every figure of every step into a number, unless all callbacks say this.
        self._supports_tf_logs = True
        self._place = str(place)
        self._timed, self._profiled, self._end = warm_up, warm_up + steps, warm_up + 2 * steps
        self._progress = progress
        # Of the first timed step: its number, the time, and the CPU time of the process.
        self._began: tuple[int, float, float] | None = None
        self._first: int | None = None  # the number of the first profiled step
        self._running = False
        self._step: Any = None  # the mark of the running step in the trace
        self.milliseconds = self.cpu = 0.0
        self.steps = 0
        self.memory: Memory | None = None

    def on_train_begin(self, logs=None):
        self._before = _resident("VmRSS")
        self._progress("Compiling, and the warm-up", 0)

    def on_train_batch_begin(self, batch, logs=None):
        if self._began is None and batch >= self._timed:
            self._progress("Timing", batch)
            self._settled = _resident("VmRSS") if _forget_peak() else None
            self._began = batch, time.perf_counter(), time.process_time()
        elif self._began and self._first is None and batch >= self._profiled:
            first, began, cpu_began = self._began
            self.milliseconds = 1e3 * (time.perf_counter() - began) / (batch - first)
            self.cpu = 1e3 * (time.process_time() - cpu_began) / (batch - first)
            if self._settled is not None:
                self.memory = Memory(self._before, self._settled, _resident("VmHWM"))
            self._progress("Profiling", batch)
            self._first = batch
            # Level 3 traces the cheap ops, too.
            options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=3)
            tf.profiler.experimental.start(self._place, options)
            self._running = True
        if self._running:
            self._step = tf.profiler.experimental.Trace(trace.STEP, step_num=batch, _r=1)
            self._step.__enter__()

    def on_train_batch_end(self, batch, logs=None):
        if self._began is None:
            self._progress(None, batch + 1)
        if self._running:
            self._step.__exit__(None, None, None)
            self.steps = batch + 1 - self._first
            if batch + 1 >= self._end:
                self.stop()

    def stop(self) -> None:
        """Stop the profiler, where it runs."""
        if self._running:
            self._running = False
            tf.profiler.experimental.stop()


@contextlib.contextmanager
def _workplace(folder) -> Iterator[pathlib.Path]:
    """A folder for what is not whole yet, within ``folder`` where there is one."""
    if folder is not None:
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    place = tempfile.mkdtemp(prefix=".profile-", dir=folder)
    try:
        yield pathlib.Path(place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def _progress(shown: bool, total: int) -> Iterator[Callable[[str | None, int], None]]:
    """A function that is told the phase, where it is a new one, and the steps done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn())
    # Drawn when told, so that nothing draws while steps are timed.
    with Progress(
        *columns, TimeElapsedColumn(), auto_refresh=False, transient=True, disable=not shown
    ) as progress:
        bar = progress.add_task("", total=total)

        def say(phase: str | None, done: int) -> None:
            progress.update(bar, description=phase, completed=done, refresh=True)

        yield say


def _resident(field: str) -> float:
    """A figure of this process's memory, MB; not a number where there is no such file."""
    try:
        status = pathlib.Path("/proc/self/status").read_text()
    except OSError:
        return math.nan
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else math.nan


def _forget_peak() -> bool:
    """Start the count of peak memory anew; whether that is possible here."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
