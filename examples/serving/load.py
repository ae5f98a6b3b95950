"""A model behind HTTP under a stated load: how long a request takes, and what the server adds.

    python examples/serving/load.py [--rates 20] [--sizes 1,32,200] [--seconds 6] [--out FOLDER]

Trains a small MMoE on census-income, exports it with its preprocessor and a fused score, and serves
it with MLflow's scoring server. Requests are due at random times (a Poisson process) and are sent
then, whether or not earlier ones have been answered; a latency counts from when the request was
due, so that none hides in a queue. The same times and rows then go to the SavedModel's signature
in this process. Writes `load.md` and `load.csv`, and checks what the server answers against
`model.predict`.
"""

import argparse
import contextlib
import http.client
import itertools
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}

import keras
import mlflow
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track

import tfmtl
from tfmtl import data, models, serving
from tfmtl.data import census
from tfmtl.data.table import columns_of
from tfmtl.experiments.tables import markdown
from tfmtl.files import write_csv

TASKS = ("income", "never_married")
SCORE = serving.PowerProduct({"income": 1.0, "never_married": 0.5})
#: Requests at once; more than these wait, and their latency tells.
AT_ONCE = 64
CONSOLE = Console(stderr=True)


def train(rows, asked):
    """A model and its preprocessor, some raw rows, and what the model predicts of them."""
    frame = census.frame("train", max(rows, asked))
    for task in TASKS:
        column, ones = census.TASKS[task]
        frame[task] = frame[column].isin(ones)
    splits = data.table(frame, tasks=TASKS, ignore=["marital_stat"])
    net = models.MMoE(splits.tasks, splits.features, experts=4, seed=1)
    model = tfmtl.MultiTaskModel(net)
    losses = dict.fromkeys(splits.tasks, "binary_crossentropy")
    model.compile(keras.optimizers.Adam(0.003), loss=losses)
    model.fit(splits.train.batches(512, shuffle=True, seed=1), epochs=1, verbose=0)
    raw = columns_of(frame.head(asked), splits.preprocessor.signature())
    tensors = {name: tf.convert_to_tensor(values) for name, values in raw.items()}
    predicted = model.predict(splits.preprocessor(tensors), verbose=0)
    return model, splits.preprocessor, raw, {**predicted, "score": SCORE(predicted).numpy()}


@contextlib.contextmanager
def scoring_server(model, folder):
    """MLflow's scoring server of a SavedModel while it runs; its port."""
    packed = folder / "mlflow"
    shutil.rmtree(packed, ignore_errors=True)
    mlflow.pyfunc.save_model(
        packed,
        loader_module="served",
        code_paths=[str(pathlib.Path(__file__).with_name("served.py"))],
        data_path=str(model),
        pip_requirements=[],  # it runs in this environment
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(packed)]
    found = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(
            [*command, "--env-manager", "local", "--port", str(port)],
            env={**os.environ, "PATH": found},  # where it looks for uvicorn
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(server, port, folder / "server.log")
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def wait_for(server, port, log, seconds=180):
    """Until the server answers."""
    end = time.monotonic() + seconds
    while server.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.2)
    raise RuntimeError(f"The server did not start. It said:\n{log.read_text()}")


def by_http(port):
    """What sends a body to the server, on a connection of its own, and returns the answer's."""

    def ask(body):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with contextlib.closing(connection):
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
        if response.status != 200:
            raise http.client.HTTPException(f"{response.status}: {answer.decode()}")
        return answer

    return ask


def in_process(loaded):
    """What asks the SavedModel itself, from arrays to arrays."""
    signature = loaded.signatures["serving_default"]

    def ask(inputs):
        found = signature(**{name: tf.constant(values) for name, values in inputs.items()})
        return {name: values.numpy() for name, values in found.items()}

    return ask


def encoded(columns):
    """Arrays by column as a request."""
    return json.dumps({"inputs": {name: values.tolist() for name, values in columns.items()}})


def drive(ask, bodies, due, title):
    """Latencies in seconds from when each request was due, NaN for an error, and the whole time."""
    start = time.perf_counter() + 0.1

    def one(body, at):
        time.sleep(max(0.0, start + at - time.perf_counter()))
        try:
            ask(body)
        except (OSError, http.client.HTTPException):
            return np.nan
        return time.perf_counter() - start - at

    shown = {"console": CONSOLE, "transient": True, "disable": not CONSOLE.is_terminal}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = pool.map(one, itertools.cycle(bodies), due)
        latencies = np.array(list(track(answers, title, len(due), **shown)))
    return latencies, time.perf_counter() - start


def measured(ask, bodies, due, items, asked, rate):
    """A line of the table; times in milliseconds."""
    title = f"{asked}, {items} items, {rate:g} a second"
    latencies, seconds = drive(ask, bodies, due, title)
    answered = latencies[~np.isnan(latencies)]
    times = np.percentile(answered, [50, 90, 99]) * 1000 if len(answered) else [np.nan] * 3
    return {
        "items a request": items,
        "asked": asked,
        "requests/s due": f"{rate:g}",
        "answered/s": f"{len(answered) / max(seconds, len(due) / rate):.1f}",
        **{f"p{share} ms": f"{t:.1f}" for share, t in zip((50, 90, 99), times, strict=True)},
        "errors": len(latencies) - len(answered),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", default="20", help="requests a second")
    parser.add_argument("--sizes", default="1,32,200", help="items a request")
    parser.add_argument("--seconds", type=float, default=6, help="for each rate and size")
    parser.add_argument("--rows", type=int, default=20_000, help="to train on")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/serving"))
    options = parser.parse_args()
    rates = [float(rate) for rate in options.rates.split(",")]
    sizes = [int(size) for size in options.sizes.split(",")]
    asked = 2 * max(sizes)
    options.out.mkdir(parents=True, exist_ok=True)
    with CONSOLE.status("training"):
        model, columns, raw, expected = train(options.rows, asked)
    place = serving.next_version(options.out / "ranker")
    with CONSOLE.status("exporting"):
        model.export(str(place), preprocessor=columns, score=SCORE)
    direct = in_process(tf.saved_model.load(str(place)))
    rng = np.random.default_rng(0)
    records = []
    with contextlib.ExitStack() as stack:
        with CONSOLE.status("starting the server"):
            ask = by_http(stack.enter_context(scoring_server(place, options.out)))
        answer = json.loads(ask(encoded(raw)))["predictions"]
        apart = max(float(np.abs(answer[name] - expected[name]).max()) for name in expected)
        for size, rate in itertools.product(sizes, rates):
            # A Poisson process whose number of arrivals is given.
            due = np.sort(rng.uniform(0, options.seconds, round(rate * options.seconds)))
            starts = range(0, asked - size + 1, size)
            parts = [{n: v[start : start + size] for n, v in raw.items()} for start in starts]
            bodies = [encoded(part) for part in parts]
            direct(parts[0])
            records.append(measured(ask, bodies, due, size, "HTTP", rate))
            records.append(measured(direct, parts, due, size, "in process", rate))
    write_csv(options.out / "load.csv", records)
    lines = [list(records[0]), ["---"] * len(records[0])]
    text = markdown(lines + [list(map(str, record.values())) for record in records])
    (options.out / "load.md").write_text(text)
    print(text)
    print(f"HTTP and model.predict: {apart:.1e} apart at most, over {asked} rows and all outputs.")


if __name__ == "__main__":
    main()
