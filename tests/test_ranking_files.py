"""Reading what TF-Ranking reads: formats, damaged and foreign files, serving."""

import importlib
import itertools
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import elwc
from tfmtl import compat, ranking
from tfmtl.ranking import records

WRITERS = {
    "ELWC": elwc.write_elwc,
    "SEQ": elwc.write_sequences,
    "EIE": elwc.write_examples_in_examples,
    "TFExample": elwc.write_examples,
}
LISTS = ["ELWC", "SEQ", "EIE"]
MANY = elwc.QUERIES * 20


def read(path, data_format="ELWC", **options):
    options = {
        "context": elwc.CONTEXT,
        "examples": elwc.EXAMPLES,
        "labels": elwc.LABELS,
        "list_size": 1 if data_format == "TFExample" else 3,
        "batch_size": 2,
        **options,
    }
    return ranking.dataset(path, data_format=data_format, **options)


def assert_batch(batch, queries, list_size):
    columns, labels = batch
    expected_columns, expected_labels = elwc.expected(queries, list_size)
    for got, expected in ((columns, expected_columns), (labels, expected_labels)):
        assert set(got) == set(expected)
        for name, value in got.items():
            assert value.numpy().dtype == expected[name].dtype, name
            np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.parametrize("data_format", LISTS)
def test_lists_are_padded_and_cut(tmp_path, data_format):
    dataset = read(WRITERS[data_format](tmp_path / "a"), data_format)
    assert dataset.cardinality() == 3
    for _ in range(2):  # it can be read more than once
        batches = list(dataset)
        assert len(batches) == 3
        for i, batch in enumerate(batches):
            assert_batch(batch, elwc.QUERIES[2 * i : 2 * i + 2], 3)
    for part in tf.nest.flatten(dataset.element_spec):
        assert part.shape[:2].as_list() == [None, 3]


@pytest.mark.parametrize("data_format", LISTS)
def test_an_open_list_size_is_that_of_the_longest(tmp_path, data_format):
    dataset = read(WRITERS[data_format](tmp_path / "a"), data_format, list_size=None)
    for i, batch in enumerate(dataset):
        queries = elwc.QUERIES[2 * i : 2 * i + 2]
        assert_batch(batch, queries, max(len(items) for _, items in queries))


def test_an_example_is_an_item(tmp_path):
    items = [(age, [item]) for age, items in elwc.QUERIES for item in items]
    dataset = read(elwc.write_examples(tmp_path / "a"), "TFExample", batch_size=4)
    for i, batch in enumerate(dataset):
        assert_batch(batch, items[4 * i : 4 * i + 4], 1)


@pytest.mark.parametrize("data_format", WRITERS)
def test_features_of_varying_length(tmp_path, data_format):
    words = {**elwc.EXAMPLES, "words": tf.io.VarLenFeature(tf.string)}
    dataset = read(WRITERS[data_format](tmp_path / "a"), data_format, examples=words)
    columns, _ = next(iter(dataset))
    got = columns["words"].numpy().tolist()
    if data_format == "TFExample":
        assert got == [[[b"a", b"b"]], [[b"", b""]]]
    else:
        assert got == [
            [[b"a", b"b"], [b"", b""], [b"", b""]],
            [[b"c", b""], [b"", b""], [b"", b""]],
        ]


@pytest.mark.parametrize("data_format", WRITERS)
def test_several_ids_are_padded_as_pooled_columns_are(tmp_path, data_format):
    ids = {"click_label": tf.io.VarLenFeature(tf.int64), "item": elwc.EXAMPLES["item"]}
    path = WRITERS[data_format](tmp_path / "a")
    dataset = read(path, data_format, examples=ids, labels={"pay": "pay_label"}, batch_size=3)
    if data_format == "TFExample":
        dataset = dataset.skip(1).take(1)
        expected = [[[1]], [[-1]], [[0]]]
    else:
        expected = [[[1], [0], [-1]], [[0], [-1], [-1]], [[1], [-1], [0]]]
    columns, _ = next(iter(dataset))
    assert columns["click_label"].numpy().tolist() == expected


@pytest.mark.parametrize("data_format", LISTS)
def test_a_mask_and_context_as_it_is(tmp_path, data_format):
    path = WRITERS[data_format](tmp_path / "a")
    dataset = read(path, data_format, mask="is_item", repeat_context=False, batch_size=5)
    columns, _ = next(iter(dataset))
    lengths = np.array([len(items) for _, items in elwc.QUERIES])
    np.testing.assert_array_equal(columns["is_item"], np.arange(3) < lengths[:, np.newaxis])
    np.testing.assert_array_equal(columns["age"], [age for age, _ in elwc.QUERIES])


@pytest.mark.skipif(compat.KERAS_3, reason="their models need Keras 2")
def test_their_model_builder_takes_it(tmp_path):
    tfr = importlib.import_module("tensorflow_ranking")
    numbers = {"pair": elwc.EXAMPLES["pair"]}
    net = tfr.keras.model.ModelBuilder(
        input_creator=tfr.keras.model.FeatureSpecInputCreator(elwc.CONTEXT, numbers),
        preprocessor=tfr.keras.model.PreprocessorWithSpec(),
        scorer=tfr.keras.model.DNNScorer(hidden_layer_dims=[4], output_units=1),
        mask_feature_name="is_item",
        name="theirs",
    ).build()
    dataset = read(
        elwc.write_elwc(tmp_path / "a"),
        examples=numbers,
        labels={"score": "pay_label"},
        mask="is_item",
        repeat_context=False,
    )
    columns, labels = next(iter(dataset))
    with tf.GradientTape() as tape:
        scores = net(columns)
        total, count = ranking.loss("softmax_loss").sums(labels["score"], scores)
    assert scores.shape == (2, 3) and count == 2.0
    gradients = tape.gradient(total, net.trainable_variables)
    assert all(np.all(np.isfinite(each)) for each in gradients)


def test_padding_is_zero_whatever_the_default(tmp_path):
    examples = {
        "item": tf.io.FixedLenFeature([], tf.int64, 77),
        "absent": tf.io.FixedLenFeature([], tf.float32, 5.0),
    }
    columns, labels = next(
        iter(
            read(
                elwc.write_elwc(tmp_path / "a"),
                examples=examples,
                labels={"pay": "pay_label", "again": "pay_label"},
            )
        )
    )
    np.testing.assert_array_equal(columns["item"], [[3, 1, 0], [2, 0, 0]])
    np.testing.assert_array_equal(columns["absent"], [[5, 5, 0], [5, 0, 0]])
    np.testing.assert_array_equal(labels["pay"], labels["again"])


def test_labels_are_as_the_file_has_them(tmp_path):
    # With a default of 0 a missing label is 0, but padding still has none.
    examples = {**elwc.EXAMPLES, "click_label": tf.io.FixedLenFeature([1], tf.int64, 0)}
    batches = list(read(elwc.write_elwc(tmp_path / "a"), examples=examples, list_size=5))
    np.testing.assert_array_equal(batches[1][1]["click"][0], [1, 0, 0, 1, np.nan])


def ids(dataset):
    """The items of every list, in the order of a pass."""
    return [row.tolist() for columns, _ in dataset for row in columns["item"].numpy()]


def numbered(tmp_path, files=3, lists=20):
    for f in range(files):
        queries = [
            (1.0, [(1000 * f + i, (0.0, 0.0), [], 1.0, 1), (7, (0.0, 0.0), [], 0.0, 0)])
            for i in range(lists)
        ]
        elwc.write_elwc(tmp_path / f"part-{f}", queries)
    return str(tmp_path / "part-*")


def test_order(tmp_path):
    pattern = numbered(tmp_path)
    plain = ids(read(pattern))
    assert [row[0] for row in plain] == [1000 * f + i for f in range(3) for i in range(20)]
    shuffled = read(pattern, shuffle=True, seed=5)
    first, second = ids(shuffled), ids(shuffled)
    assert sorted(first) == sorted(second) == sorted(plain)
    assert first != second and first != plain
    again = read(pattern, shuffle=True, seed=5)
    assert [ids(again), ids(again)] == [first, second]
    assert ids(read(pattern, shuffle=True, seed=6)) != first
    small = ids(read(pattern, shuffle=True, seed=5, shuffle_buffer=2))
    assert sorted(small) == sorted(plain)
    # Files are read by turns, so that a small buffer mixes them.
    assert len({row[0] // 1000 for row in small[:8]}) == 3


def test_batches_and_remainder(tmp_path):
    pattern = numbered(tmp_path)
    assert [len(x["item"]) for x, _ in read(pattern, batch_size=25)] == [25, 25, 10]
    dataset = read(pattern, batch_size=25, drop_remainder=True)
    assert dataset.cardinality() == 2
    assert dataset.element_spec[1]["pay"].shape.as_list() == [25, 3]
    some = [tmp_path / "part-2", str(tmp_path / "part-0")]
    assert read(some, batch_size=40).cardinality() == 1
    with pytest.raises(ValueError, match="at least one batch of lists"):
        read(pattern, batch_size=61, drop_remainder=True)


def test_a_fixed_list_size_keeps_one_trace(tmp_path):
    dataset = read(elwc.write_elwc(tmp_path / "a"), drop_remainder=True)
    traces = []

    @tf.function
    def step(columns, labels):
        traces.append(1)
        return tf.reduce_sum(columns["age"])

    for batch in itertools.chain(dataset, dataset):
        step(*batch)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("written", "asked"), [(a, b) for a in WRITERS for b in WRITERS if a != b], ids=str
)
def test_another_format_is_told(tmp_path, written, asked):
    path = WRITERS[written](tmp_path / "lists.tfrecord")
    with pytest.raises(ValueError, match=rf"lists\.tfrecord'.* in the format '{asked}'"):
        read(path, asked)


def test_files_that_are_no_tfrecords(tmp_path):
    good = elwc.write_elwc(tmp_path / "good")
    for name, content in {
        "text.csv": b"a,b,c\n1,2,3\n" * 40,
        "zeros": bytes(400),
        "json": b'{"a": 1}' * 10,
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}' is not a TFRecord file, or is cut or dam"):
            read([good, str(tmp_path / name)])
    (tmp_path / "tiny").write_bytes(b"abc")
    with pytest.raises(ValueError, match="tiny' is cut short or damaged: 3 bytes follow record 0"):
        read(str(tmp_path / "tiny"))
    elwc.write(tmp_path / "garbage", [b"\xff\xfe no proto"])
    with pytest.raises(ValueError, match="garbage' cannot be read in the format 'ELWC'"):
        read(str(tmp_path / "garbage"))


def test_names_of_features_that_no_item_has(tmp_path):
    path = elwc.write_elwc(tmp_path / "a")
    with pytest.raises(ValueError, match=r"no item with any of the features \['itme', 'pay_lab"):
        read(
            path,
            examples={"itme": tf.io.FixedLenFeature([1], tf.int64, 0)},
            labels={"pay": "pay_labels"},
        )
    wrong = {"item": tf.io.FixedLenFeature([1], tf.float32, 0.0)}
    with pytest.raises(ValueError, match=r"a' cannot be read .* these features: .*item"):
        read(path, examples=wrong, labels={"pay": "pay_label"})


def test_a_cut_is_found_wherever_it_is(tmp_path):
    whole = pathlib.Path(elwc.write_elwc(tmp_path / "whole", MANY)).read_bytes()
    ends = [0]
    while ends[-1] < len(whole):
        ends.append(ends[-1] + 16 + int.from_bytes(whole[ends[-1] : ends[-1] + 8], "little"))
    assert records.count_records(str(tmp_path / "whole")) == len(ends) - 1 == len(MANY)
    places = {5, 11, 12, 40, len(whole) - 1, *(end + d for end in ends[50:54] for d in (-1, 1, 12))}
    cut = tmp_path / "cut"
    for place in sorted(places):
        cut.write_bytes(whole[:place])
        with pytest.raises(ValueError, match=r"cut' is (not a TFRecord file, or is cut|cut short)"):
            read(str(cut))
    cut.write_bytes(whole[: ends[70]])  # between two records it is a file of 70 lists
    assert read(str(cut), batch_size=1).cardinality() == 70


@pytest.mark.parametrize("shuffle", [False, True])
def test_damage_that_lengths_do_not_show_is_told_when_it_is_read(tmp_path, shuffle):
    content = bytearray(pathlib.Path(elwc.write_elwc(tmp_path / "a", MANY)).read_bytes())
    content[-20] ^= 1
    (tmp_path / "b").write_bytes(content)
    elwc.write_elwc(tmp_path / "c")
    dataset = read(str(tmp_path / "?"), shuffle=shuffle, seed=1)
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        list(dataset)
    for part in ("TFRecord file is damaged", f"lost in {tmp_path}/b"):
        assert part in raised.value.message


def test_a_file_that_is_cut_after_it_was_looked_through(tmp_path):
    path = pathlib.Path(elwc.write_elwc(tmp_path / "a", MANY))
    dataset = read(str(path))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(tf.errors.InvalidArgumentError, match="damaged"):
        list(dataset)


def test_empty_files_and_lists(tmp_path):
    elwc.write(tmp_path / "part-0", [])
    queries = [(1.0, []), *elwc.QUERIES]
    elwc.write_elwc(tmp_path / "part-1", queries)
    dataset = read(str(tmp_path / "part-*"), batch_size=6)
    assert_batch(next(iter(dataset)), queries, 3)
    blank = elwc.write(tmp_path / "blank", [b"", elwc.elwc(*elwc.QUERIES[0])])
    assert_batch(next(iter(read(blank))), [(0.0, []), elwc.QUERIES[0]], 3)
    with pytest.raises(ValueError, match="at least one batch of lists"):
        read(str(tmp_path / "part-0"))
    with pytest.raises(ValueError, match=r"`file_pattern` must match files\. Received: .*none"):
        read(str(tmp_path / "none-*"))
    with pytest.raises(ValueError, match="`file_pattern` must match files"):
        read([])


ITEM = {"item": tf.io.FixedLenFeature([1], tf.int64, 0)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_format": "elwc"}, "`data_format` must be one of"),
        ({"data_format": "TFExample"}, "`list_size` must be None or 1 in the format 'TFExample'"),
        ({"list_size": 0}, "`list_size` must be None or an integer of at least 1. Received: 0"),
        ({"batch_size": 0}, "`batch_size` must be an integer of at least 1. Received: 0"),
        ({"shuffle_buffer": 0}, "`shuffle_buffer` must be an integer of at least 1"),
        ({"labels": {}}, "`labels` must name the feature of at least one task"),
        ({"labels": ["pay_label"]}, "`labels` must be a dict {task: feature}"),
        ({"examples": [1]}, "`examples` must be a dict {feature: spec}"),
        ({"examples": {"item": tf.int64}}, r"`examples\['item'\]` must be a tf.io.FixedLenFeature"),
        ({"context": {"age": 1}}, r"`context\['age'\]` must be a tf.io.FixedLenFeature"),
        (
            {"examples": {"item": tf.io.FixedLenFeature([1], tf.int64)}},
            r"`examples\['item'\]` must have a `default_value` in the format 'ELWC'",
        ),
        ({"mask": "age"}, "`mask` must be the name of no other column. Received: 'age'"),
        ({"context": ITEM}, r"must be different features. Received: \['item'\]"),
        (
            {"examples": {**ITEM, "pay_label": tf.io.VarLenFeature(tf.float32)}},
            r"`labels\['pay'\]` must be a tf.io.FixedLenFeature of one number",
        ),
        (
            {"examples": {"click_label": elwc.EXAMPLES["click_label"]}, "context": {}},
            "`examples` must hold a feature that is not a label",
        ),
    ],
)
def test_bad_arguments(tmp_path, options, message):
    path = elwc.write_elwc(tmp_path / "a")
    options = {"list_size": 3, "examples": ITEM, **options}
    with pytest.raises(ValueError, match=message):
        read(path, **options)


def test_a_vector_default_of_a_sequence(tmp_path):
    path = elwc.write_sequences(tmp_path / "a")
    pair = {"pair": tf.io.FixedLenFeature([2], tf.float32, [0.0, 1.0])}
    with pytest.raises(ValueError, match=r"must have a `default_value` of 0 in the format 'SEQ'"):
        read(path, "SEQ", examples=pair)


@pytest.mark.parametrize("data_format", WRITERS)
def test_parse_in_a_signature(tmp_path, data_format):
    path = WRITERS[data_format](tmp_path / "a")
    examples = {name: spec for name, spec in elwc.EXAMPLES.items() if name != "click_label"}
    options = {"context": elwc.CONTEXT, "examples": examples, "data_format": data_format}
    size = 1 if data_format == "TFExample" else None
    archive = keras.export.ExportArchive()
    net = keras.Sequential([keras.Input((None, 2)), keras.layers.Dense(1)])
    archive.track(net)

    def serve(serialized):
        columns = ranking.parse(serialized, list_size=size, **options)
        return {"score": net(columns["pair"])[..., 0] + columns["age"], "item": columns["item"]}

    archive.add_endpoint(
        "serve", serve, input_signature=[tf.TensorSpec([None], tf.string, "lists")]
    )
    compat.write_archive(archive, str(tmp_path / "served"))
    served = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    everything = list(tf.data.TFRecordDataset(path).as_numpy_iterator())
    got = served(tf.constant(everything))
    options["examples"] = elwc.EXAMPLES
    batch = read(
        path,
        list_size=size,
        batch_size=len(everything),
        **{key: value for key, value in options.items() if key != "data_format"},
        data_format=data_format,
    )
    columns, _ = next(iter(batch))
    np.testing.assert_array_equal(got["item"], columns["item"])
    expected = net(columns["pair"])[..., 0] + columns["age"]
    np.testing.assert_allclose(got["score"], expected, rtol=1e-5)


def test_parse_checks_what_it_gets():
    for given in ("one", [1, 2]):
        with pytest.raises(ValueError, match="`serialized` must be strings of shape"):
            ranking.parse(given, examples=ITEM)
