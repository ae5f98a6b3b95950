"""Files that are cut, changed or foreign, and configurations that nobody wrote."""

import json
import re
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tfmtl
from tests.conftest import SPEC, make_model, make_net, make_rows
from tests.elwc import EXAMPLES, LABELS, QUERIES, elwc
from tfmtl import balancers, data, ranking

QUIET = settings(
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
#: Where in a file, as a part of its length.
places = st.floats(0, 0.999)


@st.composite
def damages(draw):
    """A function that cuts bytes off, or puts others in the place of some."""
    place = draw(places)
    if draw(st.booleans()):
        return lambda content: content[: int(place * len(content))]
    other = draw(st.binary(min_size=1, max_size=8))

    def change(content):
        start = int(place * len(content))
        return content[:start] + other + content[start + len(other) :]

    return change


@pytest.fixture(scope="module")
def trained():
    model = make_model(optimizer=keras.optimizers.Adam(0.01), jit_compile=False)
    rows = make_rows(32)
    model.fit(rows.columns, rows.labels, verbose=0)
    return model


def weights_of(model):
    return [each.copy() for each in model.net.get_weights()]


@QUIET
@given(place=places)
def test_weights_that_are_cut_short_are_refused_and_nothing_is_loaded(tmp_path, trained, place):
    trained.save_weights(tmp_path / "whole.weights.h5")
    content = (tmp_path / "whole.weights.h5").read_bytes()
    path = tmp_path / "cut.weights.h5"
    path.write_bytes(content[: int(place * len(content))])
    before = weights_of(trained)
    with pytest.raises(ValueError, match=re.escape(repr(str(path)))):
        trained.load_weights(path)
    for one, other in zip(before, weights_of(trained), strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_of_another_model_are_refused(tmp_path, trained):
    other = make_model(net=make_net(kind="SharedBottom"), jit_compile=False)
    other.save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(ValueError, match="`filepath` must be"):
        trained.load_weights(tmp_path / "other.weights.h5")
    with pytest.raises(FileNotFoundError):
        trained.load_weights(tmp_path / "none.weights.h5")


@QUIET
@given(damage=damages())
def test_a_damaged_model_raises_or_is_the_same(tmp_path, trained, damage):
    trained.save(tmp_path / "whole.keras")
    content = (tmp_path / "whole.keras").read_bytes()
    path = tmp_path / "damaged.keras"
    path.write_bytes(damage(content))
    try:
        loaded = keras.models.load_model(path)
    except Exception as error:
        assert str(error)
        return
    for one, other in zip(weights_of(trained), weights_of(loaded), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_file_that_holds_code_is_not_run(tmp_path):
    """Keras' safe mode stays on: neither a Lambda layer nor a foreign class comes from a file."""
    x = keras.Input((3,), name="x")
    hidden = keras.layers.Lambda(lambda t: 2 * t)(x)
    net = keras.Model({"x": x}, {"like": keras.layers.Dense(1, "sigmoid")(hidden)})
    model = make_model(("like",), net=net, jit_compile=False)
    model.save(tmp_path / "lambda.keras")
    with pytest.raises((ValueError, TypeError), match=r"(?i)lambda|deserializ"):
        keras.models.load_model(tmp_path / "lambda.keras")

    make_model(jit_compile=False).save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    config["config"]["net"] = {"module": "os", "class_name": "system", "config": {"command": "id"}}
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(tmp_path / "foreign.keras", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises((ValueError, TypeError)):
        keras.models.load_model(tmp_path / "foreign.keras")


LETOR = "".join(
    f"{i % 3} qid:{i // 4} 1:{i / 7:.3f} 2:{i % 5} 3:{-i}\n" for i in range(40)
).encode()


@QUIET
@given(damage=damages())
def test_damaged_svmlight_raises_with_its_file_or_is_read(tmp_path, damage):
    files = {part: tmp_path / f"{part}.txt" for part in ("train", "test")}
    files["test"].write_bytes(LETOR)
    files["train"].write_bytes(damage(LETOR))
    try:
        found = data.letor(files, validation_fraction=0.3)
    except ValueError as error:
        assert str(error)
        return
    for values in found.train.columns.values():
        assert np.isfinite(values).all()


TABLE = "user,item,age,like\n" + "".join(f"{i % 9},{i % 5},{i / 3},{i % 2}\n" for i in range(60))


@QUIET
@given(damage=damages())
def test_a_damaged_table_raises_or_is_read(tmp_path, damage):
    path = tmp_path / "train.csv"
    path.write_bytes(damage(TABLE.encode()))
    try:
        found = data.csv_files(
            {"train": path}, labels={"like": "like"}, categorical=["user", "item"], numeric=["age"]
        )
        for _ in found.train.batches(16):
            pass
    except ValueError as error:
        assert str(error)


@QUIET
@given(damage=damages())
def test_damaged_records_raise_with_their_file_or_are_read(tmp_path, damage):
    path = tmp_path / "train.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for age, items in QUERIES:
            writer.write(elwc(age, items))
    path.write_bytes(damage(path.read_bytes()))
    try:
        found = ranking.dataset(
            path, examples=EXAMPLES, labels=LABELS, list_size=None, batch_size=2
        )
        for _ in found:
            pass
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        assert str(path) in str(error) or "feature" in str(error).lower()


@pytest.mark.parametrize("name", sorted(balancers.BALANCERS))
@QUIET
@given(key=st.text("abcdefghij_", min_size=3, max_size=12), value=st.none() | st.integers())
def test_unknown_keys_of_a_configuration_are_errors(name, key, value):
    kind = balancers.BALANCERS[name]
    given_ = {"NMT": {"priority": ["a"]}, "FixedWeights": {"weights": {"a": 1.0}}}.get(name, {})
    config = kind(**given_).get_config()
    if key in config:
        return
    with pytest.raises((TypeError, ValueError), match=key):
        kind.from_config({**config, key: value})


@pytest.mark.parametrize("key", ["nets", "share", "on_non_finite", "trainable_"])
def test_unknown_keys_of_a_model_are_errors(key):
    net = make_net(kind="SharedBottom")
    for thing in (tfmtl.MultiTaskModel(net), net):
        config = thing.get_config()
        if key not in config:
            with pytest.raises((TypeError, ValueError), match=key):
                type(thing).from_config({**config, key: 1})
    with pytest.raises((TypeError, ValueError)):
        type(SPEC)(**{"categorical": {"a": 3}, key: 1})
