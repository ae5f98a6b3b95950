"""OMoE, MMoE and PLE: their papers' equations, whose variables are whose, what is logged."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmtl
from tests.conftest import SPEC, make_model, make_net, make_rows
from tests.test_models import embed, mlp, sigmoid, softmax
from tfmtl import balancers, models
from tfmtl.models.gated import mix

TASKS = ("like", "click", "share")
SMALL = {"expert_units": (5,), "gate_units": ()}
KINDS = [
    ("OMoE", {"experts": 3}),
    ("MMoE", {"experts": 3}),
    ("PLE", {"levels": 1}),
    ("PLE", {"levels": 2, "task_experts": 1}),
    ("PLE", {"levels": 2, "task_experts": 0, "shared_experts": 3}),
]
each_kind = pytest.mark.parametrize(("kind", "options"), KINDS, ids=str)


def small(kind, tasks=("like", "click"), **options):
    return make_net(tasks, kind=kind, **{**SMALL, **options})


def mixed(gate, selector, experts):
    """A gate's softmax of its selector over experts ``[experts, batch, units]``."""
    return np.einsum("be,ebu->bu", mlp(gate, selector, last=softmax)[0], experts)


def test_omoe_is_the_papers_formula():
    net = small("OMoE", experts=3, expert_units=(6, 5), gate_units=(4,))
    rows = make_rows(9)
    x = embed(net, rows.columns)
    state = mixed(net.gates[0], x, mlp(net.experts, x))
    predictions = net(rows.columns)
    for task, tower in zip(net.tasks, net.towers, strict=True):
        expected = mlp(tower, state, last=sigmoid)[0]
        np.testing.assert_allclose(predictions[task].numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("task_experts", [0, 2])
def test_ple_is_the_papers_equations(levels, task_experts):
    net = small(
        "PLE",
        TASKS,
        levels=levels,
        task_experts=task_experts,
        shared_experts=3,
        expert_units=(6, 5),
    )
    rows = make_rows(9)
    x = embed(net, rows.columns)
    states, shared_state = [x] * 3, x
    for level, extraction in enumerate(net.extractions, start=1):
        shared = mlp(extraction.shared_experts, shared_state)
        own = [np.zeros((0, *shared.shape[1:]))] * 3
        if task_experts:
            own = [
                mlp(layer, state)
                for layer, state in zip(extraction.task_experts, states, strict=True)
            ]
        gates = list(extraction.gates)
        states = [
            mixed(gates.pop(0), state, np.concatenate([each, shared]))
            for state, each in zip(states, own, strict=True)
        ]
        if level < levels:
            shared_state = mixed(gates.pop(0), shared_state, np.concatenate([*own, shared]))
        assert not gates
    predictions = net(rows.columns)
    for task, tower, state in zip(TASKS, net.towers, states, strict=True):
        expected = mlp(tower, state, last=sigmoid)[0]
        np.testing.assert_allclose(predictions[task].numpy(), expected, rtol=1e-4, atol=1e-6)


def mixtures(weights, own, shared):
    """Two gates that read a group of one expert each and one group of two together."""
    return mix(weights, [[own[0], shared], [own[1], shared]])


def plain_mixtures(weights, own, shared):
    return [
        tf.einsum("be,beu->bu", weight, tf.concat([each, shared], axis=1))
        for weight, each in zip(weights, own, strict=True)
    ]


@pytest.mark.parametrize("how", ["eager", "graph", "xla"])
def test_gates_mix_together_as_if_alone(how):
    """Outputs, first and second derivatives, and who reaches whom."""
    random = np.random.default_rng(0)
    shapes = [(5, 3)] * 2 + [(5, 1, 4)] * 2 + [(5, 2, 4)]
    inputs = [tf.constant(random.normal(size=shape), tf.float32) for shape in shapes]
    reached = {}

    def derivatives(mixtures):
        def both(*inputs):
            with tf.GradientTape() as outer:
                outer.watch(inputs)
                with tf.GradientTape(persistent=True) as tape:
                    tape.watch(inputs)
                    outputs = mixtures(inputs[:2], inputs[2:4], inputs[4])
                    total = tf.add_n([tf.reduce_sum(tf.sin(each)) for each in outputs])
                first = tape.gradient(total, inputs)
                squares = tf.add_n([tf.reduce_sum(tf.square(each)) for each in first])
            reached[mixtures] = [
                [each is not None for each in tape.gradient(output, inputs)] for output in outputs
            ]
            return outputs, first, outer.gradient(squares, inputs)

        function = both if how == "eager" else tf.function(both, jit_compile=how == "xla")
        return tf.nest.flatten(function(*inputs))

    found, expected = derivatives(mixtures), derivatives(plain_mixtures)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-5)
    assert reached[mixtures] == [[True, False, True, False, True], [False, True, False, True, True]]
    assert reached[mixtures] == reached[plain_mixtures]


def owners(net):
    """For each layer that has weights, by name, the tasks whose own they are; () if shared."""
    model = tfmtl.MultiTaskModel(net)
    found = {id(v): (task,) for task, own in model.task_variables.items() for v in own}
    found.update({id(v): () for v in model.shared_variables})
    gated = list(net.gates) if hasattr(net, "gates") else net.all_gates()
    experts = [net.experts] if hasattr(net, "experts") else []
    for extraction in getattr(net, "extractions", ()):
        experts += [*extraction.task_experts, extraction.shared_experts]
    result = {}
    for layer in [net.embedding, *experts, *gated, *net.towers]:
        (result[layer.name],) = {found[id(v)] for v in layer.trainable_variables}
    assert len(found) == len(net.trainable_variables)
    return result


def test_what_is_a_tasks_own():
    towers = {"tower_like": ("like",), "tower_click": ("click",)}
    gates = {"gate_like": ("like",), "gate_click": ("click",)}
    assert owners(small("OMoE")) == {"embedding": (), "experts": (), "gate_shared": (), **towers}
    assert owners(small("MMoE")) == {"embedding": (), "experts": (), **gates, **towers}
    assert owners(small("PLE", levels=1)) == {
        "embedding": (),
        "experts_like": ("like",),
        "experts_click": ("click",),
        "experts_shared": (),
        **gates,
        **towers,
    }
    # Below the last level a task's experts reach all through the shared gate; its gate does not.
    assert owners(small("PLE", levels=2)) == {
        "embedding": (),
        "level1_experts_like": (),
        "level1_experts_click": (),
        "level1_experts_shared": (),
        "gate_level1_like": ("like",),
        "gate_level1_click": ("click",),
        "gate_level1": (),
        "level2_experts_like": ("like",),
        "level2_experts_click": ("click",),
        "level2_experts_shared": (),
        "gate_level2_like": ("like",),
        "gate_level2_click": ("click",),
        **towers,
    }


def test_with_one_task_they_are_the_same_model():
    columns = make_rows(6).columns
    expected = small("MMoE", ["like"], experts=3)(columns)["like"].numpy()
    for other in (
        small("OMoE", ["like"], experts=3),
        small("PLE", ["like"], levels=1, task_experts=0, shared_experts=3),
    ):
        np.testing.assert_allclose(other(columns)["like"].numpy(), expected, rtol=1e-6)


def test_ple_without_own_experts_is_mmoe():
    columns = make_rows(6).columns
    expected = small("MMoE", TASKS, experts=3)(columns)
    found = small("PLE", TASKS, levels=1, task_experts=0, shared_experts=3)(columns)
    for task in TASKS:
        np.testing.assert_allclose(found[task].numpy(), expected[task].numpy(), rtol=1e-6)


@each_kind
def test_a_single_task_reaches_all_there_is(kind, options):
    """A model of one task is that model's single-task counterpart: none of its weights is idle."""
    model = tfmtl.MultiTaskModel(small(kind, ["like"], **options))
    assert not model.shared_variables
    assert len(model.task_variables["like"]) == len(model.net.weights)


@each_kind
def test_seed_configuration_and_file(kind, options, tmp_path):
    net = small(kind, gate_units=(3,), watch_experts=True, layout="lists", **options)
    config = net.get_config()
    twin = type(net).from_config(config)
    assert twin.get_config() == config
    for mine, its in zip(net.weights, twin.weights, strict=True):
        np.testing.assert_array_equal(its.numpy(), mine.numpy())
    columns = make_rows(5).columns
    for weight in net.weights:
        weight.assign(weight + 0.1 * tf.random.normal(weight.shape))
    net.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    for task, expected in net(columns).items():
        np.testing.assert_array_equal(loaded(columns)[task].numpy(), expected.numpy())
    assert set(loaded.watch()) == set(net.watch())


@each_kind
def test_no_two_layers_start_alike(kind, options):
    kernels = [w.numpy() for w in small(kind, **options).weights if "kernel" in w.name]
    copies = [copy for kernel in kernels for copy in kernel]
    for i, one in enumerate(copies):
        for other in copies[:i]:
            if one.shape == other.shape:
                assert np.abs(one - other).max() > 0.05


@pytest.mark.parametrize(("kind", "options"), [KINDS[0], KINDS[3]], ids=str)
def test_it_trains_saves_and_serves(kind, options, tmp_path):
    net = small(kind, **options)
    rows = make_rows(96)
    model = make_model(net=net, optimizer=keras.optimizers.Adam(0.01), jit_compile=False)
    history = model.fit(rows.batches(32), validation_data=rows.batches(96), epochs=4, verbose=0)
    history = history.history
    assert history["loss"][-1] < history["loss"][0]
    logged = {f"gate_entropy_{gate.label}" for gate in net.all_gates()}
    assert {key for key in history if "gate" in key} == logged  # no expert's, none in validation
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    model.export(str(tmp_path / "served"))
    serve = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    served = serve(**{name: tf.constant(column) for name, column in rows.columns.items()})
    expected = net(rows.columns)
    assert set(served) == set(expected)
    for task, values in expected.items():
        np.testing.assert_allclose(served[task].numpy(), values.numpy(), atol=1e-5)
        np.testing.assert_allclose(
            loaded.net(rows.columns)[task].numpy(), values.numpy(), atol=1e-6
        )


def hand_set(weights, **options):
    """An MMoE whose gates give these weights to every row."""
    net = small("MMoE", experts=len(weights), **options)
    for gate in net.gates:
        kernel, bias = gate.weights
        kernel.assign(np.zeros_like(kernel))
        bias.assign(np.log(weights)[None, None].astype("float32"))
    return net


@pytest.mark.parametrize(
    ("weights", "entropy"),
    [
        ([0.25] * 4, np.log(4)),
        ([0.5, 0.5, 1e-30, 1e-30], np.log(2)),
        ([1.0, 1e-30], 0.0),
        ([0.5, 0.25, 0.25], 1.5 * np.log(2)),
    ],
)
def test_utilisation_of_a_hand_set_gate(weights, entropy):
    net = hand_set(weights, watch_experts=True)
    model = make_model(net=net, optimizer=keras.optimizers.SGD(0.0), jit_compile=False)
    history = model.fit(make_rows(50).batches(16), verbose=0).history
    for task in net.tasks:
        assert history[f"gate_entropy_{task}"][0] == pytest.approx(entropy, abs=1e-5)
        for i, weight in enumerate(weights):
            assert history[f"gate_{task}_{i}"][0] == pytest.approx(weight, abs=1e-6)


def test_utilisation_under_xla():
    net = hand_set([0.5, 0.25, 0.25])
    model = make_model(net=net, optimizer=keras.optimizers.SGD(0.0), jit_compile=True)
    history = model.fit(make_rows(50).batches(16), verbose=0).history
    assert history["gate_entropy_like"][0] == pytest.approx(1.5 * np.log(2), abs=1e-5)


def test_utilisation_is_the_mean_over_the_rows_of_the_last_training_batch():
    net = small("PLE", levels=2, watch_experts=True)
    rows = make_rows(40)
    assert all(np.isnan(float(value)) for value in net.watch().values())
    net(rows.columns, training=True)
    columns = {name: column[:7] for name, column in rows.columns.items()}
    net(columns, training=True)
    found = net.watch()
    net(rows.columns)
    net(rows.columns, training=False)
    assert {k: float(v) for k, v in net.watch().items()} == {k: float(v) for k, v in found.items()}
    x = embed(net, columns)
    gates = dict(zip(["like", "click", None], net.extractions[0].gates, strict=True))
    for task, gate in gates.items():
        name = f"level1_{task}" if task else "level1"
        expected = mlp(gate, x, last=softmax)[0].mean(axis=0)
        for i, weight in enumerate(expected):
            assert float(found[f"gate_{name}_{i}"]) == pytest.approx(weight, rel=1e-5)
        entropy = -(expected * np.log(expected)).sum()
        assert float(found[f"gate_entropy_{name}"]) == pytest.approx(entropy, rel=1e-5)


def test_what_is_logged_is_no_weight():
    net = small("PLE", levels=2)
    assert not net.non_trainable_weights
    assert all("gate" not in w.name or "kernel" in w.name or "bias" in w.name for w in net.weights)


def test_priority_stages_train_ple():
    rows = make_rows(128)
    model = make_model(
        net=small("PLE"), jit_compile=False, balancer=balancers.NMT(["like", "click"], readings=2)
    )
    history = model.fit(rows.batches(32), validation_data=rows.batches(64), epochs=4, verbose=0)
    history = history.history
    assert history["stage"][-1] == 2
    assert np.isfinite(history["gate_entropy_level2_like"]).all()


@pytest.mark.parametrize(("kind", "options"), [KINDS[1], KINDS[3]], ids=str)
def test_mixed_precision(kind, options):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        net = small(kind, **options)
        model = make_model(net=net, optimizer=keras.optimizers.Adam(0.01), jit_compile=False)
        history = model.fit(make_rows(64).batches(32), verbose=0).history
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert all(np.isfinite(values).all() for values in history.values())
    assert {value.dtype for value in net(make_rows(4).columns).values()} == {tf.float32}
    assert all(float(value) > 0.5 for value in net.watch().values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small("OMoE", experts=0), "`experts` must be a positive integer"),
        (lambda: small("OMoE", experts=True), "`experts` must be a positive integer"),
        (lambda: small("OMoE", gate_units=(0,)), "`gate_units` must be a sequence"),
        (lambda: small("PLE", levels=0), "`levels` must be a positive integer"),
        (lambda: small("PLE", levels=1.0), "`levels` must be a positive integer"),
        (lambda: small("PLE", task_experts=-1), "`task_experts` must be an integer of at least 0"),
        (lambda: small("PLE", shared_experts=0), "`shared_experts` must be a positive integer"),
        (lambda: small("PLE", expert_units=()), "`expert_units` must be a sequence"),
        (lambda: models.PLE([], SPEC), "`tasks` must be distinct names"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
