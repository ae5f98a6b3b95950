"""Profiles of training steps: how time is divided, what is read from a trace, what is written."""

import csv
import gzip
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from tensorflow.compiler.xla.service import hlo_pb2
from tensorflow.tsl.profiler.protobuf import xplane_pb2

import tfmtl
from tests.conftest import make_model
from tfmtl import balancers
from tfmtl.cli import main
from tfmtl.profiling import Profile, trace
from tfmtl.profiling.parts import PARTS, Scopes

MS = 10**9  # picoseconds


def op(name, start, end, kind="Mul", *, contains=False, is_product=False):
    return trace.Op(name, kind, name, start * MS, end * MS, contains, is_product, False)


def profile_of(*ops, steps=1, end=10):
    read = trace.Trace(0, end * MS, list(ops), has_xla=False)
    return Profile(read, steps, Scopes("net"), unprofiled=1.0, cpu=1.0)


def by_name(rows):
    return {row.name: pytest.approx(row.milliseconds) for row in rows}


def test_a_moment_is_divided_among_the_ops_that_run_in_it():
    found = profile_of(op("a", 0, 4), op("b", 2, 6), op("b", 3, 4), op("c", 8, 12))
    # a: 2 alone, 1 of two, 1 of three; c is cut off at the end; nothing from 6 to 8.
    assert by_name(found.ops) == {
        "a": 2 + 1 / 2 + 1 / 3,
        "b": 1 / 2 + 2 / 3 + 2,
        "c": 2,
    }
    assert found.idle == pytest.approx(2)


def test_what_runs_others_has_only_the_time_in_which_none_of_them_runs():
    found = profile_of(
        op("program", 0, 9, "StatefulPartitionedCall", contains=True),
        op("net/MatMul", 1, 5, "MatMul", is_product=True),
        op("net/Relu", 5, 7, "Relu"),
        steps=2,
    )
    assert by_name(found.ops) == {"program": 1.5, "net/MatMul": 2, "net/Relu": 1}
    assert by_name(found.parts) == {"forward": 3, "other": 1.5}
    assert found.milliseconds == pytest.approx(5)
    assert found.products == pytest.approx(0.4)
    assert any(line.startswith("30.0% is inside") for line in found.lines())


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("mm/experts/MatMul", "forward"),
        ("mm_1/experts_1/MatMul", "forward"),
        ("gradient_tape/mm/experts/MatMul/MatMul_1", "backward"),
        ("gradient_tape/forward/mm/MatMul", "backward"),
        ("cond/then/_7/cond/Adam/Pow_3", "optimizer"),
        ("cond/else/_8/cond/backward_2/AddN", "backward"),
        ("mgda_1/Max", "weights"),
        ("weights/UnsortedSegmentSum", "weights"),
        ("optimizer/mul", "optimizer"),
        ("mmm/add", "other"),
        ("AddN_3", "other"),
        ("", "other"),
    ],
)
def test_scopes_tell_the_part(name, part):
    assert Scopes("mm", "mgda", "Adam").part_of(name) == part


def write_trace(file, lines, module=None):
    """A trace of ``{line: [(name, start, end)]}`` in nanoseconds, with a program of XLA's."""
    space = xplane_pb2.XSpace()
    if module is not None:
        plane = space.planes.add(name="/host:metadata")
        plane.stat_metadata[1].name = "Hlo Proto"
        stat = plane.event_metadata[5].stats.add(metadata_id=1)
        stat.bytes_value = hlo_pb2.HloProto(hlo_module=module).SerializeToString()
    plane = space.planes.add(name="/host:CPU")
    for i, (name, events) in enumerate(lines.items()):
        line = plane.lines.add(id=i, name=name, timestamp_ns=1000)
        for event, start, end in events:
            key = len(plane.event_metadata) + 1
            plane.event_metadata[key].name = event
            line.events.add(
                metadata_id=key, offset_ps=start * 1000, duration_ps=(end - start) * 1000
            )
    file.write_bytes(space.SerializeToString())
    return file


def test_ops_of_kernels_and_of_compiled_programs_are_read(tmp_path):
    module = hlo_pb2.HloModuleProto()
    within = module.computations.add(id=1)
    within.instructions.add(name="dot.1", opcode="dot")
    root = within.instructions.add(name="add.1", opcode="add")
    root.metadata.op_name = "net/add"
    entry = module.computations.add(id=2)
    entry.instructions.add(name="fusion.7", opcode="fusion", called_computation_ids=[1])
    entry.instructions.add(name="while.3", opcode="while", called_computation_ids=[1])
    file = write_trace(
        tmp_path / "host.xplane.pb",
        {
            "python": [(trace.STEP, 100, 200), (trace.STEP, 210, 300), ("while.3", 120, 130)],
            "tf_Compute/1": [
                ("StatefulPartitionedCall/net/MatMul:_MklMatMul", 110, 150),
                ("warm_up:Mul", 20, 60),
                ("ExecutorState::Process", 100, 150),
                ("fusion.7", 150, 160),
                ("while.3", 160, 170),
                ("add.1", 170, 171),
            ],
            "tf_data_next/2": [("Decode:Mul", 100, 120), ("Iterator::Root::Map", 100, 120)],
        },
        module,
    )
    read = trace.read(file)
    assert (read.start, read.end, read.has_xla) == (1_100_000, 1_300_000, True)
    ops = {each.name: each for each in read.ops}
    assert set(ops) == {"net/MatMul", "fusion.7", "while.3", "Decode"}
    assert ops["net/MatMul"].is_product and ops["fusion.7"].is_product
    assert ops["fusion.7"].origin == "net/add"
    assert ops["while.3"].contains and not ops["while.3"].is_product
    assert ops["Decode"].in_input and not ops["net/MatMul"].in_input


def test_a_trace_without_steps_is_an_error(tmp_path):
    file = write_trace(tmp_path / "host.xplane.pb", {"python": [("a:Mul", 0, 1)]})
    with pytest.raises(ValueError, match="steps marked"):
        trace.read(file)


def check_adds_up(found):
    for rows in (found.ops, found.types, found.parts):
        total = sum(row.milliseconds for row in rows) + found.idle
        assert total == pytest.approx(found.milliseconds)
        assert sum(row.share for row in rows) <= 1
        assert min(row.milliseconds for row in rows) > -1e-9
    assert 0 < found.idle < found.milliseconds
    assert found.unprofiled > 0 and found.cpu > 0


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_the_times_of_a_step_add_up(jit, rows, tmp_path):
    model = make_model(balancer=balancers.MGDA(), optimizer="adam", jit_compile=jit)
    batches = rows.batches(40)
    found = tfmtl.profile(model, batches, steps=4, warm_up=3, folder=tmp_path, title="A title")
    assert model.steps_taken == 3 + 2 * 4
    assert found.steps == 4
    check_adds_up(found)
    parts = {row.name for row in found.parts}
    types = {row.type for row in found.types}
    assert parts <= set(PARTS)
    if jit:
        # TensorFlow 2.15 shows a program's ops only where it is the first that XLA compiles.
        assert found.has_xla or "StatefulPartitionedCall" in types
    else:
        assert {"forward", "backward", "weights", "optimizer", "other"} <= parts
        assert any("MatMul" in kind for kind in types)
        assert found.products > 0
        assert {row.calls for row in found.ops if row.name.endswith("experts/MatMul")} <= {1.0}
    if found.memory is not None:
        assert 0 < found.memory.before <= found.memory.peak

    assert {path.name for path in tmp_path.iterdir()} == {"profile.md", "ops.csv", "plugins"}
    (run,) = (tmp_path / "plugins" / "profile").iterdir()
    (file,) = run.glob("*.xplane.pb")
    assert trace.read(file).end > 0
    events = json.loads(gzip.decompress((run / "trace.json.gz").read_bytes()))["traceEvents"]
    assert sum(event["name"] == trace.STEP for event in events) == 4
    with open(tmp_path / "ops.csv", newline="") as lines:
        written = list(csv.DictReader(lines))
    total = sum(float(row["milliseconds"]) for row in written) + found.idle
    assert total == pytest.approx(found.milliseconds)
    markdown = (tmp_path / "profile.md").read_text()
    assert markdown.startswith("# A title\n")
    assert "| part | ms | share | calls |" in markdown
    assert "Parts of the step" in str(found)


def test_any_keras_model_can_be_profiled():
    inputs = keras.Input((5,))
    net = keras.Model(inputs, keras.layers.Dense(3, name="dense")(inputs))
    net.compile("sgd", loss="mse", jit_compile=False)
    x, y = np.ones((8, 5), "float32"), np.ones((8, 3), "float32")
    found = tfmtl.profile(net, tf.data.Dataset.from_tensors((x, y)), steps=2, warm_up=1)
    check_adds_up(found)
    assert {"forward", "backward"} <= {row.name for row in found.parts}


def test_executions_of_several_steps_are_counted_in_steps(rows):
    model = make_model(steps_per_execution=3, jit_compile=False)
    found = tfmtl.profile(model, rows.batches(40), steps=6, warm_up=3)
    assert found.steps == 6
    products = [row.calls for row in found.ops if row.name.endswith("MatMul")]
    assert products and max(products) <= 1
    with pytest.raises(ValueError, match="`steps` must be at least"):
        tfmtl.profile(model, rows.batches(40), steps=1, warm_up=1)


def test_bad_arguments_are_named(rows):
    model = make_model()
    bare = tfmtl.MultiTaskModel(model.net)
    with pytest.raises(ValueError, match="`model` must be a compiled Keras model"):
        tfmtl.profile(bare, rows.batches(40))
    with pytest.raises(ValueError, match=r"`dataset` must be a tf\.data\.Dataset"):
        tfmtl.profile(model, rows)
    for name in ("steps", "warm_up"):
        with pytest.raises(ValueError, match=f"`{name}` must be a positive integer"):
            tfmtl.profile(model, rows.batches(40), **{name: 0})


SMALL = [
    *("--batch", "32", "--columns", "2", "--rows", "20", "--width", "3", "--numbers", "2"),
    *("--experts", "2", "--units", "4", "--steps", "2", "--warm-up", "1", "--no-jit"),
]


@pytest.mark.parametrize(
    ("kind", "balancer", "tasks"),
    [("mmoe", "PUB:update_every=1", 3), ("ple", "SI", 2), ("shared_bottom", "EqualWeights", 2)],
)
def test_the_command(kind, balancer, tasks, tmp_path):
    out = tmp_path / "out"
    options = ["--model", kind, "--balancer", balancer, "--tasks", str(tasks), "--out", str(out)]
    done = CliRunner().invoke(main, ["profile", *SMALL, *options])
    assert done.exit_code == 0, done.output
    assert f"{kind}, {balancer}, adam, {tasks} tasks" in done.output
    assert "Parts of the step" in done.output
    assert {path.name for path in out.iterdir()} == {"profile.md", "ops.csv", "plugins"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--balancer", "Nobody"], "Received: 'Nobody'"),
        (["--balancer", "NMT"], "Received: 'NMT'"),
        (["--balancer", "PUB:nothing=1"], "cannot be made"),
        (["--optimizer", "nobody"], "Received: 'nobody'"),
        (["--tasks", "1"], "--tasks"),
        (["--data", "census", "--tasks", "4"], "at most 3, the tasks of census. Received: 4"),
        (["--data", "kuairand"], "--path"),
    ],
)
def test_the_command_names_bad_options(options, message):
    done = CliRunner().invoke(main, ["profile", *SMALL, *options])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
