"""How many bytes two replicas add up in each step; prints JSON.

In a process of its own: logical devices must be there before TensorFlow starts.
"""

import json

import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

import keras  # noqa: E402

from tests.conftest import make_model, make_net, make_rows  # noqa: E402
from tfmtl import balancers, compat, distributed, optimizers  # noqa: E402

#: With weights searched in the first and the fifth of six steps.
BALANCERS = {
    "EqualWeights": balancers.EqualWeights,
    **{
        name: lambda kind=balancers.BALANCERS[name]: kind(update_every=4)
        for name in ("EMTL", "MGDA", "PUB")
    },
    "MGDA-UB": lambda: balancers.MGDA(wrt="representation", update_every=4),
    "MGDA row by row": lambda: balancers.MGDA(accumulate="gramian", update_every=4),
    "NMT": lambda: balancers.NMT(("like", "click")),
    "NMT, PUB": lambda: balancers.NMT(
        ("like", "click"), readings=1, inner=balancers.PUB(update_every=4)
    ),
}
#: Those that are counted with row-sparse gradients too.
BY_ROWS = ("EqualWeights", "MGDA", "PUB")
OPTIMIZERS = {"dense": lambda: keras.optimizers.Adam(0.01), "by rows": optimizers.LazyAdam}


class Counting(tf.distribute.ReductionToOneDevice):
    """Adds up what one replica hands over."""

    def __init__(self):
        super().__init__()
        self.bytes = tf.Variable(0, dtype=tf.int64, trainable=False)

    def reduce_implementation(self, reduce_op, per_replica_value, destinations, options):
        one = per_replica_value.values[0]
        for part in tf.nest.flatten(one, expand_composites=True):
            self.bytes.assign_add(tf.size(part, tf.int64) * part.dtype.size)
        return super().reduce_implementation(reduce_op, per_replica_value, destinations, options)


def steps_of(counting, model, batches):
    """The bytes of each step."""
    found = []

    class Note(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            counting.bytes.assign(0)

        def on_train_batch_end(self, batch, logs=None):
            found.append(int(counting.bytes.numpy()))

    model.fit(batches, verbose=0, callbacks=[Note()])
    return found


def main():
    counting = Counting()
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=counting)
    rows = make_rows(48)
    dataset = tf.data.Dataset.from_tensor_slices((rows.columns, rows.labels)).batch(8)
    batches = distributed.shared_out(dataset)
    found = {}
    for name, balancer in BALANCERS.items():
        for kind, optimizer in OPTIMIZERS.items():
            if kind == "by rows" and name not in BY_ROWS:
                continue
            with strategy.scope():
                net = make_net(kind="SharedBottom", bottom_units=(64, 64))
                model = make_model(net=net, optimizer=optimizer(), balancer=balancer())
            found[f"{name}, {kind}"] = steps_of(counting, model, batches)
            size = 4 * sum(int(tf.size(variable)) for variable in net.trainable_variables)
            found["variables"] = [size]
            del model, net
            compat.forget_graphs()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
