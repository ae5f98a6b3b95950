"""Between weight searches replicas hand over what they do without balancing: one gradient."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.conftest import made_once

ROOT = pathlib.Path(__file__).parents[1]
#: Losses, counts and faults of two tasks.
FIGURES = 200
#: Two tables of 12 and 7 rows, 3 wide, in float32.
TABLES = 4 * 3 * (12 + 7)


def count(folder):
    done = subprocess.run(
        [sys.executable, "-m", "tests.traffic"],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "found.json").write_text(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return json.loads((made_once(tmp_path_factory, "traffic", count) / "found.json").read_text())


#: The others that read a Gram matrix are to a step what MGDA is.
SEARCHING = ["EMTL", "MGDA", "PUB"]
OTHERS = ["MGDA-UB", "MGDA row by row", "NMT, PUB"]


def test_without_balancing_it_is_the_gradient(found):
    (size,) = found["variables"]
    for step in found["EqualWeights, dense"]:
        # Keras 2 leaves the tables' gradients as rows for its own Adam too.
        assert size - TABLES <= step <= size + FIGURES


CASES = [
    *((name, "dense") for name in (*SEARCHING, *OTHERS)),
    ("MGDA", "by rows"),
    ("PUB", "by rows"),
]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_between_searches_no_more_than_without_balancing(found, name, kind):
    plain, balanced = found[f"EqualWeights, {kind}"], found[f"{name}, {kind}"]
    searched = {0, 4}
    for i, (without, with_) in enumerate(zip(plain, balanced, strict=True)):
        if i not in searched:
            assert with_ <= without


@pytest.mark.parametrize(("name", "kind"), [case for case in CASES if case[0] in SEARCHING])
def test_a_search_adds_one_gradient_for_each_task(found, name, kind):
    plain, balanced = found[f"EqualWeights, {kind}"], found[f"{name}, {kind}"]
    for i in (0, 4):
        assert plain[i] < balanced[i] <= 3 * plain[i]


def test_held_tasks_cost_nothing(found):
    assert found["NMT, dense"] == found["EqualWeights, dense"]


def test_rows_are_handed_over_as_rows(found):
    (size,) = found["variables"]
    for step in found["EqualWeights, by rows"]:
        # At most 4 rows of either table on a replica, with their ids.
        assert step <= size - TABLES + 2 * 4 * (4 * 3 + 8) + FIGURES
