"""What is not finite, absent or runs away: steps that are skipped, limits, warnings, files."""

import contextlib
import os
import subprocess
import sys
import types
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmtl
from tests.conftest import make_model, make_net, make_rows
from tfmtl import balancers, callbacks, compat, files, optimizers
from tfmtl.balancers.base import WEIGHT_LIMIT
from tfmtl.files import write_csv

ALL = sorted(set(balancers.BALANCERS) - {"NMT", "FixedWeights"})


def batches_of(rows, order):
    """Batches of 8 rows, some of them, in an order."""
    parts = [rows.take(slice(8 * i, 8 * i + 8)) for i in order]
    columns = {n: np.concatenate([p.columns[n] for p in parts]) for n in rows.columns}
    labels = {n: np.concatenate([p.labels[n] for p in parts]) for n in rows.labels}
    return tf.data.Dataset.from_tensor_slices((columns, labels)).batch(8)


def state_of(model):
    variables = [*model.net.weights, *model.balancer.step_variables]
    return [np.array(tf.convert_to_tensor(each)) for each in variables]


def every_variable(model):
    """What training changes."""
    slots = compat.optimizer_variables(model.optimizer)
    return [*model.net.weights, *model.balancer.variables, model.progress, *slots]


@contextlib.contextmanager
def policy(name):
    """What layers made within compute in."""
    keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy("float32")


# --- Skipped steps ----------------------------------------------------------------------------


#: One for each way through a step; the others step eagerly, which is a third of the time.
IN_GRAPHS = ("AdaTask", "EMTL", "EqualWeights", "FAMO", "GradDrop", "MGDA", "PUB")


@pytest.mark.parametrize("name", ALL)
def test_a_skipped_step_has_not_been(name):
    rows = make_rows(40)
    rows.columns["age"][20] = np.inf  # in the third batch
    model = make_model(
        net=make_net(kind="SharedBottom"),
        balancer=balancers.BALANCERS[name](),
        optimizer=optimizers.LazyAdam(0.01),
        on_non_finite="skip",
        run_eagerly=name not in IN_GRAPHS,
    )
    variables = every_variable(model)
    first = [np.array(tf.convert_to_tensor(each)) for each in variables]
    ends = []
    for order in ([0, 1, 2, 3, 4], [0, 1, 3, 4]):
        for variable, value in zip(variables, first, strict=True):
            variable.assign(value)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            history = model.fit(batches_of(rows, order), verbose=0).history
        said = [str(each.message) for each in caught if each.category is RuntimeWarning]
        assert np.isfinite(history["loss"]).all()
        ends.append((state_of(model), history["skipped_steps"][-1], said, model.steps_taken))
    (skipped, count, said, steps), (without, none, nothing, _) = ends
    assert (count, none, steps) == (1, 0, 5)
    assert nothing == []
    assert len(said) == 1
    assert said[0].startswith("The loss of task 'like' is not finite, first at step 2.")
    for one, other in zip(skipped, without, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_without_being_told_to_skip_it_raises_and_the_balancer_is_the_last_good_one():
    rows = make_rows(24)
    rows.columns["age"][20] = np.inf
    model = make_model(balancer=balancers.Uncertainty(), net=make_net(kind="SharedBottom"))
    with pytest.raises(FloatingPointError, match="task 'like' is not finite at step 2"):
        model.fit(batches_of(rows, [0, 1, 2]), verbose=0)
    good = make_model(balancer=balancers.Uncertainty(), net=make_net(kind="SharedBottom"))
    good.fit(batches_of(rows, [0, 1]), verbose=0)
    for one, other in zip(state_of(model), state_of(good), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("executions", [1, 2])
def test_one_warning_for_each_task_and_a_label_out_of_its_domain_still_raises(executions):
    rows = make_rows(40)
    rows.columns["age"][[3, 12, 20]] = np.inf
    options = {"on_non_finite": "skip", "steps_per_execution": executions}
    with pytest.warns(RuntimeWarning) as caught:
        model = make_model(net=make_net(kind="SharedBottom"), **options)
        history = model.fit(batches_of(rows, [0, 1, 2, 3]), verbose=0).history
    assert [str(each.message)[:20] for each in caught] == ["The loss of task 'li"]
    assert history["skipped_steps"] == [3]
    rows.labels["click"][33] = 7.0
    with pytest.raises(ValueError, match=r"task 'click' must lie in \[0, 1\]"):
        model.fit(batches_of(rows, [3, 4]), verbose=0)


def test_the_option_is_checked_and_saved(tmp_path):
    with pytest.raises(ValueError, match="`on_non_finite` must be 'raise' or 'skip'"):
        make_model(on_non_finite="ignore")
    make_model(on_non_finite="skip").save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").on_non_finite == "skip"


@pytest.mark.parametrize("name", ["EqualWeights", "MGDA", "NashMTL", "PUB", "AdaTask", "EMTL"])
def test_under_float16_an_overflow_skips_the_step_is_counted_and_lowers_the_scale(name):
    with policy("mixed_float16"):
        model = make_model(
            net=make_net(kind="SharedBottom"),
            balancer=balancers.BALANCERS[name](),
            optimizer=keras.optimizers.Adam(0.01),
        )
    assert type(model.optimizer).__name__.startswith("LossScaleOptimizer")
    rows = make_rows(32)
    # A loss weight that float16 has no room for once it is scaled by 2**15.
    weights = np.ones(32, "float32")
    weights[8:16] = 1e6
    start = [each.copy() for each in model.net.get_weights()]
    history = model.fit(
        tf.data.Dataset.from_tensor_slices(
            (rows.columns, rows.labels, dict.fromkeys(rows.labels, weights))
        ).batch(8),
        verbose=0,
    ).history
    assert history["skipped_steps"] == [1]
    moved = [np.abs(a - b).max() for a, b in zip(start, model.net.get_weights(), strict=True)]
    assert 0 < max(moved) < 0.1
    for each in state_of(model):
        assert np.isfinite(each).all()


@pytest.mark.parametrize("name", ["EqualWeights", "MGDA", "NashMTL", "PUB", "EMTL"])
def test_under_bfloat16_every_balancer_trains(name):
    with policy("mixed_bfloat16"):
        model = make_model(balancer=balancers.BALANCERS[name]())
    rows = make_rows(64)
    model.fit(rows.columns, rows.labels, epochs=2, verbose=0)
    for each in state_of(model):
        assert np.isfinite(each).all()


# --- Limits and absent tasks ------------------------------------------------------------------


def test_an_exploding_weight_is_limited_and_named_once():
    rows = make_rows(32)
    weights = {"like": np.full(32, 1e-15, "float32"), "click": np.ones(32, "float32")}
    model = make_model(net=make_net(kind="SharedBottom"), balancer=balancers.NashMTL(None))
    with pytest.warns(RuntimeWarning, match="weight of task 'like' has reached") as caught:
        model.fit(rows.columns, rows.labels, sample_weight=weights, epochs=3, verbose=0)
    assert len(caught) == 1
    assert np.abs(model.balancer.last().numpy()).max() <= WEIGHT_LIMIT
    for each in state_of(model):
        assert np.isfinite(each).all()


def test_a_multiplier_that_runs_away_is_limited_and_named_once():
    rows = make_rows(64)
    model = make_model(
        net=make_net(kind="SharedBottom"),
        balancer=balancers.NMT(["like", "click"], "paper", multiplier_rate=1e12, patience=100),
        optimizer=keras.optimizers.SGD(0.5),
    )
    train = rows.batches(8)
    with pytest.warns(RuntimeWarning, match="multiplier of task 'like' has reached") as caught:
        model.fit(train, validation_data=train, epochs=6, verbose=0)
    assert len(caught) == 1
    for each in state_of(model):
        assert np.isfinite(each).all()


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("name", ["EqualWeights", "NashMTL", "PUB", "DWA"])
def test_a_task_without_any_label_is_named_once_and_the_other_trains(name, validated):
    rows = make_rows(64)
    held_out = rows.batches(64) if validated else None
    labels = {**rows.labels, "like": np.full(64, np.nan, "float32")}
    model = make_model(net=make_net(kind="SharedBottom"), balancer=balancers.BALANCERS[name]())
    start = [each.copy() for each in model.net.get_weights()]
    with pytest.warns(RuntimeWarning, match="Task 'like' had no label") as caught:
        model.fit(
            rows.columns, labels, epochs=2, batch_size=16, verbose=0, validation_data=held_out
        )
    assert len(caught) == 1
    moved = [np.abs(a - b).max() for a, b in zip(start, model.net.get_weights(), strict=True)]
    assert max(moved) > 0
    for each in state_of(model):
        assert np.isfinite(each).all()


# --- Backups ----------------------------------------------------------------------------------


class Stop(Exception):
    pass


def stop_in(epoch):
    def raise_in(number, logs=None):
        if number == epoch:
            raise Stop

    return keras.callbacks.LambdaCallback(on_epoch_begin=raise_in)


def staged():
    return make_model(
        net=make_net(kind="SharedBottom"),
        balancer=balancers.NMT(["like", "click"], patience=100, inner=balancers.MGDA(3)),
        optimizer=optimizers.LazyAdam(0.01),
        jit_compile=False,
    )


def train(model, callbacks=None, epochs=6):
    rows = make_rows(80)
    return model.fit(
        rows.batches(8, shuffle=True, seed=3),
        validation_data=rows.batches(80),
        epochs=epochs,
        verbose=0,
        callbacks=callbacks,
    ).history


@pytest.fixture(scope="module")
def unbroken():
    """What six epochs without a break leave: the model and its history."""
    keras.utils.set_random_seed(0)
    model = staged()
    return model, train(model)


@pytest.mark.parametrize(
    ("kind", "epoch"),
    [
        (callbacks.BackupAndRestore, 1),
        (callbacks.BackupAndRestore, 4),
        (keras.callbacks.BackupAndRestore, 4),
    ],
    ids=["in the first stage", "in the second", "Keras' own"],
)
def test_a_backup_holds_everything(tmp_path, unbroken, kind, epoch):
    whole, expected = unbroken
    backup = str(tmp_path / "backup")
    with pytest.raises(Stop):
        train(staged(), [kind(backup), stop_in(epoch)])
    again = staged()
    history = train(again, [kind(backup)])
    assert len(history["loss"]) == 6 - epoch
    for name, values in history.items():
        np.testing.assert_allclose(values, expected[name][epoch:], rtol=1e-6, err_msg=name)
    for one, other in zip(state_of(again), state_of(whole), strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.steps_taken == whole.steps_taken
    if kind is callbacks.BackupAndRestore:
        assert os.listdir(backup) == []
        assert len(train(again, epochs=2)["loss"]) == 2


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_a_checkpoint_goes_on_as_if_it_had_never_been_written(tmp_path, name):
    rows = make_rows(80)
    path = str(tmp_path / name)
    options = {"validation_data": rows.batches(80), "verbose": 0}
    saving = keras.callbacks.ModelCheckpoint(path, save_weights_only=name.endswith("h5"))
    first = staged()
    first.fit(rows.batches(8), epochs=3, callbacks=[saving], **options)
    if name.endswith("h5"):
        again = staged()
        again.load_weights(path)
    else:
        again = keras.models.load_model(path)
    for one, other in zip(state_of(again), state_of(first), strict=True):
        np.testing.assert_array_equal(one, other)
    for model in (first, again):
        model.fit(rows.batches(8), epochs=2, **options)
    for one, other in zip(state_of(again), state_of(first), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_backup_needs_a_path_and_one_of_this_model(tmp_path):
    with pytest.raises(ValueError, match="`backup_dir` must be the path of a folder"):
        callbacks.BackupAndRestore("")
    (tmp_path / "epoch-00003.weights.h5").write_bytes(b"not a file of weights")
    rows = make_rows(8)
    with pytest.raises(ValueError, match=r"`filepath` must be a whole file.*epoch-00003"):
        make_model().fit(
            rows.columns, rows.labels, verbose=0, callbacks=[callbacks.BackupAndRestore(tmp_path)]
        )


# --- Files ------------------------------------------------------------------------------------

FULL_DISK = """
import pathlib, resource, signal, sys
from tests.conftest import make_model
from tfmtl.files import write_csv

folder, action = pathlib.Path(sys.argv[1]), sys.argv[2]
model = make_model(jit_compile=False)
model.net.set_weights([w + 1 for w in model.net.get_weights()])
# As a full disk does, the system ends a file here.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
if action == "table.csv":
    write_csv(folder / action, [{"a": "x" * 10_000}] * 100)
elif action == "serving":
    model.export(folder / action)
elif action.endswith(".h5"):
    model.save_weights(folder / action)
else:
    model.save(folder / action)
"""


def test_a_full_disk_leaves_the_old_files_whole_and_no_half_ones(tmp_path):
    model = make_model(jit_compile=False)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    write_csv(tmp_path / "table.csv", [{"a": 1}])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FULL_DISK, str(tmp_path), action],
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        for action in (*before, "serving")
    ]
    assert all(each.wait() != 0 for each in processes)
    after = {path.name: path for path in tmp_path.iterdir()}
    for name, content in before.items():
        assert after.pop(name).read_bytes() == content, name
    # HDF5 may end the process; what it leaves then has not the file's name.
    assert all(name.startswith(".writing-") for name in after), after
    model.save_weights(tmp_path / "model.weights.h5")
    assert not (tmp_path / ".writing-model.weights.h5").exists()


def test_a_model_that_the_disk_has_no_room_for_is_not_begun(tmp_path, monkeypatch):
    model = make_model()
    monkeypatch.setattr(files.shutil, "disk_usage", lambda place: types.SimpleNamespace(free=9))
    for action in (model.save_weights, model.save):
        name = "model.keras" if action == model.save else "model.weights.h5"
        with pytest.raises(OSError, match=r"and 9 are free\. Nothing was written"):
            action(tmp_path / "folder" / name)
    assert list(tmp_path.iterdir()) == []


def test_a_file_takes_its_place_at_the_end(tmp_path):
    path = tmp_path / "made" / "table.csv"
    with files.written(path) as beside, open(beside, "w") as file:
        file.write("new")
        assert not path.exists()
    assert path.read_text() == "new"
    with pytest.raises(RuntimeError), files.written(path) as beside, open(beside, "w") as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text() == "new"
    with files.written(path, keeps=False) as beside, open(beside, "w") as file:
        file.write("another worker's")
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["table.csv"]


def test_saving_does_not_overwrite_unless_told(tmp_path):
    model = make_model()
    path = tmp_path / "model.keras"
    model.save(path)
    with pytest.raises(FileExistsError, match="`filepath` must not exist yet"):
        model.save(path, overwrite=False)


def test_an_unknown_strategy_is_refused_before_anything_is_built():
    with (
        tf.distribute.experimental.CentralStorageStrategy().scope(),
        pytest.raises(ValueError, match="Received: CentralStorageStrategy"),
    ):
        tfmtl.MultiTaskModel(make_net())


def test_one_replica_of_a_mirrored_strategy_trains_and_is_not_compiled_by_xla():
    """A machine with one GPU, as `MirroredStrategy()` has it: its replica meets itself."""
    rows = make_rows(32)
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        with pytest.raises(ValueError, match="`jit_compile` must be False or None with several"):
            make_model(jit_compile=True)
        model = make_model(
            net=make_net(kind="SharedBottom"),
            balancer=balancers.PUB(update_every=2),
            optimizer=optimizers.LazyAdam(0.01),
        )
    model.fit(rows.batches(8), validation_data=rows.batches(32), epochs=2, verbose=0)
    alone = make_model(
        net=make_net(kind="SharedBottom"),
        balancer=balancers.PUB(update_every=2),
        optimizer=optimizers.LazyAdam(0.01),
    )
    alone.fit(rows.batches(8), validation_data=rows.batches(32), epochs=2, verbose=0)
    for one, other in zip(state_of(model), state_of(alone), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
