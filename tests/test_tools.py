"""What Keras users have at hand works with a multi-task model: callbacks, MLflow, tuners."""

import csv

import keras
import numpy as np
import pytest

from tests.conftest import make_model, make_net, make_rows
from tfmtl import balancers, compat

TASKS = ("like", "click")
EPOCHS = 5


def nmt(**options):
    return balancers.NMT(list(TASKS), readings=1, patience=1, **options)


def steep(units=4, **compiled):
    """A small model that learns in a few steps."""
    net = make_net(kind="SharedBottom", bottom_units=(units,))
    options = {"optimizer": keras.optimizers.Adam(0.05), "jit_compile": False}
    options["metrics"] = {"like": [keras.metrics.AUC(name="auc")]}
    return make_model(net=net, **{**options, **compiled})


def data(**options):
    rows = make_rows(80)
    return {"x": rows.batches(20), "validation_data": rows.batches(40), "verbose": 0, **options}


# Keras' callbacks


def test_callbacks_of_keras_find_the_figures_of_each_task(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("tensorboard")
    best, weights = tmp_path / "best.keras", tmp_path / "{epoch}.weights.h5"
    model = steep()
    history = model.fit(
        **data(epochs=EPOCHS),
        callbacks=[
            keras.callbacks.EarlyStopping(
                "val_like_auc", mode="max", patience=2, restore_best_weights=True
            ),
            keras.callbacks.ModelCheckpoint(
                str(best), monitor="val_like_auc", mode="max", save_best_only=True
            ),
            keras.callbacks.ModelCheckpoint(str(weights), save_weights_only=True),
            keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.TensorBoard(str(tmp_path / "logs")),
        ],
    )
    found = history.history
    highest = max(found["val_like_auc"])
    with open(tmp_path / "log.csv") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["val_like_auc"]) for line in lines] == pytest.approx(found["val_like_auc"])
    table = pandas.DataFrame(found, index=history.epoch)
    assert {"like_loss", "click_loss", "val_click_loss", "like_auc"} <= set(table) & set(lines[0])
    assert all(kind.kind == "f" for kind in table.dtypes)
    (events,) = (tmp_path / "logs" / "validation").iterdir()
    assert b"epoch_like_auc" in events.read_bytes()

    held_out = data()["validation_data"]
    loaded = keras.models.load_model(best)
    assert loaded.evaluate(held_out, verbose=0, return_dict=True)["like_auc"] == highest
    again = steep()
    again.load_weights(tmp_path / "1.weights.h5")
    first = again.evaluate(held_out, verbose=0, return_dict=True)
    assert first["click_loss"] == pytest.approx(found["val_click_loss"][0])
    assert again.fit(**data()).epoch == [0] and again.steps_taken == 8
    if len(history.epoch) < EPOCHS:
        now = model.evaluate(held_out, verbose=0, return_dict=True)
        assert now["like_auc"] == highest


@pytest.mark.parametrize(
    ("balancer", "optimizer"),
    [
        (balancers.PUB, lambda rate: keras.optimizers.SGD(rate, momentum=0.9)),
        (balancers.AdaTask, keras.optimizers.Adam),
    ],
    ids=["PUB", "AdaTask"],
)
def test_a_learning_rate_that_a_callback_sets_is_that_of_a_schedule(balancer, optimizer):
    # SGD's momentum has the rate inside: where PUB's formula missed it, the weights would part.
    def train(rate, *callbacks):
        model = steep(optimizer=optimizer(rate), balancer=balancer())
        history = model.fit(**data(epochs=4), callbacks=list(callbacks))
        return history.history, model.net.get_weights()

    reducing = keras.callbacks.ReduceLROnPlateau(
        "val_like_loss", mode="min", min_delta=1e9, factor=0.1, patience=1
    )
    history, found = train(0.1, reducing)
    rates = history["learning_rate" if compat.KERAS_3 else "lr"]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.001])
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([7, 11], [0.1, 0.01, 0.001])
    _, expected = train(schedule)  # 4 steps an epoch
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


# NMT, whose weights are others when a stage begins


class Noted(keras.callbacks.Callback):
    """What each epoch's end finds."""

    def __init__(self):
        super().__init__()
        self.found = []

    def on_epoch_end(self, epoch, logs=None):
        losses = self.model.read().losses
        self.found.append((losses, [logs[f"val_{task}_loss"] for task in TASKS]))


@pytest.mark.parametrize("variant", ["held_out", "paper"])
def test_the_weights_at_an_epochs_end_are_those_of_its_figures(variant):
    noted = Noted()
    model = steep(balancer=nmt(variant=variant))
    history = model.fit(**data(epochs=6), callbacks=[noted])
    assert set(history.history["stage"]) == {1, 2}
    assert len(noted.found) == len(history.epoch)
    for found, logged in noted.found[:-1]:  # behind the last epoch they are NMT's result
        np.testing.assert_allclose(found, logged, rtol=1e-5)
    assert model.balancer.stage == 2 and set(model.balancer.baselines()) == set(TASKS)


def test_stopping_early_leaves_out_the_later_stages_of_nmt():
    model = steep(balancer=nmt())
    stopping = keras.callbacks.EarlyStopping("val_click_loss", mode="min", min_delta=9, patience=1)
    with pytest.warns(RuntimeWarning, match=r"not by NMT, in stage 1 of 2: \['click'\] have not"):
        history = model.fit(**data(epochs=8), callbacks=[stopping])
    assert history.history["stage"] == [1, 1]
    best = min(row["loss_like"] for row in model.balancer.trace())
    assert model.read().losses[0] == pytest.approx(best, rel=1e-5)
    history = model.fit(**data(epochs=8))  # goes on where it was
    assert history.history["stage"][-1] == 2 and model.balancer.done


def test_a_schedule_starts_anew_with_each_stage():
    steps = []
    noting = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: steps.append(int(model.optimizer.iterations.numpy()))
    )
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 12)
    model = steep(
        optimizer=keras.optimizers.SGD(schedule), balancer=balancers.NMT(TASKS, patience=99)
    )
    model.fit(**data(epochs=6), callbacks=[noting])
    # The third epoch's last reading ends the first stage, when the fourth begins.
    assert steps == [0, 4, 8, 0, 4, 8]


# Other packages


@pytest.fixture
def tracking(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    yield mlflow
    mlflow.tensorflow.autolog(disable=True)
    mlflow.set_tracking_uri(None)


@pytest.mark.slow
# MLflow asks SQLAlchemy for what that is to drop, and warns of what it finds in the signature.
@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
def test_mlflow_logs_a_run_in_stages_by_itself(tracking, monkeypatch):
    # It would start a process that loads the model, to see what that imports.
    monkeypatch.setattr(tracking.models, "infer_pip_requirements", lambda *_, **__: ["tfmtl"])
    # Keras 2 would write a SavedModel, which is for functional models.
    tracking.tensorflow.autolog(log_models=compat.KERAS_3, checkpoint=False)
    model = steep(balancer=nmt())
    with tracking.start_run() as run:
        history = model.fit(**data(epochs=4)).history
        model.save("model.keras")
        tracking.log_artifact("model.keras")
    logged = tracking.get_run(run.info.run_id).data
    # Keras numbers the names of a process' optimizers: adam, adam_1.
    assert logged.params["epochs"] == "4" and logged.params["opt_name"] == model.optimizer.name
    assert set(history) <= set(logged.metrics)
    client = tracking.MlflowClient()
    for name in ("stage", "val_like_auc", "val_click_loss"):
        found = client.get_metric_history(run.info.run_id, name)
        values = [each.value for each in sorted(found, key=lambda each: each.step)]
        assert values == pytest.approx(history[name]), name
    path = tracking.artifacts.download_artifacts(f"runs:/{run.info.run_id}/model.keras")
    loaded = [keras.models.load_model(path)]
    if compat.KERAS_3:
        loaded.append(tracking.tensorflow.load_model(f"runs:/{run.info.run_id}/model"))
    columns = make_rows(8).columns
    for each in loaded:
        assert each.balancer.done and each.balancer.baselines() == model.balancer.baselines()
        for task, values in model.predict(columns, verbose=0).items():
            np.testing.assert_allclose(each.predict(columns, verbose=0)[task], values, rtol=1e-5)


# KerasTuner asks `threading` by names that it is to drop.
@pytest.mark.filterwarnings("ignore:(currentThread|getName)\\(\\) is deprecated:DeprecationWarning")
def test_keras_tuner_finds_the_model_that_is_best_for_one_task(tmp_path):
    keras_tuner = pytest.importorskip("keras_tuner")

    def build(choose):
        rate = choose.Float("learning_rate", 1e-3, 1e-1, sampling="log")
        units = choose.Int("units", 4, 8, step=4)
        return steep(units, optimizer=keras.optimizers.Adam(rate), balancer="FAMO")

    tuner = keras_tuner.RandomSearch(
        build,
        objective=keras_tuner.Objective("val_like_auc", "max"),
        max_trials=2,
        directory=tmp_path,
        seed=0,
    )
    tuner.search(**data(epochs=3))
    best = tuner.oracle.get_best_trials(1)[0]
    assert set(best.hyperparameters.values) == {"units", "learning_rate"}
    (model,) = tuner.get_best_models()
    found = model.evaluate(data()["validation_data"], verbose=0, return_dict=True)
    assert found["like_auc"] == pytest.approx(best.score, abs=1e-6)


def test_optuna_prunes_by_the_figures_of_a_task():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    class Pruning(keras.callbacks.Callback):
        def __init__(self, trial):
            super().__init__()
            self.trial = trial

        def on_epoch_end(self, epoch, logs=None):
            self.trial.report(logs["val_like_auc"], epoch)
            if self.trial.should_prune():
                raise optuna.TrialPruned

    def objective(trial):
        rate = trial.suggest_float("learning_rate", 1e-9, 1e-1)
        model = steep(optimizer=keras.optimizers.Adam(rate))
        return max(model.fit(**data(epochs=3), callbacks=[Pruning(trial)]).history["val_like_auc"])

    pruner = optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=1)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    study.enqueue_trial({"learning_rate": 0.1})
    study.enqueue_trial({"learning_rate": 1e-9})
    study.optimize(objective, n_trials=2)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED"]
    assert study.best_params == {"learning_rate": 0.1}
