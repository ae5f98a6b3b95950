"""No More Tuning: tasks in priority order, held by Lagrange multipliers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfmtl import compat
from tfmtl.balancers.base import (
    WEIGHT_LIMIT,
    Balancer,
    check_non_negative,
    check_task_names,
)
from tfmtl.balancers.controller import BOUNDS, follow
from tfmtl.balancers.readings import Readings, level, monitored
from tfmtl.balancers.staged import Staged
from tfmtl.callbacks import Reading
from tfmtl.stages import PriorityStages

#: Relative changes below this are never taken for noise.
LEAST_NOISE = 5e-3


@keras.saving.register_keras_serializable("tfmtl")
class NMT(Balancer):
    r"""Optimises tasks one after the other, each without giving up on the earlier ones.

    NMT (Cheng et al., *No More Tuning*, AAAI 2025, Algorithm 1): stage 1 minimises the first
    task's loss alone; stage k solves

    .. math:: \min_\theta f_k(\theta) \quad\text{s.t.}\quad f_j(\theta) \le f_j(\theta^*) + r_j,
              \quad j < k,

    with :math:`\theta^*` the result of stage k − 1, through the rescaled Lagrangian

    .. math:: \frac{1}{1 + \sum_j \lambda_j}
              \Big(f_k + \sum_j \lambda_j \big(f_j - f_j(\theta^*) - r_j\big)\Big).

    All stages run in one ``fit``. A stage ends when ``patience`` readings brought nothing better,
    or with its share of the epochs: the readings left, divided by the stages left. As long as no
    reading satisfied the constraints it is not given up early. The optimizer starts each stage
    with fresh state.

    Two variants:

    ``"held_out"`` (default) keeps the primary task on *unseen* rows. It departs from the paper:

    * The constraint is read on ``validation_data``, ``readings`` times an epoch, not on training
      batches: an over-fitting model keeps lowering its training loss while unseen rows pay, so
      the paper's constraint goes slack and its multiplier to 0. Without ``validation_data`` the
      training rows are read.
    * A constraint has two views for a task with labels 0 and 1: its loss and 1 − AUC; for a loss
      that compares the items of a query, the loss and the share of pairs out of order. Both must
      hold, because better calibration can lower the loss while the ranking gets worse.
    * The baseline is the level around the best reading, the mean over three in a row with it
      among them. The best one alone reads too well: the largest of some noisy readings is one
      that no later model may reach again.
    * Each stage starts from the weights that ``fit`` began with: from a converged, over-fit
      :math:`\theta^*` the next task learns hardly anything before the earlier ones suffer.
    * Losses are divided by their readings, so that :math:`\lambda` is free of their scale. It
      starts at ``multiplier`` and its logarithm follows a proportional-integral controller
      (Stooke et al., 2020) of the violation. That is taken against the *previous stage at the
      same reading*, since a stage that starts anew is worse than a finished one at first, and
      in units of the reading's own noise, the median change between readings. Both gains are
      divided by 1 + the number of times the violation changed its sign (Kesten, 1958), so that
      the multiplier settles.
    * The result of a stage is the reading that is best for its task among those that satisfy all
      constraints; without any, the one that violates them least. So there always is one.

    ``"paper"`` is the letter of Algorithm 1: each stage starts at :math:`\theta^*`, the
    baselines :math:`f_j(\theta^*)` are read over the training rows at the end of a stage, and
    :math:`\lambda_j \leftarrow \max(0, \lambda_j + \tau (f_j - f_j(\theta^*) - r_j))` after every
    batch, from 0 (the paper's Figure 3). Convergence is judged by the stage's own task on
    held-out rows. Stage 1 gives the weights of its best reading, a later stage its last weights:
    the best reading of its own task would be one that violates the constraints.

    Args:
        priority: every task once, the most important first. One task alone is single-task
            training with the same early stopping.
        variant: ``"held_out"`` or ``"paper"``.
        tolerance: :math:`r_j`, in units of the task's loss; a number or a dict by task.
        patience: how many readings without a better one end a stage.
        readings: how many readings an epoch.
        multiplier: :math:`\lambda` at the start of a stage, relative to losses of size 1
            (``"held_out"``).
        integral: how far one reading with a violation of one noise width moves
            :math:`\log\lambda` for good.
        proportional: how far it moves it as long as it lasts.
        multiplier_rate: :math:`\tau` (``"paper"``; the paper's grid is 0.01, 0.05, 0.1).
        inner: another balancer, :class:`~tfmtl.balancers.FAMO` for example. Each stage runs a copy
            of it over the stage's task and the earlier ones; its weights multiply those above, so
            that :math:`\lambda` keeps its meaning. (The paper's appendix runs FAMO on the terms of
            the Lagrangian, from whose logarithms :math:`\lambda` drops out.) A step costs what
            it costs under that balancer; where it reaches the shared variables alone, a task's
            own variables follow the mixture above.

    The state holds two copies of the backbone's weights besides stage, multipliers, baselines and
    trace; all of it is saved with the model.

    Raises:
        ValueError: a task named twice, missing or unknown; a negative number; an unknown variant.
    """

    def __init__(
        self,
        priority: Sequence[str],
        variant: str = "held_out",
        tolerance: float | Mapping[str, float] = 0.0,
        patience: int = 5,
        readings: int = 4,
        multiplier: float = 1.0,
        integral: float = 0.1,
        proportional: float = 0.2,
        multiplier_rate: float = 0.05,
        inner: Balancer | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if isinstance(priority, str) or not priority or len(set(priority)) != len(priority):
            raise ValueError(
                "`priority` must name every task once, the most important first. "
                f"Received: {priority!r}"
            )
        if variant not in ("held_out", "paper"):
            raise ValueError(f"`variant` must be 'held_out' or 'paper'. Received: {variant!r}")
        for name, count in (("patience", patience), ("readings", readings)):
            if not isinstance(count, int) or count < 1:
                raise ValueError(f"`{name}` must be a positive integer. Received: {count}")
        check_non_negative("tolerance", tolerance)
        check_non_negative("multiplier", multiplier)
        check_non_negative("integral", integral)
        check_non_negative("proportional", proportional)
        check_non_negative("multiplier_rate", multiplier_rate)
        inner = compat.deserialize(inner)
        if inner is not None and (not isinstance(inner, Balancer) or isinstance(inner, NMT)):
            raise ValueError(f"`inner` must be a balancer other than NMT. Received: {inner!r}")
        self.inner: Balancer | None = inner
        if inner is not None:
            # To a step it is what it has inside.
            for trait in (
                "reads",
                "looks_back",
                "update_every",
                "wrt",
                "accumulate",
                "own_moments",
                "moments",
            ):
                if hasattr(inner, trait):
                    setattr(self, trait, getattr(inner, trait))
        self.priority = tuple(priority)
        self.variant = variant
        self.tolerance = dict(tolerance) if isinstance(tolerance, Mapping) else float(tolerance)
        self.patience = patience
        self.readings = readings
        self.multiplier = float(multiplier)
        self.integral = float(integral)
        self.proportional = float(proportional)
        self.multiplier_rate = float(multiplier_rate)

    def check_tasks(self, tasks):
        check_task_names("priority", self.priority, tasks)
        if isinstance(self.tolerance, dict):
            check_task_names("tolerance", list(self.tolerance), tasks)

    def check_optimizer(self, optimizer):
        if self.inner is not None:
            self.inner.check_optimizer(optimizer)

    def bind(self, tasks, variables=(), shared=(), optimizer=None):
        if self.inner is not None and not self.tasks:
            self.inner.bind(tasks, variables, shared, optimizer)
        super().bind(tasks, variables, shared, optimizer)

    def build(self, input_shape):
        n = len(self.tasks)
        self._rank = np.array([self.priority.index(task) for task in self.tasks], np.int32)
        tolerance = self.tolerance
        self._tolerance = np.array(
            [tolerance[t] if isinstance(tolerance, dict) else tolerance for t in self.tasks],
            np.float32,
        )
        # Index of the running stage, 0 first.
        self._stage = compat.add_state(self, "stage", (), "int32")
        # Multipliers and the sizes by which losses are divided; per task.
        self._multipliers = compat.add_state(self, "multipliers", (n,))
        self._scales = compat.add_state(self, "scales", (n,), initial=1.0)
        # As `follow` has it.
        self._controller = compat.add_state(self, "controller", (4, n))
        # Loss and 1 - AUC at θ*, the sizes they are measured in, and their relative noise.
        self._baselines = compat.add_state(self, "baselines", (3, n, 2), initial=np.nan)
        # Mean losses at the weights that `fit` began with.
        self._start_losses = compat.add_state(self, "start_losses", (n,), initial=np.nan)
        # Readings in this stage, since the last better one, in all, allowed here, planned.
        self._counters = compat.add_state(self, "counters", (5,), "int32")
        # The best reading: 0 and its value where it is feasible, else 1 and its violation.
        self._best = compat.add_state(self, "best", (2,), initial=np.inf)
        self._best_risks = compat.add_state(self, "best_risks", (n, 2), initial=np.nan)
        # Copies of the backbone's weights: as `fit` began, and at the stage's best reading.
        self._weights_at = {
            which: [
                compat.add_state(self, f"{which}_{i}", shape, dtype)
                for i, (shape, dtype) in enumerate(self._bound)
            ]
            for which in ("start", "best")
        }
        # Relative excess over the baselines at the last reading; 0 where nothing is held.
        self._violations = compat.add_state(self, "violations", (n,))
        self._trace = Readings(self, self.tasks)
        self._staged: Staged | None = None
        self._inners: list[Balancer] = []
        if self.inner is not None and self.reads != "gradients":
            self._staged = Staged(self.inner, self.tasks, self._rank)
            self._inners = self._staged.copies  # for Keras to find
        self.built = True

    def call(self, losses, gramian=None, whole=None):
        multipliers = tf.convert_to_tensor(self._multipliers)
        if self.variant == "paper":
            excess = losses - tf.convert_to_tensor(self._baselines)[0, :, 0] - self._tolerance
            ascended = tf.nn.relu(multipliers + self.multiplier_rate * excess)
            earlier = tf.less(self._rank, tf.convert_to_tensor(self._stage))
            ascended = tf.minimum(ascended, WEIGHT_LIMIT)
            multipliers = tf.where(earlier, ascended, multipliers)
            self._multipliers.assign(multipliers)
        weights = self._mixture(multipliers)
        if self.reads == "gradients":
            weighed = [
                tf.reshape(weights, [-1] + [1] * (each.shape.rank - 1)) * each for each in gramian
            ]
            return self.inner(losses, weighed)  # type: ignore[misc]
        if self._staged is None:
            return weights
        matrices = [each for each in (gramian, whole) if each is not None]
        found = self._staged.weigh(tf.convert_to_tensor(self._stage), losses, *matrices)
        # Those of IMTL-G may be negative.
        size = tf.reduce_sum(tf.abs(weights * found))
        weights = tf.math.divide_no_nan(weights * found, size)
        self.inner.record(weights, gramian)  # type: ignore[union-attr]
        return weights

    def look_back(self, losses, losses_after):
        if self._staged is not None:
            self._staged.look_back(tf.convert_to_tensor(self._stage), losses, losses_after)

    # With a balancer inside that searches

    def own_weights(self):
        return self._mixture()

    def due(self):
        """As :meth:`~tfmtl.balancers.gramian.GramianBalancer.due`, of the inner balancer."""
        return self.inner.due()  # type: ignore[union-attr]

    def count(self, made):
        if self.inner is not None:
            self.inner.count(made)

    def last(self):
        """As :meth:`~tfmtl.balancers.gramian.GramianBalancer.last`, of the inner balancer."""
        return None if self.inner is None else self.inner.last()

    @property
    def step_variables(self):
        inners = [] if self.inner is None else [self.inner, *self._inners]
        return [self._multipliers, *(each for inner in inners for each in inner.step_variables)]

    def balance(self, losses, gradients, variables, optimizer):
        """As :meth:`~tfmtl.balancers.updates.UpdateBalancer.balance`, of the inner balancer."""
        return self.inner.balance(losses, gradients, variables, optimizer, find=self)  # type: ignore[union-attr]

    def _mixture(self, multipliers=None):
        """The weights: a convex combination of the stage's own loss and the held ones."""
        stage = tf.convert_to_tensor(self._stage)
        if multipliers is None:
            multipliers = tf.convert_to_tensor(self._multipliers)
        own = tf.cast(tf.equal(self._rank, stage), tf.float32)
        held = tf.cast(tf.less(self._rank, stage), tf.float32)
        raw = (own + held * multipliers) / tf.convert_to_tensor(self._scales)
        return tf.math.divide_no_nan(raw, tf.reduce_sum(raw))

    # What happens between steps: readings, stages. Plain NumPy, a few times an epoch.

    @property
    def stage(self) -> int:
        """Index of the running stage: 0 is the first; the number of tasks when all are done."""
        return int(self._stage.numpy())

    @property
    def started(self) -> bool:
        """Whether a ``fit`` has begun."""
        return int(self._counters.numpy()[3]) > 0

    @property
    def readings_taken(self) -> int:
        """How many readings there were, in all stages."""
        return int(self._counters.numpy()[2])

    @property
    def has_best(self) -> bool:
        """Whether the running stage has had a reading."""
        return bool(np.isfinite(self._best.numpy()[0]))

    @property
    def over(self) -> bool:
        """Whether the running stage has had its last reading; :meth:`advance` ends it."""
        count, wait, _, allowed, _ = self._counters.numpy().tolist()
        if 0 < allowed <= count:
            return True
        feasible = not self._best.numpy()[0]
        return wait >= self.patience and feasible and count >= self._least_readings()

    @property
    def done(self) -> bool:
        """Whether every stage has ended."""
        return self.stage == len(self.tasks)

    def begin(self, variables: Sequence, reading: Reading, planned: int) -> None:
        """Start stage 1: ``planned`` readings are to come in this fit."""
        self.store("start", variables)
        self._start_losses.assign(reading.losses)
        self._scales.assign(_size(reading.losses, reading.losses))
        self.plan(planned)

    def plan(self, planned: int) -> None:
        """Expect so many readings in all; the running stage may have its share of those left."""
        count, wait, total, _, _ = self._counters.numpy().tolist()
        left = planned - (total - count)
        allowed = max(1, left // max(1, len(self.tasks) - self.stage))
        self._counters.assign([count, wait, total, allowed, planned])

    def proceed(self, planned: int) -> None:
        """Go on with the last stage after all have ended, for ``planned`` more readings."""
        self._stage.assign(len(self.tasks) - 1)
        total = int(self._counters.numpy()[2])
        self._counters.assign([0, 0, total, planned, total + planned])

    def observe(self, reading: Reading, step: int) -> bool:
        """Take in a reading: record it, judge it, move the multipliers.

        Returns:
            Whether it is the stage's best so far.
        """
        stage = self.stage
        current = self._rank == stage
        earlier = self._rank < stage
        held_out = self.variant == "held_out"
        risks = reading.risks()
        count, wait, total, allowed, planned = self._counters.numpy().tolist()

        relative = self._relative(risks)
        violations = np.where(earlier, monitored(relative), np.nan)
        feasible = not (held_out and earlier.any()) or bool(np.nanmax(relative[earlier]) <= 0)
        self._violations.assign(np.nan_to_num(violations))
        weights = self._mixture().numpy()
        self._trace.record(
            total,
            step,
            stage,
            feasible,
            weights,
            np.where(earlier, weights / weights[current], 0.0),
            reading.losses,
            reading.aucs,
            violations,
        )
        score = monitored(risks)[current][0] if feasible else np.nanmax(violations)
        better = (not feasible, score) < tuple(self._best.numpy())
        if better:
            self._best.assign([not feasible, score])
            self._best_risks.assign(risks)
        wait = 0 if better else wait + 1
        self._counters.assign([count + 1, wait, total + 1, allowed, planned])
        if held_out:
            if earlier.any():
                self._move(risks, earlier, count)
            scales = self._scales.numpy()
            scales[current] = _size(reading.losses, self._start_losses.numpy())[current]
            self._scales.assign(scales)
        return better

    def advance(self, reading: Reading | None = None) -> bool:
        """End the stage, whose best weights are in place: set the baselines, go to the next.

        Args:
            reading: of the training rows, for the paper's baselines.

        Returns:
            Whether this was the last stage.
        """
        stage = self.stage
        ended = self._rank <= stage
        baselines = self._baselines.numpy()
        risks = self._level() if reading is None else reading.risks()
        if reading is None:
            # A stage that fell short of a constraint does not loosen it for the next one.
            risks = np.fmin(risks, np.where(self._rank[:, None] < stage, baselines[0], np.inf))
        baselines[0][ended] = risks[ended]
        starts = np.stack([self._start_losses.numpy(), np.full(len(self.tasks), 0.5)], axis=1)
        baselines[1][ended] = _size(risks, starts)[ended]
        seen = self._trace.risks(stage)
        late = seen[len(seen) // 2 :]
        if len(late) > 1:
            noise = np.median(np.abs(np.diff(late, axis=0)), axis=0) / baselines[1]
            baselines[2][ended] = noise[ended]
        self._baselines.assign(baselines)
        if self.variant == "held_out":
            scales = _size(starts[:, 0], starts[:, 0])
            scales[ended] = baselines[1][ended, 0]
            self._scales.assign(scales)
        start = self.multiplier if self.variant == "held_out" else 0.0
        self._multipliers.assign(np.where(ended, start, 0.0))
        self._controller.assign(np.zeros((4, len(self.tasks)), np.float32))
        self._best.assign([np.inf, np.inf])
        self._violations.assign(np.zeros(len(self.tasks), np.float32))
        for inner in (self.inner, *self._inners) if self.inner is not None else ():
            inner.restart()
        _, _, total, _, planned = self._counters.numpy().tolist()
        self._stage.assign(stage + 1)
        self._counters.assign([0, 0, total, 1, planned])
        self.plan(planned)
        return self.done

    def store(self, which: str, variables: Sequence) -> None:
        """Copy the backbone's weights to ``"start"`` or ``"best"``."""
        for kept, variable in zip(self._weights_at[which], variables, strict=True):
            kept.assign(variable)

    def restore(self, which: str, variables: Sequence) -> None:
        """Copy ``"start"`` or ``"best"`` to the backbone's weights."""
        for kept, variable in zip(self._weights_at[which], variables, strict=True):
            variable.assign(kept)

    def trace(self) -> list[dict]:
        """Every reading, in order: ``step``, ``stage`` (1 first), ``feasible`` and, with the
        task's name appended, ``weight_``, ``lambda_`` (relative to the stage's own task),
        ``loss_``, ``auc_`` and ``violation_`` (relative excess over the baseline).
        """
        return self._trace.as_dicts()

    def kept(self) -> list[dict]:
        """For each stage that has ended the reading that it gave its weights of, as in
        :meth:`trace`: ``feasible`` says whether the earlier tasks are held in it.
        """
        found, trace = [], self.trace()
        for stage in range(self.stage):
            rows = [row for row in trace if row["stage"] == stage + 1]
            if self.variant == "paper" and stage:
                rows = rows[-1:]
            if rows:  # only so many readings are recorded
                found.append(min(rows, key=self._badness))
        return found

    def _badness(self, row: Mapping) -> tuple[bool, float]:
        """What the best reading of a stage has least of."""
        own, *held = self.priority[row["stage"] - 1 :: -1]
        if not row["feasible"]:
            return True, max(row[f"violation_{task}"] for task in held)
        loss, auc = row[f"loss_{own}"], row[f"auc_{own}"]
        return False, loss if np.isnan(auc) else 1.0 - auc

    def multipliers_at_limit(self) -> dict[str, float]:
        """Multipliers that cannot rise further, by task."""
        limit = BOUNDS[1] if self.variant == "held_out" else WEIGHT_LIMIT
        values = self._multipliers.numpy().tolist()
        return {t: v for t, v in zip(self.tasks, values, strict=True) if v >= limit}

    def baselines(self) -> dict[str, dict[str, float]]:
        """Loss and AUC at θ* of each task whose stage has ended."""
        values = self._baselines.numpy()[0]
        ended = self._rank < self.stage
        return {
            task: {"loss": float(values[i, 0]), "auc": 1.0 - float(values[i, 1])}
            for i, task in enumerate(self.tasks)
            if ended[i]
        }

    def watch(self):
        """``stage`` (1 first; the last one still when it has ended), ``lambda_<task>`` relative to
        the stage's own task and, as of the last reading, ``violation_<task>``: the excess over the
        baseline as a fraction of it. With ``inner`` what it shows besides.
        """
        stage = tf.minimum(tf.convert_to_tensor(self._stage), len(self.tasks) - 1)
        scales = tf.convert_to_tensor(self._scales)
        own = tf.reduce_sum(scales * tf.cast(tf.equal(self._rank, stage), tf.float32))
        relative = tf.math.divide_no_nan(tf.convert_to_tensor(self._multipliers) * own, scales)
        relative *= tf.cast(self._rank < stage, tf.float32)
        found = {"stage": tf.cast(stage + 1, tf.float32)}
        for name, values in (
            ("lambda", relative),
            ("violation", tf.convert_to_tensor(self._violations)),
        ):
            for i, task in enumerate(self.tasks):
                if task != self.priority[-1]:
                    found[f"{name}_{task}"] = values[i]
        return {**found, **(self.inner.watch() if self.inner is not None else {})}

    def callbacks(self):
        return [PriorityStages(self)]

    def get_config(self):
        return {
            **super().get_config(),
            "priority": list(self.priority),
            "variant": self.variant,
            "tolerance": self.tolerance,
            "patience": self.patience,
            "readings": self.readings,
            "multiplier": self.multiplier,
            "integral": self.integral,
            "proportional": self.proportional,
            "multiplier_rate": self.multiplier_rate,
            "inner": compat.serialize(self.inner),
        }

    def _relative(self, risks: np.ndarray) -> np.ndarray:
        """Excess over the baselines and their tolerance as a fraction of the baselines' size."""
        base, size, _ = self._baselines.numpy()
        return (risks - base) / size - (self._tolerance / size[:, 0])[:, None]

    def _move(self, risks: np.ndarray, earlier: np.ndarray, count: int) -> None:
        """The controller: log λ follows the violation against the previous stage at this time."""
        base, size, noise = self._baselines.numpy()
        before = self._trace.risks(self.stage - 1)
        reference = before[count] if count < len(before) else base
        width = size * np.fmax(noise, LEAST_NOISE)
        with np.errstate(invalid="ignore"):  # later tasks have no baselines yet
            tolerated = (self._tolerance / size[:, 0])[:, None] * size
            excess = (risks - reference - tolerated) / width
            excess = np.where(earlier, np.nanmax(np.where(np.isnan(excess), -np.inf, excess), 1), 0)
        state, multipliers = follow(
            self._controller.numpy(),
            excess,
            start=self.multiplier,
            integral=self.integral,
            proportional=self.proportional,
        )
        self._controller.assign(state)
        self._multipliers.assign(np.where(earlier, multipliers, 0.0))

    def _level(self) -> np.ndarray:
        """Risks ``[tasks, 2]`` around the stage's best reading."""
        best = self._best_risks.numpy()
        seen = self._trace.risks(self.stage)
        places = np.flatnonzero((seen[:, :, 0] == best[:, 0]).all(axis=1))
        return level(seen, int(places[0])) if len(places) else best  # it may not be recorded

    def _least_readings(self) -> int:
        """A stage is not given up before it is as old as the previous one was at its best."""
        if self.variant == "paper" or self.stage == 0:
            return 0
        own = self.tasks.index(self.priority[self.stage - 1])
        risks = self._trace.risks(self.stage - 1)[:, own]
        return int(np.argmin(monitored(risks))) + 1 if len(risks) else 0


def _size(values: np.ndarray, starts) -> np.ndarray:
    """What values are measured in: themselves, or a hundredth of where they started."""
    return np.fmax(np.fmax(np.abs(values), 0.01 * np.abs(starts)), 1e-12)
