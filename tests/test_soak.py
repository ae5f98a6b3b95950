"""What long runs need: memory that does not grow. `make soak` kills and resumes."""

import gc
import pathlib
import re

import keras
import pytest
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from tests.conftest import make_model, make_rows
from tfmtl import balancers, callbacks, compat, optimizers

STATUS = pathlib.Path("/proc/self/status")
STEPS = 5000


def resident():
    """Megabytes of this process."""
    gc.collect()
    return int(re.search(r"VmRSS:\s+(\d+)", STATUS.read_text())[1]) / 1024


@pytest.mark.skipif(not STATUS.exists(), reason="reads Linux's account of the process")
def test_memory_is_flat_over_5000_steps(tmp_path):
    found = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            found.append(resident())

    inner = balancers.PUB(update_every=10)
    model = make_model(
        balancer=balancers.NMT(["like", "click"], patience=10**6, inner=inner),
        optimizer=optimizers.LazyAdam(0.01),
        jit_compile=False,
        steps_per_execution=5,
    )
    rows = make_rows(80)
    batches = tf.data.Dataset.from_tensor_slices((rows.columns, rows.labels)).batch(8).repeat(50)
    validation = rows.batches(80)
    model.fit(
        batches,
        validation_data=validation,
        epochs=STEPS // 500,
        verbose=0,
        callbacks=[Watch(), callbacks.TaskBoard(tmp_path, every=100)],
    )
    assert model.steps_taken == STEPS
    # The first epochs fill caches.
    assert found[-1] - found[2] < 15, found


def graphs():
    gc.collect()
    return sum(isinstance(each, FuncGraph) for each in gc.get_objects())


def test_models_that_are_gone_leave_no_graphs():
    """Many models in one process, as a comparison trains them."""
    compat.forget_graphs()
    before = graphs()
    for _ in range(2):
        make_model(balancer=balancers.PUB()).fit(make_rows(16).batches(8), verbose=0)
        compat.forget_graphs()
    assert graphs() <= before
