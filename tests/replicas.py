"""The same runs on one replica, on two of one process, and on one each of two processes.

    python -m tests.replicas alone|mirrored|worker FOLDER [INDEX PORT PORT]

Writes what `test_replicas.py` compares, in processes of their own: logical devices must be there
before TensorFlow starts, and one process has to stay with one strategy.
"""

import functools
import json
import os
import pathlib
import sys

MODE, FOLDER, *MORE = sys.argv[1:]
if MODE == "worker":
    INDEX, *PORTS = MORE
    cluster = {"worker": [f"localhost:{port}" for port in PORTS]}
    task = {"type": "worker", "index": int(INDEX)}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})

import tensorflow as tf  # noqa: E402

if MODE == "mirrored":
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
STRATEGY = {
    "alone": tf.distribute.get_strategy,
    "mirrored": lambda: tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
    "worker": tf.distribute.MultiWorkerMirroredStrategy,
}[MODE]()

import keras  # noqa: E402
import numpy as np  # noqa: E402

from tests.conftest import SPEC, make_model, make_net, make_rows  # noqa: E402
from tests.test_model import Foreign, MinimumNorm, arrays, regularised  # noqa: E402
from tfmtl import balancers, compat, distributed, models, optimizers  # noqa: E402

BALANCERS = {
    **{name: kind for name, kind in balancers.BALANCERS.items() if name != "NMT"},
    "FixedWeights": lambda: balancers.FixedWeights({"like": 2.0, "click": 0.5}),
    "MinimumNorm": MinimumNorm,
    "EMTL": lambda: balancers.EMTL(update_every=2),
    "PUB": lambda: balancers.PUB(update_every=3),
    "MGDA-UB": lambda: balancers.MGDA(wrt="representation", update_every=2),
    "MGDA row by row": lambda: balancers.MGDA(accumulate="gramian"),
}
#: Those that are also tried where tables have dense gradients, one for each way through a step.
DENSE = ("AdaTask", "EqualWeights", "GradDrop", "MGDA", "PUB")
#: Those that two processes try, one for each way through a step and its draws: they are two
#: replicas that add up over a wire.
PROCESSES = ("AdaTask", "FAMO", "GradDrop", "MGDA", "MGDA-UB", "PUB", "RLW")
OPTIMIZERS = {
    "dense": lambda: keras.optimizers.SGD(0.1),
    "by rows": lambda: optimizers.LazyAdam(0.01, epsilon=1e-3),
}
#: Two readings an epoch, a stage an epoch.
STAGES = {
    "held_out": functools.partial(balancers.NMT, ("like", "click"), readings=2),
    "paper": functools.partial(balancers.NMT, ("like", "click"), "paper", readings=2),
}
STAGES["PUB"] = lambda: STAGES["held_out"](inner=balancers.PUB(update_every=2))
#: 20 steps, the last one of 5 rows.
ROWS, BATCH = 157, 8


def data(columns, labels, batch_size=32):
    found = tf.data.Dataset.from_tensor_slices((columns, labels)).batch(batch_size)
    return distributed.shared_out(found)


def build(net=None, optimizer=OPTIMIZERS["dense"], **options):
    with STRATEGY.scope():
        net = small() if net is None else net()
        return make_model(net=net, optimizer=optimizer(), jit_compile=False, **options)


def small():
    """A net of few variables: what takes the time here is to trace steps."""
    return models.SharedBottom(("like", "click"), SPEC, bottom_units=(6,), tower_units=(), seed=7)


#: An infinite input gives each task an infinite logit here.
TOWERS = functools.partial(make_net, kind="SharedBottom")


def numbered(weights) -> dict:
    return {f"weights_{i}": each for i, each in enumerate(weights)}


def end(batches, epochs=1, validate=False, **options) -> dict:
    """Weights and History."""
    model = build(**options)
    validation = batches if validate else None
    history = model.fit(batches, validation_data=validation, epochs=epochs, verbose=0).history
    return {**numbered(model.net.get_weights()), **history}


def twenty_steps(name, optimizer) -> dict:
    rows = make_rows(ROWS)
    # The first rows of a batch go to one replica, so that all labels of a task are at the other.
    rows.labels["like"][8:12] = np.nan
    batches = data(rows.columns, rows.labels, BATCH)
    found = end(batches, balancer=BALANCERS[name](), optimizer=OPTIMIZERS[optimizer])
    return found


def staged(balancer) -> dict:
    """Weights and trace after two stages of two epochs, each of two batches."""
    rows = make_rows(64)
    batches = data(rows.columns, rows.labels)
    model = build(optimizer=lambda: keras.optimizers.SGD(0.5), balancer=balancer())
    model.fit(batches, validation_data=batches, epochs=4, verbose=0)
    trace = model.balancer.trace()
    figures = {name: np.nan_to_num([float(row[name]) for row in trace]) for name in trace[0]}
    return {**numbered(model.net.get_weights()), **figures}


def several_at_once() -> dict:
    rows = make_rows(ROWS)
    batches = data(rows.columns, rows.labels, BATCH)
    return end(batches, epochs=2, steps_per_execution=5, balancer=BALANCERS["PUB"]())


def gated() -> dict:
    rows = make_rows(60)  # the second batch is cut unevenly
    return end(
        data(rows.columns, rows.labels), net=functools.partial(make_net, kind="PLE", levels=1)
    )


def validated() -> dict:
    metrics = {"like": ["accuracy"]}
    return end(data(*arrays(32)), net=regularised, metrics=metrics, validate=True)


def late() -> dict:
    """A model that only its first batch builds."""
    model = build(net=Foreign)
    model.fit(data(*arrays(32)), verbose=0)
    return {"shared": len(model.shared_variables)}


def bad_step(change, **options) -> dict:
    """The message of a fit whose second batch is bad, and the weights after it."""
    rows = make_rows(64)
    change(rows.columns, rows.labels)
    model = build(net=TOWERS, **options)
    message = ""
    try:
        model.fit(data(rows.columns, rows.labels), verbose=0)
    except (ValueError, FloatingPointError) as error:
        message = f"{type(error).__name__}: {error}"
    return {**numbered(model.net.get_weights()), "message": message}


def infinite(x, y):
    x["age"][60] = np.inf


def misfit(x, y):
    y["click"][40] = 7.0


def on_batch() -> dict:
    model = build()
    for _ in range(2):
        logs = model.train_on_batch(*arrays_of(make_rows(32)), return_dict=True)
    return {**numbered(model.net.get_weights()), "loss": logs["loss"]}


def arrays_of(rows):
    return rows.columns, rows.labels


CASES = {
    # By rows a table's gradients are row-sparse and all others dense.
    **{f"{name}, by rows": functools.partial(twenty_steps, name, "by rows") for name in BALANCERS},
    **{f"{name}, dense": functools.partial(twenty_steps, name, "dense") for name in DENSE},
    **{f"NMT, {name}": functools.partial(staged, each) for name, each in STAGES.items()},
    "regularised": lambda: end(data(*arrays(32)), net=regularised),
    "regularised, MinimumNorm": lambda: end(
        data(*arrays(32)), net=regularised, balancer=MinimumNorm()
    ),
    "gated": gated,
    "validated": validated,
    "several steps an execution": several_at_once,
    "on a batch": on_batch,
    "built late": late,
    "one good step": lambda: end(data(*arrays_of(make_rows(64).take(slice(0, 32)))), net=TOWERS),
    "infinite": lambda: bad_step(infinite),
    "misfit": lambda: bad_step(misfit),
    "infinite, skipped": lambda: bad_step(infinite, on_non_finite="skip"),
}


def main():
    folder = pathlib.Path(FOLDER)
    folder.mkdir(exist_ok=True)
    left_out = {f"{name}, by rows" for name in set(BALANCERS) - set(PROCESSES)}
    left_out |= {f"{name}, dense" for name in set(DENSE) - {"MGDA"}}
    for name, case in CASES.items():
        if MODE == "worker" and name in left_out:
            continue
        np.savez(folder / f"{name}.npz", **case())
        compat.forget_graphs()


if __name__ == "__main__":
    main()
