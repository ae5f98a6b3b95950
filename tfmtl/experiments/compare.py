"""Many runs over a few processes, with live progress; what is done is not done again."""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tfmtl.experiments.runs import UNFINISHED, Run, execute
from tfmtl.experiments.sources import load
from tfmtl.files import read_csv, write_csv
from tfmtl.names import trains

#: An unfinished run's folder that was not written to for so long (seconds) belongs to nobody.
ABANDONED = 24 * 3600

_worker: dict = {}


def compare(
    runs: Sequence[Run],
    folder: pathlib.Path,
    *,
    path: str | None,
    workers: int,
    results: pathlib.Path | None = None,
) -> list[dict]:
    """Execute runs of one data set and collect their records.

    Args:
        runs: what to train; those whose folder exists are not trained again.
        folder: gets ``runs/<key>/`` for each of them.
        path: where the data set is, for those that need it.
        workers: processes, each with one thread for TensorFlow's kernels.
        results: a CSV file that grows by a row with each run and may hold others; runs that have
            a row are not trained again, with or without a folder. By default ``results.csv`` in
            ``folder``.

    Returns:
        The records in the order of ``runs``.

    Raises:
        ValueError: ``results`` is a file of something else.
        RuntimeError: a run failed, or a worker died; the finished runs are kept, and so are those
            that other workers were in the middle of: they are waited for.
        KeyboardInterrupt: the workers stop at once; the finished runs are kept.
    """
    store = folder / "runs"
    store.mkdir(parents=True, exist_ok=True)
    _sweep(store)
    results = results or folder / "results.csv"
    known = _known(results)
    open_runs = [run for run in runs if run.key not in known and not (store / run.key).exists()]
    with Progress(
        TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    ) as progress:
        every = progress.add_task("runs", total=len(runs), completed=len(runs) - len(open_runs))
        workers = max(1, min(workers, len(open_runs)))
        lines = [progress.add_task("", total=None, visible=False) for _ in range(workers)]
        if open_runs:
            for run in _execute_all(open_runs, store, path, workers, progress, every, lines):
                _add(results, {run.key: _record(store, run)})
    records = [known.get(run.key) or _record(store, run) for run in runs]
    _add(results, {run.key: record for run, record in zip(runs, records, strict=True)})
    return records


def _add(results: pathlib.Path, records: Mapping[str, Mapping]) -> None:
    """Rows that a file of results does not have yet; another command may have added some too."""
    known = _known(results)
    new = [dict(record) for key, record in records.items() if key not in known]
    if new:
        write_csv(results, [*known.values(), *new])


def _known(results: pathlib.Path) -> dict[str, dict]:
    """The rows of a file of results, by their runs' keys."""
    rows = read_csv(results) if results.exists() else []
    if not all(row.get("key") for row in rows):
        raise ValueError(
            "`results` must be a CSV file with a row for each run, its name in the column `key`. "
            f"Received: {results.name!r}, whose first row is {rows[0]}"
        )
    return {row["key"]: row for row in rows}


def _execute_all(runs, store, path, workers, progress, every, lines) -> Iterator[Run]:
    """Gives each run that has ended."""
    # A forked TensorFlow hangs; a spawned one starts anew.
    context = multiprocessing.get_context("spawn")
    # Not a manager's queue: its process would import TensorFlow, for 700 MB.
    queue, stop = context.SimpleQueue(), context.Event()
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin, initargs=(queue, stop)
    )
    waiting = {pool.submit(_work, run, store, path): run for run in runs}
    slots: dict[int, int] = {}
    try:
        while waiting:
            done, _ = concurrent.futures.wait(
                waiting, timeout=0.5, return_when=concurrent.futures.FIRST_COMPLETED
            )
            while not queue.empty():
                process, line = queue.get()
                slot = slots.setdefault(process, len(slots) % len(lines))
                progress.update(lines[slot], description=line, visible=True)
            for future in done:
                run = waiting.pop(future)
                error = future.exception()
                if error is not None:
                    message = _failure(run, error, len(waiting) + 1)
                    # Said at once: the runs under way are waited for.
                    progress.console.print(message, style="red", markup=False, highlight=False)
                    pool.shutdown(cancel_futures=True)
                    raise RuntimeError(message) from error
                progress.advance(every)
                progress.console.print(_line(_record(store, run)), highlight=False)
                yield run
    except KeyboardInterrupt:
        stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _failure(run: Run, error: BaseException, left: int) -> str:
    what = f"The run {run.method!r} with seed {run.seed} failed: {type(error).__name__}: {error}."
    if isinstance(error, concurrent.futures.process.BrokenProcessPool):
        # Every open run has this error: which one it was is not known.
        what = f"A worker process was killed (out of memory?) with {left} runs to go."
    return f"{what} Finished runs are kept; the same command goes on from here."


def _begin(queue, stop) -> None:
    """In a new worker process, before anything runs."""
    # Ctrl-C reaches every process of a terminal: here it would only start the next run.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, args=(stop,), daemon=True).start()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    # Every run has a graph of its own, which TensorFlow takes for retracing and warns of.
    tf.get_logger().setLevel("ERROR")
    _worker.update(queue=queue)


def _leave_with_parent(stop) -> None:
    """End this process when told to, or when the command was killed: nobody else would end it."""
    parent = multiprocessing.parent_process()
    while not stop.wait(1.0) and (parent is None or parent.is_alive()):
        pass
    os._exit(1)


def _work(run: Run, store: pathlib.Path, path: str | None) -> None:
    """In a worker process: one run, on rows that are loaded once."""
    asked = (run.data, run.settings.tasks, run.settings.embedding_width)
    if _worker.get("asked") != asked:
        _worker.update(asked=asked, splits=load(run.data, path, asked[1], asked[2]))
    execute(run, _worker["splits"], store, lambda line: _worker["queue"].put((os.getpid(), line)))


def _sweep(store: pathlib.Path) -> None:
    """Remove what killed runs left, but nothing that another command may be writing to."""
    for left in store.glob(f"{UNFINISHED}*"):
        if time.time() - left.stat().st_mtime > ABANDONED:
            shutil.rmtree(left, ignore_errors=True)


def _record(store: pathlib.Path, run: Run) -> dict:
    return json.loads((store / run.key / "record.json").read_text())


def _line(record: Mapping) -> str:
    """A finished run in a line, also for logs, where no bar is drawn."""
    found = ", ".join(
        f"{task} {record[name]:.4f}"
        for task in str(record["tasks"]).split(">")
        for name in (f"auc_{task}", f"mse_{task}")
        if name in record and trains(record["method"], task)
    )
    what = f"{record['model']}, {record['method']}"
    return f"{what}, seed {record['seed']}: {found} ({record['seconds']:.0f} s)"
