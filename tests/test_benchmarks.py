"""The harness of the benchmarks: who is compared with whom, and how ratios are made."""

import ast
import json

import numpy as np
import pytest

from benchmarks import comparisons, plan, pool, report, rows


@pytest.fixture(params=[False, True], ids=["full", "quick"])
def every(request, tmp_path):
    return comparisons.make(request.param, tmp_path)


def test_contenders_are_told_apart_and_those_they_are_compared_with_run_beside_them(every):
    for comparison in every:
        for heat in comparison.heats:
            keys = [each.key for each in heat.contenders]
            assert len(set(keys)) == len(keys)
            for each in heat.contenders:
                for other in each.against:
                    assert (other.environment or each.environment, other.label) in keys


def test_contenders_can_be_asked_for(every):
    for comparison in every:
        for each in (each for heat in comparison.heats for each in heat.contenders):
            module, function = each.case.split(".")
            # Read, not imported: PyTorch is in another environment.
            source = pool.ROOT / "benchmarks" / "cases" / f"{module}.py"
            defined = {
                node.name: {argument.arg for argument in node.args.args}
                for node in ast.parse(source.read_text()).body
                if isinstance(node, ast.FunctionDef)
            }
            assert set(each.arguments) <= defined[function]
            assert json.loads(json.dumps(each.arguments)) == each.arguments


class FakePool:
    """Workers whose steps take what the arguments say; ``None`` fails."""

    def __init__(self):
        self.turns = []

    def of(self, contender):
        self.asked = contender
        return self

    def ask(self, do, name, **given):
        if do == "build":
            return {"figures": {"size": 3}, "runs": True}
        self.turns.append(name)
        if self.asked.arguments["ms"] is None:
            raise pool.WorkerError("broken")
        return {"ms": self.asked.arguments["ms"]}

    def start(self, contenders):
        pass


def run(times, **options):
    contenders = [plan.Contender(name, "tf221", "", {"ms": ms}) for name, ms in times.items()]
    workers = FakePool()
    found = pool.run(plan.Heat("", contenders, **options), workers, lambda now: None)
    return {label: reading for (_, label), reading in found.items()}, workers.turns


def test_everyone_has_a_turn_in_every_round():
    found, turns = run({"a": 10.0, "b": 20.0}, rounds=4)
    assert found["a"].figures == {"size": [3], "ms": [10.0] * 4}
    measured = turns[4:]
    assert [sorted(measured[i : i + 2]) for i in range(0, 8, 2)] == [["a", "b"]] * 4


def test_one_that_fails_is_left_out_and_says_why():
    found, turns = run({"a": 10.0, "b": None}, rounds=3)
    assert found["b"].error == "broken" and turns.count("b") == 1
    assert found["a"].error is None and len(found["a"].figures["ms"]) == 3


def judged(found, *contenders):
    comparison = plan.Comparison("name", "", "", [plan.Heat("", contenders)])
    return [each.verdict for each in report.limits(comparison, [found])]


def readings(**figures):
    contenders = {name: plan.Contender(name, "tf221", "") for name in figures}
    return contenders, {
        each.key: plan.Reading(each, {"ms": figures[name]}) for name, each in contenders.items()
    }


def test_a_ratio_is_that_of_the_rounds():
    # What slows both down in a round, here tenfold in the second, cancels.
    contenders, found = readings(mine=[2.0, 20.0, 3.0], other=[1.0, 10.0, 1.0])
    ratio = report.ratio(found, contenders["mine"], plan.Against("other", "× other"), "ms")
    assert (ratio.low, ratio.middle, ratio.high) == (2.0, 2.0, 2.5)


@pytest.mark.parametrize(
    ("limit", "verdict"), [(2.0, "holds"), (1.9, "**does not hold**"), (None, None)]
)
def test_limits_are_judged_by_the_median(limit, verdict):
    _, found = readings(mine=[2.0, 2.0, 9.0], other=[1.0, 1.0, 1.0])
    against = [plan.Against("other", "× other", limit)]
    mine = plan.Contender("mine", "tf221", "", against=against)
    assert judged(found, mine) == ([verdict] if verdict else [])


def test_what_was_not_measured_is_said_to_be_so():
    _, found = readings(mine=[1.0])
    found["tf221", "mine"].error = "ValueError: no"
    mine = plan.Contender("mine", "tf221", "", limit=1.0)
    assert judged(found, mine) == ["not measured"]
    assert "did not run. `ValueError: no`" in report.table(plan.Heat("", [mine]), found)[-1]


def test_rows_are_the_same_for_all_and_within_their_bounds():
    shape = rows.Shape(rows=160, batch=8, tasks=3)
    ids, numbers, labels = rows.batches(shape, count=2)
    np.testing.assert_array_equal(ids, rows.batches(shape, count=2)[0])
    assert ids.shape == (2, 8, 16) and numbers.shape == (2, 8, 63) and labels.shape == (2, 8, 3)
    assert ids.min() >= 0 and ids.max() < shape.vocabulary


def test_gram_matrices_have_the_rank_that_is_asked_for():
    for matrix in rows.gramians(3, 6, 2):
        assert np.linalg.matrix_rank(matrix.astype(float), tol=1e-4 * np.trace(matrix)) == 2
