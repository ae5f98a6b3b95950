"""Whatever the shapes, tasks, labels, weights and scales: finite weights, and finite variables."""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.conftest import make_model, make_net, make_rows
from tfmtl import balancers
from tfmtl.balancers.base import WEIGHT_LIMIT
from tfmtl.balancers.gramian import GramianBalancer

SEARCHING = sorted(
    name for name, kind in balancers.BALANCERS.items() if issubclass(kind, GramianBalancer)
)
QUIET = settings(
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
exponents = st.integers(-18, 18)


@st.composite
def jacobians(draw):
    """``[tasks, parameters]`` with rows of very different length, some of them 0 or equal."""
    n, size = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    entries = st.floats(-1, 1, width=32)
    rows = draw(hnp.arrays(np.float32, (n, size), elements=entries))
    scales = [10.0 ** draw(exponents) for _ in range(n)]
    copied = draw(st.integers(0, n - 1))
    if draw(st.booleans()):
        rows[-1] = -rows[copied]
    return rows * np.array(scales, np.float32)[:, None]


@pytest.mark.parametrize("name", SEARCHING)
@QUIET
@given(jacobian=jacobians())
def test_weights_of_any_gradients_are_finite(name, jacobian):
    gramian = np.nan_to_num(jacobian @ jacobian.T, posinf=3e38)
    weights = balancers.BALANCERS[name]().weights(gramian).numpy()
    assert weights.shape == (len(jacobian),)
    assert np.isfinite(weights).all(), weights


@st.composite
def batches(draw):
    """Rows of any number with absent labels and weights, a few or none of a task left."""
    n = draw(st.integers(1, 12))
    rows = make_rows(n, seed=draw(st.integers(0, 99)))
    for labels in rows.labels.values():
        absent = draw(hnp.arrays(bool, n, elements=st.booleans()))
        labels[absent] = np.nan
    scale = 10.0 ** draw(st.integers(-6, 6))
    weights = {task: np.full(n, scale ** draw(st.integers(-1, 1))) for task in rows.labels}
    rows.columns["age"] *= draw(st.sampled_from([0.0, 1.0, 1e3]))
    return rows.columns, rows.labels, {t: w.astype("float32") for t, w in weights.items()}


@pytest.mark.filterwarnings("ignore:The balancer's weight:RuntimeWarning")
@pytest.mark.parametrize("name", sorted(set(balancers.BALANCERS) - {"NMT", "FixedWeights"}))
def test_steps_on_any_rows_leave_finite_variables_and_bounded_weights(name):
    model = make_model(
        net=make_net(kind="SharedBottom"),
        balancer=balancers.BALANCERS[name](),
        optimizer=keras.optimizers.Adam(0.01),
        jit_compile=False,
    )

    @QUIET
    @given(batch=batches())
    def check(batch):
        x, y, weights = batch
        model.train_on_batch(x, y, sample_weight=weights)
        last = model.balancer.last()
        if last is not None:
            assert np.isfinite(last.numpy()).all()
            assert np.abs(last.numpy()).max() <= WEIGHT_LIMIT
        for each in model.net.get_weights():
            assert np.isfinite(each).all()

    check()
