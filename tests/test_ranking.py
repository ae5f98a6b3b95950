"""The bridge to TF-Ranking: loading, losses and metrics. Reading is in test_ranking_files.py."""

import importlib
import itertools
import json
import math
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl import compat, ranking
from tfmtl.ranking import gains, losses, metrics

IMPL = compat.tensorflow_ranking()
#: Keras 2.15 imports the whole package; its face is the reference there.
tfr = None if compat.KERAS_3 else importlib.import_module("tensorflow_ranking")
needs_tfr_keras = pytest.mark.skipif(tfr is None, reason="the whole package needs Keras 2")

NAN = math.nan
#: Pairs, a list with one label, one with equal labels, one without any, one with no relevant item.
LABELS = [
    [2.0, 0.0, 1.0, NAN, 3.0],
    [NAN, 1.0, NAN, NAN, NAN],
    [1.0, 1.0, NAN, 1.0, NAN],
    [NAN, NAN, NAN, NAN, -1.0],
    [0.0, 0.0, 0.0, 0.0, NAN],
    [0.0, 1.0, -1.0, NAN, 4.0],
]
SAMPLED = ("yeti_logistic_loss", "gumbel_approx_ndcg_loss", "coupled_rankdistil_loss")


def scores_like(labels, seed=0):
    return np.random.default_rng(seed).normal(size=np.shape(labels)).astype("float32")


def relevant(labels=LABELS):
    """The lists with distinct labels, some above 0: where TF-Ranking is deterministic."""
    return np.array([labels[0], labels[5]], "float32")


def make(key, **options):
    if key in ("yeti_logistic_loss", "gumbel_approx_ndcg_loss"):
        options = {"seed": 3, **options}
    return ranking.loss(key, **options)


def expand(key, scores):
    """Scores as the loss takes them."""
    return scores[..., np.newaxis] if key == "ordinal_loss" else scores


def padded(labels):
    return np.where(np.isnan(labels), -1.0, labels).astype("float32")


# Loading


LOADING = """
import sys
import tfmtl
assert not [name for name in sys.modules if name.startswith("tensorflow_ranking")]
installed, sys.modules["tensorflow_ranking"] = None, None  # as if it were not installed
for use in (tfmtl.ranking.loss, tfmtl.ranking.metric):
    try:
        use({"loss": "softmax_loss", "metric": "ndcg"}[use.__name__])
    except ImportError as error:
        assert "pip install tensorflow-ranking==0.5." in str(error), error
    else:
        raise AssertionError(use)
del sys.modules["tensorflow_ranking"]
tfmtl.ranking.loss("softmax_loss")
"""


@pytest.mark.slow
def test_importing_tfmtl_does_not_import_it_and_its_absence_is_told():
    subprocess.run([sys.executable, "-W", "error::ImportWarning", "-c", LOADING], check=True)


def test_an_installed_one_that_is_hidden_is_missed(monkeypatch):
    compat.tensorflow_ranking.cache_clear()
    monkeypatch.setitem(sys.modules, "tensorflow_ranking", None)
    with pytest.raises(ImportError, match=r"pip install tensorflow-ranking==0\.5\.[35]$"):
        ranking.dataset(
            "x",
            examples={"a": tf.io.FixedLenFeature([], tf.int64, 0)},
            labels={"t": "l"},
            list_size=2,
            batch_size=1,
        )
    monkeypatch.undo()
    ranking.loss("softmax_loss")


@pytest.mark.skipif(not compat.KERAS_3, reason="TensorFlow 2.15 has the estimator")
def test_the_stand_in_is_nowhere_to_be_seen():
    assert not [n for n in sys.modules if n.startswith(("tensorflow_ranking", "tensorflow.est"))]
    assert not hasattr(tf, "estimator")
    for statement in (
        "import tensorflow.estimator",
        "from tensorflow import estimator",
        "import tensorflow_ranking",
    ):
        with pytest.raises(ImportError):
            exec(statement)
    for name in [n for n in sys.modules if n.startswith("tensorflow_ranking")]:
        del sys.modules[name]  # what the failed import left behind


# Losses


@pytest.mark.parametrize("key", sorted(losses.KINDS))
def test_sums_are_those_of_the_implementation(key):
    labels = relevant()
    scores = expand(key, scores_like(labels))
    ours = make(key)
    tf.random.set_seed(1)
    total, count = ours.sums(labels, scores)
    tf.random.set_seed(1)
    given, logits = tf.constant(padded(labels)), tf.constant(scores)
    lists = ours._lists
    if lists.sampler is not None:
        given, logits, _ = lists.sampler.sample(given, tf.where(given >= 0, logits, 0.0))
    if lists.virtual_label is not None:
        given = tf.pad(given, [[0, 0], [0, 1]], constant_values=lists.virtual_label)
        logits = tf.pad(logits, [[0, 0], [0, 1]])
    expected = lists.implementation.compute(given, logits, None, tf.compat.v1.losses.Reduction.SUM)
    np.testing.assert_allclose(total, expected / lists.samples, rtol=1e-5)
    assert count == len(labels)


def test_closed_forms():
    labels, scores = np.array([[2.0, 0.0, 1.0, NAN]]), np.array([[0.3, -0.2, 0.9, 5.0]])
    pairs = [(0, 1), (0, 2), (2, 1)]
    differences = [scores[0, i] - scores[0, j] for i, j in pairs]
    soft = np.exp(scores[0, :3]) / np.exp(scores[0, :3]).sum()
    virtual = np.exp(scores[0, :3]) / (1.0 + np.exp(scores[0, :3]).sum())
    expected = {
        "pairwise_logistic_loss": sum(math.log1p(math.exp(-d)) for d in differences),
        "pairwise_hinge_loss": sum(max(0.0, 1.0 - d) for d in differences),
        "softmax_loss": -2.0 * math.log(soft[0]) - math.log(soft[2]),
        "calibrated_softmax_loss": -2.0 * math.log(virtual[0]) - math.log(virtual[2]),
        "mean_squared_loss": ((labels - scores)[0, :3] ** 2).sum(),
    }
    for key, value in expected.items():
        total, count = ranking.loss(key).sums(labels, scores)
        np.testing.assert_allclose(total, value, rtol=1e-5, err_msg=key)
        assert count == 1.0
        pairs_or_items = 3.0  # what a list weighs, and the sum of labels for softmax
        np.testing.assert_allclose(
            ranking.loss(key).call(labels, scores), [value / pairs_or_items], rtol=1e-5, err_msg=key
        )


@pytest.mark.parametrize("weight", sorted(gains.OPTIONS))
def test_lambda_weights_reach_the_loss(weight):
    key = {"yeti_dcg": "yeti_logistic_loss", "list_mle": "list_mle_loss"}.get(
        weight, "pairwise_logistic_loss"
    )
    given = {"name": weight, "topn": 2} if "topn" in gains.OPTIONS[weight] else weight
    labels, scores = relevant(), scores_like(relevant())
    tf.random.set_seed(1)
    total, _ = make(key, lambda_weight=given).sums(labels, scores)
    other = None if weight != "yeti_dcg" else "yeti_dcg"
    tf.random.set_seed(1)
    plain, _ = make(key, lambda_weight=other).sums(labels, scores)
    assert np.isfinite(total) and abs(total - plain) > 1e-3


def test_the_ndcg_weight_is_what_a_swap_changes():
    # With smooth_fraction 1 it is LambdaMART's; TF-Ranking multiplies by the list size.
    labels, scores = np.array([[2.0, 0.0, 1.0]]), np.array([[0.1, 0.7, 0.4]])
    ranks = [3, 1, 2]

    def dcg(order):
        return sum((2 ** labels[0, i] - 1) / math.log2(1 + r) for i, r in enumerate(order))

    ideal = dcg([1, 3, 2])
    expected = 0.0
    for i, j in [(0, 1), (0, 2), (2, 1)]:
        swapped = list(ranks)
        swapped[i], swapped[j] = ranks[j], ranks[i]
        change = abs(dcg(swapped) - dcg(ranks)) / ideal
        expected += 3 * change * math.log1p(math.exp(scores[0, j] - scores[0, i]))
    loss = ranking.loss(
        "pairwise_logistic_loss", lambda_weight={"name": "ndcg", "smooth_fraction": 1.0}
    )
    np.testing.assert_allclose(loss.sums(labels, scores)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("key", sorted(losses.KINDS))
def test_finite_values_and_gradients_whatever_the_lists(key):
    labels = tf.constant(LABELS)
    scores = expand(key, scores_like(LABELS))
    present = np.array(LABELS) >= 0
    loss = make(key)

    @tf.function(jit_compile=compat.KERAS_3)
    def step(labels, scores):
        with tf.GradientTape() as tape:
            tape.watch(scores)
            total, count = loss.sums(labels, scores)
        return total, count, tape.gradient(total, scores)

    total, count, gradient = step(labels, tf.constant(scores))
    assert np.isfinite(total) and np.all(np.isfinite(gradient))
    assert np.any(gradient != 0.0)
    assert 1.0 <= count <= 5.0
    # Padding neither gets a gradient nor is read.
    hidden = expand(key, present)
    np.testing.assert_array_equal(np.asarray(gradient)[~hidden], 0.0)
    if key not in SAMPLED and key != "list_mle_loss":
        total, count, _ = step(labels, tf.constant(np.where(hidden, scores, NAN)))
        again = step(labels, tf.constant(scores))
        np.testing.assert_allclose(total, again[0])
        np.testing.assert_allclose(count, again[1])
    total, count, gradient = step(tf.gather(labels, [3] * 6), tf.constant(scores))
    assert total == 0.0 and count == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


def test_which_lists_count():
    scores = scores_like(LABELS)
    expected = {
        "pairwise_logistic_loss": 2,  # with a pair
        "pairwise_mse_loss": 4,  # with two labels
        "sigmoid_cross_entropy_loss": 5,  # with a label
        "softmax_loss": 4,  # with a label above 0
        "list_mle_loss": 4,
        "approx_ndcg_loss": 4,
    }
    for key, count in expected.items():
        assert ranking.loss(key).sums(LABELS, scores)[1] == count, key


def test_the_plain_keras_loss_is_the_mean_over_lists():
    scores = scores_like(LABELS)
    for key in ("pairwise_logistic_loss", "softmax_loss", "sigmoid_cross_entropy_loss"):
        values = ranking.loss(key).call(LABELS, scores)
        assert values.shape == (len(LABELS),) and values[3] == 0.0
        mean = ranking.loss(key)(tf.constant(LABELS), scores)
        np.testing.assert_allclose(mean, np.mean(values), rtol=1e-6)


@pytest.mark.parametrize("key", sorted(set(losses.KINDS) - set(SAMPLED)))
def test_weights_multiply_losses_and_not_counts(key):
    labels = np.array([*relevant(), LABELS[1]], "float32")
    scores = expand(key, scores_like(labels))
    loss = make(key)
    total, count = loss.sums(labels, scores)
    doubled, same = loss.sums(labels, scores, weights=np.full(labels.shape, 2.0))
    if key != "calibrated_softmax_loss":  # its virtual item keeps the weight 1
        np.testing.assert_allclose(doubled, 2.0 * total, rtol=1e-5)
    assert same == count
    first, same = loss.sums(labels, scores, weights=np.array([[1.0], [0.0], [0.0]]))
    alone, _ = loss.sums(labels[:1], scores[:1])
    np.testing.assert_allclose(first, alone, rtol=1e-4)
    assert same == count


@pytest.mark.parametrize("key", sorted(losses.KINDS))
def test_serialisation(key):
    options = {"temperature": 0.7} if "temperature" in losses.KINDS[key].options else {}
    lambda_weights = losses.KINDS[key].lambda_weights
    for lambda_weight in {None, *lambda_weights[-1:]}:
        if lambda_weight == "precision":
            lambda_weight = {"name": "precision", "topn": 2}
        loss = make(key, lambda_weight=lambda_weight, name="mine", **options)
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
        again = keras.saving.deserialize_keras_object(config)
        assert type(again) is ranking.RankingLoss and again.get_config() == loss.get_config()
        labels, scores = relevant(), expand(key, scores_like(relevant()))
        tf.random.set_seed(1)
        expected = loss.sums(labels, scores)
        tf.random.set_seed(1)
        np.testing.assert_allclose(again.sums(labels, scores), expected, rtol=1e-6)


def test_temperature_divides_scores():
    labels, scores = relevant(), scores_like(relevant())
    for key in ("pairwise_logistic_loss", "softmax_loss", "approx_ndcg_loss", "list_mle_loss"):
        sharp = ranking.loss(key, temperature=0.5).sums(labels, scores)[0]
        plain = ranking.loss(key, temperature=1.0).sums(labels, 2.0 * scores)[0]
        np.testing.assert_allclose(sharp, plain, rtol=1e-5, err_msg=key)


@needs_tfr_keras
@pytest.mark.parametrize("key", sorted(losses.KINDS))
def test_against_their_keras_losses(key):
    labels = relevant()
    scores = expand(key, scores_like(labels))
    options = {"seed": 3} if key in ("yeti_logistic_loss", "gumbel_approx_ndcg_loss") else {}
    theirs = tfr.keras.losses.get(key, **options)
    tf.random.set_seed(1)
    shown = np.where(expand(key, np.isnan(labels)), np.float32(0.0), scores)
    value = theirs(padded(labels), shown)
    tf.random.set_seed(1)
    total, _ = make(key).sums(labels, scores)
    pointwise = key in ("sigmoid_cross_entropy_loss", "mean_squared_loss", "ordinal_loss")
    size = labels.size if key.startswith(("pairwise", "yeti")) or pointwise else len(labels)
    np.testing.assert_allclose(total / size, value, rtol=1e-5)
    tf.random.set_seed(1)
    adopted, count = ranking.adopt(theirs).sums(labels, scores)
    np.testing.assert_allclose(adopted, total, rtol=1e-5)
    assert count == 2.0


@needs_tfr_keras
def test_their_lambda_weights_are_adopted_with_them():
    labels, scores = relevant(), scores_like(relevant())
    for name, theirs in {
        "ndcg": tfr.keras.losses.NDCGLambdaWeight(topn=2),
        "ndcg_v2": tfr.keras.losses.NDCGLambdaWeightV2(topn=2),
        "dcg": tfr.keras.losses.DCGLambdaWeight(topn=2),
        "precision": tfr.keras.losses.PrecisionLambdaWeight(topn=2),
    }.items():
        keys = ["pairwise_hinge_loss", *(["softmax_loss"] if name in ("ndcg", "dcg") else [])]
        for key in keys:
            adopted = ranking.adopt(tfr.keras.losses.get(key, lambda_weight=theirs))
            ours = ranking.loss(key, lambda_weight={"name": name, "topn": 2})
            np.testing.assert_allclose(
                adopted.sums(labels, scores), ours.sums(labels, scores), rtol=1e-6, err_msg=name
            )
    with pytest.raises(ValueError, match=r"must take padded lists\. Received: SoftmaxLoss"):
        ranking.adopt(tfr.keras.losses.SoftmaxLoss(ragged=True))


def test_other_losses_are_not_adopted():
    for other in (keras.losses.BinaryCrossentropy(), ranking.loss("softmax_loss"), "mse", None):
        assert ranking.adopt(other) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"key": "softmax"}, "`key` must be one of"),
        (
            {"key": "softmax_loss", "topk": 3},
            r"`options` of 'softmax_loss' must be some of \['temp",
        ),
        ({"key": "softmax_loss", "temperature": 0.0}, "`temperature` must be above 0. Received: 0"),
        ({"key": "yeti_logistic_loss", "sample_size": 0}, "`sample_size` must be an integer of"),
        ({"key": "calibrated_softmax_loss", "virtual_label": -1.0}, "`virtual_label` must be at"),
        (
            {"key": "softmax_loss", "lambda_weight": "precision"},
            r"must be one of \['dcg', 'ndcg'\]",
        ),
        ({"key": "mean_squared_loss", "lambda_weight": "dcg"}, "must be None. Received: 'dcg'"),
        ({"key": "softmax_loss", "lambda_weight": 3}, "must be a name, or a dict"),
        (
            {"key": "softmax_loss", "lambda_weight": {"name": "ndcg", "top": 3}},
            r"has the options \['topn', 'smooth_fraction'\]. Received: \['top'\]",
        ),
        (
            {"key": "pairwise_hinge_loss", "lambda_weight": "precision"},
            "needs an integer `topn` of at least 1. Received: None",
        ),
    ],
)
def test_bad_options_of_losses(arguments, message):
    with pytest.raises(ValueError, match=message):
        ranking.loss(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(4), np.zeros(4), np.zeros(4, "int32")), "not rows with `queries`"),
        ((np.zeros(4), np.zeros(4)), r"`labels` must have the shape \[batch, list\]"),
        ((np.zeros((4, 1)), np.zeros((4, 1))), "lists of at least two items"),
        ((np.zeros((4, 2)), np.zeros((4, 3))), r"`scores` must have the shape of `labels`, \(4, 2"),
        (
            (np.zeros((4, 2)), np.zeros((4, 2)), None, np.zeros(4)),
            r"or \[batch, 1\]. Received: \(4",
        ),
    ],
)
def test_bad_shapes_of_losses(arguments, message):
    with pytest.raises(ValueError, match=message):
        ranking.loss("softmax_loss").sums(*arguments)


# Metrics


def options_of(key):
    return [{}, {"topn": 2}] if "topn" in metrics.KINDS[key][1] else [{}]


METRICS = [(key, options) for key in sorted(metrics.KINDS) for options in options_of(key)]


@pytest.mark.parametrize(("key", "options"), METRICS, ids=str)
def test_metrics_are_the_implementation_s_weighted_mean(key, options):
    labels = np.array(LABELS)[[0, 1, 2, 4, 5]]
    metric = ranking.metric(key, **options)
    given = {"topn": None, **options} if "topn" in metrics.KINDS[key][1] else options
    direct = getattr(IMPL.metrics_impl, metrics.KINDS[key][0])(name=None, **given)
    weighted = np.zeros(2)
    for seed in range(2):
        scores = scores_like(labels, seed)
        metric.update_state(labels, scores)
        values, weights = direct.compute(padded(labels), scores)
        weighted += [np.sum(values * weights), np.sum(weights)]
    np.testing.assert_allclose(metric.result(), weighted[0] / weighted[1], rtol=1e-5)
    metric.reset_state()
    assert metric.result() == 0.0


def test_ndcg_in_plain_python():
    labels, scores = np.array(LABELS)[[0, 5]], scores_like(LABELS)[[0, 5]]
    expected = []
    for y, s in zip(labels, scores, strict=True):
        y, s = y[y >= 0], s[y >= 0]
        gain = 2.0 ** y[np.argsort(-s)][:2] - 1.0
        ideal = 2.0 ** np.sort(y)[::-1][:2] - 1.0
        discount = 1.0 / np.log2([2.0, 3.0])
        expected.append((gain * discount).sum() / (ideal * discount).sum())
    metric = ranking.metric("ndcg", topn=2)
    metric.update_state(labels, scores)
    np.testing.assert_allclose(metric.result(), np.mean(expected), rtol=1e-6)


@pytest.mark.parametrize("key", sorted(metrics.KINDS))
def test_three_signs_of_padding_are_one(key):
    labels, scores = np.array(LABELS), scores_like(LABELS)
    absent = ~(labels >= 0)
    results = []
    for given, weights in (
        (np.where(absent, NAN, labels), None),
        (np.where(absent, -1.0, labels), np.ones_like(labels)),
        (np.where(absent, 0.0, labels), np.where(absent, 0.0, 1.0)),
        (np.where(absent, 5.0, labels), np.where(absent, 0.0, 1.0)),
    ):
        metric = ranking.metric(key)
        metric.update_state(given, np.where(absent, 9.0, scores), sample_weight=weights)
        results.append(float(metric.result()))
    assert len(set(results)) == 1 and np.isfinite(results[0])
    metric = ranking.metric(key)
    metric.update_state(labels[[0, 5]], scores[[0, 5]])
    some = float(metric.result())
    metric.update_state(np.full((3, 5), NAN), np.zeros((3, 5)))
    assert float(metric.result()) == some


def test_list_weights():
    labels, scores = np.array(LABELS)[[0, 5]], scores_like(LABELS)[[0, 5]]
    single = []
    for i in range(2):
        metric = ranking.metric("map")
        metric.update_state(labels[i : i + 1], scores[i : i + 1])
        single.append(float(metric.result()))
    for weights in ([1.0, 3.0], [[1.0], [3.0]], [[1.0] * 5, [3.0] * 5]):
        metric = ranking.metric("map")
        metric.update_state(labels, scores, sample_weight=np.array(weights))
        np.testing.assert_allclose(metric.result(), (single[0] + 3 * single[1]) / 4, rtol=1e-6)


@needs_tfr_keras
@pytest.mark.parametrize(
    ("key", "options"), [each for each in METRICS if each[0] not in ("recall", "bpref")], ids=str
)
def test_against_their_keras_metrics(key, options):
    theirs = tfr.keras.metrics.get(key, **options)
    ours = ranking.metric(key, **options)
    labels = np.array(LABELS)[[0, 1, 2, 4, 5]]
    rng = np.random.default_rng(5)
    for seed, weighted in itertools.product(range(2), (False, True)):
        scores = scores_like(labels, seed)
        weights = rng.uniform(0.5, 2.0, labels.shape).astype("float32") if weighted else None
        theirs.update_state(padded(labels), scores, sample_weight=weights)
        ours.update_state(labels, scores, sample_weight=weights)
    np.testing.assert_allclose(ours.result(), theirs.result(), rtol=1e-5)


@pytest.mark.parametrize(("key", "options"), METRICS, ids=str)
def test_serialisation_of_metrics(key, options):
    if key == "bpref":
        options = {**options, "use_trec_version": False}
    metric = ranking.metric(key, **options)
    assert metric.name == (f"{key}_2" if "topn" in options else key)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(metric)))
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is ranking.RankingMetric and again.get_config() == metric.get_config()
    for each in (metric, again):
        each.update_state(relevant(), scores_like(relevant()))
    assert float(again.result()) == float(metric.result())


def test_metrics_and_losses_in_plain_keras():
    scorer = keras.Sequential(
        [keras.Input((5, 3)), keras.layers.Dense(1), keras.layers.Reshape((5,))]
    )
    scorer.compile("sgd", loss=ranking.loss("softmax_loss"), metrics=[ranking.metric("ndcg", 3)])
    x = np.random.default_rng(0).normal(size=(6, 5, 3)).astype("float32")
    logs = scorer.fit(x, np.array(LABELS, "float32"), verbose=0).history
    assert np.isfinite(logs["loss"][0]) and 0.0 < logs["ndcg_3"][0] <= 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"key": "auc"}, "`key` must be one of"),
        (
            {"key": "arp", "topn": 3},
            r"`options` of 'arp' must be some of \[\]. Received: \['topn'\]",
        ),
        ({"key": "ndcg", "topn": 0}, "`topn` must be None or an integer of at least 1"),
        ({"key": "ndcg", "use_trec_version": True}, "`options` of 'ndcg' must be some of"),
    ],
)
def test_bad_options_of_metrics(arguments, message):
    with pytest.raises(ValueError, match=message):
        ranking.metric(**arguments)


def test_bad_shapes_of_metrics():
    metric = ranking.metric("ndcg")
    for labels, scores in (([1.0], [1.0]), ([[1.0, 0.0]], [[1.0, 2.0, 3.0]])):
        with pytest.raises(ValueError, match="`y_true` and `y_pred` must both have the shape"):
            metric.update_state(labels, scores)
