"""The workers, as the coordinator sees them, and how a heat is run on them."""

from __future__ import annotations

import json
import os
import pathlib
import random
import select
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.plan import Contender, Heat, Reading, Readings

ROOT = pathlib.Path(__file__).resolve().parents[1]
#: Seconds after which a worker that has not answered is given up.
PATIENCE = 900


class WorkerError(RuntimeError):
    """A worker could not do what it was asked, or is gone."""


class Worker:
    """A child process in an environment."""

    def __init__(self, environment: str):
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, lives as long as the process
        self._process = subprocess.Popen(
            [ROOT / ".venv" / environment / "bin" / "python", "-m", "benchmarks.worker"],
            cwd=ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
        )
        #: Seconds that it waited for its turns, and of CPU time that it took meanwhile.
        self.waited = self.idle = 0.0

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def ask(self, do: str, **given) -> dict:
        """Have something done (see :class:`benchmarks.worker.Worker`).

        Raises:
            WorkerError: it failed.
        """
        try:
            self._process.stdin.write(json.dumps({"do": do, **given}) + "\n")
        except BrokenPipeError:
            raise WorkerError(self._last_words()) from None
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            self._process.kill()
            raise WorkerError(f"No answer within {PATIENCE} seconds.")
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(self._last_words())
        found = json.loads(line)
        self.waited += found.pop("waited")
        self.idle += found.pop("idle")
        if "error" in found:
            raise WorkerError(found["error"])
        return found

    def drop(self) -> bool:
        """Forget all cases; whether that went well."""
        try:
            self.ask("drop", name="")
        except WorkerError:
            return False
        return True

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines()[-1:]
        return f"The process ended with code {self._process.returncode}. {' '.join(said)}"


class Pool:
    """Workers by environment and word, started when first asked for. Use as a context."""

    def __init__(self):
        self._workers: dict[tuple[str, str], Worker] = {}
        #: As those of a worker, of all that have ended.
        self.waited = self.idle = 0.0

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_) -> None:
        for key in list(self._workers):
            self._end(key)

    def of(self, contender: Contender) -> Worker:
        """The process that a contender runs in."""
        key = contender.environment, contender.process
        if key not in self._workers:
            self._workers[key] = Worker(contender.environment)
        return self._workers[key]

    def end(self, contender: Contender) -> None:
        """End the process that a contender runs in."""
        self._end((contender.environment, contender.process))

    def start(self, contenders: Sequence[Contender]) -> None:
        """Leave only processes that these contenders share, with nothing in them."""
        wanted = {(each.environment, each.process) for each in contenders if not each.process}
        for key, worker in list(self._workers.items()):
            if key not in wanted or not worker.drop():
                self._end(key)

    def _end(self, key: tuple[str, str]) -> None:
        worker = self._workers.pop(key)
        worker.end()
        self.waited += worker.waited
        self.idle += worker.idle


def run(heat: Heat, pool: Pool, progress: Callable[[str], None]) -> Readings:
    """Build all contenders, then let them have their turns round by round, in random order.

    One that fails is left out from then on, and says why.

    Args:
        heat: who runs.
        pool: where.
        progress: told before each thing is done what it is: one for a contender and each of its
            turns, and one more to see how long a step takes.
    """
    pool.start(heat.contenders)
    readings = {each.key: Reading(each) for each in heat.contenders}
    steps: dict[tuple[str, str], int] = {}

    def attempt(contender: Contender, do: str, **given) -> dict:
        progress(f"{contender.environment}: {contender.label}")
        try:
            return pool.of(contender).ask(do, name=contender.label, **given)
        except WorkerError as error:
            readings[contender.key].error = str(error)
            steps.pop(contender.key, None)
            return {}

    def build(contenders: Sequence[Contender]) -> None:
        for each in contenders:
            found = attempt(each, "build", case=each.case, arguments=each.arguments)
            figures = readings[each.key].figures
            for name, value in found.get("figures", {}).items():
                figures[name] = value if isinstance(value, list) else [value]
            if found.get("runs"):
                steps[each.key] = each.cycle
            elif each.process:
                pool.end(each)

    def turn(contender: Contender) -> float | None:
        """Milliseconds a step, or ``None`` where it has failed."""
        if contender.key not in steps:
            return None
        return attempt(contender, "run", steps=steps[contender.key]).get("ms")

    environments = {each.environment for each in heat.contenders}
    apart = [[c for c in heat.contenders if c.environment == each] for each in environments]
    with ThreadPoolExecutor(1 if heat.in_turn else len(apart)) as threads:
        list(threads.map(build, [heat.contenders] if heat.in_turn else apart))
    for each in heat.contenders:
        turn(each)  # the first steps after all were built are slower
        milliseconds = turn(each)
        if milliseconds is not None:
            cycles = 1e3 * heat.turn / (milliseconds * each.cycle)
            steps[each.key] = each.cycle * max(1, round(cycles))
            readings[each.key].figures["ms"] = []
    order = random.Random(0)
    for _ in range(heat.rounds):
        for each in order.sample(list(heat.contenders), len(heat.contenders)):
            milliseconds = turn(each)
            if milliseconds is not None:
                readings[each.key].figures["ms"].append(milliseconds)
    for each in heat.contenders:
        if each.key in steps and each.process:
            found = attempt(each, "peak")
            readings[each.key].figures["MB"] = [found["MB"]] if found else []
    return readings
