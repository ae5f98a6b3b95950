"""Training steps of tfmtl's models and of the same models in stock Keras layers; both stacks."""

import keras
import numpy as np
import tensorflow as tf

import tfmtl
from benchmarks.cases import Case, resident_peak
from benchmarks.rows import Shape, batches
from tfmtl.features import FeatureSpec


def ours(shape: dict, balancer: dict | None = None, jit: bool | None = None) -> Case:
    """A step of ``MultiTaskModel``.

    Args:
        shape: of :class:`Shape`.
        balancer: ``name`` and, where it takes any, ``arguments``.
        jit: ``jit_compile``; ``None`` leaves it out.
    """
    shape = Shape(**shape)
    tasks = shape.task_names
    spec = FeatureSpec(
        {f"id_{i}": shape.vocabulary for i in range(shape.columns)},
        tuple(f"number_{i}" for i in range(shape.numbers)),
        shape.width,
    )
    options = {"tower_units": (shape.tower,), "seed": shape.seed}
    if shape.experts:
        units = (shape.units,)
        net = tfmtl.models.MMoE(tasks, spec, experts=shape.experts, expert_units=units, **options)
    else:
        net = tfmtl.models.SharedBottom(tasks, spec, bottom_units=(shape.units,), **options)
    model = tfmtl.MultiTaskModel(net)
    model.compile(
        tfmtl.optimizers.LazyAdam(1e-3),
        dict.fromkeys(tasks, "binary_crossentropy"),
        balancer=make_balancer(balancer, tasks),
        **({} if jit is None else {"jit_compile": jit}),
    )
    run = stepper(model, shape)
    if balancer and balancer["name"] == "NMT":
        # Into the last stage, where all other tasks are held.
        while model.balancer.stage < shape.tasks - 1:
            model.balancer.advance(model.read(training=True))
    return Case(run, figures={"parameters": parameters(net)})


def make_balancer(given: dict | None, tasks):
    if given is None:
        return None
    name, arguments = given["name"], dict(given.get("arguments", {}))
    if name == "NMT":
        arguments["priority"] = list(tasks)
    if name == "FixedWeights":
        arguments["weights"] = {task: 1.0 / (1 + i) for i, task in enumerate(tasks)}
    return getattr(tfmtl.balancers, name)(**arguments)


class Mix(keras.layers.Layer):
    """Experts weighed by a gate, multiplied and summed as implementations of MMoE do."""

    def call(self, gate, experts):
        return tf.reduce_sum(gate * experts, 1)


def stock(shape: dict, jit: bool | None = None, dot: bool = False) -> Case:
    """A step of a functional Keras model: a layer for each thing, Keras' Adam.

    Args:
        shape: of :class:`Shape`.
        jit: as in :func:`ours`.
        dot: experts are mixed by a ``Dot`` layer, a batched product, instead of :class:`Mix`.
    """
    shape = Shape(**shape)
    keras.utils.set_random_seed(shape.seed)
    layers = keras.layers
    ids = [keras.Input((), dtype="int32", name=f"id_{i}") for i in range(shape.columns)]
    numbers = [keras.Input((), name=f"number_{i}") for i in range(shape.numbers)]
    parts = [layers.Embedding(shape.vocabulary, shape.width)(each) for each in ids]
    parts += [layers.Reshape((1,))(each) for each in numbers]
    hidden = layers.Concatenate()(parts)

    def dense(units, activation="relu", **options):
        return layers.Dense(units, activation=activation, **options)

    if shape.experts:
        experts = [dense(shape.units)(hidden) for _ in range(shape.experts)]
        experts = layers.Concatenate(axis=1)(
            [layers.Reshape((1, shape.units))(each) for each in experts]
        )
    else:
        bottom = dense(shape.units)(hidden)
    outputs = {}
    for task in shape.task_names:
        if shape.experts:
            gate = layers.Reshape((shape.experts, 1))(dense(shape.experts, "softmax")(hidden))
            if dot:
                mixed = layers.Dot(axes=(1, 1))([gate, experts])
                bottom = layers.Reshape((shape.units,))(mixed)
            else:
                bottom = Mix()(gate, experts)
        outputs[task] = dense(1, "sigmoid", name=task)(dense(shape.tower)(bottom))
    model = keras.Model({each.name: each for each in [*ids, *numbers]}, outputs)
    model.compile(
        keras.optimizers.Adam(1e-3),
        dict.fromkeys(outputs, "binary_crossentropy"),
        **({} if jit is None else {"jit_compile": jit}),
    )
    return Case(stepper(model, shape), figures={"parameters": parameters(model)})


def parameters(model) -> int:
    return int(sum(np.prod(each.shape) for each in model.trainable_variables))


def stepper(model, shape: Shape):
    """Takes steps of a compiled model over a few batches, again and again."""
    ids, numbers, labels = batches(shape)
    x = {f"id_{i}": ids[:, :, i] for i in range(shape.columns)}
    x |= {f"number_{i}": numbers[:, :, i] for i in range(shape.numbers)}
    y = {task: labels[:, :, i : i + 1] for i, task in enumerate(shape.task_names)}
    rows = tf.data.Dataset.from_tensor_slices((x, y))
    model.fit(rows.take(1), verbose=0)
    # As `fit` calls it: with an iterator, so that batches are made beside the step.
    step = model.make_train_function() or model.train_function
    iterator = iter(rows.repeat().prefetch(2))

    def run(steps):
        for _ in range(steps):
            logs = step(iterator)
        for each in tf.nest.flatten(logs):
            np.asarray(each)

    return run


def products(shape: dict) -> Case:
    """The three products of the experts' layer alone: forward and those of its two gradients."""
    shape = Shape(**shape)
    width = shape.experts * shape.units
    rng = np.random.default_rng(shape.seed)

    def random(*size):
        return tf.constant(rng.standard_normal(size, dtype=np.float32))

    x, w = random(shape.batch, shape.input_width), random(shape.input_width, width)
    g = random(shape.batch, width)

    @tf.function(autograph=False)
    def multiply():
        return (
            tf.matmul(x, w),
            tf.matmul(x, g, transpose_a=True),
            tf.matmul(g, w, transpose_b=True),
        )

    def run(steps):
        for _ in range(steps):
            found = multiply()
        found[0][0, 0].numpy()

    work = 3 * 2 * shape.batch * shape.input_width * width
    return Case(run, figures={"GFLOP": work / 1e9})


def peak(shape: dict, balancer: dict | None = None, steps: int = 5) -> Case:
    """The peak of the resident memory of this process over a few steps."""
    before = resident_peak()
    ours(shape, balancer).run(steps)
    return Case(figures={"MB": resident_peak(), "MB before": before})
