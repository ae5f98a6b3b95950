"""The ops of a trace that TensorFlow's profiler wrote."""

from __future__ import annotations

import dataclasses
import gzip
import json
import pathlib
import re
from collections.abc import Iterator, Mapping

#: How :mod:`tfmtl.profiling.run` marks the steps in a trace.
STEP = "tfmtl_step"

# Those that run other ops, in TensorFlow and in XLA. Their time is that of what runs inside.
_CONTAINERS = re.compile(
    r"(Stateful|Stateless|Remote)?PartitionedCall|(Stateless)?(If|While|Case)|_?Xla\w*"
    r"|call|conditional|while"
)
_PRODUCTS = re.compile(r"MatMul|matmul|Conv[123]D|convolution|Einsum|dot|gemm")
_KERNEL = re.compile(r"([\w.][\w.\\/>-]*):(\w+)")
# Keras 3 compiles the step within a loop, where every name begins so.
_OUTER = "StatefulPartitionedCall/"


@dataclasses.dataclass(frozen=True)
class Op:
    """One run of an op.

    Args:
        name: of the node in TensorFlow's graph, or of the instruction in XLA's program.
        type: the op's, ``MatMul``, or the instruction's opcode, ``fusion``.
        origin: the node that it comes from; of a node its own name.
        start, end: picoseconds, on the trace's clock.
        contains: whether it runs other ops.
        is_product: whether it is a matrix product or a convolution, or a fusion that has one.
        in_input: whether it belongs to the input pipeline.
    """

    name: str
    type: str
    origin: str
    start: int
    end: int
    contains: bool
    is_product: bool
    in_input: bool


@dataclasses.dataclass(frozen=True)
class Trace:
    """The ops between the first profiled step's begin and the last one's end.

    Args:
        start, end: picoseconds.
        ops: in no order.
        has_xla: whether ops of a program compiled by XLA are among them.
    """

    start: int
    end: int
    ops: list[Op]
    has_xla: bool


@dataclasses.dataclass(frozen=True)
class _Instruction:
    opcode: str
    origin: str
    is_product: bool


def read(file: pathlib.Path) -> Trace:
    """The trace of an ``.xplane.pb`` in which steps are marked.

    Raises:
        ValueError: no step is marked.
    """
    space = _parse(file)
    programs = {
        program: instructions
        for plane in space.planes
        for program, instructions in _programs(plane)
    }
    known: dict[str, _Instruction] = {}
    for instructions in programs.values():
        known = {**instructions, **known}
    ops: list[Op] = []
    steps: list[tuple[int, int]] = []
    has_xla = False
    for plane, line, name, start, end, event in _events(space):
        if name == STEP:
            steps.append((start, end))
            continue
        kernel = _KERNEL.fullmatch(name)
        in_input = line.name.startswith("tf_data")
        if kernel is not None:
            node, kind = kernel[1].removeprefix(_OUTER), kernel[2]
            in_input = in_input or kind.startswith("IteratorGetNext")
            ops.append(_op(node, kind, node, start, end, bool(_PRODUCTS.search(kind)), in_input))
        elif name in known and line.name != "python":
            found = programs.get(_program_of(plane, event), known).get(name, known[name])
            has_xla = True
            ops.append(
                _op(name, found.opcode, found.origin, start, end, found.is_product, in_input)
            )
    if not steps:
        raise ValueError(f"`file` must be a trace with steps marked {STEP!r}. Received: {file}")
    begin, close = min(start for start, _ in steps), max(end for _, end in steps)
    ops = [op for op in ops if op.end > begin and op.start < close]
    return Trace(begin, close, ops, has_xla)


def trace_events(file: pathlib.Path) -> bytes:
    """An ``.xplane.pb`` as gzipped trace events in JSON, which Perfetto shows."""
    threads: dict[tuple[str, int], int] = {}
    names: list[dict] = []
    events: list[dict] = []
    for plane, line, name, start, end, _ in _events(_parse(file)):
        key = (plane.name, line.id)
        if key not in threads:
            threads[key] = len(threads)
            thread = {"pid": 0, "tid": threads[key], "args": {"name": line.name}}
            names.append({"ph": "M", "name": "thread_name", **thread})
        event = {"ph": "X", "pid": 0, "tid": threads[key], "name": name}
        events.append({**event, "ts": start / 1e6, "dur": (end - start) / 1e6})
    return gzip.compress(json.dumps({"traceEvents": [*names, *events]}).encode(), mtime=0)


def _parse(file: pathlib.Path):
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    space.ParseFromString(file.read_bytes())
    return space


def _events(space) -> Iterator[tuple]:
    """Plane, line, name, start and end (picoseconds) of every event, and the event."""
    for plane in space.planes:
        for line in plane.lines:
            base = line.timestamp_ns * 1000
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                start = base + event.offset_ps
                yield plane, line, name, start, start + event.duration_ps, event


def _op(name, kind, origin, start, end, is_product, in_input) -> Op:
    contains = _CONTAINERS.fullmatch(kind) is not None
    return Op(name, kind, origin, start, end, contains, is_product and not contains, in_input)


def _program_of(plane, event) -> int:
    """The id of the program that an instruction belongs to; 0 where the event does not say."""
    for stat in event.stats:
        if plane.stat_metadata[stat.metadata_id].name == "program_id":
            return stat.int64_value or stat.uint64_value
    return 0


def _programs(plane) -> Iterator[tuple[int, dict[str, _Instruction]]]:
    """By id, XLA's programs in a plane: their instructions by name, but those within fusions."""
    from tensorflow.compiler.xla.service import hlo_pb2

    for program, metadata in plane.event_metadata.items():
        for stat in metadata.stats:
            if plane.stat_metadata[stat.metadata_id].name == "Hlo Proto":
                proto = hlo_pb2.HloProto()
                proto.ParseFromString(stat.bytes_value)
                yield program, _instructions(proto.hlo_module)


def _instructions(module) -> dict[str, _Instruction]:
    computations = {each.id: each for each in module.computations}
    fused = {
        called
        for computation in module.computations
        for instruction in computation.instructions
        if instruction.opcode == "fusion"
        for called in instruction.called_computation_ids
    }
    return {
        instruction.name: _instruction(instruction, computations)
        for computation in module.computations
        if computation.id not in fused
        for instruction in computation.instructions
    }


def _instruction(proto, computations: Mapping) -> _Instruction:
    within = [proto, *_within(proto, computations)]
    kinds = [f"{each.opcode} {each.custom_call_target}" for each in within]
    # What a fusion is not told to come from, its last instruction may be.
    origins = [each.metadata.op_name for each in (proto, *reversed(within[1:]))]
    return _Instruction(
        proto.opcode,
        next(filter(None, origins), ""),
        any(_PRODUCTS.search(kind) for kind in kinds),
    )


def _within(proto, computations: Mapping) -> Iterator:
    """The instructions that a fusion is made of."""
    if proto.opcode == "fusion":
        for called in proto.called_computation_ids:
            for each in computations[called].instructions:
                yield each
                yield from _within(each, computations)
