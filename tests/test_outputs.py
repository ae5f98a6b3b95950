"""Several tasks on one output, lists of items, and rows with query ids."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmtl
from tests.test_balancers import EXAMPLES
from tfmtl import balancers, losses, metrics

TASKS = ("pay", "relevance")


class Score(keras.Model):
    """One score for each row ``[batch, 1]`` or item ``[batch, list]`` of a number."""

    def __init__(self, single=False, lists=False):
        super().__init__()
        self.hidden = keras.layers.Dense(4, activation="tanh")
        self.top = keras.layers.Dense(1)
        self.single, self.lists = single, lists

    def call(self, inputs):
        score = self.top(self.hidden(inputs["x"][..., None]))
        score = score[..., 0] if self.lists else score
        return score if self.single else {"score": score}


def lists(n=8, size=5, seed=0):
    """Padded lists: features and labels, the last places of some lists empty."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, size)).astype("float32")
    there = np.arange(size) < rng.integers(2, size + 1, n)[:, None]
    y = {
        "pay": (x + rng.normal(size=x.shape) > 0.5).astype("float32"),
        "relevance": np.clip(np.round(2 - x + rng.normal(size=x.shape)), 0, 4).astype("float32"),
    }
    return x, {task: np.where(there, each, np.nan) for task, each in y.items()}, there


def as_rows(x, y, there):
    """The same items as rows, with the list's number as query id."""
    ids = np.broadcast_to(np.arange(len(x))[:, None], x.shape)[there].astype("int32")
    return {"x": x[there], "query": ids}, {task: each[there] for task, each in y.items()}


def model_of(layout, loss=losses.PairwiseLogistic, seed=0, balancer=None, **options):
    keras.utils.set_random_seed(seed)
    net = Score(lists=layout == "lists")
    where = {"layout": "lists"} if layout == "lists" else {"queries": "query"}
    model = tfmtl.MultiTaskModel(net, outputs=dict.fromkeys(TASKS, "score"), **where)
    options = {"optimizer": keras.optimizers.SGD(0.1), **options}
    model.compile(loss={task: loss() for task in TASKS}, balancer=balancer, **options)
    return model


def test_all_variables_are_shared_and_every_task_pulls_on_the_score():
    x, y, _ = lists()
    model = model_of("lists")
    history = model.fit({"x": x}, y, batch_size=4, epochs=3, verbose=0).history
    assert len(model.shared_variables) == 4
    assert all(not variables for variables in model.task_variables.values())
    assert set(history) == {"loss", "pay_loss", "relevance_loss"}


def test_padded_lists_and_rows_with_queries_take_the_same_steps():
    x, y, there = lists()
    ends = []
    for layout, data in (("lists", ({"x": x}, y)), ("rows", as_rows(x, y, there))):
        model = model_of(
            layout,
            metrics={"pay": [metrics.NDCG(k=3)], "relevance": [metrics.PairAccuracy()]},
        )
        batch = tf.data.Dataset.from_tensors(data)
        history = model.fit(batch, epochs=4, verbose=0, validation_data=batch).history
        ends.append((model.net.get_weights(), history))
    for one, other in zip(*(end[0] for end in ends), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert ends[0][1].keys() == ends[1][1].keys() >= {"pay_ndcg_3", "val_relevance_pair_accuracy"}
    for name in ends[0][1]:
        np.testing.assert_allclose(ends[0][1][name], ends[1][1][name], rtol=1e-4, err_msg=name)


def test_the_loss_is_that_of_the_pairs_over_the_whole_batch():
    x, y, _ = lists()
    model = model_of("lists")
    scores = np.array(model({"x": x})["score"])
    found = model.evaluate({"x": x}, y, batch_size=len(x), verbose=0, return_dict=True)
    loss = losses.PairwiseLogistic()
    for task in TASKS:
        total, count = loss.sums(tf.constant(y[task]), tf.constant(scores))
        assert found[f"{task}_loss"] == pytest.approx(float(total / count), rel=1e-5)


@pytest.mark.parametrize("name", sorted(set(balancers.BALANCERS) - {"NMT", "FixedWeights"}))
def test_every_balancer_works_on_one_output(name):
    x, y, _ = lists(16)
    model = model_of(
        "lists",
        balancer=EXAMPLES[name](),
        optimizer=keras.optimizers.Adam(0.01),
        run_eagerly=True,
    )
    history = model.fit({"x": x}, y, batch_size=8, epochs=2, verbose=0).history
    assert all(np.isfinite(each).all() for each in model.net.get_weights())
    assert np.isfinite(history["loss"]).all()


def test_nmt_keeps_the_first_objective_of_a_score_that_all_pull_on(tmp_path):
    x, y, _ = lists(32)
    nmt = balancers.NMT(TASKS, readings=1, patience=3)
    model = model_of("lists", balancer=nmt, optimizer=keras.optimizers.Adam(0.02))
    model.fit({"x": x}, y, batch_size=8, epochs=12, validation_data=({"x": x}, y), verbose=0)
    assert nmt.done
    found = model.evaluate({"x": x}, y, batch_size=32, verbose=0, return_dict=True)
    base = nmt.baselines()["pay"]["loss"]
    assert found["pay_loss"] <= base + 0.05
    model.save(tmp_path / "model.keras")


def functional(lists_of=None):
    """A functional net of one tensor, on rows or on lists of a length."""
    shape = (1,) if lists_of is None else (lists_of, 1)
    inputs = keras.Input(shape, name="x")
    score = keras.layers.Dense(1)(keras.layers.Dense(3, activation="relu")(inputs))
    if lists_of is not None:
        score = keras.layers.Reshape((lists_of,))(score)
    return keras.Model(inputs, score)


def test_a_single_output_is_called_score_and_saved_with_its_tasks(tmp_path):
    x, y, _ = lists()
    x = x[..., None]
    model = tfmtl.MultiTaskModel(
        functional(5), outputs=dict.fromkeys(TASKS, "score"), layout="lists"
    )
    loss = {"pay": losses.PairwiseLogistic(), "relevance": losses.PairwiseHinge(margin=1.0)}
    model.compile("adam", loss, balancer="MGDA")
    model.fit(x, y, batch_size=4, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.layout == "lists"
    for each in (model, again):
        each.fit(x, y, batch_size=4, verbose=0, shuffle=False)
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_losses_of_single_items_count_them_apart_from_padding():
    """On lists a row-wise loss is the mean over the items that are there, as on rows."""
    x, y, there = lists()
    y = {task: np.where(np.isnan(each), -1, each) for task, each in y.items()}  # as TF-Ranking
    rows = as_rows(x, y, there)
    found = []
    for layout, data in (("lists", ({"x": x}, y)), ("rows", rows)):
        model = model_of(layout, loss=keras.losses.MeanSquaredError, metrics={"pay": ["mae"]})
        batch = tf.data.Dataset.from_tensors(data)
        found.append(model.evaluate(batch, verbose=0, return_dict=True))
        reading = model.fit(batch, epochs=1, verbose=0)
    assert found[0].keys() == found[1].keys()
    for name in found[0]:
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-5)
    assert reading.history["loss"]


def test_sample_weights_of_items_and_lists_multiply_the_losses():
    x, y, _ = lists()
    model = model_of("lists", loss=keras.losses.MeanSquaredError)
    plain = model.evaluate({"x": x}, y, batch_size=8, verbose=0, return_dict=True)
    for weight in (np.full(8, 2.0, "float32"), np.full(x.shape, 2.0, "float32")):
        weights = dict.fromkeys(TASKS, weight)
        found = model.evaluate(
            {"x": x}, y, batch_size=8, sample_weight=weights, verbose=0, return_dict=True
        )
        assert found["loss"] == pytest.approx(2 * plain["loss"], rel=1e-5)


def test_query_ids_may_come_with_the_labels():
    x, y, there = lists()
    columns, labels = as_rows(x, y, there)
    ids = columns.pop("query")
    model = model_of("rows")
    model.fit(tf.data.Dataset.from_tensors((columns, {**labels, "query": ids})), verbose=0)


@pytest.mark.filterwarnings("ignore:Task .* had no label:RuntimeWarning")
def test_batches_without_a_pair_leave_the_weights_alone():
    x, y, _ = lists()
    y = {task: np.zeros_like(each) for task, each in y.items()}
    model = model_of("lists")
    model({"x": x})
    before = model.net.get_weights()
    history = model.fit({"x": x}, y, batch_size=4, verbose=0).history
    assert history["loss"] == [0.0]
    for one, other in zip(before, model.net.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tfmtl.MultiTaskModel(functional(), layout="table"), "`layout` must be"),
        (
            lambda: tfmtl.MultiTaskModel(functional(), layout="lists", queries="q"),
            "`queries` must be None",
        ),
        (
            lambda: tfmtl.MultiTaskModel(functional(), outputs={"pay": "top"}),
            r"`outputs` must name outputs .*\['score'\].*\['top'\]",
        ),
        (
            lambda: tfmtl.MultiTaskModel(
                functional(), outputs=dict.fromkeys(TASKS, "score")
            ).compile("sgd", {"pay": "mse"}),
            r"`loss` must have every task that `outputs` names",
        ),
        (
            lambda: tfmtl.MultiTaskModel(functional(), outputs={"pay": "score"}).compile(
                "sgd", {"pay": losses.PairwiseLogistic()}
            ),
            "compares the items of a query",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_missing_queries_and_lists_of_another_shape_are_refused_before_training():
    x, y, there = lists()
    columns, labels = as_rows(x, y, there)
    del columns["query"]
    with pytest.raises(ValueError, match="`queries` must be a column"):
        model_of("rows").fit(tf.data.Dataset.from_tensors((columns, labels)), verbose=0)
    with pytest.raises(ValueError, match=r"task 'pay' must be \[batch, list\]"):
        model_of("lists").fit({"x": x}, {task: each[:, :3] for task, each in y.items()}, verbose=0)
