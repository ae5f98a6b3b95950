"""Two replicas with half a batch each take the step that one takes with the whole batch."""

import json
import pathlib
import subprocess
import sys

import pytest

from tfmtl import balancers

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    path = tmp_path_factory.mktemp("replicas") / "found.json"
    subprocess.run([sys.executable, "-m", "tests.replicas", str(path)], check=True, cwd=ROOT)
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    "case",
    [
        *(f"{name}-uneven" for name in sorted(set(balancers.BALANCERS) - {"NMT"})),
        "MinimumNorm-uneven",
        "MinimumNorm-even",
        "MGDA-UB-uneven",
        "MGDA row by row-uneven",
        *(
            f"{name}-{optimizer}"
            for name in ("AdaTask", "EqualWeights", "GradDrop", "MGDA", "MGDA row by row", "PUB")
            for optimizer in ("LazyAdam", "LazyAdagrad")
        ),
        "EqualWeights-regularised",
        "MinimumNorm-regularised",
        "gated",
        "validated",
        "NMT-held_out",
        "NMT-paper",
        "NMT-PUB",
    ],
)
def test_two_replicas_take_the_step_of_one(found, case):
    assert found[case]["keys"]
    assert found[case]["weights"] < 1e-6
    assert found[case]["history"] < 1e-5


def test_a_model_can_be_built_by_its_first_batch(found):
    assert found["built late"]["shared"] == 2


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("infinite", "FloatingPointError: The loss of task 'like' is not finite at step 1."),
        ("misfit", "ValueError: Labels of task 'click' must lie in [0, 1]"),
    ],
)
def test_a_bad_step_on_one_replica_stops_both(found, case, message):
    assert found[case]["message"].startswith(message)
    assert found[case]["weights"] < 1e-6
