"""One replica against two, in a process of its own: writes what `test_replicas.py` looks at.

Logical devices must be there before TensorFlow starts, and one process has to stay with one
strategy: the collectives of a second one get the keys of the first.
"""

import functools
import json
import sys

import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

import keras  # noqa: E402
import numpy as np  # noqa: E402

from tests.conftest import make_model, make_net, make_rows  # noqa: E402
from tests.test_model import Foreign, MinimumNorm, arrays, regularised  # noqa: E402
from tfmtl import balancers, optimizers  # noqa: E402

BALANCERS = {
    **{name: kind for name, kind in balancers.BALANCERS.items() if name != "NMT"},
    "FixedWeights": lambda: balancers.FixedWeights({"like": 2.0, "click": 0.5}),
    "MinimumNorm": MinimumNorm,
    "EMTL": lambda: balancers.EMTL(update_every=2),
    "PUB": lambda: balancers.PUB(update_every=2),
    "MGDA-UB": lambda: balancers.MGDA(wrt="representation", update_every=2),
    "MGDA row by row": lambda: balancers.MGDA(accumulate="gramian"),
}
#: Rows without a label of `like`; the first half of a batch goes to one replica.
ABSENT = {"even": slice(0, 0), "uneven": slice(0, 16)}
CASES = [(name, "uneven") for name in BALANCERS] + [("MinimumNorm", "even")]
#: With an optimizer that steps by rows.
BY_ROWS = ("AdaTask", "EqualWeights", "GradDrop", "MGDA", "MGDA row by row", "PUB")
#: Two readings an epoch, a stage an epoch.
STAGES = {
    variant: functools.partial(balancers.NMT, ("like", "click"), variant, readings=2)
    for variant in ("held_out", "paper")
}
STAGES["PUB"] = lambda: STAGES["held_out"](inner=balancers.PUB(update_every=2))


def data(columns, labels, batch_size=32):
    options = tf.data.Options()
    off = tf.data.experimental.AutoShardPolicy.OFF
    options.experimental_distribute.auto_shard_policy = off
    found = tf.data.Dataset.from_tensor_slices((columns, labels)).batch(batch_size)
    return found.with_options(options)


def end(strategy, batches, **options):
    """Weights and History after a pass over the batches."""
    validation = batches if "metrics" in options else None
    with strategy.scope():
        net = options.pop("net", lambda: make_net(kind="SharedBottom"))()
        optimizer = options.pop("optimizer", lambda: keras.optimizers.SGD(0.5))()
        model = make_model(net=net, optimizer=optimizer, **options)
    history = model.fit(batches, validation_data=validation, verbose=0).history
    return model.net.get_weights(), history


def staged(strategy, balancer):
    """Weights and trace after two stages of two epochs, each of two batches."""
    rows = make_rows(64)
    batches = data(rows.columns, rows.labels)
    with strategy.scope():
        net = make_net(kind="SharedBottom")
        model = make_model(net=net, optimizer=keras.optimizers.SGD(0.5), balancer=balancer)
    model.fit(batches, validation_data=batches, epochs=4, verbose=0)
    trace = model.balancer.trace()
    figures = {name: np.nan_to_num([float(row[name]) for row in trace]) for name in trace[0]}
    return model.net.get_weights(), figures


def difference(one, two):
    """The largest difference of weights and of History."""
    weights = max(float(np.abs(a - b).max()) for a, b in zip(one[0], two[0], strict=True))
    figures = max(float(np.abs(np.subtract(one[1][key], two[1][key])).max()) for key in one[1])
    return {"weights": weights, "history": figures, "keys": one[1].keys() == two[1].keys()}


def bad_step(strategy, expected, change):
    """The message of a fit whose second batch is bad, and how far its weights are from one step."""
    rows = make_rows(64)
    x, y = ({n: v.copy() for n, v in part.items()} for part in (rows.columns, rows.labels))
    change(x, y)
    with strategy.scope():
        net = make_net(kind="SharedBottom")
        model = make_model(net=net, optimizer=keras.optimizers.SGD(0.5))
    try:
        model.fit(data(x, y), verbose=0)
    except (ValueError, FloatingPointError) as error:
        message = f"{type(error).__name__}: {error}"
    away = max(
        float(np.abs(a - b).max()) for a, b in zip(model.net.get_weights(), expected, strict=True)
    )
    return {"message": message, "weights": away}


def main(path):
    alone = tf.distribute.get_strategy()
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    found = {}
    for name, availability in CASES:
        rows = make_rows(64)
        rows.labels["like"][ABSENT[availability]] = np.nan
        batches = data(rows.columns, rows.labels)
        ends = [end(each, batches, balancer=BALANCERS[name]()) for each in (alone, two)]
        found[f"{name}-{availability}"] = difference(*ends)
    rows = make_rows(64)
    for name in BY_ROWS:
        for kind in (optimizers.LazyAdam, optimizers.LazyAdagrad):
            ends = [
                end(
                    each,
                    data(rows.columns, rows.labels),
                    balancer=BALANCERS[name](),
                    optimizer=functools.partial(kind, 0.01, epsilon=1e-3),
                )
                for each in (alone, two)
            ]
            found[f"{name}-{kind.__name__}"] = difference(*ends)
    rows = make_rows(60)  # the second batch is cut unevenly
    batches_of_rows = data(rows.columns, rows.labels)
    batches = data(*arrays(32))
    for name in ("EqualWeights", "MinimumNorm"):
        ends = [
            end(each, batches, net=regularised, balancer=BALANCERS[name]()) for each in (alone, two)
        ]
        found[f"{name}-regularised"] = difference(*ends)
    gated = functools.partial(make_net, kind="PLE", levels=1)
    ends = [end(each, batches_of_rows, net=gated) for each in (alone, two)]
    found["gated"] = difference(*ends)
    metrics = {"like": ["accuracy"]}
    ends = [end(each, batches, net=regularised, metrics=metrics) for each in (alone, two)]
    found["validated"] = difference(*ends)
    for variant, balancer in STAGES.items():
        ends = [staged(each, balancer()) for each in (alone, two)]
        found[f"NMT-{variant}"] = difference(*ends)
    with two.scope():  # a model that only its first batch builds
        model = make_model(net=Foreign())
    model.fit(batches, verbose=0)
    found["built late"] = {"shared": len(model.shared_variables)}

    def infinite(x, y):
        x["age"][60] = np.inf

    def misfit(x, y):
        y["click"][40] = 7.0

    rows = make_rows(64).take(slice(0, 32))
    expected, _ = end(two, data(rows.columns, rows.labels))
    found["infinite"] = bad_step(two, expected, infinite)
    found["misfit"] = bad_step(two, expected, misfit)
    with open(path, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(sys.argv[1])
