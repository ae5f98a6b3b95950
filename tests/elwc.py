"""Small files in the formats of TF-Ranking, and what is in them."""

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import input_pb2

#: A query's age, and for each of its items an id, two numbers, words, and labels for two tasks.
QUERIES = [
    (31.0, [(3, (0.5, 1.0), ["a", "b"], 2.0, 1), (1, (0.25, 2.0), [], 0.0, 0)]),
    (47.0, [(2, (0.75, 3.0), ["c"], 1.0, 0)]),
    (
        19.0,
        [
            (4, (1.5, 4.0), ["a"], 0.0, 1),
            (5, (2.5, 5.0), ["b"], 3.0, None),
            (6, (3.5, 6.0), ["c"], 1.0, 0),
            (7, (4.5, 7.0), ["d"], -1.0, 1),
        ],
    ),
    (23.0, [(8, (5.5, 8.0), ["e"], 1.0, 1), (9, (6.5, 9.0), ["f"], 1.0, 1)]),
    (64.0, [(1, (0.5, 0.0), ["a"], 4.0, 1), (2, (0.5, 1.0), ["g"], 0.0, 0)]),
]
CONTEXT = {"age": tf.io.FixedLenFeature([1], tf.float32, default_value=0.0)}
EXAMPLES = {
    "item": tf.io.FixedLenFeature([1], tf.int64, default_value=0),
    "pair": tf.io.FixedLenFeature([2], tf.float32, default_value=[0.0, 0.0]),
    "click_label": tf.io.FixedLenFeature([1], tf.int64, default_value=-1),
}
#: "pay" is graded and stored as float, "click" is binary and stored as int64.
LABELS = {"pay": "pay_label", "click": "click_label"}


def feature(values):
    if isinstance(values[0] if values else "", str):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[v.encode() for v in values]))
    if isinstance(values[0], float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def item_features(item):
    number, pair, words, pay, click = item
    features = {
        "item": feature([number]),
        "pair": feature(list(pair)),
        "words": feature(words),
        "pay_label": feature([pay]),
    }
    return features if click is None else {**features, "click_label": feature([click])}


def example(features):
    return tf.train.Example(features=tf.train.Features(feature=features))


def elwc(age, items):
    return input_pb2.ExampleListWithContext(
        examples=[example(item_features(item)) for item in items],
        context=example({"age": feature([age])}),
    ).SerializeToString()


def sequence_example(age, items):
    columns: dict = {}
    for *others, click in items:
        # No value can be left out in a feature list.
        for name, value in item_features([*others, -1 if click is None else click]).items():
            columns.setdefault(name, []).append(value)
    lists = {name: tf.train.FeatureList(feature=values) for name, values in columns.items()}
    return tf.train.SequenceExample(
        context=tf.train.Features(feature={"age": feature([age])}),
        feature_lists=tf.train.FeatureLists(feature_list=lists),
    ).SerializeToString()


def example_in_example(age, items):
    serialized = [example(item_features(item)).SerializeToString() for item in items]
    return example(
        {
            "serialized_context": tf.train.Feature(
                bytes_list=tf.train.BytesList(
                    value=[example({"age": feature([age])}).SerializeToString()]
                )
            ),
            "serialized_examples": tf.train.Feature(
                bytes_list=tf.train.BytesList(value=serialized)
            ),
        }
    ).SerializeToString()


def tf_examples(age, items):
    """One Example an item."""
    return [
        example({"age": feature([age]), **item_features(item)}).SerializeToString()
        for item in items
    ]


def write(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return str(path)


def write_elwc(path, queries=QUERIES):
    return write(path, [elwc(*query) for query in queries])


def write_sequences(path, queries=QUERIES):
    return write(path, [sequence_example(*query) for query in queries])


def write_examples_in_examples(path, queries=QUERIES):
    return write(path, [example_in_example(*query) for query in queries])


def write_examples(path, queries=QUERIES):
    return write(path, [record for query in queries for record in tf_examples(*query)])


def expected(queries, list_size):
    """Columns and labels of a batch of queries, in plain Python."""
    n = len(queries)
    columns = {
        "age": np.zeros((n, list_size), "float32"),
        "item": np.zeros((n, list_size), "int64"),
        "pair": np.zeros((n, list_size, 2), "float32"),
    }
    labels = {task: np.full((n, list_size), np.nan, "float32") for task in LABELS}
    for q, (age, items) in enumerate(queries):
        columns["age"][q] = age
        for i, (number, pair, _, pay, click) in enumerate(items[:list_size]):
            columns["item"][q, i] = number
            columns["pair"][q, i] = pair
            labels["pay"][q, i] = pay if pay >= 0 else np.nan
            labels["click"][q, i] = np.nan if click is None else click
    return columns, labels
