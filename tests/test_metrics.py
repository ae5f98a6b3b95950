"""Ranking metrics against other libraries, plain loops and brute force over the orders of ties."""

import itertools
import json
import math
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf

from tfmtl import compat, metrics
from tfmtl.metrics import inversions

#: Each metric, and the function of whole arrays that says the same.
FACES = {
    "ndcg": (metrics.NDCG, metrics.ndcg, {}),
    "ndcg_3": (metrics.NDCG, metrics.ndcg, {"k": 3, "gains": "linear"}),
    "mrr": (metrics.MRR, metrics.mean_reciprocal_rank, {}),
    "mrr_2": (metrics.MRR, metrics.mean_reciprocal_rank, {"k": 2}),
    "map": (metrics.MAP, metrics.mean_average_precision, {}),
    "map_3": (metrics.MAP, metrics.mean_average_precision, {"k": 3}),
    "precision_2": (metrics.PrecisionAtK, metrics.precision_at_k, {"k": 2}),
    "gauc": (metrics.GAUC, metrics.gauc, {}),
    "gauc by group": (metrics.GAUC, metrics.gauc, {"weighting": "groups"}),
    "pair_accuracy": (metrics.PairAccuracy, metrics.pair_accuracy, {}),
    "pair_accuracy by list": (
        metrics.PairAccuracy,
        metrics.pair_accuracy,
        {"weighting": "lists"},
    ),
}
every = pytest.mark.parametrize("name", FACES)


def made(name):
    metric, _, options = FACES[name]
    return metric(**options)


def whole(name, *arrays):
    _, function, options = FACES[name]
    return function(*arrays, **options)


def updated(name, *batch, **options):
    metric = made(name)
    metric.update_state(*batch, **options)
    return float(metric.result())


def padded(n=40, width=7, *, ties=True, seed=0):
    """Labels with padding at any place, and scores."""
    rng = np.random.default_rng(seed)
    kinds = np.array([-1, np.nan, 0, 1, 2], "float32")
    labels = rng.choice(kinds, (n, width), p=[0.1, 0.1, 0.5, 0.2, 0.1])
    scores = rng.integers(-2, 3, labels.shape) if ties else rng.normal(size=labels.shape)
    return labels, scores.astype("float32")


def complete(n=30, width=8, grades=2, seed=0):
    """Lists without padding or ties, each with a relevant and another item."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, grades, (n, width)).astype("float32")
    labels[:, 0], labels[:, 5] = 1, 0
    return labels, rng.permuted(np.arange(n * width, dtype="float32")).reshape(n, width)


def flat(labels, scores, seed=0):
    """The same as rows in any order, with ids that leave gaps, and one of them negative."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(10**12 + 17 * np.arange(len(labels)) ** 5)
    ids[0] = -3
    order = rng.permutation(labels.size)
    return labels.ravel()[order], scores.ravel()[order], np.repeat(ids, labels.shape[1])[order]


# --- What a list's value and weight are, in plain Python, for rows in one order.


def of_order(name, labels):
    """The value for labels in the order of the ranks; only of metrics that look at ranks."""
    options = FACES[name][2]
    k = options.get("k") or len(labels)
    hits = [int(label >= 1) for label in labels]
    if name.startswith("ndcg"):
        gain = (lambda y: y) if options.get("gains") == "linear" else (lambda y: 2.0**y - 1)

        def dcg(ranked):
            return sum(gain(y) / math.log2(r + 2) for r, y in enumerate(ranked[:k]))

        return dcg(labels) / dcg(sorted(labels, reverse=True))
    if name.startswith("mrr"):
        return next((1 / (r + 1) for r, hit in enumerate(hits[:k]) if hit), 0.0)
    if name.startswith("map"):
        precisions = [sum(hits[: r + 1]) / (r + 1) for r, hit in enumerate(hits[:k]) if hit]
        return sum(precisions) / sum(hits)
    return sum(hits[:k]) / min(k, len(hits))


def of_list(name, labels, scores):
    """The value of a list and what it counts for; ``None`` where it does not."""
    if name.startswith(("gauc", "pair")):
        if name.startswith("gauc"):
            labels = [float(label >= 1) for label in labels]
        right = pairs = 0
        for (y, s), (z, t) in itertools.product(zip(labels, scores, strict=True), repeat=2):
            if y > z:
                pairs += 1
                right += 1.0 if s > t else 0.5 if s == t else 0.0
        size = {"gauc": len(labels), "pair_accuracy": pairs}.get(name, 1)
        return (right / pairs, size) if pairs else None
    relevant = (lambda y: y > 0) if name.startswith("ndcg") else (lambda y: y >= 1)
    if not any(map(relevant, labels)):
        return None
    orders = []
    for order in itertools.permutations(range(len(labels))):
        ranked = [scores[i] for i in order]
        if ranked == sorted(scores, reverse=True):
            orders.append(of_order(name, [labels[i] for i in order]))
    return sum(orders) / len(orders), 1


def by_loops(name, labels, scores, weights=None):
    total = count = 0.0
    weights = np.ones_like(labels) if weights is None else weights
    labels, scores, weights = (np.asarray(each, "float64") for each in (labels, scores, weights))
    for y, s, w in zip(labels, scores, weights, strict=True):
        rows = [(a, b, c) for a, b, c in zip(y, s, w, strict=True) if a >= 0 and c > 0]
        found = of_list(name, [a for a, _, _ in rows], [b for _, b, _ in rows]) if rows else None
        if found:
            weight = found[1] * sum(c for _, _, c in rows) / len(rows)
            total, count = total + found[0] * weight, count + weight
    return total / count


@every
@pytest.mark.parametrize("ties", [True, False])
def test_it_is_the_expectation_over_the_orders_of_ties(name, ties):
    labels, scores = padded(12, 6, ties=ties)
    expected = by_loops(name, labels, scores)
    assert 0.2 < expected < 0.99
    assert updated(name, labels, scores) == pytest.approx(expected, rel=1e-6)
    assert whole(name, labels, scores) == pytest.approx(expected, rel=1e-12)


@every
def test_weights_leave_rows_out_and_weigh_lists_by_their_mean(name):
    labels, scores = padded(12, 6)
    rng = np.random.default_rng(1)
    weights = rng.uniform(0.1, 3.0, labels.shape)
    weights[rng.random(labels.shape) < 0.2] = 0.0
    expected = by_loops(name, labels, scores, weights)
    assert expected != pytest.approx(by_loops(name, labels, scores), rel=1e-3)
    assert whole(name, labels, scores, None, weights) == pytest.approx(expected, rel=1e-12)
    by_list = np.repeat(weights[:, 1:2] + 0.1, 6, axis=1)
    expected = by_loops(name, labels, scores, by_list)
    for shaped in (by_list[:, 0], by_list[:, :1], by_list):
        found = updated(name, labels, scores, sample_weight=shaped.astype("float32"))
        assert found == pytest.approx(expected, rel=1e-6)


@every
def test_padded_and_flat_agree(name):
    labels, scores = padded()
    expected = whole(name, labels, scores)
    rows = flat(labels, scores)
    assert whole(name, *rows) == pytest.approx(expected, rel=1e-12)
    y, s, ids = rows
    for shape in ([-1], [-1, 1]):
        found = updated(name, y.reshape(shape), s.reshape(shape), queries=ids.reshape(shape))
        assert found == pytest.approx(expected, rel=1e-6)
    words = np.char.add("user ", ids.astype(str))
    assert whole(name, y, s, words) == pytest.approx(expected, rel=1e-12)


@every
def test_batches_add_up(name):
    labels, scores = padded()
    weights = np.random.default_rng(2).uniform(0.5, 2, len(labels)).astype("float32")
    metric = made(name)
    for rows in (slice(0, 11), slice(11, 12), slice(12, 40)):
        metric.update_state(labels[rows], scores[rows], sample_weight=weights[rows])
    once = updated(name, labels, scores, sample_weight=weights)
    assert float(metric.result()) == pytest.approx(once, rel=1e-6)
    metric.reset_state()
    assert float(metric.result()) == 0.0
    metric.update_state(labels, scores)
    assert float(metric.result()) == pytest.approx(updated(name, labels, scores), rel=1e-6)


@pytest.mark.parametrize("compiled", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("name", ["ndcg", "mrr", "map", "precision_2", "gauc", "pair_accuracy"])
def test_it_compiles(name, compiled):
    labels, scores = padded(10, 5)
    y, s, ids = map(tf.constant, flat(labels, scores))
    metric = made(name)

    def update(y, s, ids):
        metric.update_state(y, s, queries=ids)

    # As a graph, for any number of rows.
    specs = None if compiled else [tf.TensorSpec([None], each.dtype) for each in (y, s, ids)]
    tf.function(update, input_signature=specs, jit_compile=compiled)(y, s, ids)
    assert float(metric.result()) == pytest.approx(whole(name, labels, scores), rel=1e-6)


@every
def test_lists_without_what_it_needs_do_not_count(name):
    labels, scores = padded(10, 5)
    nan = np.full(5, np.nan, "float32")
    extra = np.stack([-np.ones(5), nan, np.zeros(5), [-1, 0, -1, -1, -1]]).astype("float32")
    more = (np.concatenate([extra, labels]), np.concatenate([np.ones_like(extra), scores]))
    expected = whole(name, labels, scores)
    assert updated(name, *more) == pytest.approx(expected, rel=1e-6)
    assert whole(name, *more) == pytest.approx(expected, rel=1e-12)
    assert updated(name, extra, np.ones_like(extra)) == 0.0
    assert math.isnan(whole(name, extra, np.ones_like(extra)))
    no_rows = np.zeros([0], "float32")
    assert updated(name, no_rows, no_rows, queries=no_rows.astype("int64")) == 0.0
    assert updated(name, labels[:0], scores[:0]) == 0.0


@every
def test_a_nan_score_shows_unless_its_row_is_absent(name):
    labels, scores = padded(10, 5)
    expected = whole(name, labels, scores)
    scores[~(labels >= 0)] = np.nan
    assert updated(name, labels, scores) == pytest.approx(expected, rel=1e-6)
    scores[labels >= 0] = np.nan
    assert math.isnan(updated(name, labels, scores))
    assert math.isnan(whole(name, labels, scores))


@every
def test_any_scores_have_an_order(name):
    labels, _ = padded(10, 6)
    sizes = [-np.inf, -1e30, -1.0, -1e-42, 1e-42, np.inf]
    scores = np.random.default_rng(3).permuted(np.tile(sizes, (10, 1)), axis=1).astype("float32")
    ranks = np.argsort(np.argsort(scores, axis=1), axis=1).astype("float32")
    assert updated(name, labels, scores) == updated(name, labels, ranks)
    zeros = np.zeros([2, 4], "float32")
    signs = np.array([[1, -1, 1, -1], [-1, -1, 1, 1]], "float32")
    ordered = np.array([[0, 1, 1, 0], [1, 0, 1, 0]], "float32")
    assert updated(name, ordered, zeros * signs) == updated(name, ordered, zeros)
    close = 1.0 + 1e-12 * ranks.astype("float64")
    assert whole(name, labels, close) == whole(name, labels, ranks)


@every
def test_it_is_serialised(name):
    metric = made(name)
    config = keras.saving.serialize_keras_object(metric)
    assert config["registered_name"] == f"tfmtl>{type(metric).__name__}"
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    assert type(again) is type(metric)
    assert again.get_config() == metric.get_config()
    labels, scores = padded(10, 5)
    again.update_state(labels, scores)
    assert float(again.result()) == updated(name, labels, scores)


def test_names():
    assert {name.split(" ")[0] for name in FACES} == {made(name).name for name in FACES}
    assert metrics.NDCG(5, name="mine").name == "mine"
    assert all(made(name).takes_queries for name in FACES)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_in_the_evaluation_of_a_keras_model(policy):
    rng = np.random.default_rng(4)
    # Eighths are exact in half precision.
    x = (rng.permuted(np.tile(np.arange(6), (20, 1)), axis=1) / 8).astype("float32")
    labels = rng.integers(0, 3, x.shape).astype("float32")
    labels[rng.random(labels.shape) < 0.2] = -1
    keras.mixed_precision.set_global_policy(policy)
    try:
        inputs = keras.Input((6,))
        model = keras.Model(inputs, keras.layers.Dense(6, use_bias=False)(inputs))
        model.layers[-1].set_weights([np.eye(6, dtype="float32")])
        model.compile("sgd", "mse", metrics=[made(name) for name in FACES if " " not in name])
        found = model.evaluate(x, labels, batch_size=8, verbose=0, return_dict=True)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    for name in FACES:
        if " " not in name:
            assert found[name] == pytest.approx(whole(name, labels, x), rel=1e-6)


@pytest.mark.slow
def test_two_replicas_say_what_one_says():
    run = subprocess.run(
        [sys.executable, "-m", "tests.metrics_on_replicas"],
        cwd=pathlib.Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    one, two = json.loads(run.stdout.splitlines()[-1])
    assert {"ndcg_3", "map", "gauc", "pair_accuracy"} <= one.keys()
    assert two == pytest.approx(one, rel=1e-6)


# --- Other libraries.


@pytest.mark.parametrize("k", [None, 1, 3, 20])
def test_ndcg_is_scikit_learns_with_ties(k):
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 5, (25, 9))
    labels[:, 0] = 3
    scores = rng.integers(0, 4, labels.shape)
    expected = sklearn.metrics.ndcg_score(labels, scores, k=k)
    assert metrics.ndcg(labels, scores, k=k, gains="linear") == pytest.approx(expected, rel=1e-12)
    expected = sklearn.metrics.ndcg_score(2.0**labels - 1, scores, k=k)
    assert metrics.ndcg(labels, scores, k=k) == pytest.approx(expected, rel=1e-12)


def test_auc_and_average_precision_are_scikit_learns():
    labels, scores = complete()
    by_list = list(zip(labels, scores, strict=True))
    aps = [sklearn.metrics.average_precision_score(*each) for each in by_list]
    assert metrics.mean_average_precision(labels, scores) == pytest.approx(np.mean(aps))
    lrap = sklearn.metrics.label_ranking_average_precision_score(labels, scores)
    assert metrics.mean_average_precision(labels, scores) == pytest.approx(lrap)
    ties = np.floor(scores / 40)
    aucs = [sklearn.metrics.roc_auc_score(*each) for each in zip(labels, ties, strict=True)]
    assert metrics.gauc(labels, ties) == pytest.approx(np.mean(aucs))
    assert metrics.pair_accuracy(labels, ties, weighting="lists") == pytest.approx(np.mean(aucs))
    one = np.zeros(labels.size)
    expected = sklearn.metrics.roc_auc_score(labels.ravel(), ties.ravel())
    assert metrics.gauc(labels.ravel(), ties.ravel(), one) == pytest.approx(expected)
    assert metrics.auc(labels, ties) == pytest.approx(expected)
    loss = sklearn.metrics.label_ranking_loss(labels, scores)
    assert metrics.pair_accuracy(labels, scores, weighting="lists") == pytest.approx(1 - loss)


#: Our face, TF-Ranking's class, its options.
THEIRS = [
    ("ndcg", "NDCGMetric", {"topn": None}),
    ("mrr", "MRRMetric", {"topn": None}),
    ("mrr_2", "MRRMetric", {"topn": 2}),
    ("map", "MeanAveragePrecisionMetric", {"topn": None}),
    ("map_3", "MeanAveragePrecisionMetric", {"topn": 3}),
    ("precision_2", "PrecisionMetric", {"topn": 2}),
    ("pair_accuracy", "OPAMetric", {}),
]


def tf_ranking(name, labels, scores, weights=None, **options):
    """A metric's mean over lists, by TF-Ranking's formulas."""
    arrays = [np.asarray(each, np.float32) for each in (labels, scores)]
    weights = None if weights is None else np.asarray(weights, np.float32)
    metric = getattr(compat.tensorflow_ranking().metrics_impl, name)("theirs", **options)
    values, worth = metric.compute(*arrays, weights)
    return float(tf.reduce_sum(values * worth) / tf.reduce_sum(worth))


@pytest.mark.parametrize("ours,theirs,options", THEIRS, ids=[case[0] for case in THEIRS])
def test_it_is_tf_rankings(ours, theirs, options):
    labels, scores = complete(grades=4)
    labels[::3, 6:] = -1
    expected = tf_ranking(theirs, labels, scores, **options)
    assert updated(ours, labels, scores) == pytest.approx(expected, rel=1e-5)
    weights = np.random.default_rng(6).uniform(0.5, 2, [len(labels), 1])
    expected = tf_ranking(theirs, labels, scores, weights, **options)
    assert whole(ours, labels, scores, None, weights) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("ours,theirs,options", THEIRS[:-1], ids=[case[0] for case in THEIRS[:-1]])
def test_tf_ranking_counts_lists_without_a_relevant_item_as_0(ours, theirs, options):
    labels, scores = complete()
    labels[:10] = 0
    expected = tf_ranking(theirs, labels, scores, **options)
    assert whole(ours, labels, scores) * 20 / 30 == pytest.approx(expected, rel=1e-5)


def test_tf_ranking_counts_tied_pairs_as_wrong():
    labels, scores = np.array([[1.0, 0, 2]]), np.array([[1.0, 1, 2]])
    assert tf_ranking("OPAMetric", labels, scores) == pytest.approx(2 / 3)
    assert metrics.pair_accuracy(labels, scores) == pytest.approx(2.5 / 3)


# --- Closed forms and large sets.


def test_gauc_weighs_groups_by_their_impressions():
    # A group of 2 in the right order, one of 4 in the wrong one, one of 5 without a positive.
    labels = [1, 0] + [1, 0, 0, 0] + [0] * 5
    scores = [2, 1] + [0, 1, 2, 3] + [1] * 5
    groups = [7] * 2 + [8] * 4 + [9] * 5
    assert metrics.gauc(labels, scores, groups) == pytest.approx(2 / 6)
    assert metrics.gauc(labels, scores, groups, weighting="groups") == pytest.approx(1 / 2)


@every
def test_the_best_order_is_1_and_the_order_of_rows_is_of_no_account(name):
    labels, scores = complete(grades=1)
    labels[:, 1] = 2
    labels[::2, 2] = 1  # two or three relevant items: enough for two ranks, not more than three
    assert updated(name, labels, labels) == pytest.approx(1.0)
    if not name.startswith("ndcg"):
        worst = updated(name, labels, -labels)
        assert worst < updated(name, labels, scores) < 1
    ties = np.floor(scores / 60)
    order = np.random.default_rng(7).permutation(labels.shape[1])
    assert updated(name, labels[:, order], ties[:, order]) == updated(name, labels, ties)


def test_millions_of_lists_add_up():
    # A float32 sum of ones stays at 2^24.
    metric = metrics.MRR()
    metric.total.assign(2.0**24)
    metric.count.assign(2.0**25)
    for _ in range(5):
        metric.update_state([[1.0, 0.0]], [[1.0, 0.0]])
    assert float(tf.convert_to_tensor(metric.total)) == 2.0**24 + 5


@pytest.mark.parametrize("n", [0, 1, 2, 3, 8, 33, 64, 65])
def test_inversions_are_counted(n):
    numbers = np.random.default_rng(n).permutation(n).astype("int32")
    expected = [sum(numbers[: list(numbers).index(x)] > x) for x in range(n)]
    assert inversions.count(tf.constant(numbers)).numpy().tolist() == expected


# --- Bad input.


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: metrics.NDCG(0), "`k` must be an integer of at least 1 or None. Received: 0"),
        (lambda: metrics.MRR(2.5), "`k` must be .* Received: 2.5"),
        (lambda: metrics.PrecisionAtK(None), "`k` must be .* Received: None"),
        (lambda: metrics.NDCG(gains="log"), "`gains` must be one of .* Received: 'log'"),
        (lambda: metrics.GAUC("rows"), "`weighting` must be one of .* Received: 'rows'"),
        (lambda: metrics.PairAccuracy("groups"), "`weighting` must be one of .*'groups'"),
        (lambda: metrics.ndcg([[1]], [[1]], k=-1), "`k` must be"),
        (lambda: metrics.gauc([1, 0], [1, 0], [1, 2, 3]), "`labels` must be .* as many"),
        (lambda: metrics.gauc([1, 0], [1, 0]), r"`groups` must be given .*\(2,\)"),
        (lambda: metrics.gauc([[1, 0]], [[1, 0]], None, [1, 2, 3]), r"`sample_weight` .*\(3,\)"),
        (lambda: metrics.gauc([1, 0], [1, 0], [1, 1], [[1, 2]]), r"`sample_weight` .*\(1, 2\)"),
        (lambda: updated("mrr", [1.0], [1.0]), r"must be \[batch, list\] where no `queries`"),
        (lambda: updated("mrr", [[1.0], [0.0]], [[1.0], [2.0]]), "`queries` must say"),
        (lambda: updated("mrr", [[1.0, 0]], [[1.0, 2, 3]]), r"\(1, 2\) and \(1, 3\)"),
        (lambda: updated("mrr", [1.0], [1.0], queries=[0.5]), "must be integers. .*float32"),
        (lambda: updated("mrr", [1.0], [1.0, 2], queries=[1, 2]), "of as many rows"),
        (lambda: updated("mrr", [[1.0, 2]], [[1.0, 2]], queries=[1]), r"\[rows\] or \[rows, 1\]"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- Δm%.


def test_delta_m_is_the_mean_over_tasks_of_the_mean_over_criteria():
    alone = {"depth": {"abs": 0.5, "rel": 0.2}, "segment": {"iou": 40.0}}
    joint = {"depth": {"abs": 0.4, "rel": 0.3}, "segment": {"iou": 44.0}}
    # Depth: -20 % and +50 %; segmentation: 10 % better.
    assert metrics.delta_m(joint, alone, {"abs", "rel"}) == pytest.approx((15 - 10) / 2)
    assert metrics.delta_m(alone, alone, ["abs"]) == 0.0
    assert metrics.delta_m({"auc": 0.55, "mse": 2}, {"auc": 0.5, "mse": 4}, ["mse"]) == (
        pytest.approx((-10 - 50) / 2)
    )


@pytest.mark.parametrize(
    "arguments,message",
    [
        (({"a": 1}, {"b": 1}), r"Only in `results`: \[\"'a'\"\]. Only in `baselines`: \[\"'b'\"\]"),
        (({"a": {"x": 1}}, {"a": {"x": 1, "y": 2}}), "Only in `baselines`: .*'a'.*'y'"),
        (({"a": 1}, {"a": 0}), "`baselines` must be above 0.* 'a'=0"),
        (({"a": float("nan")}, {"a": 1}), "`results` must have finite values. .*'a'=nan"),
        (({"a": 1}, {"a": 1}, ["b"]), r"`lower_is_better` must name some of \['a'\]. .*\['b'\]"),
        (({"a": 1}, {"a": 1}, "a"), "`lower_is_better` must be a collection"),
        (({}, {}), "`results` must be a dict that names tasks"),
        (({"a": {}}, {"a": 1}), r"`results\['a'\]` must name criteria"),
    ],
)
def test_delta_m_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        metrics.delta_m(*arguments)
