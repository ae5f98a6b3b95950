"""Our embedding layer beside Keras' own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmtl
from tfmtl import compat, models

IDS = np.array([[3, 0, 5], [5, 5, 1]], "int32")


def pair(**options):
    """Keras' layer and ours with the same table of 7 rows of 4."""
    theirs, ours = keras.layers.Embedding(7, 4, **options), models.Embedding(7, 4, **options)
    theirs(IDS), ours(IDS)
    ours.set_weights(theirs.get_weights())
    return theirs, ours


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float32"])
@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 2, 3)])
def test_it_gives_what_keras_gives(dtype, shape):
    theirs, ours = pair()
    ids = tf.constant(IDS.reshape(shape).astype(dtype))
    np.testing.assert_array_equal(ours(ids).numpy(), theirs(ids).numpy())
    np.testing.assert_array_equal(tf.function(ours)(ids).numpy(), theirs(ids).numpy())


@pytest.mark.skipif(not compat.KERAS_3, reason="Keras 2.15 has no row before the first")
def test_ids_below_zero_count_from_the_end_as_in_keras():
    theirs, ours = pair()
    ids = tf.constant([-1, -7, 2])
    np.testing.assert_array_equal(ours(ids).numpy(), theirs(ids).numpy())


@pytest.mark.parametrize("in_graph", [False, True])
def test_the_gradient_is_that_of_the_rows(in_graph):
    theirs, ours = pair()
    found = {}
    factors = tf.reshape(tf.range(24.0), [2, 3, 4])

    for name, layer in (("theirs", theirs), ("ours", ours)):
        table = compat.tf_variable(layer.trainable_variables[0])

        def gradient(layer=layer, table=table):
            with tf.GradientTape() as tape:
                total = tf.reduce_sum(layer(IDS) * factors)
            return tape.gradient(total, table)

        found[name] = tf.function(gradient)() if in_graph else gradient()
    assert isinstance(found["ours"], tf.IndexedSlices)
    assert found["ours"].values.shape == (6, 4)
    np.testing.assert_array_equal(
        tf.convert_to_tensor(found["ours"]), tf.convert_to_tensor(found["theirs"])
    )


def test_masks_and_mixed_precision_are_keras_own():
    theirs, ours = pair(mask_zero=True, dtype="mixed_float16")
    assert ours.supports_masking
    np.testing.assert_array_equal(ours.compute_mask(IDS), theirs.compute_mask(IDS))
    assert ours(IDS).dtype == theirs(IDS).dtype == tf.float16
    assert compat.dtype_name(ours.trainable_variables[0]) == "float32"
    np.testing.assert_array_equal(ours(IDS).numpy(), theirs(IDS).numpy())


def make_net():
    ids = keras.Input((3,), dtype="int32")
    rows = models.Embedding(7, 4, mask_zero=True, embeddings_initializer="normal", name="rows")(ids)
    hidden = keras.layers.LSTM(5)(rows)  # reads the mask
    return keras.Model(ids, {"like": keras.layers.Dense(1, activation="sigmoid")(hidden)})


def test_a_model_with_it_trains_saves_and_loads(tmp_path):
    model = tfmtl.MultiTaskModel(make_net())
    model.compile("adam", loss={"like": "binary_crossentropy"})
    labels = {"like": np.array([1.0, 0.0], "float32")}
    first = model.fit(IDS, labels, verbose=0).history["loss"][0]
    last = model.fit(IDS, labels, epochs=30, verbose=0).history["loss"][-1]
    assert last < first
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.net.get_layer("rows"), models.Embedding)
    np.testing.assert_allclose(
        loaded.net(IDS)["like"].numpy(), model.net(IDS)["like"].numpy(), rtol=1e-6
    )


def test_its_configuration_is_keras_own():
    theirs, ours = pair(mask_zero=True, embeddings_regularizer="l2", name="rows")
    assert ours.get_config() == theirs.get_config()
    twin = models.Embedding.from_config(ours.get_config())
    assert twin.get_config() == ours.get_config()


@pytest.mark.skipif(not compat.KERAS_3, reason="Keras 3 has LoRA and quantised tables")
@pytest.mark.parametrize("kind", ["lora", "int8"])
def test_rows_that_are_more_than_the_tables_are_keras_own(kind):
    theirs, ours = pair()
    for layer in (theirs, ours):
        if kind == "lora":
            layer.enable_lora(2, a_initializer="ones", b_initializer="ones")
        else:
            layer.quantize("int8", type_check=False)
    assert not np.allclose(ours(IDS), np.zeros(4))
    np.testing.assert_array_equal(ours(IDS).numpy(), theirs(IDS).numpy())
