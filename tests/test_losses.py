"""Pairwise losses against double loops, dense gradients and TF-Ranking."""

import importlib
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import compat, losses
from tfmtl.losses import tiles

LOSSES = {
    "logistic": (losses.PairwiseLogistic, lambda d: math.log1p(math.exp(-d))),
    "hinge": (losses.PairwiseHinge, lambda d: max(0.0, 1.0 - d)),
    "squared": (losses.PairwiseSquared, lambda d: (1.0 - d) ** 2),
}
DENSE = {
    "logistic": lambda d: tf.math.log1p(tf.exp(-d)),
    "hinge": lambda d: tf.maximum(0.0, 1.0 - d),
    "squared": lambda d: (1.0 - d) ** 2,
}
TOGETHER = {"weighting": "ndcg", "over": "lists", "margin": 1.0, "cap": 3}
OPTIONS = [
    {},
    {"over": "lists"},
    {"margin": 1.0},
    {"cap": 2},
    {"weighting": "ndcg"},
    {"negatives": 50},  # more than there are
    TOGETHER,
]
every_loss = pytest.mark.parametrize("kind", list(LOSSES))


def cases(options, kinds=("logistic",)):
    """Parameters `kind` and `options`."""
    found = []
    for kind in kinds:
        for each in options:
            words = "-".join(f"{key}={value}" for key, value in each.items())
            found.append(pytest.param(kind, each, id=f"{kind}-{words or 'default'}"))
    return pytest.mark.parametrize("kind, options", found)


def padded(batch=9, size=11, seed=0, grades=4):
    """Labels with ties and padding of both kinds, scores, item weights.

    The first list is padding alone, the second has no pair, the third a single item, the fourth no
    padding. Scores and weights at padded places are absurd.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, grades, (batch, size)).astype("float32")
    scores = rng.normal(size=(batch, size)).astype("float32")
    scores[4] = np.round(scores[4])  # equal scores
    weights = rng.uniform(0.5, 2, (batch, size)).astype("float32")
    absent = rng.random((batch, size)) < 0.3
    absent[0], absent[1], absent[2], absent[3] = True, False, True, False
    absent[2, size // 2] = False
    labels[1] = 2.0
    labels[absent] = rng.choice(np.float32([-1, -3, np.nan]), absent.sum())
    scores[absent] = rng.choice(np.float32([1e30, -1e30, np.nan, np.inf]), absent.sum())
    weights[absent] = np.nan
    return labels, scores, weights


def flat(labels, scores, weights, seed=0):
    """The same items as shuffled rows, most of the padding gone, with query ids that jump."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(-4, len(labels) * 3, 3))[: len(labels)] * 10**9
    queries = np.repeat(ids[:, None], labels.shape[1], axis=1)
    rows = [each.reshape(-1) for each in (labels, scores, queries, weights)]
    keep = rng.permutation(rows[0].size)
    keep = keep[(rows[0][keep] >= 0) | (rng.random(keep.size) < 0.2)]
    return [each[keep] for each in rows]


def lists_of(labels, queries=None):
    """The indices, in the order of the batch, of the labelled items of each list."""
    if queries is None:
        rows, size = labels.shape
        groups = [range(r * size, (r + 1) * size) for r in range(rows)]
    else:
        groups = [np.flatnonzero(queries == q) for q in sorted(set(queries.tolist()))]
    labels = labels.reshape(-1)
    return [[i for i in group if labels[i] >= 0] for group in groups]


def pair_weights(labels, scores, weights=None, queries=None, **options):
    """What each pair is multiplied by, as ``{(i, j): weight}`` over flat indices, and the count."""
    over, margin, cap = (
        options.get("over", "pairs"),
        options.get("margin", 0.0),
        options.get("cap", math.inf),
    )
    found, filled, total = {}, 0, 0
    y, z = labels.reshape(-1).astype(float), scores.reshape(-1)
    for items in lists_of(labels, queries):
        rank = {i: r + 1 for r, i in enumerate(sorted(items, key=lambda i: -z[i]))}
        ideal = sorted((y[i] for i in items), reverse=True)
        best = sum((2**grade - 1) / math.log2(2 + r) for r, grade in enumerate(ideal))
        # The sort keeps the order of equal labels.
        higher = sorted(items, key=lambda i: -y[i])[: int(min(cap, len(items)))]
        pairs = [(i, j) for i in higher for j in items if y[i] - y[j] > margin]
        for i, j in pairs:
            value = 1.0 if weights is None else float(weights.reshape(-1)[i])
            if options.get("weighting") == "ndcg":
                swap = abs(1 / math.log2(1 + rank[i]) - 1 / math.log2(1 + rank[j]))
                value *= abs(2 ** y[i] - 2 ** y[j]) * swap / best
            found[i, j] = value / len(pairs) if over == "lists" else value
        filled += bool(pairs)
        total += len(pairs)
    return found, (filled if over == "lists" else total)


def looped(kind, scores, pairs):
    z = scores.reshape(-1).astype(float)
    return sum(weight * LOSSES[kind][1](z[i] - z[j]) for (i, j), weight in pairs.items())


def dense_gradient(kind, scores, pairs):
    """The gradient of the loss written over all pairs of a batch at once."""
    z = tf.constant(np.nan_to_num(scores.reshape(-1), nan=0, posinf=0, neginf=0))
    z = tf.where(tf.abs(z) > 1e20, tf.zeros_like(z), z)
    weights = np.zeros((z.shape[0],) * 2, "float32")
    for (i, j), weight in pairs.items():
        weights[i, j] = weight
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = tf.reduce_sum(weights * DENSE[kind](z[:, None] - z[None, :]))
    return tape.gradient(value, z).numpy().reshape(scores.shape)


def run(loss, labels, scores, queries=None, weights=None, jit=False):
    """Sum, count and the gradient of the sum, compiled."""

    def sums(scores):
        return run_eagerly(loss, labels, scores, queries, weights)

    found = tf.function(sums, jit_compile=jit, autograph=False)(tf.constant(scores))
    return [each.numpy() for each in found]


def run_eagerly(loss, labels, scores, queries=None, weights=None):
    with tf.GradientTape() as tape:
        scores = tf.convert_to_tensor(scores)
        tape.watch(scores)
        total, count = loss.sums(labels, scores, queries, weights)
    return total, count, tape.gradient(total, scores)


def check(kind, loss, options, labels, scores, queries=None, weights=None, **how):
    total, count, gradient = run(loss, labels, scores, queries, weights, **how)
    pairs, expected = pair_weights(labels, scores, weights, queries, **options)
    assert pairs
    assert count == expected
    np.testing.assert_allclose(total, looped(kind, scores, pairs), rtol=2e-5)
    np.testing.assert_allclose(gradient, dense_gradient(kind, scores, pairs), rtol=1e-4, atol=1e-5)


@cases(OPTIONS)
def test_padded_lists_equal_a_double_loop(kind, options):
    labels, scores, weights = padded()
    check(kind, LOSSES[kind][0](**options), options, labels, scores, None, weights)


@cases([{}, {"over": "lists"}, {"cap": 2}, TOGETHER])
def test_flat_rows_equal_a_double_loop(kind, options):
    labels, scores, queries, weights = flat(*padded(seed=1))
    check(kind, LOSSES[kind][0](**options), options, labels, scores, queries, weights)


@cases([{}, TOGETHER], kinds=("hinge", "squared"))
def test_every_loss_equals_a_double_loop(kind, options):
    labels, scores, _ = padded()
    check(kind, LOSSES[kind][0](**options), options, labels, scores)


@cases([{}, TOGETHER])
def test_xla_gives_the_same_for_padded_lists(kind, options):
    labels, scores, weights = padded(seed=2)
    check(kind, LOSSES[kind][0](**options), options, labels, scores, None, weights, jit=True)


def test_the_pass_alone_may_be_compiled():
    labels, scores, weights = padded(seed=2)
    loss = losses.PairwiseLogistic(jit_compile=True)
    check("logistic", loss, {}, labels, scores, None, weights)
    assert loss.get_config()["jit_compile"]


@cases([{"weighting": "ndcg"}, {"negatives": 50}])
def test_xla_gives_the_same_for_flat_rows(kind, options):
    labels, scores, queries, weights = flat(*padded(seed=2))
    check(kind, LOSSES[kind][0](**options), options, labels, scores, queries, weights, jit=True)


@cases([{"weighting": "ndcg"}])
@pytest.mark.parametrize("cells, higher, window", [(16, 2, 2), (24, 3, 8), (8, 8, 1)])
def test_many_tiles_give_the_same_as_one(kind, options, cells, higher, window, monkeypatch):
    monkeypatch.setattr(tiles, "CELLS", cells)
    monkeypatch.setattr(tiles, "HIGHER", higher)
    monkeypatch.setattr(tiles, "WINDOW", window)
    labels, scores, queries, weights = flat(*padded(seed=3))
    check(kind, LOSSES[kind][0](**options), options, labels, scores, queries, weights)


def test_many_tiles_of_samples(monkeypatch):
    monkeypatch.setattr(tiles, "CELLS", 8)
    labels, scores, weights = padded(seed=3)
    options = {"negatives": 50}
    check("logistic", losses.PairwiseLogistic(**options), options, labels, scores, None, weights)


@pytest.mark.parametrize("grades", [2, 1000])
def test_lists_longer_than_a_window(grades):
    labels, scores, weights = padded(batch=5, size=2 * tiles.WINDOW + 19, grades=grades)
    check("logistic", losses.PairwiseLogistic(), {}, labels, scores, None, weights)


def test_flat_and_padded_agree():
    labels, scores, weights = padded()
    loss = losses.PairwiseLogistic(over="lists", weighting="ndcg")
    one = run(loss, labels, scores, None, weights)
    queries = np.repeat(np.arange(labels.shape[0]), labels.shape[1])
    flattened = [each.reshape(-1, 1) for each in (labels, scores)]
    other = run(loss, *flattened, queries, weights.reshape(-1))
    assert one[1] == other[1]
    np.testing.assert_allclose(one[0], other[0], rtol=1e-5)
    np.testing.assert_allclose(one[2].reshape(-1, 1), other[2], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint64"])
def test_a_query_that_comes_back_is_the_same_query(dtype):
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    queries = np.array([high, low, high, 3, low], dtype)
    labels, scores = [1.0, 0.0, 0.0, 1.0, 2.0], np.float32([0.3, 1.0, 0.5, 9.0, 0.0])
    total, count, gradient = run_eagerly(losses.PairwiseSquared(), labels, scores, queries)
    assert count == 2
    np.testing.assert_allclose(total, (1 + 0.2) ** 2 + (1 + 1.0) ** 2, rtol=1e-6)
    np.testing.assert_allclose(gradient, [-2.4, 4.0, 2.4, 0.0, -4.0], rtol=1e-6)


@every_loss
@pytest.mark.parametrize("options", [{}, {"over": "lists", "weighting": "ndcg", "negatives": 1}])
@pytest.mark.parametrize("label", [-1.0, np.nan, 1.0])
def test_without_a_pair_all_is_zero(kind, options, label):
    loss = LOSSES[kind][0](**options)
    for score in (0.5,) if label == 1 else (1e30, -1e30, np.nan):
        labels = np.full((2, 3), label, "float32")
        scores = np.full((2, 3), score, "float32")
        for given in (
            (labels, scores),
            (labels.reshape(-1), scores.reshape(-1), np.zeros(6, "int32")),
            (np.zeros(0, "float32"), np.zeros(0, "float32"), np.zeros(0, "int64")),
        ):
            total, count, gradient = run_eagerly(loss, *given)
            assert total == 0 and count == 0
            assert not np.any(gradient != 0)


def test_a_lost_score_is_seen_and_stays_in_its_list():
    labels, scores, _ = padded()
    scores[3, 2] = np.nan
    loss = losses.PairwiseLogistic(weighting="ndcg")
    values = loss.call(labels, scores).numpy()
    assert np.isnan(values[3]) and np.isfinite(np.delete(values, 3)).all()
    gradient = run(loss, labels, scores)[2]
    assert np.isnan(gradient[3, 2]) and np.isfinite(np.delete(gradient, 3, axis=0)).all()


def test_large_scores_and_labels_do_not_overflow():
    labels = np.float32([[1000, 0, 999, 5]])
    scores = np.float32([[-1e4, 1e4, 0, 3]])
    total, _, gradient = run(losses.PairwiseLogistic(), labels, scores)
    assert np.isfinite(total) and np.isfinite(gradient).all()
    total, _, gradient = run(losses.PairwiseSquared(weighting="ndcg"), labels, scores)
    assert np.isfinite(total) and total > 0 and np.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_precisions_are_computed_in_float32(dtype):
    labels, scores, _ = padded()
    scores = tf.cast(scores, dtype)
    total, count, gradient = run(losses.PairwiseLogistic(), labels, scores)
    exact = tf.cast(scores, tf.float32).numpy()
    expected = run(losses.PairwiseLogistic(), labels, exact)
    assert total.dtype == count.dtype == np.float32
    assert gradient.dtype == scores.dtype.as_numpy_dtype
    assert total == expected[0] and count == expected[1]
    np.testing.assert_array_equal(gradient, tf.cast(expected[2], dtype).numpy())


def test_in_nested_tapes_and_step_by_step():
    labels, scores, _ = padded()
    loss, scores = losses.PairwiseLogistic(), tf.constant(scores)
    with tf.GradientTape() as outer:
        outer.watch(scores)
        with tf.GradientTape() as inner:
            inner.watch(scores)
            total, _ = loss.sums(labels, scores)
        once = inner.gradient(total, scores)
        scaled = 3 * total
    np.testing.assert_allclose(outer.gradient(scaled, scores), 3 * once, rtol=1e-6)
    np.testing.assert_allclose(once, run(loss, labels, scores)[2], rtol=1e-5, atol=1e-7)


def test_shapes_may_be_unknown_and_are_traced_once():
    loss, traces = losses.PairwiseLogistic(weighting="ndcg", negatives=2), []

    def sums(labels, scores, queries=None):
        traces.append(1)
        return loss.sums(labels, scores, queries)

    matrix, vector = tf.TensorSpec([None, None]), tf.TensorSpec([None])
    ids = tf.TensorSpec([None], tf.int64)
    lists = tf.function(sums, input_signature=[matrix, matrix], autograph=False)
    rows = tf.function(sums, input_signature=[vector, vector, ids], autograph=False)
    for batch, size in ((5, 7), (6, 70)):
        labels, scores, weights = padded(batch, size)
        np.testing.assert_allclose(lists(labels, scores), loss.sums(labels, scores), rtol=1e-5)
        labels, scores, queries, _ = flat(labels, scores, weights)
        np.testing.assert_allclose(
            rows(labels, scores, queries), loss.sums(labels, scores, queries), rtol=1e-5
        )
    assert len(traces) == 2


def test_as_a_keras_loss_it_has_one_value_a_list():
    labels, scores, _ = padded()
    loss = losses.PairwiseHinge()
    pairs, _ = pair_weights(labels, scores)
    expected = np.zeros(len(labels))
    for r in range(len(labels)):
        mine = {p: w for p, w in pairs.items() if p[0] // labels.shape[1] == r}
        expected[r] = looped("hinge", scores, mine) / max(len(mine), 1)
    np.testing.assert_allclose(loss.call(labels, scores), expected, rtol=1e-5)
    np.testing.assert_allclose(loss(labels, scores), expected.mean(), rtol=1e-5)
    weights = np.arange(len(labels), dtype="float32")
    np.testing.assert_allclose(
        loss(labels, scores, sample_weight=weights), (weights * expected).mean(), rtol=1e-5
    )


def test_it_trains_a_keras_model_to_rank():
    rng = np.random.default_rng(0)
    items = rng.normal(size=(64, 6, 3)).astype("float32")
    labels = (items @ np.float32([1, -2, 0.5]) > 0.5).astype("float32")
    inputs = keras.Input((6, 3))
    scores = keras.layers.Reshape((6,))(keras.layers.Dense(1)(inputs))
    model = keras.Model(inputs, scores)
    model.compile(keras.optimizers.Adam(0.1), loss=losses.PairwiseLogistic())
    history = model.fit(items, labels, epochs=30, verbose=0).history["loss"]
    assert history[-1] < 0.2 * history[0]


def test_a_subclass_gives_the_loss_of_a_difference():
    class Exponential(losses.PairwiseLoss):
        def pair_loss(self, difference):
            return tf.exp(-difference)

    total, count, gradient = run(Exponential(), [[1.0, 0.0]], np.float32([[0.0, 1.0]]))
    assert count == 1
    np.testing.assert_allclose(total, math.e, rtol=1e-6)
    np.testing.assert_allclose(gradient, [[-math.e, math.e]], rtol=1e-6)
    with pytest.raises(NotImplementedError):
        losses.PairwiseLoss().sums([[1.0, 0.0]], [[0.0, 1.0]])


# Sampled lower items. With the squared loss and all scores 0 the gradient of a lower item is twice
# the number of pairs it is in, that of a higher one minus that.


def drawn(loss, labels, queries=None, jit=False, scores=None):
    scores = np.zeros_like(labels) if scores is None else scores
    total, count, gradient = run(loss, labels, scores, queries, jit=jit)
    return total, count, gradient / 2


@pytest.mark.parametrize(
    "k, layout, jit", [(3, "padded", False), (1, "flat", False), (2, "flat", True)]
)
def test_a_sample_has_distinct_lower_items_of_the_list(k, layout, jit):
    rng = np.random.default_rng(0)
    labels = (rng.random((40, 9)) < 0.2).astype("float32")
    labels[rng.random(labels.shape) < 0.2] = -1
    queries = None if layout == "padded" else np.repeat(np.arange(40), 9)
    shaped = labels if layout == "padded" else labels.reshape(-1)
    total, count, gradient = drawn(losses.PairwiseSquared(negatives=k), shaped, queries, jit)
    gradient = gradient.reshape(labels.shape)
    lower = (labels == 0).sum(axis=1)
    highs = (labels == 1).sum(axis=1)
    assert total == count == (highs * np.minimum(lower, k)).sum()
    np.testing.assert_allclose(gradient[labels == 1], -np.repeat(np.minimum(lower, k), highs))
    assert (gradient[labels == -1] == 0).all()
    assert (gradient[labels == 0] <= np.repeat(highs, lower)).all()
    np.testing.assert_allclose(
        np.where(labels == 0, gradient, 0).sum(axis=1), highs * np.minimum(lower, k)
    )


@pytest.mark.parametrize("n, k", [(7, 3), (5, 4)])
def test_each_lower_item_has_the_same_chance(n, k):
    lists = 6000
    labels = np.zeros((lists, n + 1), "float32")
    labels[:, 0] = 1
    _, _, gradient = drawn(losses.PairwiseSquared(negatives=k), labels)
    chance = gradient[:, 1:].mean(axis=0)
    error = math.sqrt(k / n * (1 - k / n) / lists)
    np.testing.assert_allclose(chance, k / n, atol=4.5 * error)


def test_a_sample_follows_from_seed_and_scores():
    labels = np.zeros((8, 40), "float32")
    labels[:, 5] = 1
    loss = losses.PairwiseSquared(negatives=4, seed=1)
    once = drawn(loss, labels)[2]
    np.testing.assert_array_equal(once, drawn(loss, labels)[2])
    assert (once != drawn(losses.PairwiseSquared(negatives=4, seed=2), labels)[2]).any()
    nudged = np.zeros_like(labels)
    nudged[0, 0] = 1e-6
    assert (np.round(drawn(loss, labels, scores=nudged)[2]) != np.round(once)).any()


# TF-Ranking


def tfr_data(seed=0):
    """Padding as TF-Ranking has it, and no two scores equal."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (7, 10)).astype("float32")
    labels[rng.random(labels.shape) < 0.3] = -1
    labels[2], labels[3] = -1, 1
    return labels, rng.normal(size=(7, 10)).astype("float32"), rng.uniform(1, 2, (7, 10))


@pytest.mark.parametrize("kind", ["Logistic", "Hinge"])
@pytest.mark.parametrize("seed", range(3))
def test_tf_ranking_agrees(kind, seed):
    labels, scores, weights = tfr_data(seed)
    weights = weights.astype("float32")
    theirs = getattr(compat.tensorflow_ranking().losses_impl, f"Pairwise{kind}Loss")(name="theirs")
    ours = getattr(losses, f"Pairwise{kind}")()
    means, counts = theirs.compute_per_list(labels, scores, None)
    np.testing.assert_allclose(ours.call(labels, scores), means, rtol=1e-5)
    total, count = ours.sums(labels, scores)
    assert count == tf.reduce_sum(counts)
    np.testing.assert_allclose(total, tf.reduce_sum(means * counts), rtol=1e-5)
    # They divide by the sum of the weights, so their mean times it is the weighted sum.
    means, counts = theirs.compute_per_list(labels, scores, weights)
    total, _ = ours.sums(labels, scores, weights=weights)
    np.testing.assert_allclose(total, tf.reduce_sum(means * counts), rtol=1e-5)


@pytest.mark.parametrize("kind", ["Logistic", "Hinge"])
def test_tf_rankings_lambda_weights_agree(kind):
    labels, scores, _ = tfr_data()
    module = compat.tensorflow_ranking().losses_impl
    swap = module.DCGLambdaWeight(
        gain_fn=lambda label: tf.pow(2.0, label) - 1,
        rank_discount_fn=lambda rank: math.log(2) / tf.math.log1p(tf.cast(rank, tf.float32)),
        normalized=True,
        smooth_fraction=1.0,
    )
    theirs = getattr(module, f"Pairwise{kind}Loss")(name="theirs", lambda_weight=swap)
    values, weights = theirs.compute_unreduced_loss(labels, scores)
    expected = tf.reduce_sum(values * weights) / labels.shape[1]  # without their factor
    total, _ = getattr(losses, f"Pairwise{kind}")(weighting="ndcg").sums(labels, scores)
    np.testing.assert_allclose(total, expected, rtol=1e-5)


@pytest.mark.skipif(compat.KERAS_3, reason="tfr.keras needs Keras 2")
@pytest.mark.parametrize("kind", ["Logistic", "Hinge"])
def test_tf_rankings_keras_losses_agree(kind):
    theirs = importlib.import_module("tensorflow_ranking").keras.losses
    labels, scores, _ = tfr_data()
    mean = getattr(theirs, f"Pairwise{kind}Loss")()(labels, scores)
    total, _ = getattr(losses, f"Pairwise{kind}")().sums(labels, scores)
    # Their reduction divides the sum over pairs by batch and list size.
    np.testing.assert_allclose(total, mean * labels.size, rtol=1e-5)


# Serialisation and bad input


@every_loss
def test_it_is_serialised(kind):
    options = {
        "over": "lists",
        "margin": 0.5,
        "weighting": "ndcg",
        "negatives": 3,
        "cap": 4,
        "seed": 5,
        "name": "ranked",
    }
    loss = LOSSES[kind][0](**options)
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(twin) is type(loss)
    assert {**loss.get_config(), **options} == loss.get_config() == twin.get_config()
    labels, scores, _ = padded()
    np.testing.assert_array_equal(loss.sums(labels, scores), twin.sums(labels, scores))
    assert keras.saving.get_registered_name(type(loss)) == f"tfmtl>{type(loss).__name__}"


@pytest.mark.parametrize(
    "argument, value",
    [
        ("over", "items"),
        ("margin", -0.1),
        ("margin", math.nan),
        ("margin", math.inf),
        ("margin", "1"),
        ("weighting", "map"),
        ("negatives", 0),
        ("negatives", 1.5),
        ("negatives", True),
        ("cap", 0),
        ("cap", "2"),
        ("jit_compile", 1),
        ("seed", None),
        ("seed", 2**31),
    ],
)
def test_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=rf"`{argument}` must be .* Received: "):
        losses.PairwiseLogistic(**{argument: value})


@pytest.mark.parametrize(
    "shapes, message",
    [
        ({"labels": [6], "scores": [6]}, r"`labels` must .*`queries` must be given"),
        ({"labels": [6, 1], "scores": [6, 1]}, r"`labels` and `scores` must hold lists of at"),
        ({"labels": [2, 3], "scores": [2, 4]}, r"`scores` must have the shape of `labels`"),
        ({"labels": [2, 3], "scores": [2, 3, 1]}, r"`scores` must have the shape \[batch, list\]"),
        ({"labels": [6, 2], "scores": [6], "queries": [6]}, r"`labels` .*\[rows\] or \[rows, 1\]"),
        ({"labels": [6], "scores": [6, 1], "queries": [5]}, r"`queries` must have the shape of"),
        ({"labels": [6], "scores": [5], "queries": [6]}, r"`scores` must have the shape of"),
        ({"labels": [6], "scores": [6], "queries": [2, 3]}, r"`queries` must have the shape"),
        ({"labels": [2, 3], "scores": [2, 3], "weights": [2]}, r"`weights` must have the shape of"),
        ({"labels": [6], "scores": [6], "queries": [6], "weights": [5]}, r"`weights` must have"),
    ],
)
def test_bad_shapes(shapes, message):
    given = {
        name: tf.zeros(shape, tf.int32 if name == "queries" else tf.float32)
        for name, shape in shapes.items()
    }
    with pytest.raises(ValueError, match=message):
        losses.PairwiseLogistic().sums(**given)


def test_queries_are_integers():
    with pytest.raises(ValueError, match=r"`queries` must be integers. Received: float32"):
        losses.PairwiseLogistic().sums([1.0, 0.0], [1.0, 0.0], queries=[1.0, 1.0])
