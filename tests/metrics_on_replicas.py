"""Ranking metrics in `evaluate` on one replica and on two; prints both as JSON.

In a process of its own: logical devices must be there before TensorFlow starts.
"""

import json

import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

import keras  # noqa: E402
import numpy as np  # noqa: E402

from tfmtl import metrics  # noqa: E402


def evaluate(strategy, x, y, weights):
    with strategy.scope():
        inputs = keras.Input((x.shape[1],))
        model = keras.Model(inputs, keras.layers.Dense(x.shape[1], use_bias=False)(inputs))
        model.layers[-1].set_weights([np.eye(x.shape[1], dtype="float32")])
        found = [metrics.NDCG(3), metrics.MAP(), metrics.GAUC(), metrics.PairAccuracy()]
        model.compile(loss="mse", weighted_metrics=found)
    # 21 rows: the last batch, of one row, leaves a replica without any.
    data = tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(4)
    options = tf.data.Options()
    off = tf.data.experimental.AutoShardPolicy.OFF
    options.experimental_distribute.auto_shard_policy = off
    return model.evaluate(data.with_options(options), verbose=0, return_dict=True)


def main():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(21, 6)).astype("float32")
    y = rng.integers(-1, 3, x.shape).astype("float32")
    weights = rng.uniform(0.5, 2.0, 21).astype("float32")
    strategies = (
        tf.distribute.get_strategy(),
        tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
    )
    print(json.dumps([evaluate(each, x, y, weights) for each in strategies]))


if __name__ == "__main__":
    main()
