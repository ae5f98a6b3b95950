"""Rows that stay in their files: blocks, vocabularies, order, lists and the loaders' formats."""

from __future__ import annotations

import gzip
import itertools
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmtl
from tfmtl import data
from tfmtl.data import blocks, stream
from tfmtl.data.aliccp import CATEGORICAL as ALICCP_IDS
from tfmtl.data.aliccp import NUMERIC as ALICCP_NUMBERS
from tfmtl.data.aliexpress import CATEGORICAL as ALIEXPRESS_IDS
from tfmtl.data.aliexpress import NUMERIC as ALIEXPRESS_NUMBERS
from tfmtl.data.encode import Encoder, Scale
from tfmtl.data.learning import Distinct, Lookup, Scaling

N = 400


def table(n=N, seed=0):
    """Rows of searches of 1 to 6 rows, as {column: [n]}."""
    rng = np.random.default_rng(seed)
    return {
        "search": np.repeat(rng.permutation(n) * 3, rng.integers(1, 7, n))[:n],
        "row": np.arange(n),
        "item": rng.integers(0, 31, n),
        "price": rng.gamma(1.0, 100.0, n).round(3),
        "click": rng.integers(0, 2, n),
        "like": rng.integers(0, 2, n),
    }


def write(file, columns, delimiter=",", header=True):
    lines = [delimiter.join(columns)] if header else []
    lines += [delimiter.join(map(str, row)) for row in zip(*columns.values())]
    file.write_text("\n".join(lines) + "\n")
    return file


def open_csv(path, **arguments):
    """The rows of `table`, in blocks of about 25 rows."""
    path = path if isinstance(path, dict) else {"train": path}
    return data.csv_files(
        path,
        **{
            "labels": {"click": "click", "like": "like"},
            "categorical": ["row", "item"],
            "numeric": ["price"],
            "groups": "search",
            "block_bytes": 512,
            "buffer_blocks": 4,
            **arguments,
        },
    )


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "train.csv", table())


@pytest.fixture
def everything(tmp_path, file):
    """All rows of the file as one stream, `row` as it stands in the file."""
    test = write(tmp_path / "test.csv", table(20, seed=1))
    parts = {"train": file, "validation": test, "test": test}
    return open_csv(parts, categorical={"row": N, "item": 31}).train


def order(dataset):
    """The rows of one pass, batch by batch; padding is left out by the missing label."""
    return [x["row"].numpy()[~np.isnan(y["like"].numpy())].tolist() for x, y in dataset]


def flat(batches):
    return [row for batch in batches for row in batch]


# --- Batches ----------------------------------------------------------------------------------


def test_batches_hold_columns_and_labels_of_the_same_rows(everything):
    columns = table()
    assert len(everything) == N
    for shuffle in (False, True):
        dataset = everything.batches(64, shuffle=shuffle, seed=0)
        assert len(dataset) == 7
        seen = []
        for x, y in dataset:
            assert list(x) == ["row", "item", "price"]
            assert [each.dtype for each in x.values()] == [tf.int32, tf.int32, tf.float32]
            rows = x["row"].numpy()
            seen += rows.tolist()
            np.testing.assert_array_equal(x["item"], columns["item"][rows])
            np.testing.assert_array_equal(y["click"], columns["click"][rows])
            np.testing.assert_array_equal(y["like"], columns["like"][rows])
            scale = Scale.learn(columns["price"])
            np.testing.assert_allclose(x["price"], scale(columns["price"][rows]), atol=1e-5)
        assert sorted(seen) == list(range(N))
        assert (seen == list(range(N))) is not shuffle


def test_batch_sizes(everything):
    assert [len(batch) for batch in order(everything.batches(150, shuffle=True))] == [150, 150, 100]
    dataset = everything.batches(150, drop_remainder=True)
    assert len(dataset) == len(order(dataset)) == 2
    assert dataset.element_spec[0]["price"].shape.as_list() == [150]
    assert [len(batch) for batch in order(everything.batches(N + 1))] == [N]


def test_passes_repeat_with_the_seed_and_resume(everything):
    dataset = everything.batches(32, shuffle=True, seed=3)
    passes = [order(dataset) for _ in range(3)]
    assert passes[0] != passes[1] != passes[2] != passes[0]
    keras.utils.set_random_seed(1)
    again = everything.batches(32, shuffle=True, seed=3)
    assert [order(again) for _ in range(3)] == passes
    assert order(everything.batches(32, shuffle=True, seed=4)) != passes[0]
    resumed = everything.batches(32, shuffle=True, seed=3, first_epoch=1)
    iter(resumed)  # not read, so not a pass
    assert [order(resumed) for _ in range(2)] == passes[1:]
    # A pass that is left early is a pass.
    left = everything.batches(32, shuffle=True, seed=3)
    next(iter(left))
    assert order(left) == passes[1]


def test_shuffling_mixes_far_parts_of_the_file_and_near_rows(everything):
    seen = flat(order(everything.batches(32, shuffle=True, seed=0)))
    # The first buffer holds four of some sixteen blocks, from anywhere.
    assert max(seen[:60]) - min(seen[:60]) > N / 2
    neighbours = np.mean(np.abs(np.diff(seen)) == 1)
    assert neighbours < 0.1


def test_the_last_blocks_are_not_read_before_they_are_needed(everything, monkeypatch):
    read = []
    original = blocks.Table.read
    monkeypatch.setattr(
        blocks.Table, "read", lambda self, block: read.append(block) or original(self, block)
    )
    n_blocks = len(everything.blocks)
    assert n_blocks > 12
    batches = iter(everything.buffers(np.random.default_rng(0)))
    assert sum(len(each.groups) for each in next(batches)) < N / 2
    batches.close()
    # The buffer that was given out and the one that is read ahead.
    assert len(read) <= 2 * everything.buffer_blocks < n_blocks


def test_rows_reads_everything(everything):
    rows = everything.rows()
    columns = table()
    assert isinstance(rows, data.Rows)
    np.testing.assert_array_equal(rows.columns["row"], columns["row"])
    np.testing.assert_array_equal(rows.labels["click"], columns["click"])
    np.testing.assert_array_equal(rows.groups, columns["search"])
    np.testing.assert_array_equal(
        flat(order(rows.batches(32))), flat(order(everything.batches(32)))
    )


def test_fit_takes_a_stream(file):
    splits = open_csv(file, categorical=["item"])
    net = tfmtl.models.MMoE(["click", "like"], splits.features, experts=2, expert_units=(4,))
    model = tfmtl.MultiTaskModel(net)
    model.compile(optimizer="sgd", loss=dict.fromkeys(net.tasks, "binary_crossentropy"))
    history = model.fit(
        splits.train.batches(64, shuffle=True, seed=0),
        epochs=2,
        validation_data=splits.validation.batches(64),
        verbose=0,
    )
    assert np.isfinite(history.history["val_loss"]).all()
    assert model.steps_taken == 2 * len(splits.train.batches(64))


# --- Lists ------------------------------------------------------------------------------------


def searches():
    """The rows of each search, in the file's order."""
    columns = table()
    runs = itertools.groupby(range(N), key=lambda row: columns["search"][row])
    return [list(rows) for _, rows in runs]


def lists(dataset):
    return [
        row[~np.isnan(label)].tolist()
        for x, y in dataset
        for row, label in zip(x["row"].numpy(), y["like"].numpy())
    ]


def test_lists_are_whole_searches_and_padding(everything):
    dataset = everything.lists(16)
    longest = max(map(len, searches()))
    assert dataset.element_spec[0]["item"].shape.as_list() == [None, longest]
    assert lists(dataset) == searches()
    assert len(dataset) == -(-len(searches()) // 16)
    for x, y in everything.lists(16, 8, shuffle=True, seed=0):
        assert x["item"].shape[1] == 8
        padding = np.isnan(y["like"].numpy())
        np.testing.assert_array_equal(padding, np.isnan(y["click"].numpy()))
        for name in x:
            assert not x[name].numpy()[padding].any()


def test_shuffled_lists_repeat_resume_and_lose_nothing(everything):
    dataset = everything.lists(7, shuffle=True, seed=5)
    passes = [lists(dataset) for _ in range(2)]
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(searches())
    assert passes[0] != passes[1]
    again = everything.lists(7, shuffle=True, seed=5, first_epoch=1)
    assert lists(again) == passes[1]


def test_long_lists_are_cut_to_their_first_rows_or_to_a_new_subset_in_each_pass(everything):
    assert lists(everything.lists(16, 2)) == [each[:2] for each in searches()]
    dataset = everything.lists(16, 2, shuffle=True, seed=0)
    passes = [{tuple(each) for each in lists(dataset)} for _ in range(3)]
    whole = [set(each) for each in searches()]
    for each in passes:
        assert len(each) == len(whole)
        for rows in each:
            assert list(rows) == sorted(set(rows))
            (of,) = [search for search in whole if rows[0] in search]
            assert set(rows) <= of and len(rows) == min(2, len(of))
    assert passes[0] != passes[1] != passes[2]


def test_a_search_longer_than_a_block_is_cut_and_no_row_is_lost(tmp_path):
    columns = {**table(), "search": np.repeat([1, 2, 3], [3, 300, 97])}
    file = write(tmp_path / "train.csv", columns)
    stream = open_csv(
        {"train": file, "validation": file, "test": file}, categorical={"row": N, "item": 31}
    ).train
    assert sorted(flat(order(stream.batches(64, shuffle=True)))) == list(range(N))
    # Pieces stay pieces, whichever blocks are neighbours: the counts hold in every order.
    for seed in range(5):
        dataset = stream.lists(4, shuffle=True, seed=seed)
        found = lists(dataset)
        assert sorted(flat(found)) == list(range(N))
        assert len(found) == stream.size.lists > 3


def test_lists_need_groups(file):
    stream = open_csv(file, groups=None).train
    with pytest.raises(ValueError, match="`lists` needs `groups`"):
        stream.lists(4)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("batches", {"batch_size": 0}, "`batch_size` must be at least 1. Received: 0"),
        ("batches", {"batch_size": 999, "drop_remainder": True}, "number of rows.*999 for 400"),
        ("batches", {"batch_size": 9, "first_epoch": -1}, "`first_epoch`.*Received: -1"),
        ("lists", {"batch_size": 9, "list_size": 0}, "`list_size`.*Received: 0"),
        ("lists", {"batch_size": 999, "drop_remainder": True}, "number of lists"),
    ],
)
def test_streams_reject(everything, method, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(everything, method)(**arguments)


# --- Splits -----------------------------------------------------------------------------------


def keys(part, name="row"):
    values = part.encoder.vocabularies[name]
    return [values[i] for i in part.rows().columns[name]]


def test_shares_are_disjoint_complete_and_of_whole_searches(file):
    splits = open_csv(file, categorical={"row": N, "item": 31}, validation_fraction=0.2)
    parts = [splits.train, splits.validation, splits.test]
    rows = [keys(part) for part in parts]
    assert sorted(flat(rows)) == list(range(N))
    assert [len(part) for part in parts] == [len(each) for each in rows]
    columns = table()
    held = [set(columns["search"][each]) for each in rows]
    assert not (held[0] & held[1] or held[0] & held[2] or held[1] & held[2])
    assert 0.1 * N < len(rows[1]) < 0.3 * N
    for part, groups in zip(parts, held):
        assert len(lists(part.lists(8))) == len(groups) == part.size.lists
    again = open_csv(file, categorical={"row": N, "item": 31}, validation_fraction=0.2)
    assert keys(again.test) == rows[2]
    other = open_csv(file, categorical={"row": N, "item": 31}, validation_fraction=0.2, seed=1)
    assert keys(other.test) != rows[2]


def test_shares_of_rows_do_not_depend_on_blocks(file):
    whole = {"categorical": {"row": N, "item": 31}, "groups": None}
    small, large = open_csv(file, **whole), open_csv(file, **whole, block_bytes=1 << 20)
    assert len(small.train.blocks) > 10 > len(large.train.blocks) == 1
    for part in ("train", "validation", "test"):
        assert keys(getattr(small, part)) == keys(getattr(large, part))


def test_the_hash_is_even():
    hashed = stream._hash(np.arange(100_000), seed=1)
    counts, _ = np.histogram(hashed, bins=20, range=(0, 1))
    assert counts.sum() == 100_000
    # Chi-squared with 19 degrees of freedom lies below 43.8 but for one seed in a thousand.
    assert ((counts - 5000) ** 2 / 5000).sum() < 43.8
    assert np.corrcoef(hashed, stream._hash(np.arange(100_000), seed=2))[0, 1] < 0.02


def test_vocabularies_and_scales_are_those_of_the_training_rows(file):
    splits = open_csv(file, log=["price"])
    columns = table()
    rows = np.asarray(keys(splits.train))
    assert splits.vocabularies["item"] == (None, *sorted(set(columns["item"][rows].tolist())))
    expected = Scale.learn(columns["price"][rows], log=True)
    np.testing.assert_allclose(splits.scales["price"][:2], expected[:2], rtol=1e-6)
    assert splits.scales["price"].log
    # A held-out row's own number was not met in training.
    assert set(splits.validation.rows().columns["row"]) == {0}
    assert splits.features.categorical["row"] == len(rows) + 1


# --- Learning ---------------------------------------------------------------------------------


def test_moments_of_parts_are_those_of_the_whole():
    values = np.random.default_rng(0).normal(1e4, 1.0, 1000)
    values[::50] = np.nan
    for log in (False, True):
        moments = Scaling(log)
        for part in np.array_split(values, 13):
            moments.add(part)
        moments.add(np.full(5, np.nan))
        np.testing.assert_allclose(moments.scale()[:2], Scale.learn(values, log)[:2], rtol=1e-9)
    assert Scaling().scale() == Scale.learn(np.asarray([np.nan]))
    constant = Scaling()
    constant.add(np.ones(4))
    assert constant.scale() == Scale.learn(np.ones(4))


def test_distinct_merges():
    rng = np.random.default_rng(0)
    parts = [rng.integers(-50_000, 200_000, 60_000) for _ in range(5)]
    distinct = Distinct()
    for part in parts:
        distinct.add(part)
    np.testing.assert_array_equal(distinct.values(), np.unique(np.concatenate(parts)))
    assert Distinct().values().tolist() == []


@pytest.mark.parametrize(
    "values", [[], [7], [-3, 0, 5], [1, 2, 3, 1000], [-(2**62), 0, 12, 2**62]], ids=str
)
def test_lookup_agrees_with_a_dict(values):
    vocabulary = (None, *values)
    asked = [-(2**63), -4, *values, *(value + 1 for value in values), 6, 2**63 - 1]
    table = {value: i for i, value in enumerate(vocabulary)}
    ids = Lookup(vocabulary)(np.asarray(asked, "int64"))
    assert ids.dtype == np.int32
    assert ids.tolist() == [table.get(value, 0) for value in asked]


def test_a_stream_encodes_as_the_encoder_of_frames_does(file):
    pd = pytest.importorskip("pandas")
    splits = open_csv(file)
    frame = pd.read_csv(file)
    expected = Encoder(splits.vocabularies, splits.scales).encode(frame)
    found = splits.train.rows()
    mask = np.isin(table()["row"], keys(splits.train))
    for name, values in found.columns.items():
        np.testing.assert_allclose(values, expected[name][mask], rtol=1e-4, atol=1e-5)


def test_missing_values(tmp_path):
    text = "item,price,click\n1,2,1\n\\N,,\n3,4,\\N\n"
    (tmp_path / "train.csv").write_text(text)
    part = data.csv_files(
        dict.fromkeys(("train", "validation", "test"), tmp_path / "train.csv"),
        labels={"click": "click"},
        categorical=["item"],
        numeric=["price"],
    ).train
    rows = part.rows()
    assert rows.columns["item"].tolist() == [1, 0, 2]
    assert rows.columns["price"].tolist() == [-1, 0, 1]
    np.testing.assert_array_equal(rows.labels["click"], [1, np.nan, np.nan])


# --- Bad input --------------------------------------------------------------------------------


def lines_of(file):
    return file.read_text().splitlines()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2,3,4,5", r"line 301: Expected 6 columns, got 5: 1,2,3,4,5"),
        ("1,2,3,4,5,6,7", r"line 301: Expected 6 columns, got 7"),
        ("1,2,x,4,5,6", r"line 301, column 'item': .*invalid value 'x'"),
        ("1,2,3.5,4,5,6", r"line 301, column 'item': .*invalid value '3.5'"),
        ("1,2,3,x,5,6", r"line 301, column 'price': .*invalid value 'x'"),
        ("1,2,3,4,yes,6", r"line 301, column 'click': .*invalid value 'yes'"),
        (",2,3,4,5,6", r"line 301: no value in column 'search'"),
        ("", r"line 301: an empty line"),
        ("1,2,31,4,5,6", r"line 301, column 'item': expected ids from 0 to 30. Received: 31"),
        ("1,2,-1,4,5,6", r"line 301, column 'item': expected ids from 0 to 30. Received: -1"),
    ],
)
@pytest.mark.parametrize("block_bytes", [512, 1 << 20])
def test_bad_lines_are_named(file, line, message, block_bytes):
    lines = lines_of(file)
    file.write_text("\n".join([*lines[:300], line, *lines[301:]]))
    with pytest.raises(ValueError, match=r"train.csv', " + message):
        open_csv(file, categorical={"row": N, "item": 31}, block_bytes=block_bytes)


def test_a_file_that_changes_later_is_an_error_that_names_the_line(file, everything):
    batches = everything.batches(N)
    lines = lines_of(file)
    # As long as it was, so that blocks still start where lines do.
    file.write_text("\n".join([*lines[:300], "x" * len(lines[300]), *lines[301:]]) + "\n")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"train.csv', line 301: Expected 6"):
        list(batches)


def test_lines_of_files_without_a_header_are_counted_from_1(tmp_path):
    file = write(tmp_path / "train.csv", table(), "\t", header=False)
    file.write_text("\n".join(["x" + lines_of(file)[0], *lines_of(file)[1:]]))
    with pytest.raises(ValueError, match=r"line 1, column 'search'"):
        open_csv(file, names=list(table()), delimiter="\t")


@pytest.mark.parametrize("end", ["", "\n", "\n\n\n", "\r\n"])
def test_ends_of_files(file, end):
    file.write_text("\n".join(lines_of(file)) + end)
    splits = open_csv(file)
    assert len(splits.train) + len(splits.validation) + len(splits.test) == N


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": {"a": "price"}}, r"inputs, or labels leak. Received: \{'a': 'price'\}"),
        ({"labels": {}}, "`labels` must name"),
        ({"numeric": ["item"]}, r"each column once. Received more than once: \['item'\]"),
        ({"log": ["item"]}, r"`log` must name columns of `numeric`. Received: \['item'\]"),
        ({"labels": {"a": "buy"}}, r"train.csv' without the columns \['buy'\].*'search', 'row'"),
        ({"groups": "user"}, r"without the columns \['user'\]"),
        ({"test_fraction": 0.0}, r"`test_fraction` must lie in \(0, 1\). Received: 0.0"),
        ({"test_fraction": 0.9}, "must leave rows to train on. Received: 0.1 and 0.9"),
        ({"test_fraction": 1e-9}, "`test` must hold at least one row"),
        ({"buffer_blocks": 0}, "`buffer_blocks` must be at least 1. Received: 0"),
    ],
)
def test_csv_files_rejects(file, arguments, message):
    with pytest.raises(ValueError, match=message):
        open_csv(file, **arguments)


def test_csv_files_rejects_files(tmp_path, file):
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match=r"files with rows. Received: .*empty.csv"):
        open_csv(tmp_path / "empty.csv")
    (tmp_path / "header.csv").write_text(",".join(table()) + "\n")
    with pytest.raises(ValueError, match="`train` must hold at least one row"):
        open_csv({"train": tmp_path / "header.csv", "validation": file, "test": file})
    (tmp_path / "train.csv.gz").write_bytes(gzip.compress(file.read_bytes()))
    with pytest.raises(ValueError, match=r"not compressed.*train.csv.gz"):
        open_csv(tmp_path / "train.csv.gz")
    with pytest.raises(FileNotFoundError, match=r"do not exist: \['gone.csv'\]"):
        open_csv(pathlib.Path("gone.csv"))


# --- Published formats ------------------------------------------------------------------------


def aliexpress_rows(n, first_search):
    columns = {"search_id": first_search + np.arange(n) // 2}
    columns |= {name: (np.arange(n) + i) % 4 for i, name in enumerate(ALIEXPRESS_IDS)}
    columns |= {name: np.arange(n) * 0.5 + i for i, name in enumerate(ALIEXPRESS_NUMBERS)}
    return columns | {"click": np.arange(n) % 2, "conversion": np.arange(n) % 4 // 3}


def test_aliexpress(tmp_path):
    folder = tmp_path / "AliExpress_NL"
    folder.mkdir()
    write(folder / "train.csv", aliexpress_rows(20, 1))
    write(folder / "test.csv", aliexpress_rows(4, 1))
    splits = data.aliexpress(tmp_path, "NL", validation_fraction=0.3)
    assert splits.tasks == ("click", "conversion")
    inputs = {*splits.features.categorical, *splits.features.numeric}
    assert len(splits.features.categorical) == 16 and len(splits.features.numeric) == 63
    assert not inputs & {"search_id", "click", "conversion"}
    assert set(splits.train.rows().columns) == inputs
    # Two rows a search, never apart.
    assert len(splits.train) + len(splits.validation) == 20
    for part in (splits.train, splits.validation, splits.test):
        assert part.size.longest == 2 and part.size.lists == len(part) / 2
    assert splits.test.rows().labels["click"].tolist() == [0, 1, 0, 1]
    assert splits.test.rows().labels["conversion"].tolist() == [0, 0, 0, 1]
    ((x, y),) = splits.test.lists(8)
    assert x["numerical_63"].shape == y["conversion"].shape == (2, 2)
    only = data.aliexpress(folder, tasks=["conversion"])
    assert list(only.test.rows().labels) == ["conversion"]
    assert "click" not in only.features.numeric


def test_aliexpress_names_what_is_wrong(tmp_path):
    rows = aliexpress_rows(20, 1)
    del rows["numerical_7"]
    write(tmp_path / "train.csv", rows)
    with pytest.raises(FileNotFoundError, match=r"Missing: \['test'\]"):
        data.aliexpress(tmp_path)
    write(tmp_path / "test.csv", aliexpress_rows(4, 1))
    with pytest.raises(ValueError, match=r"train.csv' without the columns \['numerical_7'\]"):
        data.aliexpress(tmp_path)
    with pytest.raises(ValueError, match=r"`country` must be one of.*Received: 'DE'"):
        data.aliexpress(tmp_path, "DE")
    with pytest.raises(FileNotFoundError, match="no folder"):
        data.aliexpress(tmp_path, "ES")
    with pytest.raises(ValueError, match=r"`tasks`.*Received: \['like'\]"):
        data.aliexpress(tmp_path, tasks=["like"])


def aliccp_rows(n):
    columns = {"click": np.arange(n) % 2, "purchase": np.arange(n) % 4 // 3}
    columns |= {name: (np.arange(n) + i) % 5 for i, name in enumerate(ALICCP_IDS)}
    return columns | {name: np.arange(n) * 0.25 for name in ALICCP_NUMBERS}


def test_aliccp(tmp_path):
    header = (
        "click,purchase,101,121,122,124,125,126,127,128,129,205,206,207,210,216,508,509,702,853,"
        "301,109_14,110_14,127_14,150_14,D109_14,D110_14,D127_14,D150_14,D508,D509,D702,D853"
    )
    assert list(aliccp_rows(1)) == header.split(",")
    write(tmp_path / "ali_ccp_train.csv", aliccp_rows(60))
    write(tmp_path / "ali_ccp_test.csv", aliccp_rows(4))
    splits = data.aliccp(tmp_path)
    assert len(splits.train) + len(splits.validation) == 60 and len(splits.test) == 4
    assert splits.test.rows().labels["purchase"].tolist() == [0, 0, 0, 1]
    inputs = {*splits.features.categorical, *splits.features.numeric}
    assert inputs == set(header.split(",")) - {"click", "purchase"}
    write(tmp_path / "ali_ccp_val.csv", aliccp_rows(8))
    splits = data.aliccp(tmp_path, tasks=["purchase"])
    assert [len(splits.train), len(splits.validation)] == [60, 8]


def test_tiktok(tmp_path):
    text = """\
37448	115	567569	44888	42	0	0	0	1699	43981	53085738314	9
8623	82	1209192	10098	106	0	1	0	-1	11996	53086444998	8
38008	-1	1209195	456237	11	1	0	1	56	18558	53085805030	9
"""
    file = tmp_path / "final_track1_train.txt"
    file.write_text(text * 10)
    splits = data.tiktok(file, validation_fraction=0.2, test_fraction=0.2, seed=2)
    parts = [part.rows() for part in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, parts)) == 30
    assert sum(part.labels["finish"].sum() for part in parts) == 10
    assert sum(part.labels["like"].sum() for part in parts) == 10
    inputs = "uid user_city item_id author_id item_city channel music_id did video_duration"
    assert set(parts[0].columns) == set(inputs.split())
    for part in parts:
        finished = part.labels["finish"] == 1
        users = np.asarray(splits.vocabularies["uid"], object)[part.columns["uid"]]
        assert set(users[finished]) == {8623}
    assert splits.vocabularies["music_id"] == (None, -1, 56, 1699)
    assert splits.scales["video_duration"].log


def test_qk_video(tmp_path):
    file = tmp_path / "QK-video.csv"
    header = "user_id,item_id,click,follow,like,share,video_category,watching_times,gender,age"
    rows = ["1,29,1,0,1,0,1,1,2,4", "1,30,0,0,0,0,0,0,2,4", "7,29,1,1,0,1,\\N,9,1,\\N"]
    file.write_text("\n".join([header, *rows * 20]))
    splits = data.qk_video(file, tasks=["like", "click", "share", "follow"], seed=1)
    parts = [part.rows() for part in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, parts)) == 60
    assert {task: sum(part.labels[task].sum() for part in parts) for task in splits.tasks} == {
        "like": 20,
        "click": 40,
        "share": 20,
        "follow": 20,
    }
    assert list(parts[0].columns) == ["user_id", "item_id", "video_category", "gender", "age"]
    assert splits.vocabularies["age"] == (None, 4)
    with pytest.raises(FileNotFoundError, match="`path` must be a file"):
        data.qk_video(tmp_path)
