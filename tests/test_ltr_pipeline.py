"""From a TFRecord file of lists to a served score, with several objectives on it."""

import functools
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmtl
from tests import elwc
from tfmtl import balancers, compat, losses, models, ranking

SERVE = """
import sys
sys.modules["tfmtl"] = sys.modules["keras"] = sys.modules["tensorflow_ranking"] = None
import numpy as np, tensorflow as tf
records = list(tf.data.TFRecordDataset(sys.argv[2]).as_numpy_iterator())
serve = tf.saved_model.load(sys.argv[1]).signatures["elwc"]
np.save(sys.argv[3], serve(serialized=tf.constant(records))["score"])
"""
SPECS = {
    "context": elwc.CONTEXT,
    "examples": {name: elwc.EXAMPLES[name] for name in ("item", "pair")},
}
FEATURES = tfmtl.FeatureSpec({"item": 12}, ["age"], width=4)


@pytest.fixture
def batches(tmp_path):
    """The file and a data set of its lists, four items a list."""
    elwc.write_elwc(tmp_path / "lists.tfrecord")
    found = ranking.dataset(
        str(tmp_path / "lists.tfrecord"),
        context=elwc.CONTEXT,
        examples=elwc.EXAMPLES,
        labels=elwc.LABELS,
        list_size=4,
        batch_size=3,
    )
    return tmp_path / "lists.tfrecord", found


def test_two_objectives_train_one_score_by_nmt_and_a_server_reads_elwc(batches, tmp_path):
    file, lists = batches
    model = tfmtl.MultiTaskModel(
        models.LTRTower(FEATURES, units=(8,), layout="lists", seed=1),
        outputs={"pay": "score", "click": "score"},
        layout="lists",
    )
    nmt = balancers.NMT(["pay", "click"], readings=1, patience=2)
    model.compile(
        keras.optimizers.Adam(0.05),
        loss={"pay": losses.PairwiseLogistic(), "click": ranking.loss("softmax_loss")},
        metrics={"pay": [ranking.metric("ndcg", topn=3), tfmtl.metrics.PairAccuracy()]},
        balancer=nmt,
    )
    history = model.fit(lists, validation_data=lists, epochs=10, verbose=0).history
    assert nmt.done
    assert min(history["pay_loss"]) < history["pay_loss"][0]
    assert {"pay_ndcg_3", "val_pay_pair_accuracy", "lambda_pay"} <= set(history)
    assert np.isfinite(history["pay_ndcg_3"]).all()
    parse = functools.partial(ranking.parse, **SPECS, list_size=4)
    model.export(str(tmp_path / "1"), parsers={"elwc": parse})
    command = [sys.executable, "-c", SERVE, tmp_path / "1", file, tmp_path / "scores.npy"]
    subprocess.run(command, check=True)
    expected = np.concatenate([np.array(model(x)["score"]) for x, _ in lists])
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), expected, atol=1e-5)
    with pytest.raises(ValueError, match="`parsers` must not name"):
        model.export(str(tmp_path / "2"), parsers={"serve": parse})


@pytest.mark.skipif(compat.KERAS_3, reason="tfr.keras needs Keras 2")
def test_a_model_of_tf_rankings_builder_is_a_backbone(batches, tmp_path):
    import tensorflow_ranking as tfr

    file, _ = batches
    lists = ranking.dataset(
        str(file),
        context=elwc.CONTEXT,
        examples=elwc.EXAMPLES,
        labels=elwc.LABELS,
        list_size=4,
        batch_size=3,
        mask="mask",
        repeat_context=False,
    )
    lists = lists.map(
        lambda x, y: ({"age": x["age"][:, None], "pair": x["pair"], "mask": x["mask"]}, y)
    )
    builder = tfr.keras.model.ModelBuilder(
        input_creator=tfr.keras.model.FeatureSpecInputCreator(
            elwc.CONTEXT, {"pair": elwc.EXAMPLES["pair"]}
        ),
        preprocessor=tfr.keras.model.PreprocessorWithSpec({}),
        scorer=tfr.keras.model.DNNScorer(hidden_layer_dims=[4], output_units=1),
        mask_feature_name="mask",
        name="tfr",
    )
    model = tfmtl.MultiTaskModel(
        builder.build(), outputs=dict.fromkeys(elwc.LABELS, "score"), layout="lists"
    )
    model.compile(
        "adam",
        loss={
            "pay": tfr.keras.losses.ApproxNDCGLoss(),
            "click": tfr.keras.losses.PairwiseLogisticLoss(),
        },
        metrics={"pay": [tfr.keras.metrics.NDCGMetric(topn=3, name="ndcg_3")]},
        balancer="MGDA",
    )
    history = model.fit(lists, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert 0 < history["pay_ndcg_3"][-1] <= 1
    assert len(model.shared_variables) == len(model.net.trainable_variables)
    assert tf.nest.flatten(model.predict(lists, verbose=0))[0].shape == (5, 4)
