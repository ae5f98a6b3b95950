"""A Keras model that knows nothing of this library, trained as it is with a balancer.

    python examples/functional_dcn.py                 # census-income: income before marriage
    python examples/functional_dcn.py --path FOLDER   # KuaiRand: like before click

A Deep & Cross network (DCN-V2, Wang et al., WWW 2021) of plain Keras layers with two heads. Which
variables the tasks share is found by looking at it. Prints them, and the AUCs on the test rows.
"""

import argparse

import keras
from keras import layers

import tfmtl
from tfmtl import balancers, data


def dcn(categorical, numeric, tasks, crosses=2):
    """A functional model as anyone would write it: nothing of `tfmtl` in here."""
    inputs = {name: keras.Input((), dtype="int32", name=name) for name in categorical}
    inputs |= {name: keras.Input((1,), name=name) for name in numeric}
    columns = [layers.Embedding(size, 8)(inputs[name]) for name, size in categorical.items()]
    x0 = layers.Concatenate()([*columns, *(inputs[name] for name in numeric)])
    x = x0
    for _ in range(crosses):
        x = layers.Add()([x, layers.Multiply()([x0, layers.Dense(x0.shape[-1])(x)])])
    deep = layers.Dense(64, activation="relu")(layers.Dense(128, activation="relu")(x0))
    both = layers.Concatenate()([x, deep])
    heads = {task: layers.Dense(32, activation="relu")(both) for task in tasks}
    return keras.Model(
        inputs,
        {task: layers.Dense(1, activation="sigmoid", name=task)(heads[task]) for task in tasks},
    )


def main(path, epochs):
    splits = data.kuairand(path, tasks=("like", "click")) if path else data.census_income()
    keras.utils.set_random_seed(1)
    net = dcn(splits.features.categorical, splits.features.numeric, splits.tasks)
    model = tfmtl.MultiTaskModel(net)
    model.compile(
        optimizer=keras.optimizers.Adam(2e-3),
        loss=dict.fromkeys(splits.tasks, "binary_crossentropy"),
        metrics={t: [keras.metrics.AUC(2000, name="auc")] for t in splits.tasks},
        balancer=balancers.NMT(splits.tasks),
    )
    own = {task: len(found) for task, found in model.task_variables.items()}
    print(f"{len(model.shared_variables)} shared variables; the tasks' own: {own}")
    model.fit(
        splits.train.batches(1024, shuffle=True, seed=1),
        validation_data=splits.validation.batches(4096),
        epochs=epochs,
        verbose=0,
    )
    found = model.evaluate(splits.test.batches(4096), return_dict=True, verbose=0)
    print("test:", ", ".join(f"{task} AUC {found[f'{task}_auc']:.4f}" for task in splits.tasks))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", help="the folder of KuaiRand's files")
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    main(options.path, options.epochs)
