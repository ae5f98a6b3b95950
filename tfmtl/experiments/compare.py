"""Many runs over a few processes, with live progress; what is done is not done again."""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import pathlib
from collections.abc import Sequence

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tfmtl.experiments.runs import Run, execute, write_csv
from tfmtl.experiments.settings import load

_worker: dict = {}


def compare(
    runs: Sequence[Run], folder: pathlib.Path, *, path: str | None, workers: int
) -> list[dict]:
    """Execute runs of one data set and collect their records.

    Args:
        runs: what to train; those whose folder exists are not trained again.
        folder: gets ``runs/<key>/`` for each of them and ``results.csv``.
        path: where the data set is, for those that need it.
        workers: processes, each with one thread for TensorFlow's kernels.

    Returns:
        The records in the order of ``runs``.

    Raises:
        RuntimeError: a run failed; the finished ones are kept.
    """
    store = folder / "runs"
    store.mkdir(parents=True, exist_ok=True)
    open_runs = [run for run in runs if not (store / run.key).exists()]
    with Progress(
        TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    ) as progress:
        every = progress.add_task("runs", total=len(runs), completed=len(runs) - len(open_runs))
        lines = {i: progress.add_task("", total=None, visible=False) for i in range(workers)}
        if open_runs:
            _execute_all(open_runs, store, path, workers, progress, every, lines)
    records = [json.loads((store / run.key / "record.json").read_text()) for run in runs]
    write_csv(folder / "results.csv", records)
    return records


def _execute_all(runs, store, path, workers, progress, every, lines) -> None:
    # A forked TensorFlow hangs; a spawned one starts anew.
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        queue = manager.Queue()
        with concurrent.futures.ProcessPoolExecutor(
            workers, mp_context=context, initializer=_begin, initargs=(queue,)
        ) as pool:
            waiting = {pool.submit(_work, run, store, path): run for run in runs}
            slots: dict[int, int] = {}
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
                        pool.shutdown(cancel_futures=True)
                        raise RuntimeError(
                            f"The run {run.method!r} with seed {run.seed} failed: {error}. "
                            "Finished runs are kept; the same command goes on from here."
                        ) from error
                    progress.advance(every)


def _begin(queue) -> None:
    """In a new worker process, before anything runs."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    _worker.update(queue=queue)


def _work(run: Run, store: pathlib.Path, path: str | None) -> None:
    """In a worker process: one run, on rows that are loaded once."""
    asked = (run.data, run.settings.tasks, run.settings.embedding_width)
    if _worker.get("asked") != asked:
        _worker.update(asked=asked, splits=load(run.data, path, asked[1], asked[2]))
    execute(run, _worker["splits"], store, lambda line: _worker["queue"].put((os.getpid(), line)))
