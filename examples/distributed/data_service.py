"""Batches made by other processes: the tf.data service, its dispatcher and workers on this machine.

    python examples/distributed/data_service.py --workers 2

In a cluster the dispatcher and the workers run on machines of their own, and the training asks for
``grpc://HOST:PORT``. What they are sent is the pipeline itself, so it has to be TensorFlow's own
from the first step: tensors, or files that they all see (`tfmtl.ranking.dataset`), and not
`Rows.batches` or `Stream.batches`, parts of which run in Python. Rows are shared out first come,
first served: their order is another one in each run, and every row comes once in each pass.
"""

from __future__ import annotations

import argparse

import keras
import tensorflow as tf
from train import build, rows


def start(workers: int) -> tuple:
    """A dispatcher and workers in this process; to be kept as long as they are wanted."""
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer()
    address = dispatcher.target.partition("://")[2]
    found = [
        service.WorkerServer(service.WorkerConfig(dispatcher_address=address))
        for _ in range(workers)
    ]
    return dispatcher, found


def through(dataset: tf.data.Dataset, target: str) -> tf.data.Dataset:
    """A data set without end whose elements are made by the service's workers, each by one of them.

    Which worker is given how many rows is another matter in each pass, and so is the number of
    batches; hence ``repeat``, and ``steps_per_epoch`` in ``fit``. Keras 2 ends training at an epoch
    that is shorter than its first.
    """
    service = tf.data.experimental.service
    made = dataset.apply(
        service.distribute(processing_mode=service.ShardingPolicy.DYNAMIC, service=target)
    )
    return made.repeat().prefetch(tf.data.AUTOTUNE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    dispatcher, _workers = start(options.workers)
    keras.utils.set_random_seed(1)
    everything = rows()
    train, held_out = everything.take(slice(0, 900)), everything.take(slice(900, None))
    strategy = tf.distribute.MirroredStrategy()
    with strategy.scope():
        model = build("pub")
    pipeline = tf.data.Dataset.from_tensor_slices((train.columns, train.labels))
    pipeline = pipeline.shuffle(900, seed=1).batch(50)
    history = model.fit(
        through(pipeline, dispatcher.target),
        steps_per_epoch=900 // 50,
        validation_data=held_out.batches(300),
        epochs=4,
        verbose=2,
    ).history
    print(f"like AUC {history['val_like_auc'][-1]:.3f}, {model.steps_taken} steps")


if __name__ == "__main__":
    main()
