"""Lists of rows, the svmlight format and the loader of learning-to-rank data."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_svmlight_file

from tfmtl import data
from tfmtl.data import svmlight
from tfmtl.data.rows import Rows

# --- Rows.lists -------------------------------------------------------------------------------

#: Group 7 has rows 0, 2, 5; group 3 rows 1, 4; group 9 row 3.
GROUPS = [7, 3, 7, 9, 3, 7]


def grouped_rows(groups=GROUPS):
    n = len(groups)
    return Rows(
        {"item": np.arange(1, n + 1), "price": np.arange(1, n + 1) / 2},
        {"click": np.arange(n) % 2, "like": np.ones(n)},
        groups=np.asarray(groups),
    )


def items(dataset):
    """The items of each list of a pass, without padding."""
    return [
        [item for item in items if item] for x, _ in dataset for items in x["item"].numpy().tolist()
    ]


def test_lists_hold_the_rows_of_a_group_and_padding():
    dataset = grouped_rows().lists(2)
    assert len(dataset) == 2
    (x, y), (last, _) = dataset
    assert x["item"].numpy().tolist() == [[1, 3, 6], [2, 5, 0]]
    assert x["price"].numpy().tolist() == [[0.5, 1.5, 3.0], [1.0, 2.5, 0.0]]
    np.testing.assert_array_equal(y["click"], [[0, 0, 1], [1, 0, np.nan]])
    np.testing.assert_array_equal(y["like"], [[1, 1, 1], [1, 1, np.nan]])
    assert last["item"].numpy().tolist() == [[4, 0, 0]]
    assert [x["item"].dtype, x["price"].dtype, y["like"].dtype] == [
        tf.int32,
        tf.float32,
        tf.float32,
    ]


def test_lists_of_one_row_and_groups_of_strings():
    rows = grouped_rows(["b", "a", "c"])
    assert items(rows.lists(4)) == [[1], [2], [3]]
    assert rows.lists(4).element_spec[0]["item"].shape.as_list() == [None, 1]


@pytest.mark.parametrize("list_size", [2, 3, 5])
def test_every_list_is_of_one_width(list_size):
    dataset = grouped_rows().lists(2, list_size, drop_remainder=True)
    assert len(dataset) == 1
    ((x, y),) = dataset
    assert dataset.element_spec[0]["item"].shape.as_list() == [2, list_size]
    assert x["price"].shape == y["click"].shape == (2, list_size)
    assert [each for each in x["item"].numpy()[0].tolist() if each] == [1, 3, 6][:list_size]


def test_shuffled_lists_are_whole_and_repeat_with_the_seed():
    groups = np.repeat(np.arange(20), 3)
    dataset = grouped_rows(groups).lists(6, shuffle=True, seed=3)
    passes = [items(dataset) for _ in range(3)]
    whole = [[3 * i + 1, 3 * i + 2, 3 * i + 3] for i in range(20)]
    for each in passes:
        assert sorted(each) == whole
    assert passes[0] != passes[1] != passes[2] != passes[0]
    again = grouped_rows(groups).lists(6, shuffle=True, seed=3)
    assert [items(again) for _ in range(3)] == passes
    assert items(grouped_rows(groups).lists(6, shuffle=True, seed=4)) != passes[0]
    resumed = grouped_rows(groups).lists(6, shuffle=True, seed=3, first_epoch=1)
    iter(resumed)  # not read, so not a pass
    assert [items(resumed), items(resumed)] == passes[1:]


def test_long_lists_are_cut_to_their_first_rows_or_to_a_new_subset_in_each_pass():
    groups = [0] * 10 + [1] * 2
    assert items(grouped_rows(groups).lists(2, 4)) == [[1, 2, 3, 4], [11, 12]]
    dataset = grouped_rows(groups).lists(2, 4, shuffle=True, seed=0)
    seen, subsets = set(), set()
    for _ in range(20):
        for each in items(dataset):
            assert each == sorted(set(each))
            if len(each) == 2:
                assert each == [11, 12]
            else:
                assert len(each) == 4 and set(each) <= set(range(1, 11))
                subsets.add(tuple(each))
                seen |= set(each)
    assert seen == set(range(1, 11))
    assert len(subsets) > 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1. Received: 0"),
        ({"batch_size": 2, "list_size": 0}, "`list_size` must be at least 1 or None. Received: 0"),
        ({"batch_size": 4, "drop_remainder": True}, "number of lists.*Received: 4 for 3 lists"),
        ({"batch_size": 2, "first_epoch": -1}, "`first_epoch`.*Received: -1"),
    ],
)
def test_lists_reject(arguments, message):
    with pytest.raises(ValueError, match=message):
        grouped_rows().lists(**arguments)


def test_lists_need_groups():
    with pytest.raises(ValueError, match="`lists` needs `groups`"):
        Rows({"item": np.arange(3)}, {}).lists(2)
    with pytest.raises(ValueError, match="need at least one row"):
        grouped_rows([]).lists(2)


# --- The format -------------------------------------------------------------------------------

MQ2008 = """\
2 qid:10032 1:0.056537 2:0.000000 3:0.666667 46:0.07692 #docid = GX029-35-589463 inc = 0.0119 qid:9
0 qid:10032 1:0.279152 2:0.000000 3:0.000000 46:1.0000 #docid = GX030-77-631504 inc = 1 prob = 0.3
# a line for people

1 qid:10035 1:-1e-3 3:.5
"""


def write(file, text):
    content = text.encode()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    return file


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_svmlight_agrees_with_scikit_learn(tmp_path, name):
    read = svmlight.read(write(tmp_path / name, MQ2008))
    features, labels, queries = load_svmlight_file(str(tmp_path / name), query_id=True)
    np.testing.assert_allclose(read.features, features.toarray(), rtol=1e-6)
    assert read.features.shape == (3, 46)
    assert read.labels.tolist() == labels.tolist() == [2, 0, 1]
    assert read.queries.tolist() == queries.tolist() == [10032, 10032, 10035]


def test_svmlight_of_many_lines_whose_features_grow(tmp_path):
    n = 2500
    text = "".join(f"{i % 5} qid:{i // 7} {i // 100 + 1}:{i}\n" for i in range(n))
    read = svmlight.read(write(tmp_path / "a.txt", text))
    expected = np.zeros((n, 25))
    expected[np.arange(n), np.arange(n) // 100] = np.arange(n)
    np.testing.assert_array_equal(read.features, expected)
    np.testing.assert_array_equal(read.queries, np.arange(n) // 7)


def test_svmlight_takes_windows_line_ends_and_no_last_one(tmp_path):
    read = svmlight.read(write(tmp_path / "a.txt", "1 qid:1 1:2\r\n0 qid:1\r\n3 qid:2 2:5"))
    assert read.features.tolist() == [[2, 0], [0, 0], [0, 5]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2,3", "expected `label qid:query feature:value ...`. Received: '1,2,3'"),
        ("1 1:2 2:3", "expected `label qid:query"),
        ("qid:1 1:2", "expected `label qid:query"),
        ("1 qid:1 1:2:3 4", "expected `label qid:query"),
        ("1 qid:1 1:", "expected `label qid:query"),
        ("1 qid:1 a:2", "expected `label qid:query"),
        ("1 qid:1 -1:2", "expected `label qid:query"),
        ("1 qid:x 1:2", "expected `label qid:query"),
        ("good qid:1 1:2", "expected numbers as label and values"),
        ("1 qid:1 1:x", "expected numbers as label and values"),
        ("1 qid:1 1:nan", "expected finite numbers"),
        ("inf qid:1 1:2", "expected finite numbers"),
        ("1 qid:1 0:2", "expected features 1 to 3. Received: 0"),
        ("1 qid:1 4:2", "expected features 1 to 3. Received: 4"),
        ("1 qid:1 1:2 01:3", "a feature stands more than once"),
    ],
)
def test_svmlight_names_file_and_line(tmp_path, line, message):
    file = write(tmp_path / "bad.txt", f"1 qid:1 1:2 2:3\n# comment\n{line}\n")
    with pytest.raises(ValueError) as error:
        svmlight.read(file, 3)
    assert "bad.txt', line 3: " in str(error.value)
    assert message in str(error.value)


def test_svmlight_rejects_files_without_rows_and_broken_ones(tmp_path):
    with pytest.raises(ValueError, match=r"no row in '.*empty.txt'"):
        svmlight.read(write(tmp_path / "empty.txt", "\n# nothing\n"))
    file = write(tmp_path / "cut.txt.gz", MQ2008 * 500)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"cut short or broken.*cut.txt.gz"):
        svmlight.read(file)
    (tmp_path / "plain.txt.gz").write_text(MQ2008)
    with pytest.raises(ValueError, match=r"cut short or broken.*plain.txt.gz"):
        svmlight.read(tmp_path / "plain.txt.gz")


# --- The loader -------------------------------------------------------------------------------

LABELS = {"relevance": "label", "click": 4, "dwell": 5}


def text_of(queries, n_features=5, first=0):
    """Three documents a query; feature f of row i is f + i, clicks (4) and dwell times (5) too."""
    lines = []
    for q in queries:
        for d in range(3):
            i = first + len(lines)
            pairs = " ".join(f"{f}:{f + i}" for f in range(1, n_features + 1))
            lines.append(f"{d} qid:{q} {pairs}\n")
    return "".join(lines)


@pytest.fixture
def fold(tmp_path):
    folder = tmp_path / "Fold1"
    folder.mkdir()
    write(folder / "train.txt", text_of([3, 1]))
    write(folder / "vali.txt", text_of([8], first=10))
    write(folder / "test.txt", text_of([9, 9], first=20))
    return folder


def test_letor_reads_a_fold(fold):
    splits = data.letor(fold, labels=LABELS, exclude=[3])
    assert splits.tasks == ("relevance", "click", "dwell")
    assert splits.train.groups.tolist() == [3, 3, 3, 1, 1, 1]
    assert splits.validation.groups.tolist() == [8, 8, 8]
    # Label features and excluded ones are no inputs.
    assert splits.features.numeric == tuple(splits.train.columns) == ("feature_1", "feature_2")
    assert splits.train.labels["relevance"].tolist() == [0, 1, 2, 0, 1, 2]
    assert splits.train.labels["click"].tolist() == [4, 5, 6, 7, 8, 9]
    assert splits.test.labels["dwell"].tolist() == [25, 26, 27, 28, 29, 30]
    # Scales come from training rows alone.
    raw = np.arange(1, 7)
    assert splits.scales["feature_1"] == (raw.mean(), pytest.approx(raw.std()), False)
    np.testing.assert_allclose(
        splits.test.columns["feature_1"], (np.arange(21, 27) - raw.mean()) / raw.std(), rtol=1e-6
    )
    # A query that comes back is one list.
    ((x, _),) = splits.test.lists(4)
    assert x["feature_1"].shape == (1, 6)


def test_letor_without_the_other_tasks_keeps_their_features_out(fold):
    splits = data.letor(fold, labels=LABELS, tasks=["click"])
    assert list(splits.train.labels) == ["click"]
    assert list(splits.train.columns) == ["feature_1", "feature_2", "feature_3"]
    assert list(data.letor(fold).train.columns) == [f"feature_{i}" for i in range(1, 6)]


def test_letor_holds_training_queries_out_where_there_is_no_validation_file(tmp_path):
    write(tmp_path / "msn1.fold1.train.5k.txt.gz", text_of(range(10)))
    write(tmp_path / "msn1.fold1.test.5k.txt.gz", text_of([20]))
    splits = data.letor(tmp_path, validation_fraction=0.3, seed=1)
    train, held_out = set(splits.train.groups), set(splits.validation.groups)
    assert train | held_out == set(range(10)) and not train & held_out
    assert len(held_out) == 3
    assert len(splits.validation) == 9
    raw = np.concatenate([1 + 3 * q + np.arange(3) for q in sorted(train)])
    assert splits.scales["feature_1"].mean == pytest.approx(raw.mean())
    again = data.letor(tmp_path, validation_fraction=0.3, seed=1)
    assert set(again.validation.groups) == held_out
    others = [set(data.letor(tmp_path, seed=seed).validation.groups) for seed in range(5)]
    assert any(other != others[0] for other in others)


def test_letor_takes_files(fold):
    files = {
        "train": fold / "train.txt",
        "test": fold / "vali.txt",
        "validation": fold / "test.txt",
    }
    assert data.letor(files).test.groups.tolist() == [8, 8, 8]


def test_letor_logarithms(tmp_path):
    values = np.r_[np.arange(200.0) / 100, 1e6]
    text = "".join(f"1 qid:{i % 9} 1:{v} 2:{-v} 3:{v} 4:{i}\n" for i, v in enumerate(values))
    files = {part: write(tmp_path / f"{part}.txt", text) for part in ("train", "test")}
    files["validation"] = files["test"]
    by_default = data.letor(files).scales
    assert [by_default[f"feature_{i}"].log for i in (1, 2, 3, 4)] == [True, False, True, False]
    chosen = data.letor(files, log=[4]).scales
    assert [chosen[f"feature_{i}"].log for i in (1, 2, 3, 4)] == [False, False, False, True]
    labels = data.letor(files, labels={"a": 1, "b": 3}, log_labels=["b"]).train.labels
    np.testing.assert_allclose(labels["a"], values, rtol=1e-6)
    np.testing.assert_allclose(labels["b"], np.log1p(values), rtol=1e-6)
    with pytest.raises(ValueError, match=r"`log_labels`.*'a' with a label of -1000000"):
        data.letor(files, labels={"a": 2}, log_labels=["a"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": {"click": 0}}, r"`labels` must hold numbers of features, 1 to 5.*\[0\]"),
        ({"labels": {"click": 6}}, r"`labels` must hold numbers of features, 1 to 5.*\[6\]"),
        ({"labels": {"click": "4"}}, r"`labels\['click'\]` must be 'label' or .*Received: '4'"),
        ({"labels": {"click": True}}, r"`labels\['click'\]`.*Received: True"),
        ({"labels": {}}, r"`tasks` must name one or more"),
        ({"exclude": [9]}, r"`exclude` must hold.*\[9\]"),
        ({"exclude": [1, 2, 3, 4, 5]}, "leave no feature of 5"),
        ({"log": [7]}, r"`log` must hold.*\[7\]"),
        ({"tasks": ["buy"]}, r"`tasks` must name.*Received: \['buy'\]"),
        ({"log_labels": ["buy"]}, r"Received: \['buy'\]"),
        (
            {"validation_fraction": 1.0},
            r"`validation_fraction` must lie in \(0, 1\). Received: 1.0",
        ),
        ({"features": 4}, "train.txt', line 1: expected features 1 to 4. Received: 5"),
    ],
)
def test_letor_rejects(fold, arguments, message):
    with pytest.raises(ValueError, match=message):
        data.letor(fold, **arguments)


def test_letor_rejects_a_test_feature_that_training_rows_lack(fold):
    write(fold / "test.txt", text_of([9], n_features=6))
    with pytest.raises(
        ValueError, match=r"test.txt', line 1: expected features 1 to 5. Received: 6"
    ):
        data.letor(fold)
    assert len(data.letor(fold, features=6).test.columns) == 6


def test_letor_names_what_is_missing(fold, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`path` must be a folder.*no folder"):
        data.letor(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"files that do not exist: \['gone.txt'\]"):
        data.letor({"train": fold / "train.txt", "test": "gone.txt"})
    with pytest.raises(ValueError, match=r"must name parts of .*Received: \['vali'\]"):
        data.letor({"train": fold / "train.txt", "vali": fold / "vali.txt"})
    write(fold / "set2.train.txt", text_of([1]))
    with pytest.raises(
        ValueError, match=r"one file for 'train'.*\['set2.train.txt', 'train.txt'\]"
    ):
        data.letor(fold)
    (fold / "test.txt").unlink()
    (fold / "set2.train.txt").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"Missing: \['test'\].*\['train.txt', 'vali.txt'\]"
    ):
        data.letor(fold)


def test_letor_needs_a_query_to_hold_out(tmp_path):
    for part in ("train", "test"):
        write(tmp_path / f"{part}.txt", text_of([1]))
    with pytest.raises(ValueError, match="at least two training queries"):
        data.letor(tmp_path)
