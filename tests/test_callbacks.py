"""Held-out readings, the early stopping on them, and the line that says where NMT stands."""

import io
import re

import keras
import numpy as np
import pytest
from rich.console import Console

from tests.conftest import make_model, make_rows
from tfmtl import balancers, metrics
from tfmtl.callbacks import BestReading, HeldOutReadings, Reading, StageProgress


class Noted(HeldOutReadings):
    """Keeps each reading with the step it was made at."""

    def __init__(self, readings):
        super().__init__(readings)
        self.found = []

    def on_reading(self, reading):
        self.found.append((self.model.steps_taken, reading))


class Scripted(BestReading):
    """Early stopping that is told what it reads."""

    def __init__(self, losses, aucs=None, **options):
        super().__init__({"like": 1.0, "click": 0.5}, **options)
        self._losses = iter(losses)
        self._aucs = iter(aucs or [[np.nan] * 2] * len(losses))
        self.kept_at = []

    def on_reading(self, reading):
        before = self._best
        super().on_reading(Reading(np.array(next(self._losses)), np.array(next(self._aucs))))
        if self._best < before:
            self.kept_at.append(self.model.net.get_weights())


@pytest.mark.parametrize("readings", [1, 3, 4, 8])
def test_readings_are_spread_evenly_and_end_with_the_epoch(readings):
    model, callback = make_model(), Noted(readings)
    batches = make_rows(240).batches(20)  # 12 steps
    model.fit(batches, validation_data=batches, epochs=2, callbacks=[callback], verbose=0)
    expected = [int(np.ceil(12 * (i + 1) / readings)) for i in range(readings)]
    assert [step for step, _ in callback.found] == [*expected, *(12 + s for s in expected)]
    last = callback.found[-1][1]
    evaluated = model.evaluate(batches, verbose=0, return_dict=True)
    np.testing.assert_allclose(
        last.losses, [evaluated["like_loss"], evaluated["click_loss"]], rtol=1e-6
    )


@pytest.mark.parametrize(("at_once", "expected"), [(2, [4, 6, 10]), (5, [5, 10]), (20, [])])
def test_with_several_steps_an_execution_there_may_be_fewer(at_once, expected):
    model, callback = make_model(steps_per_execution=at_once), Noted(4)
    model.fit(make_rows(240).batches(20), epochs=2, callbacks=[callback], verbose=0)  # 12 steps
    one = [*expected, 12]
    assert [step for step, _ in callback.found] == [*one, *(12 + step for step in one)]
    assert callback.per_epoch() == len(one)


def test_the_best_weighted_sum_is_kept_and_patience_ends_the_training():
    # Sums 3, 2.5, 2 (best), 2, 3: an equal one is not better.
    losses = [[2.0, 2.0], [1.0, 3.0], [1.5, 1.0], [1.0, 2.0], [3.0, 0.0], [0.0, 0.0]]
    model, callback = make_model(), Scripted(losses, readings=2, patience=2)
    batches = make_rows(80).batches(20)
    history = model.fit(batches, epochs=9, callbacks=[callback], verbose=0)
    assert len(history.epoch) == 3  # the fifth reading, within the third epoch
    assert len(callback.kept_at) == 3
    for kept, now in zip(callback.kept_at[-1], model.net.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, now)


def test_it_says_which_weights_are_kept(capsys):
    for losses, said in (
        ([2, 1, 1, 1], "2 readings of the held-out rows brought"),
        ([2, 1], "The"),
    ):
        callback = Scripted([[each, 0] for each in losses], readings=1, patience=2, verbose=1)
        model = make_model()
        model.fit(make_rows(20).batches(20), epochs=len(losses), callbacks=[callback], verbose=0)
        written = capsys.readouterr().out
        assert written.startswith(f"Epoch {len(losses)}: {said} ")
        assert "The weights are those of the best reading, in epoch 2." in written


def test_the_logs_have_the_held_out_aucs():
    model, batches = make_model(), make_rows(80).batches(20)
    watch = {"validation_data": batches, "epochs": 3, "verbose": 0}
    stopping = BestReading({"like": 1.0}, patience=99)
    history = model.fit(batches, callbacks=[stopping], **watch).history
    assert len(history["val_like_auc"]) == len(history["val_click_auc"]) == 3
    stopping = BestReading({"like": 1.0}, readings=1, patience=99)
    last = model.fit(batches, callbacks=[stopping], **watch).history["val_like_auc"][-1]
    rows = make_rows(80)
    scores = np.ravel(model.predict(rows.batches(20), verbose=0)["like"])
    assert stopping._best_epoch == 3  # whose weights are kept
    assert last == pytest.approx(metrics.auc(rows.labels["like"], scores), abs=1e-6)
    history = make_model().fit(batches, epochs=1, verbose=0, callbacks=[BestReading({"like": 1.0})])
    assert "val_like_auc" not in history.history  # nothing is held out
    history = make_model(metrics={"like": [keras.metrics.AUC(name="auc")]}).fit(
        batches, callbacks=[BestReading({"like": 1.0})], **watch
    )
    assert len(history.history["val_like_auc"]) == 3


def test_by_auc_a_task_without_one_counts_by_its_loss():
    # 1 - AUC of like, half the loss of click: 0.8, 0.45 (best), 0.5.
    losses = [[9.0, 1.0], [9.0, 0.5], [0.0, 0.2]]
    aucs = [[0.7, np.nan], [0.8, np.nan], [0.6, np.nan]]
    callback = Scripted(losses, aucs, readings=1, patience=1, monitor="auc")
    history = make_model().fit(make_rows(40).batches(20), epochs=9, callbacks=[callback], verbose=0)
    assert len(history.epoch) == 3 and len(callback.kept_at) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"weights": {"like": 1.0}, "monitor": "mse"},
            "`monitor` must be 'loss' or 'auc'. Received",
        ),
        ({"weights": {"like": 0.0}}, "`weights` must have one above 0"),
        ({"weights": {"like": 1.0}, "patience": 0}, "`patience` must be at least 1. Received: 0"),
        ({"weights": {"like": 1.0}, "readings": 0}, "`readings` must be a positive integer"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        BestReading(**arguments)


def test_unknown_task_is_named_before_training():
    model = make_model()
    with pytest.raises(ValueError, match=r"`weights` names unknown tasks.*Received: \['share'\]"):
        model.fit(make_rows(40).batches(20), callbacks=[BestReading({"share": 1.0})], verbose=0)
    assert model.steps_taken == 0


@pytest.mark.parametrize("terminal", [False, True])
def test_a_line_says_where_nmt_stands(terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=200)
    model = make_model(balancer=balancers.NMT(["like", "click"], readings=2), jit_compile=False)
    batches = make_rows(80).batches(20)
    model.fit(batches, epochs=4, verbose=0, callbacks=[StageProgress(console)])
    last = f"AUC {model.balancer.baselines()['click']['auc']:.4f}"
    now = r"AUC 0\.\d{4}"
    held = rf"click {now}, like {now} \(baseline 0\.\d{{4}}, λ [\d.]+\)"
    against = r"AUC 0\.\d{4} against (AUC )?0\.\d{4}(, loss 0\.\d+ against 0\.\d+)?"
    expected = [
        *(rf"stage 1/2, epoch {1 + i // 2}/4: like {now}" for i in range(4)),
        # The second stage may have raised its baseline since.
        f"stage 1 of 2 ended: like {now} around its best reading",
        *(rf"stage 2/2, epoch {1 + i // 2}/4: {held}" for i in range(4, 8)),
        f"stage 2 of 2 ended: click {last} around its best reading; like (NOT )?held, {against}",
    ]
    written = console.file.getvalue()
    if terminal:  # a reading's line is written over
        lines = re.split(r"\n?\r\x1b\[2K", written)[1:]
        assert written.count("\n") == 2 and written.endswith("\n")
    else:
        lines = written.splitlines()
        del expected[7], expected[5], expected[2], expected[0]
    assert len(lines) == len(expected)
    for line, each in zip(lines, expected, strict=True):
        assert re.fullmatch(each, line.strip()), (each, line)


def test_there_is_no_such_line_without_nmt():
    with pytest.raises(ValueError, match=r"`StageProgress` is for.*Received: EqualWeights"):
        make_model().fit(make_rows(40).batches(20), callbacks=[StageProgress()], verbose=0)
