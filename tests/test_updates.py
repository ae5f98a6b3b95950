"""PUB and its kin: updates as the optimizers make them, and Algorithm 1 in NumPy."""

import keras
import numpy as np
import pytest

import tfmtl
from tests.conftest import make_model, make_net, make_rows
from tfmtl import balancers, optimizers

OPTIMIZERS = {
    "Adam": lambda: keras.optimizers.Adam(0.01),
    "AdamW": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "Adagrad": lambda: keras.optimizers.Adagrad(0.05),
    "RMSprop": lambda: keras.optimizers.RMSprop(0.01),
    "RMSprop, momentum, centred": lambda: keras.optimizers.RMSprop(
        0.01, momentum=0.5, centered=True
    ),
    "SGD": lambda: keras.optimizers.SGD(0.1),
    "SGD, momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "SGD, Nesterov": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "Adam, schedule": lambda: keras.optimizers.Adam(
        keras.optimizers.schedules.ExponentialDecay(0.02, 2, 0.5)
    ),
}
every = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)


def everything(net):
    """Positions of all trainable weights: with one task nothing is shared by itself."""
    trainable = set(map(id, net.trainable_variables))
    return [i for i, weight in enumerate(net.weights) if id(weight) in trainable]


def end(optimizer, balancer, tasks=("like",), steps=6, labels=None):
    rows = make_rows(16 * steps)
    if labels is not None:
        rows.labels.update(labels(rows.labels))
    net = make_net(("like", "click"), kind="SharedBottom")
    model = tfmtl.MultiTaskModel(net, shared=everything(net) if len(tasks) == 1 else None)
    loss = {task: "binary_crossentropy" if task in tasks else None for task in ("like", "click")}
    model.compile(optimizer, loss=loss, balancer=balancer)
    model.fit(rows.batches(16), verbose=0)
    return model


@every
def test_one_task_alone_is_the_optimizer_itself(optimizer):
    check_one_task(optimizer, balancers.PUB(update_every=3), balancers.AdaTask())


def test_one_task_alone_is_adam_itself_whatever_pub_does():
    options = ({"manipulation": "adatask"}, {"moments": "before"})
    check_one_task(OPTIMIZERS["Adam"], *(balancers.PUB(update_every=2, **o) for o in options))


def check_one_task(optimizer, *found):
    expected = end(optimizer(), balancers.EqualWeights()).net.get_weights()
    for balancer in found:
        weights = end(optimizer(), balancer).net.get_weights()
        for mine, its in zip(weights, expected, strict=True):
            np.testing.assert_allclose(mine, its, rtol=1e-5, atol=1e-6, err_msg=f"{balancer}")


@every
def test_the_own_part_of_an_update_is_that_without_momentum(optimizer):
    rule = optimizers.rule_of(optimizer())
    draw = np.random.default_rng(0)
    # Above the mean's square, as a centred RMSprop has it.
    slots = {name: draw.uniform(0.1, 0.2, (5, 2)).astype("float32") for name in rule.names()}
    gradient = draw.normal(size=(3, 5, 2)).astype("float32")
    whole, own = rule.parts(gradient, slots, 4.0)
    bare = {name: 0.0 if name == "m" else slot for name, slot in slots.items()}
    np.testing.assert_allclose(whole, rule.step(gradient, slots, 4.0)[0], rtol=1e-5)
    np.testing.assert_allclose(own, rule.step(gradient, bare, 4.0)[0], rtol=1e-5)


@pytest.mark.parametrize("update_every", [1, 3])
def test_a_regulariser_counts_as_it_does_for_the_optimizer(update_every):
    ends = []
    for balancer in (balancers.EqualWeights(), balancers.PUB(update_every=update_every)):
        inputs = keras.Input((3,), name="x")
        hidden = keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.5))(inputs)
        net = keras.Model(inputs, {"like": keras.layers.Dense(1, name="head")(hidden)})
        rng = np.random.default_rng(0)
        net.set_weights([rng.normal(size=w.shape) for w in net.get_weights()])
        model = tfmtl.MultiTaskModel(net, shared=everything(net))
        model.compile(keras.optimizers.Adam(0.01), {"like": "mse"}, balancer=balancer)
        x, y = rng.normal(size=(24, 3)).astype("float32"), rng.normal(size=24).astype("float32")
        model.fit(x, {"like": y}, batch_size=4, shuffle=False, verbose=0)
        ends.append(net.get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


class Problem(keras.Model):
    """Two tasks with quadratic losses over one shared vector, whose gradients NumPy can give."""

    def __init__(self, matrices, start):
        super().__init__()
        self._matrices = [np.asarray(matrix, "float32") for matrix in matrices]
        self._start = np.asarray(start, "float32")

    def build(self, input_shape=None):
        self.theta = self.add_weight(
            name="theta",
            shape=self._start.shape,
            initializer=keras.initializers.Constant(0.0),
        )
        self.theta.assign(self._start)
        self.built = True

    def call(self, inputs):
        import tensorflow as tf

        from tfmtl import compat

        theta = tf.convert_to_tensor(compat.tf_variable(self.theta))
        rows = tf.zeros_like(inputs["x"])[:, :1]
        return {
            task: rows + tf.linalg.matvec(tf.constant(matrix), theta)[None]
            for task, matrix in zip(("like", "click"), self._matrices, strict=True)
        }


def pub_in_numpy(kind, matrices, targets, theta, steps, rescale, bargain):
    """Algorithm 1 with Keras' formulas, the bargain solved by bisection for two tasks."""
    rate, slots = 0.01, {"m": 0 * theta, "v": 0 * theta, "sum": 0 * theta + 0.1}
    for t in range(1, steps + 1):
        gradients = [
            2 / len(b) * a.T @ (a @ theta - b) for a, b in zip(matrices, targets, strict=True)
        ]

        def update(g, slots, t=t):
            if kind == "SGD":
                return 0.9 * slots["m"] + g, {"m": 0.9 * slots["m"] + g}
            if kind == "Adagrad":
                total = slots["sum"] + g**2
                return g / np.sqrt(total + 1e-7), {"sum": total}
            v = (0.999 if kind.startswith("Adam") else 0.9) * slots["v"]
            v = v + (0.001 if kind.startswith("Adam") else 0.1) * g**2
            if kind == "RMSprop":
                return g / np.sqrt(v + 1e-7), {"v": v}
            m = 0.9 * slots["m"] + 0.1 * g
            unbiased = np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            return unbiased * m / (np.sqrt(v) + 1e-7), {"m": m, "v": v}

        updates = np.stack([update(g, slots)[0] for g in gradients])
        own = {**slots, "m": 0 * theta} if bargain == "own" else slots
        columns = np.stack([update(g, own)[0] for g in gradients])
        lengths = np.linalg.norm(columns, axis=1)
        cosine = columns[0] @ columns[1] / lengths.prod()
        alpha = 1 / (lengths * np.sqrt(1 + cosine))
        if rescale == "norm":
            alpha *= np.linalg.norm(updates.sum(0)) / 2 / np.linalg.norm(alpha @ updates)
        if rescale == "sum":
            alpha *= 2 / alpha.sum()
        decay = 0.1 if kind == "AdamW" else 0.0
        theta = theta * (1 - rate * decay) - rate * alpha @ updates
        slots = {**slots, **update(alpha @ np.stack(gradients), slots)[1]}
    return theta


@pytest.mark.parametrize(
    ("bargain", "rescale"), [("update", None), ("own", "norm"), ("update", "norm"), ("own", "sum")]
)
@pytest.mark.parametrize("kind", ["Adam", "AdamW", "Adagrad", "RMSprop", "SGD"])
def test_ten_steps_are_algorithm_1(kind, bargain, rescale):
    """The first pair is the paper's letter, the second the default."""
    rng = np.random.default_rng(0)
    matrices = rng.normal(size=(2, 4, 5))
    targets = rng.normal(size=(2, 4))
    start = rng.normal(size=5)
    options = {"SGD": {"momentum": 0.9}, "AdamW": {"weight_decay": 0.1}}.get(kind, {})
    optimizer = getattr(keras.optimizers, kind)(0.01, **options)
    model = make_model(
        net=Problem(matrices, start),
        optimizer=optimizer,
        loss=dict.fromkeys(("like", "click"), "mean_squared_error"),
        balancer=balancers.PUB(update_every=1, bargain=bargain, rescale=rescale),
    )
    x = {"x": np.zeros((10, 1), "float32")}
    y = {
        task: np.tile(target, (10, 1)).astype("float32")
        for task, target in zip(("like", "click"), targets, strict=True)
    }
    model.fit(x, y, batch_size=1, verbose=0)
    expected = pub_in_numpy(kind, matrices, targets, start, 10, rescale, bargain)
    np.testing.assert_allclose(model.net.get_weights()[0], expected, rtol=1e-5, atol=1e-5)


@every
def test_identical_tasks_are_one_of_them(optimizer):
    """By default each step is as long as the mean of the tasks' updates: that of one of them."""
    check_identical_tasks(optimizer, "norm", 1, steps=5)


def test_identical_tasks_whose_weights_sum_to_n_make_n_times_the_step():
    check_identical_tasks(OPTIMIZERS["SGD"], "sum", 2, steps=1)


def check_identical_tasks(optimizer, rescale, factor, steps):
    rng = np.random.default_rng(1)
    matrix, target, start = rng.normal(size=(4, 5)), rng.normal(size=4), rng.normal(size=5)
    ends = []
    for tasks in (("like",), ("like", "click")):
        model = make_model(
            net=Problem([matrix, matrix], start),
            optimizer=optimizer(),
            loss={t: "mean_squared_error" if t in tasks else None for t in ("like", "click")},
            balancer=balancers.PUB(update_every=1, rescale=rescale)
            if len(tasks) == 2
            else balancers.EqualWeights(),
        )
        x = {"x": np.zeros((steps, 1), "float32")}
        y = {t: np.tile(target, (steps, 1)).astype("float32") for t in tasks}
        model.fit(x, y, batch_size=1, verbose=0)
        ends.append(model.net.get_weights()[0] - start)
    np.testing.assert_allclose(ends[1], factor * ends[0], rtol=1e-4, atol=1e-6)


def test_clippy_bounds_every_step():
    clippy = optimizers.Clippy(10.0)
    model = make_model(optimizer=clippy)
    before = [np.array(v) for v in model.net.trainable_variables]
    model.fit(make_rows(16).batches(16), verbose=0)
    for old, new in zip(before, model.net.trainable_variables, strict=True):
        assert (np.abs(old - np.array(new)) <= 0.5 * np.abs(old) + 1e-2 + 1e-6).all()


def test_clippy_is_adam_where_steps_are_small():
    ends = []
    for optimizer in (keras.optimizers.Adam(1e-4), optimizers.Clippy(1e-4)):
        model = make_model(optimizer=optimizer)
        model.fit(make_rows(32).batches(16), verbose=0)
        ends.append(model.net.get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


@pytest.mark.parametrize("arguments", [{"relative": -1}, {"absolute": 0}])
def test_clippy_rejects(arguments):
    with pytest.raises(ValueError, match="must be"):
        optimizers.Clippy(**arguments)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (
            lambda: keras.optimizers.Nadam(),
            r"one of \['Adagrad', 'Adam', 'AdamW', 'RMSprop', 'SGD'",
        ),
        (lambda: keras.optimizers.Adam(amsgrad=True), "without"),
        (lambda: keras.optimizers.Adam(clipnorm=1.0), "without"),
    ],
)
def test_an_optimizer_whose_updates_are_not_known_is_refused(optimizer, message):
    with pytest.raises(ValueError, match=message):
        make_model(optimizer=optimizer(), balancer=balancers.PUB())


def test_pub_under_clippy_and_adatask_saves_and_goes_on(tmp_path):
    rows = make_rows(64)
    balancer = balancers.PUB(update_every=2, manipulation=["clippy", "adatask"])
    model = make_model(optimizer=keras.optimizers.Adam(0.01), balancer=balancer)
    model.fit(rows.batches(16), verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, again):
        each.fit(rows.batches(16), verbose=0)
    for mine, its in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-5, atol=1e-6)


def test_optimizers_by_their_names():
    for name in ("Adam", "adamw", "RMSprop", "LazyAdam", "lazyadagrad", "Clippy"):
        found = optimizers.named(name, learning_rate=0.25)
        assert type(found).__name__.lower() == name.lower()
        assert float(found.learning_rate) == 0.25
    for name in ("nobody", "Optimizer", "LossScaleOptimizer"):
        with pytest.raises(ValueError, match=f"one of .*'Adam'.* Received: '{name}'"):
            optimizers.named(name)
