"""Replicas with a part of a batch each take the steps that one takes with the whole batch."""

import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import made_once
from tfmtl import balancers

ROOT = pathlib.Path(__file__).parents[1]

#: Everywhere the same, to rounding.
RELATIVE = 1e-4
SAME = ["regularised", "regularised, MinimumNorm", "gated", "validated", "on a batch"]
DENSE = [f"{name}, dense" for name in ("AdaTask", "EqualWeights", "GradDrop", "MGDA", "PUB")]
#: One for each way through a step and its draws.
KINDS = ("AdaTask", "FAMO", "GradDrop", "MGDA", "MGDA-UB", "PUB", "RLW")
PROCESSES = [*(f"{name}, by rows" for name in KINDS), "MGDA, dense"]
STAGED = ["NMT, held_out", "NMT, paper", "NMT, PUB"]
NAMES = [*sorted(set(balancers.BALANCERS) - {"NMT"}), "MinimumNorm", "MGDA-UB", "MGDA row by row"]


def free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    try:
        for each in sockets:
            each.bind(("localhost", 0))
        return [str(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def start(mode, folder, *more):
    command = [sys.executable, "-m", "tests.replicas", mode, str(folder), *more]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )


def run_all(folder):
    ports = free_ports(2)
    processes = {
        "alone": start("alone", folder / "alone"),
        "mirrored": start("mirrored", folder / "mirrored"),
        "first": start("worker", folder / "first", "0", *ports),
        "second": start("worker", folder / "second", "1", *ports),
    }
    errors = {name: process.communicate()[1].decode() for name, process in processes.items()}
    for name, process in processes.items():
        assert process.returncode == 0, (name, errors[name][-3000:])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders by who ran: one replica, two of one process, the first and the second process."""
    folder = made_once(tmp_path_factory, "replicas", run_all)
    return {name: folder / name for name in ("alone", "mirrored", "first", "second")}


def found(folder, case):
    with np.load(folder / f"{case}.npz") as file:
        return dict(file)


def check_same(one, other, relative=RELATIVE):
    assert one.keys() == other.keys()
    for name in one:
        atol = relative * max(1e-3, float(np.abs(one[name]).max()))
        np.testing.assert_allclose(other[name], one[name], rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("case", [*(f"{name}, by rows" for name in NAMES), *DENSE])
def test_two_replicas_make_twenty_steps_of_one(runs, case):
    check_same(found(runs["alone"], case), found(runs["mirrored"], case))


@pytest.mark.parametrize("case", PROCESSES)
def test_two_processes_make_twenty_steps_of_one(runs, case):
    check_same(found(runs["alone"], case), found(runs["first"], case))


@pytest.mark.parametrize("who", ["mirrored", "first"])
@pytest.mark.parametrize("case", [*SAME, *STAGED, "several steps an execution"])
def test_the_same_of_models_stages_and_executions(runs, case, who):
    check_same(found(runs["alone"], case), found(runs[who], case))


@pytest.mark.parametrize("case", [*STAGED, "PUB, by rows", "MGDA, dense"])
def test_workers_decide_alike_to_the_last_bit(runs, case):
    check_same(found(runs["first"], case), found(runs["second"], case), relative=0)


@pytest.mark.parametrize("who", ["mirrored", "first"])
def test_a_model_can_be_built_by_its_first_batch(runs, who):
    assert found(runs[who], "built late")["shared"] == 2


@pytest.mark.parametrize("who", ["mirrored", "first", "second"])
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("infinite", "FloatingPointError: The loss of task 'like' is not finite at step 1."),
        ("misfit", "ValueError: Labels of task 'click' must lie in [0, 1]"),
        ("infinite, skipped", ""),
    ],
)
def test_a_bad_step_of_one_replica_is_made_by_none(runs, case, message, who):
    bad = found(runs[who], case)
    assert str(bad.pop("message")).startswith(message)
    good = found(runs[who], "one good step")
    check_same({name: good[name] for name in bad}, bad)
