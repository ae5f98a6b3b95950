"""What a run shows: figures in groups, event files, the callback that writes them, pictures."""

import gc
import math
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_model, make_rows
from tfmtl import balancers, events, figures, plots
from tfmtl.callbacks import TaskBoard

TASKS = ("like", "like_long", "loss", "a_b", "a", "b")


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("loss", "loss"),
        ("val_loss", "val_loss"),
        ("loss_loss", "loss/loss"),
        ("val_loss_loss", "val_loss/loss"),
        ("like_loss", "loss/like"),
        ("like_long_loss", "loss/like_long"),
        ("a_b_loss", "loss/a_b"),
        ("val_a_b_loss", "val_loss/a_b"),
        ("like_auc", "auc/like"),
        ("like_long_auc", "auc/like_long"),
        ("a_top_5", "top_5/a"),
        ("a_b_top_5", "top_5/a_b"),
        ("val_like_long_auc", "val_auc/like_long"),
        ("loss_auc", "auc/loss"),
        ("weight_like_long", "weight/like_long"),
        ("gradient_norm_a_b", "gradient_norm/a_b"),
        ("gradient_norm_b", "gradient_norm/b"),
        ("lambda_loss", "lambda/loss"),
        ("violation_like", "violation/like"),
        ("p_a", "p/a"),
        ("alpha_like_long", "alpha/like_long"),
        ("cosine_like_like_long", "cosine/like_like_long"),
        ("cosine_loss_like", "cosine/loss_like"),
        ("cosine_a_b_a", "cosine/a_b_a"),
        ("cosine_a_b_loss", "cosine/a_b_loss"),
        ("cosine_a_b", "cosine/a_b"),
        ("similarity_shared", "similarity/shared"),
        ("similarity_task", "similarity/task"),
        ("difference", "similarity/difference"),
        ("stage", "stage"),
        ("learning_rate", "learning_rate"),
        ("temperature_like_long", "temperature/like_long"),  # of somebody's own balancer
        ("like_weight", "like_weight"),  # a metric of that name is no weight
    ],
)
def test_names_are_grouped_by_the_tasks_they_hold(name, tag):
    assert figures.tag(name, TASKS) == tag


def test_the_tasks_are_found_among_the_names_of_a_history():
    names = ["loss", *(f"{task}_loss" for task in TASKS), "like_auc", "weight_like"]
    names += [f"val_{name}" for name in names if "weight" not in name]
    assert figures.tasks_of(names) == tuple(sorted(TASKS))


# Event files


def write(folder, step, scalars):
    """One file: values by tag and step, from the given step on."""
    writer = events.ScalarWriter(str(folder), step)
    for at in sorted({at for values in scalars.values() for at in values}):
        writer.write(at, {tag: values[at] for tag, values in scalars.items() if at in values})
    writer.close()


def as_dict(found):
    return {tag: dict(zip(*(each.tolist() for each in found[tag]), strict=True)) for tag in found}


def test_a_resumed_run_takes_the_place_of_what_lies_beyond_its_first_step(tmp_path):
    write(tmp_path / "run", 1, {"loss": {10: 3.0, 20: 2.0, 30: 1.0}, "only/once": {25: 1.0}})
    write(tmp_path / "run", 21, {"loss": {40: 0.5}})
    assert as_dict(events.read_scalars(str(tmp_path / "run"))) == {
        "loss": {10: 3.0, 20: 2.0, 40: 0.5}
    }


@pytest.mark.parametrize("lost", [1, 3, 20])
def test_a_file_that_lost_its_end_is_read_up_to_there(tmp_path, lost):
    write(tmp_path, 1, {"loss": {1: 4.0, 2: 3.0}})
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-lost])
    assert as_dict(events.read_scalars(str(tmp_path))) == {"loss": {1: 4.0}}


def test_an_empty_file_holds_nothing(tmp_path):
    (tmp_path / "events.out.tfevents.1.here").touch()
    assert events.read_scalars(str(tmp_path)) == {}


def test_what_is_written_is_on_the_disk_at_each_flush(tmp_path, monkeypatch):
    writer = events.ScalarWriter(str(tmp_path), 1)
    writer.write(1, {"loss": 1.0})
    writer.flush()
    assert as_dict(events.read_scalars(str(tmp_path))) == {"loss": {1: 1.0}}
    monkeypatch.setattr(events, "FLUSH_SECONDS", 0.0)  # it has been that long
    writer.write(2, {"loss": 2.0})
    assert as_dict(events.read_scalars(str(tmp_path))) == {"loss": {1: 1.0, 2: 2.0}}
    writer.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_it(tmp_path):
    pytest.importorskip("tensorboard")  # TensorFlow 2.21 does not bring it
    from tensorboard.backend.event_processing import (
        event_accumulator,
        plugin_event_accumulator,
    )

    write(tmp_path, 1, {"loss": {10: 3.0, 20: 2.0, 30: 1.0}, "weight/like": {10: 0.1}})
    write(tmp_path, 21, {"loss": {40: 0.5}})
    ours = as_dict(events.read_scalars(str(tmp_path)))
    scalars = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    found = {
        tag: {each.step: each.value for each in scalars.Scalars(tag)}
        for tag in scalars.Tags()["scalars"]
    }
    assert found == ours
    # What the page itself reads: scalars are tensors of the plugin "scalars" there.
    shown = plugin_event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert set(shown.PluginTagToContent("scalars")) == set(ours)
    for tag, values in ours.items():
        tensors = shown.Tensors(tag)
        assert {each.step: tf.make_ndarray(each.tensor_proto) for each in tensors} == values


# The callback


def open_files():
    """The event files that this process holds open."""
    gc.collect()
    links = pathlib.Path("/proc/self/fd")
    if not links.is_dir():
        pytest.skip("needs /proc")
    targets = []
    for link in links.iterdir():
        try:
            targets.append(str(link.readlink()))
        except OSError:  # that of the listing itself
            continue
    return [target for target in targets if ".tfevents." in target]


BALANCERS = {
    "EMTL": lambda: balancers.EMTL(),
    "MGDA": lambda: balancers.MGDA(update_every=2),
    "NMT": lambda: balancers.NMT(priority=["like", "click"], readings=1, patience=1),
    "EqualWeights": lambda: balancers.EqualWeights(),
}


@pytest.fixture(scope="module", params=BALANCERS)
def watched(request, tmp_path_factory):
    """A run of 4 epochs of 3 steps, written every 2 steps: model, History, folder."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp(request.param)
    model = make_model(
        metrics={task: [keras.metrics.AUC(name="auc")] for task in ("like", "click")},
        balancer=BALANCERS[request.param](),
    )
    rows = make_rows(60)
    history = model.fit(
        rows.batches(20),
        validation_data=rows.batches(30),
        epochs=4,
        verbose=0,
        callbacks=[TaskBoard(folder / "run", every=2, similarity=request.param == "EMTL")],
    )
    return model, history, folder / "run"


def test_what_is_written_is_what_the_history_holds(watched):
    model, history, folder = watched
    found = as_dict(events.read_scalars(str(folder)))
    assert {figures.tag(name, model.tasks) for name in history.history} == set(found)
    ends = [3 * (epoch + 1) for epoch in history.epoch]
    for name, values in history.history.items():
        written = found[figures.tag(name, model.tasks)]
        # Even steps, and each end of an epoch; held-out rows at the latter alone.
        steps = ends if name.startswith("val_") else sorted({*range(2, ends[-1] + 1, 2), *ends})
        expected = {
            end: np.float32(value)
            for end, value in zip(ends, values, strict=True)
            if math.isfinite(value)
        }
        assert {end: written[end] for end in ends if end in written} == expected, name
        if len(expected) == len(ends):
            assert list(written) == steps, name
    assert open_files() == []


def test_a_fit_that_goes_on_appends_at_its_steps(tmp_path):
    model, batches = make_model(), make_rows(60).batches(20)
    board = TaskBoard(tmp_path, every=100)
    model.fit(batches, epochs=2, callbacks=[board], verbose=0)
    model.fit(batches, epochs=1, callbacks=[board], verbose=0)
    assert events.read_scalars(str(tmp_path))["loss"][0].tolist() == [3, 6, 9]


def test_a_restored_run_goes_on_from_the_backup(tmp_path):
    batches = make_rows(60).batches(20)

    class Killed(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.steps_taken == 8:  # the second step of the third epoch
                raise KeyboardInterrupt

    def callbacks(*more):
        # The board before the backup: the steps that are restored are not known to it at first.
        return [
            TaskBoard(tmp_path / "board", every=1),
            keras.callbacks.BackupAndRestore(str(tmp_path / "backup")),
            *more,
        ]

    with pytest.raises(KeyboardInterrupt):
        make_model().fit(batches, epochs=4, verbose=0, callbacks=callbacks(Killed()))
    gc.collect()
    before = as_dict(events.read_scalars(str(tmp_path / "board")))["loss"]
    assert list(before) == [1, 2, 3, 4, 5, 6, 7, 8]
    again = make_model()
    again.compile(keras.optimizers.SGD(0.01), loss=dict.fromkeys(again.tasks, "mse"))
    again.fit(batches, epochs=4, verbose=0, callbacks=callbacks())
    assert again.steps_taken == 12
    after = as_dict(events.read_scalars(str(tmp_path / "board")))["loss"]
    assert list(after) == list(range(1, 13))
    assert all(after[step] == before[step] for step in range(1, 7))
    assert all(after[step] != before[step] for step in (7, 8))


def test_steps_in_one_execution_are_not_passed_over(tmp_path):
    model = make_model(steps_per_execution=3)
    model.fit(make_rows(120).batches(10), callbacks=[TaskBoard(tmp_path, every=4)], verbose=0)
    # Executions end at 3, 6, 9 and 12: those that passed a multiple of 4.
    assert events.read_scalars(str(tmp_path))["loss"][0].tolist() == [6, 9, 12]


def test_an_error_in_training_leaves_no_file_open(tmp_path):
    model, board = make_model(), TaskBoard(tmp_path, every=1)
    weights = model.net.get_weights()
    model.net.set_weights([np.full_like(each, np.nan) for each in weights])
    batches = make_rows(60).batches(20)
    with pytest.raises(FloatingPointError):
        model.fit(batches, callbacks=[board], verbose=0)
    model.net.set_weights(weights)
    model.fit(batches, callbacks=[board], verbose=0)
    assert open_files() == []


def test_what_is_no_finite_scalar_is_left_out(tmp_path):
    board = TaskBoard(tmp_path, every=1)
    model = make_model()
    board.set_model(model)
    board.on_train_begin()
    board.on_epoch_begin(0)
    logs = {"loss": tf.constant(1.5), "like_loss": math.nan, "like_f1": np.array([0.1, 0.2])}
    board.on_epoch_end(0, {**logs, "click_loss": math.inf, "weight_like": np.float64(2.0)})
    board.on_train_end()
    found = as_dict(events.read_scalars(str(tmp_path)))
    assert found == {"loss": {0: 1.5}, "weight/like": {0: 2.0}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"log_dir": None}, "`log_dir` must be the path of a folder. Received: None"),
        ({"log_dir": ""}, "`log_dir` must be the path of a folder. Received: ''"),
        ({"log_dir": "x", "every": 0}, "`every` must be a positive integer. Received: 0"),
        ({"log_dir": "x", "every": 2.0}, "`every` must be a positive integer. Received: 2.0"),
        ({"log_dir": "x", "every": True}, "`every` must be a positive integer. Received: True"),
        ({"log_dir": "x", "similarity": 1}, "`similarity` must be True or False. Received: 1"),
    ],
)
def test_bad_arguments_of_the_callback(arguments, message):
    with pytest.raises(ValueError, match=message):
        TaskBoard(**arguments)


# Pictures


def drawn(figure):
    """For each panel, by its title, the values of its lines, the ends of stages aside."""
    return {
        axes.get_ylabel(): [
            list(line.get_ydata()) for line in axes.get_lines() if line.get_linestyle() != ":"
        ]
        for axes in figure.axes
    }


PANELS = {
    "EMTL": ["weight", "gradient norm", "cosine", "p", "α", "similarity", "difference"],
    "MGDA": ["weight", "gradient norm", "cosine"],
    "NMT": ["λ", "violation"],
    "EqualWeights": [],
}


def test_history_and_folder_draw_the_same_panels(watched, tmp_path):
    pytest.importorskip("matplotlib")
    model, history, folder = watched
    from_history = plots.history(history, tmp_path / "run.png")
    from_folder = plots.history(folder, tmp_path / "run.svg")
    assert (tmp_path / "run.png").read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in (tmp_path / "run.svg").read_text()
    panels = list(drawn(from_history))
    assert panels == list(drawn(from_folder))
    assert set(panels) >= {"loss", "total loss", "auc", *PANELS[type(model.balancer).__name__]}
    for name, figure in (("epoch", from_history), ("step", from_folder)):
        assert {axes.get_xlabel() for axes in figure.axes} - {""} == {name}
    # Two tasks, on training rows and on held-out rows.
    expected = [
        history.history[f"{rows}{task}_loss"] for rows in ("", "val_") for task in ("click", "like")
    ]
    assert sorted(drawn(from_history)["loss"]) == sorted(expected)


def as_history(tasks, epochs=3):
    """All figures that there are, of so many epochs."""
    both = [f"{a}_{b}" for i, a in enumerate(tasks) for b in tasks[i + 1 :]]
    names = ["loss", *(f"{task}_loss" for task in tasks), "similarity_shared", "similarity_task"]
    names += [f"{figure}_{task}" for figure in figures.BY_TASK for task in tasks]
    names += ["difference", *(f"cosine_{pair}" for pair in both), "val_loss"]
    rng = np.random.default_rng(0)
    return {name: rng.uniform(0.5, 1, epochs).tolist() for name in names}


@pytest.mark.parametrize("tasks", [("like", "click"), ("like", "click", "share", "follow")])
def test_every_group_has_its_panel_and_every_figure_its_line(tasks):
    pytest.importorskip("matplotlib")
    found = as_history(tasks)
    figure = plots.history(found)
    lines = {panel: len(ys) for panel, ys in drawn(figure).items()}
    n = len(tasks)
    assert lines == {
        **{"loss": n, "total loss": 2, "weight": n, "gradient norm": n, "λ": n, "violation": n},
        **{"cosine": n * (n - 1) // 2, "p": n, "α": n, "similarity": 2, "difference": 1},
    }
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [*sorted(tasks), "held-out rows"]
    figure.draw_without_rendering()
    for axes in figure.axes:  # no legend lies on a panel
        own = axes.get_legend()
        for each in (legend, own) if own else (legend,):
            assert not axes.get_window_extent().padded(-1).overlaps(each.get_window_extent())


def test_a_task_keeps_its_colour_and_two_tasks_have_both():
    pytest.importorskip("matplotlib")
    tasks = ("like", "click", "share")
    found = as_history(tasks)
    figure = plots.history(found, tasks=tasks)
    for axes in figure.axes:
        for line in axes.get_lines():
            (name,) = (n for n, y in found.items() if list(y) == line.get_ydata().tolist())
            _, _, member = figures.tag(name, tasks).partition("/")
            if member in tasks:
                assert line.get_color() == plots.COLOURS[tasks.index(member)], name
            elif name.startswith("cosine"):
                both = [plots.COLOURS[tasks.index(task)] for task in member.split("_")]
                assert [line.get_color(), line.get_gapcolor()] == both, name


def test_chosen_panels_come_in_the_given_order():
    pytest.importorskip("matplotlib")
    figure = plots.history(as_history(("like", "click")), groups=["weight", "total", "loss"])
    assert list(drawn(figure)) == ["weight", "total loss", "loss"]


def test_stages_are_parted_at_their_last_point():
    pytest.importorskip("matplotlib")
    found = {"like_loss": [3.0, 2.0, 1.0, 0.5], "stage": [1.0, 1.0, 2.0, 3.0]}
    (axes,) = plots.history(found).axes
    upright = [line.get_xdata() for line in axes.get_lines() if line.get_linestyle() == ":"]
    assert [list(x) for x in upright] == [[2, 2], [3, 3]]
    assert [text.get_text() for text in axes.texts] == ["stage 1", "stage 2", "stage 3"]


def test_figures_of_every_second_epoch_stand_at_those_epochs():
    pytest.importorskip("matplotlib")
    found = {"like_loss": [3.0, 2.0, 1.0, 0.5, 0.4], "val_like_loss": [2.5, 0.7]}
    (axes,) = plots.history(found).axes
    assert [line.get_xdata().tolist() for line in axes.get_lines()] == [[1, 2, 3, 4, 5], [2, 4]]


def test_a_long_range_of_gradient_norms_is_drawn_by_powers_of_ten():
    pytest.importorskip("matplotlib")
    for last, scale in ((2.0, "linear"), (1e3, "log")):
        figure = plots.history({"like_loss": [1.0, 1.0], "gradient_norm_like": [1.0, last]})
        assert figure.axes[1].get_yscale() == scale


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": 3}, "`source` must be what `fit` returns, its dict, or a folder"),
        ({"source": {}}, "`source` must be what `fit` returns, its dict, or a folder"),
        ({"source": "nowhere"}, "`source` must be a folder with event files. Received: 'nowhere'"),
        ({"groups": ["loss", "q"]}, r"`groups` must be a list of some of: \['loss'\]. Received"),
        ({"groups": "loss"}, r"`groups` must be a list of some of: \['loss'\]. Received: 'loss'"),
        ({"groups": []}, r"`groups` must be a list of some of: \['loss'\]. Received: \[\]"),
        ({"tasks": "like"}, "`tasks` must be a list of names. Received: 'like'"),
    ],
)
def test_bad_arguments_of_a_picture(arguments, message):
    with pytest.raises(ValueError, match=message):
        plots.history(**{"source": {"like_loss": [1.0]}, **arguments})


def test_without_matplotlib_the_package_imports_and_a_picture_says_what_to_install():
    script = """
import sys
sys.modules["matplotlib"] = None
import tfmtl
try:
    tfmtl.plots.history({"like_loss": [1.0]})
except ImportError as error:
    assert str(error).startswith("Drawing needs `matplotlib`, which does not import"), error
    assert 'pip install "tfmtl[demo]"' in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", script], check=True)
