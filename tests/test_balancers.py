"""What every balancer promises, and the optimality of those that solve a problem."""

import keras
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import tensorflow as tf

from tests.conftest import SPEC, make_model, make_rows
from tfmtl import balancers, compat, models
from tfmtl.balancers.gramian import GramianBalancer

TASKS = ("like", "click")
#: One of each, with arguments where it needs some or where they make another step.
EXAMPLES = {
    **balancers.BALANCERS,
    "FixedWeights": lambda: balancers.FixedWeights({"like": 2.0, "click": 0.5}),
    "NMT": lambda: balancers.NMT(TASKS, tolerance={"like": 0.1, "click": 0.0}, readings=1),
    "EMTL": lambda: balancers.EMTL(update_every=2),
    "PUB": lambda: balancers.PUB(update_every=2),
}
GRAMIAN = [
    name
    for name, kind in balancers.BALANCERS.items()
    if issubclass(kind, GramianBalancer) and kind.reads == "gramian"
]
ALONE = [*GRAMIAN, "PUB", "AdaTask"]
#: Those whose weights follow the tasks wherever they stand. Random ones draw by position.
ORDERLY = sorted(set(ALONE) - {"PCGrad"})

every = pytest.mark.parametrize("name", sorted(balancers.BALANCERS))
#: Fits here are for their steps: an epoch or two, which NMT spends in its first stage.
pytestmark = pytest.mark.filterwarnings("ignore:Training ended in stage 1 of 2:RuntimeWarning")


def adam():
    return keras.optimizers.Adam(0.01)


def small():
    """A net of few variables: what takes the time here is to build steps."""
    return models.SharedBottom(TASKS, SPEC, bottom_units=(6,), tower_units=(), seed=7)


def compiled(name, **options):
    return make_model(net=small(), **{"optimizer": adam(), "balancer": EXAMPLES[name](), **options})


def state(model):
    """All that the next step follows from."""
    return [*model.get_weights(), *map(np.array, compat.optimizer_variables(model.optimizer))]


def finite(model):
    """Whether the network and the balancer's state are; NMT has readings that are still to come."""
    state = [] if isinstance(model.balancer, balancers.NMT) else model.balancer.variables
    values = [*model.net.get_weights(), *(np.asarray(variable) for variable in state)]
    return all(np.isfinite(value).all() for value in values)


def test_every_registered_balancer_has_an_example():
    assert set(EXAMPLES) == set(balancers.BALANCERS)
    assert set(balancers.BALANCERS) <= set(balancers.__all__)


@every
def test_a_balancer_is_its_configuration(name):
    balancer = EXAMPLES[name]()
    assert type(balancer) is balancers.BALANCERS[name]
    config = keras.saving.serialize_keras_object(balancer)
    assert config["registered_name"] == f"tfmtl>{name}"
    for again in (balancers.get(config), keras.saving.deserialize_keras_object(config)):
        assert type(again) is type(balancer)
        assert again.get_config() == balancer.get_config()


@every
def test_a_name_gets_a_balancer_or_says_what_is_missing(name):
    try:
        assert type(balancers.get(name)) is balancers.BALANCERS[name]
    except ValueError as error:
        assert "pass the object" in str(error)
    given = EXAMPLES[name]()
    assert balancers.get(given) is given
    assert type(balancers.get(None)) is balancers.EqualWeights


@every
def test_it_trains_real_rows_in_one_trace_and_goes_on_after_loading(name, tmp_path, census):
    tasks = ("income", "never_married")
    example = EXAMPLES[name]
    if name == "FixedWeights":
        balancer = balancers.FixedWeights(dict.fromkeys(tasks, 0.5))
    else:
        balancer = balancers.NMT(tasks, readings=1) if name == "NMT" else example()
    net = models.SharedBottom(
        list(tasks), census.features, bottom_units=(8,), tower_units=(4,), seed=1
    )
    traces = []
    call = net.call

    def counted(*args, **kwargs):
        traces.append(not tf.executing_eagerly())
        return call(*args, **kwargs)

    net.call = counted
    model = make_model(tasks, net=net, optimizer=adam(), balancer=balancer)
    batches = census.train.take(slice(0, 512)).batches(64)
    del traces[:]
    history = model.fit(batches, epochs=4, verbose=0).history
    # FAMO looks at the batch again, NMT reads the training rows for want of others.
    assert sum(traces) == (2 if name in ("FAMO", "NMT") else 1)
    key = "income_loss" if name == "NMT" else "loss"
    assert history[key][-1] < history[key][0]
    assert finite(model)
    if name == "NMT":
        return  # its stages are resumed in a test of their own
    net.call = call
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for mine, its in zip(state(model), state(again), strict=True):
        np.testing.assert_array_equal(mine, its)
    if name in ("EMTL", "PCGrad", "PUB"):  # each with another kind of state
        for each in (model, again):
            each.fit(batches, epochs=1, verbose=0)
        for mine, its in zip(model.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_allclose(mine, its, rtol=1e-5, atol=1e-6)


#: Factors of a loss, and what becomes of its labels.
HARD = {
    "absent": (1.0, lambda like, click: np.where(np.arange(32) < 16, np.nan, like)),
    "absent at all": (1.0, lambda like, click: np.full(32, np.nan)),
    "huge": (1e6, lambda like, click: like),
    "tiny": (1e-6, lambda like, click: like),
    "opposed": (1.0, lambda like, click: 1 - click),
    "still": (0.0, lambda like, click: like),
}


@every
@pytest.mark.filterwarnings("ignore:Task 'like' had no label:RuntimeWarning")
def test_hard_batches_leave_everything_finite(name):
    model = compiled(name)
    first = model.net.get_weights()
    for case, (factor, change) in HARD.items():
        rows = make_rows(32)
        rows.labels["like"] = change(**rows.labels).astype("float32")
        loss = {
            "like": lambda y, p, factor=factor: factor * keras.losses.binary_crossentropy(y, p),
            "click": "binary_crossentropy",
        }
        model.net.set_weights(first)
        model.compile(adam(), loss=loss, balancer=EXAMPLES[name](), run_eagerly=True)
        history = model.fit(rows.batches(16), epochs=1, verbose=0).history
        assert finite(model), case
        assert all(np.isfinite(v).all() for k, v in history.items() if "auc" not in k), case


@every
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_stays_finite(name, policy):
    rows = make_rows(32)
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = compiled(name, run_eagerly=True)
        model.fit(rows.batches(16), epochs=1, verbose=0)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert finite(model)


@every
def test_weights_can_be_watched(name):
    model = compiled(name, run_eagerly=True)
    history = model.fit(make_rows(16).batches(16), verbose=0).history
    if name in ("EqualWeights", "FixedWeights", "GradDrop"):
        return
    assert any(key.startswith(("weight_", "lambda_")) for key in history)


def jacobian(n, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=(n, 4 * n)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ALONE)
def test_alone_on_a_matrix(name, dtype):
    matrix = tf.constant(jacobian(3, dtype=dtype))
    weights = EXAMPLES[name]().weights(matrix @ tf.transpose(matrix))
    combined = EXAMPLES[name]().combine(matrix)
    assert weights.dtype == combined.dtype == dtype
    expected = tf.linalg.matvec(matrix, weights, transpose_a=True)
    np.testing.assert_allclose(combined, expected, rtol=1e-4, atol=1e-5)
    balancer = EXAMPLES[name]()
    # XLA is for the newer stack, and draws PCGrad's order by another generator.
    jit = compat.KERAS_3 and name != "PCGrad"
    compiled = tf.function(lambda m: balancer.combine(m), jit_compile=jit)(matrix)
    np.testing.assert_allclose(compiled, combined, rtol=1e-4, atol=1e-5)
    with tf.GradientTape() as tape:
        tape.watch(matrix)
        total = tf.reduce_sum(EXAMPLES[name]().combine(matrix))
    assert tape.gradient(total, matrix) is None


@pytest.mark.parametrize("name", ORDERLY)
def test_permuted_tasks_give_permuted_weights(name):
    matrix, order = jacobian(4), np.array([2, 0, 3, 1])
    losses = np.array([0.3, 1.0, 2.0, 0.1])
    one = EXAMPLES[name]().weights(matrix @ matrix.T, losses).numpy()
    other = EXAMPLES[name]().weights(matrix[order] @ matrix[order].T, losses[order]).numpy()
    np.testing.assert_allclose(one[order], other, rtol=1e-4, atol=1e-6)


#: Those whose weights follow from losses alone and not from where a task stands.
OF_LOSSES = ("BanditMTL", "DWA", "FAMO", "IMTLL", "SI", "Uncertainty")


@pytest.mark.parametrize("name", OF_LOSSES)
def test_permuted_losses_give_permuted_weights(name):
    seen = np.random.default_rng(0).uniform(0.1, 2, size=(6, 4)).astype("float32")
    order, found = [2, 0, 3, 1], []
    for losses in (seen, seen[:, order]):
        balancer = EXAMPLES[name]()
        balancer.bind([f"task_{i}" for i in range(4)])
        for step, each in enumerate(losses):
            weights = balancer(tf.constant(each)).numpy()
            balancer.look_back(tf.constant(each), tf.constant(0.9 * each**1.1))
            if name == "DWA" and step < 4:
                balancer.end_epoch()
        found.append(weights)
    np.testing.assert_allclose(found[0][order], found[1], rtol=1e-5)
    assert np.ptp(found[0]) > 1e-3


@pytest.mark.parametrize("name", OF_LOSSES)
@pytest.mark.skipif(not compat.KERAS_3, reason="XLA is for the newer stack")
def test_weights_of_losses_compile_with_xla(name):
    found = []
    for jit in (False, True):
        balancer = EXAMPLES[name]()
        balancer.bind(TASKS)
        weigh = tf.function(lambda losses, of=balancer: of(losses), jit_compile=jit)
        found.append(weigh(tf.constant([0.3, 1.0])).numpy())
    np.testing.assert_allclose(*found, rtol=1e-5)


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("wrong", [np.ones((2, 3)), np.ones(3)])
def test_what_is_no_gramian_is_refused(name, wrong):
    with pytest.raises(ValueError, match="`gramian` must be"):
        EXAMPLES[name]().weights(wrong)


def test_nashmtl_by_its_letter_solves_the_bargain():
    matrix = jacobian(5)
    alpha = balancers.NashMTL(rescale=None).weights(matrix @ matrix.T).numpy()
    np.testing.assert_allclose(alpha * (matrix @ matrix.T @ alpha), 1, atol=1e-9)


def test_imtlg_projects_equally():
    matrix = jacobian(4)
    combined = balancers.IMTLG().combine(matrix).numpy()
    projections = matrix @ combined / np.linalg.norm(matrix, axis=1)
    np.testing.assert_allclose(projections, projections[0], rtol=1e-6)


def test_mgda_opposes_no_task():
    matrix = jacobian(6)
    combined = balancers.MGDA().combine(matrix).numpy()
    assert (matrix @ combined >= combined @ combined * (1 - 1e-6)).all()


def test_pcgrad_leaves_gradients_without_conflict_as_they_are():
    matrix = np.abs(jacobian(4))
    np.testing.assert_allclose(balancers.PCGrad().weights(matrix @ matrix.T), np.ones(4))


def test_pcgrad_of_two_has_a_closed_form():
    first, second = np.array([1.0, 0.0]), np.array([-1.0, 1.0])
    expected = (first - first @ second / 2 * second) + (second - second @ first * first)
    combined = balancers.PCGrad().combine(np.stack([first, second]))
    np.testing.assert_allclose(combined, expected, rtol=1e-9)


def test_cagrad_without_a_ball_is_the_mean():
    matrix = jacobian(3)
    np.testing.assert_allclose(balancers.CAGrad(c=0).combine(matrix), matrix.mean(0), rtol=1e-6)


def test_cagrad_leaves_equal_gradients_as_they_are_up_to_scale():
    row = jacobian(3)[0]
    combined = balancers.CAGrad(c=0.5).combine(np.stack([row] * 3)).numpy()
    np.testing.assert_allclose(combined, (1.5 / 1.25) * row, rtol=1e-4)


def test_emtl_keeps_p_in_its_ball_and_saves_it():
    matrix = jacobian(4) * np.array([[1e-3], [1.0], [1e3], [1.0]])
    emtl = balancers.EMTL(radius=0.04)
    for _ in range(5):
        weights = emtl.weights(matrix @ matrix.T, np.array([1.0, 2.0, -3.0, 1e6])).numpy()
        assert np.isfinite(weights).all()
    p = emtl._p.numpy().astype(float)
    assert np.sum(p * np.log(4 * p)) <= 0.2 + 1e-5
    assert np.abs(p - 0.25).max() > 0.01


@pytest.mark.parametrize("radius", [0.1, 0.5])
def test_emtl_of_two_tasks_is_its_formulas(radius):
    draw = np.random.default_rng(0)
    emtl = balancers.EMTL(mixing=0.3, radius=radius, step=0.5)
    p = np.full(2, 0.5)
    for _ in range(12):
        one, other = draw.normal(size=(2, 4)) * [[1.0], [0.3]]
        losses = draw.uniform(0.1, 1, 2)
        found = emtl.weights(np.stack([one, other]) @ np.stack([one, other]).T, losses).numpy()
        # The shortest combination of two gradients (MGDA), relative rates, equation 12.
        share = np.clip((other - one) @ other / np.sum((one - other) ** 2), 0, 1)
        alpha = np.array([share, 1 - share])
        norms = np.linalg.norm([one, other], axis=1)
        rates = alpha * losses / norms
        logits = np.log(p) + 0.5 * rates / rates.mean()

        def at(exponent, logits=logits):
            return scipy.special.softmax(logits / (1 + exponent))

        def beyond(exponent, at=at):
            q = at(exponent)
            return np.sum(scipy.special.xlogy(q, 2 * q)) - radius**0.5

        p = at(scipy.optimize.brentq(beyond, 0, 1e6)) if beyond(0) > 0 else at(0)
        # Equation 13, its second part brought to the first one's unit.
        weights = alpha * (0.3 + 0.7 * p * (1 / norms) / np.mean(1 / norms))
        np.testing.assert_allclose(found, 2 * weights / weights.sum(), rtol=1e-4, atol=1e-6)


def test_emtl_with_all_mixing_is_its_base():
    matrix = jacobian(3)
    weights = balancers.EMTL(mixing=1.0).weights(matrix @ matrix.T).numpy()
    base = balancers.MGDA().weights(matrix @ matrix.T).numpy()
    np.testing.assert_allclose(weights / weights.sum(), base, rtol=1e-5)


def weigh_for(balancer, losses, steps):
    balancer.bind(TASKS)
    for _ in range(steps):
        weights = balancer(tf.constant(losses, tf.float32))
    return weights.numpy()


def test_uncertainty_and_imtll_come_to_rest_at_their_optimum():
    losses = np.array([2.0, 0.25])
    found = weigh_for(balancers.Uncertainty(learning_rate=0.05), losses, 400)
    np.testing.assert_allclose(found, 1 / (2 * losses), rtol=1e-2)
    found = weigh_for(balancers.IMTLL(learning_rate=0.05), losses, 400)
    np.testing.assert_allclose(found, 1 / losses, rtol=1e-2)


def test_si_takes_the_losses_scale_away():
    np.testing.assert_allclose(weigh_for(balancers.SI(), [4.0, 0.5], 1), [0.25, 2.0])


def test_rlw_draws_anew_and_sums_to_the_number_of_tasks():
    first = weigh_for(balancers.RLW(), [1.0, 1.0], 1)
    second = weigh_for(balancers.RLW(), [1.0, 1.0], 2)
    np.testing.assert_allclose([first.sum(), second.sum()], 2, rtol=1e-6)
    assert np.abs(first - second).max() > 1e-3


def test_dwa_weighs_the_slower_task_more():
    dwa = balancers.DWA()
    dwa.bind(TASKS)
    for losses in ([1.0, 1.0], [0.9, 0.5]):
        np.testing.assert_allclose(dwa(tf.constant(losses)), [1, 1])
        dwa.end_epoch()
    rates = np.exp(np.array([0.9, 0.5]) / 2)
    np.testing.assert_allclose(dwa(tf.constant([0.8, 0.4])), 2 * rates / rates.sum(), rtol=1e-5)


def test_famo_weighs_the_task_that_fell_less():
    famo = balancers.FAMO()
    famo.bind(TASKS)
    losses = tf.constant([1.0, 1.0])
    np.testing.assert_allclose(famo(losses), [0.5, 0.5])
    for _ in range(20):
        famo.look_back(losses, tf.constant([0.5, 0.99]))
    assert famo(losses)[1] > 0.6


def test_banditmtl_weighs_the_larger_loss_within_its_ball():
    weights = weigh_for(balancers.BanditMTL(radius=0.01), [3.0, 1.0], 50)
    p = weights.astype(float) / 2
    np.testing.assert_allclose(np.sum(p * np.log(2 * p)), 0.1, rtol=1e-3)
    assert p[0] > p[1]


def test_gradnorm_evens_out_the_norms():
    gradnorm = balancers.GradNorm(asymmetry=0.0, learning_rate=0.05)
    matrix = np.diag([4.0, 1.0])
    for _ in range(300):
        weights = gradnorm.weights(matrix @ matrix.T).numpy()
    np.testing.assert_allclose(weights * [4, 1], 1.6, rtol=0.05)


def test_graddrop_keeps_one_sign_of_each_entry():
    matrix = np.array([[1.0, -2.0, 3.0, 0.0], [2.0, -1.0, -3.0, 0.0]])
    found = balancers.GradDrop().combine(matrix).numpy()
    np.testing.assert_allclose(found[:2], [3, -3])
    assert found[2] in (3.0, -3.0)
    assert found[3] == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: balancers.MGDA(update_every=0), "`update_every` must be a positive integer"),
        (lambda: balancers.CAGrad(c=-1), "`c` must be a finite number"),
        (lambda: balancers.NashMTL(rescale="max"), "`rescale` must be"),
        (lambda: balancers.PCGrad(seed=-1), "`seed` must be"),
        (lambda: balancers.EMTL(base=balancers.SI()), "`base` must be"),
        (lambda: balancers.EMTL(mixing=2), "`mixing` must be at most 1"),
        (lambda: balancers.NMT(TASKS, inner=balancers.NMT(TASKS)), "`inner` must be"),
        (lambda: balancers.MGDA(wrt="rows"), "`wrt` must be"),
        (lambda: balancers.GradDrop(wrt="rows"), "`wrt` must be"),
        (lambda: balancers.PUB(wrt="representation"), "`wrt` must be"),
        (lambda: balancers.PUB(bargain="none"), "`bargain` must be"),
        (lambda: balancers.DWA(temperature=0), "`temperature` must be"),
        (lambda: balancers.FAMO(decay=-1), "`decay` must be"),
        (lambda: balancers.PUB(rescale="mean"), "`rescale` must be"),
        (lambda: balancers.PUB(manipulation="adam"), "`manipulation` must be"),
        (lambda: balancers.PUB(moments="never"), "`moments` must be"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


#: Those that NMT may have inside: weights given for all tasks are none for a stage's.
INNER = sorted(set(balancers.BALANCERS) - {"NMT", "FixedWeights"})


@pytest.mark.parametrize("name", INNER)
def test_nmt_runs_every_balancer_inside_its_stages(name):
    batch = make_rows(32).batches(32)
    nmt = balancers.NMT(TASKS, readings=1, inner=EXAMPLES[name]())
    model = compiled("NMT", balancer=nmt, run_eagerly=True)
    before = model.net.get_weights()
    history = model.fit(batch, validation_data=batch, epochs=4, verbose=0).history
    assert nmt.done
    assert finite(model)
    assert "violation_like" in history
    for one, other in zip(before, model.net.get_weights(), strict=True):
        assert np.abs(one - other).max() > 0
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(nmt))
    assert type(again.inner) is balancers.BALANCERS[name]


@pytest.mark.parametrize("name", ["MGDA", "PUB", "GradDrop", "AdaTask", "FAMO"])
def test_the_first_stage_trains_its_own_task_alone(name):
    """Whatever is inside: nothing that only a later task reaches moves."""
    rows = make_rows(32)
    nmt = balancers.NMT(TASKS, readings=1, inner=EXAMPLES[name]())
    model = compiled("NMT", balancer=nmt)

    def values(variables):
        return [np.array(variable) for variable in variables]

    before = {task: values(variables) for task, variables in model.task_variables.items()}
    shared = values(model.shared_variables)
    model.train_on_batch(rows.columns, rows.labels)
    for task, moves in (("like", True), ("click", False)):
        for one, other in zip(before[task], values(model.task_variables[task]), strict=True):
            assert bool(np.abs(one - other).max() > 0) is moves
    for one, other in zip(shared, values(model.shared_variables), strict=True):
        assert np.abs(one - other).max() > 0


@pytest.mark.parametrize("variant", ["held_out", "paper"])
def test_nmt_runs_another_balancer_inside_its_stages(variant, tmp_path):
    rows = make_rows(64)
    nmt = balancers.NMT(TASKS, variant, readings=1, inner=balancers.FAMO(learning_rate=0.5))
    model = compiled("NMT", balancer=nmt)
    model.fit(rows.batches(16), validation_data=rows.batches(64), epochs=4, verbose=0)
    assert nmt.done
    assert finite(model)
    alone, both = (np.array(inner._logits.value()) for inner in nmt._inners)
    assert len(alone) == 1
    assert np.abs(both).max() > 0
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.balancer._inners[1]._logits.value(), both)


def test_nmt_with_equal_weights_inside_is_nmt():
    rows, ends = make_rows(64), []
    for inner in (None, balancers.EqualWeights()):
        nmt = balancers.NMT(TASKS, readings=1, inner=inner)
        model = make_model(net=small(), balancer=nmt)
        model.fit(rows.batches(16), validation_data=rows.batches(64), epochs=4, verbose=0)
        ends.append(model.net.get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["AdaTask", "EMTL", "FAMO", "GradDrop", "NMT", "PCGrad", "PUB", "RLW"]
)
@pytest.mark.skipif(not compat.KERAS_3, reason="XLA is for the newer stack")
def test_a_step_compiles_with_xla(name):
    """Each kind of step; the weights of the others are compiled by themselves, above."""
    rows = make_rows(32)
    model = compiled(name, jit_compile=True)
    model.fit(rows.batches(16), verbose=0)
    assert finite(model)


def test_weights_are_kept_between_searches():
    rows = make_rows(64)
    model = compiled("MGDA", balancer=balancers.MGDA(update_every=4), run_eagerly=True)
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(logs["weight_like"])
    )
    model.fit(rows.batches(8), verbose=0, callbacks=[watch])
    assert len(set(seen[:4])) == 1
    assert len(set(seen)) == 2


def test_between_searches_the_step_is_that_of_the_last_weights():
    """A searched step and one that reuses the same weights are one step."""
    rows = make_rows(16)
    ends = []
    for every_step in (1, 2):
        balancer = balancers.GradNorm(learning_rate=0.0, update_every=every_step)
        model = make_model(net=small(), balancer=balancer)
        model.fit(rows.batches(4), verbose=0)
        ends.append(model.net.get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
