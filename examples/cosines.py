"""Where do updates go along the gradient? PUB's Table I, variable by variable, on KuaiRand.

PUB (section III) takes the cosine between the gradient that an optimizer is given and the update
it makes of it, over all shared variables at once and over all of the tasks' own. A vector of many
variables is as its longest parts are: this shows each one's cosine, and its share of both lengths.

    python examples/cosines.py --path FOLDER
"""

import argparse

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track
from rich.table import Table

import tfmtl
from tfmtl import data, models

TASKS = ("click", "like")


def step_of(model, optimizer, variables):
    """A training step of equal weights that tells what the optimizer made of the gradient."""
    entropy = keras.losses.BinaryCrossentropy()

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            losses = [entropy(tf.reshape(y[task], (-1, 1)), outputs[task]) for task in TASKS]
            loss = tf.add_n(losses)
        gradients = [tf.convert_to_tensor(each) for each in tape.gradient(loss, variables)]
        before = [tf.identity(variable) for variable in variables]
        optimizer.apply_gradients(zip(gradients, variables))
        moves = [old - variable for old, variable in zip(before, variables)]
        pairs = list(zip(gradients, moves))
        return (
            tf.stack([tf.reduce_sum(gradient * move) for gradient, move in pairs]),
            tf.stack([tf.reduce_sum(gradient**2) for gradient, _ in pairs]),
            tf.stack([tf.reduce_sum(move**2) for _, move in pairs]),
        )

    return step


def watched(rows, features, rate, epochs, seed):
    """Each variable's name, whether it is shared, and ``[steps, 3, variables]``."""
    keras.utils.set_random_seed(seed)
    net = models.MMoE(TASKS, features, experts=8, expert_units=(64,), tower_units=(32,), seed=seed)
    model = tfmtl.MultiTaskModel(net)
    optimizer = keras.optimizers.Adam(rate)
    model.compile(optimizer, loss=dict.fromkeys(TASKS, "binary_crossentropy"))
    model.fit(rows.take(1), verbose=0)  # builds it
    step = step_of(model, optimizer, model.trainable_variables)
    found = [np.stack(step(x, y)) for _ in range(epochs) for x, y in track(rows, f"seed {seed}")]
    names = [getattr(variable, "path", variable.name) for variable in model.trainable_variables]
    return names, np.array(model.is_shared()), np.array(found)


def cosine(found, chosen):
    """Of all chosen variables at once, the mean over the steps."""
    along, gradient, move = found[:, :, chosen].sum(-1).T
    return float(np.mean(along / np.sqrt(np.maximum(gradient * move, 1e-30))))


def main(path, rate, batch_size, epochs, seeds):
    splits = data.kuairand(path, tasks=TASKS, width=8)
    rows = splits.train.batches(batch_size, shuffle=True, seed=0)
    every = [watched(rows, splits.features, rate, epochs, seed) for seed in range(seeds)]
    names, shared, _ = every[0]

    def mean(chosen):
        values = [cosine(found, chosen) for *_, found in every]
        return f"{np.mean(values):.3f} ± {np.std(values, ddof=seeds > 1):.3f}"

    table = Table("variables", "cosine", "of the gradient", "of the update")
    for title, group in (("shared", shared), ("the tasks' own", ~shared)):
        table.add_row(f"{title}, all at once", mean(group))
        lengths = np.mean([found[:, 1:, group].mean(0) for *_, found in every], axis=0)
        shares = lengths / lengths.sum(1, keepdims=True)
        for i, (gradient, move) in zip(np.flatnonzero(group), shares.T):
            table.add_row(f"  {names[i]}", mean([i]), f"{gradient:.1%}", f"{move:.1%}")
    Console(width=None if Console().is_terminal else 110).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", required=True, help="the folder of KuaiRand's files")
    parser.add_argument("--rate", type=float, default=0.003, help="Adam's")
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    main(asked.path, asked.rate, asked.batch_size, asked.epochs, asked.seeds)
