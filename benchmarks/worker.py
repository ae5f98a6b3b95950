"""A process that runs cases when asked: a JSON object a line in, one a line out."""

import gc
import importlib
import json
import os
import platform
import sys
import time
import traceback

from benchmarks.cases import resident_peak


class Worker:
    """The cases of a process, by name."""

    def __init__(self):
        self._cases = {}
        self._rested = None

    def build(self, name: str, case: str, arguments: dict) -> dict:
        """Make a case; returns its figures and whether it has steps to run.

        Args:
            name: what it is asked for by.
            case: ``module.function`` in :mod:`benchmarks.cases`.
            arguments: of the function.
        """
        module, function = case.split(".")
        make = getattr(importlib.import_module(f"benchmarks.cases.{module}"), function)
        found = self._cases[name] = make(**arguments)
        return {"figures": found.figures, "runs": found.run is not None}

    def run(self, name: str, steps: int) -> dict:
        """Milliseconds a step."""
        found = self._cases[name]
        start = time.perf_counter()
        found.run(steps)
        return {"ms": 1e3 * (time.perf_counter() - start) / steps / found.per}

    def drop(self, name: str) -> dict:
        """Forget all cases."""
        self._cases.clear()
        if keras := sys.modules.get("keras"):
            keras.backend.clear_session()
        gc.collect()
        return {}

    def peak(self, name: str) -> dict:
        """The largest resident memory of this process so far, in MB."""
        return {"MB": resident_peak()}

    def versions(self, name: str) -> dict:
        """Of Python and of what is installed here."""
        from importlib import metadata

        names = [
            "tensorflow",
            "keras",
            "numpy",
            "tensorflow-ranking",
            "torch",
            "torchjd",
            "keras-rs",
        ]
        found = {"Python": platform.python_version()}
        for name in names:
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        return found

    def answer(self, asked: dict) -> dict:
        started = time.perf_counter(), time.process_time()
        # What this process took of the cores while others had their turn.
        waited, idle = (
            (a - b for a, b in zip(started, self._rested)) if self._rested else (0.0, 0.0)
        )
        try:
            found = getattr(self, asked.pop("do"))(**asked)
        except Exception as error:
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}"}
        self._rested = time.perf_counter(), time.process_time()
        return {**found, "waited": waited, "idle": idle}


def main() -> None:
    # Whatever libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        answers.write(json.dumps(worker.answer(json.loads(line))) + "\n")


if __name__ == "__main__":
    main()
