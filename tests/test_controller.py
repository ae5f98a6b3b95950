"""The controller of NMT's multipliers, by what it promises."""

import numpy as np
import pytest

from tfmtl.balancers.controller import BOUNDS, LARGEST_VIOLATION, follow


def multipliers(excesses, start=1.0, integral=0.1, proportional=0.2):
    """``[steps, tasks]``."""
    excesses = np.atleast_2d(np.asarray(excesses, float).T).T
    state, found = np.zeros((4, excesses.shape[1])), []
    for excess in excesses:
        state, now = follow(
            state, excess, start=start, integral=integral, proportional=proportional
        )
        found.append(now)
    return np.array(found)


def test_no_violation_leaves_the_multiplier_where_it_starts():
    np.testing.assert_allclose(multipliers([0, 0, 0], start=3.0), 3.0)


@pytest.mark.parametrize("excess", [0.5, -1.0, 2.0])
def test_a_lasting_violation_moves_its_logarithm_by_the_closed_form(excess):
    steps = np.arange(1, 9)
    expected = 0.1 * steps * excess + 0.2 * excess * (1 - 0.5**steps)
    np.testing.assert_allclose(np.log(multipliers([excess] * 8)[:, 0]), expected)


def test_opposite_violations_give_inverse_multipliers_and_tasks_do_not_see_each_other():
    draw = np.random.default_rng(0).uniform(-1, 1, size=(20, 2))
    both = multipliers(np.concatenate([draw, -draw], axis=1))
    np.testing.assert_allclose(both[:, :2] * both[:, 2:], 1)
    np.testing.assert_allclose(both[:, 0], multipliers(draw[:, 0])[:, 0])


def test_every_change_of_sign_makes_the_next_moves_smaller():
    found = np.log(multipliers([1.0, -1.0] * 50, proportional=0.0)[:, 0])
    moves = np.abs(np.diff(found))
    np.testing.assert_allclose(moves, 0.1 / np.arange(2, 101))


def test_it_stays_within_its_bounds_and_comes_back_at_once():
    found = multipliers([np.inf] * 200 + [-1e9], proportional=0.0)[:, 0]
    assert found[-2] == pytest.approx(BOUNDS[1])
    # The sum does not wind up behind the bound.
    assert np.log(found[-1] / found[-2]) == pytest.approx(-0.1 * LARGEST_VIOLATION / 2)
