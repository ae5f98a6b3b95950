"""Rows of a made-up search log whose Pareto front is known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import keras
import numpy as np

from tfmtl.data.rows import Rows, Splits
from tfmtl.features import FeatureSpec
from tfmtl.losses import Scaled

# SciPy takes a tenth of a second to import: who draws no rows does not wait for it.

TASKS = ("relevance", "click")
FEATURES = 8
#: Documents of a query.
DOCUMENTS = 10
#: How much the rows tell of a label: the deviation of its log-odds.
DEVIATION = 2.0


@dataclasses.dataclass(frozen=True)
class Synthetic(Splits[Rows]):
    """What :func:`synthetic` returns: splits, and the truth about their test rows.

    Args:
        probabilities: the true probability of each label of each test row, ``{task: [rows]}``.
        loss_scales: the factor of each task's loss in :meth:`losses`.
    """

    probabilities: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    loss_scales: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def losses(self) -> dict:
        """``{task: loss}`` for ``compile``: cross-entropies of logits times the tasks' scales."""
        entropy = keras.losses.BinaryCrossentropy(from_logits=True)
        return {task: Scaled(entropy, scale) for task, scale in self.loss_scales.items()}

    def expected(self, predictions: np.ndarray) -> np.ndarray:
        """The expected cross-entropies ``[tasks]`` of one prediction for both tasks.

        Args:
            predictions: probabilities ``[rows]`` for the test rows.
        """
        p = np.clip(np.asarray(predictions, float), 1e-12, 1 - 1e-12)
        return np.array(
            [-np.mean(t * np.log(p) + (1 - t) * np.log(1 - p)) for t in self.probabilities.values()]
        )

    def front(self, points: int = 101) -> np.ndarray:
        r"""The Pareto front of one score for both tasks: expected cross-entropies ``[points, 2]``.

        Cross-entropy is linear in the label, so that :math:`\lambda L_1 + (1 - \lambda) L_2` is the
        cross-entropy of a label with probability :math:`\lambda p_1(x) + (1 - \lambda) p_2(x)`, and
        that probability is its minimiser. Both losses are convex in the prediction: the minimisers
        for :math:`\lambda` from 1 to 0 are the whole front. No network has a point below it.
        """
        return np.array([self._optimum(share) for share in np.linspace(1, 0, points)])

    def gap(self, predictions: np.ndarray) -> float:
        """By how much some point of the front is better in both tasks (nats); 0 on the front."""
        from scipy import optimize

        own = self.expected(predictions)

        def leans(share: float) -> float:
            behind = own - self._optimum(share)
            return float(behind[0] - behind[1])

        # The higher the share of the first task, the further behind in it, and the less in the
        # other: the best point is where both are the same.
        share = 0.0 if leans(0) >= 0 else 1.0
        if leans(0) < 0 < leans(1):
            share = optimize.brentq(leans, 0, 1)
        return float((own - self._optimum(share)).min())

    def _optimum(self, share: float) -> np.ndarray:
        first, second = self.probabilities.values()
        return self.expected(share * first + (1 - share) * second)


def synthetic(
    rows: int = 20_000,
    *,
    conflict: float = 0.5,
    rates: tuple[float, float] = (0.4, 0.1),
    loss_scales: tuple[float, float] = (1.0, 1.0),
    seed: int = 0,
) -> Synthetic:
    """Two tasks that one score has to serve, with knobs for what makes that hard.

    Queries of 10 documents with 8 numeric features, normally distributed; half of the features are
    the query's, the same for its documents. The log-odds of a label are linear in the features.
    With a model that has a score for each task there is no conflict but for its capacity; with one
    score for both (:class:`tfmtl.models.LTRTower` and ``outputs``) :meth:`Synthetic.front` is the
    truth to compare with.

    Args:
        rows: in all, a multiple of 10; the last tenth is for testing, the one before it for
            validation.
        conflict: the angle between what the tasks want, from 0 (the same) over 0.5 (unrelated) to 1
            (the opposite).
        rates: the share of rows with a positive label, each in (0, 1).
        loss_scales: factors of the losses, above 0.
        seed: of everything that is drawn.

    Returns:
        Splits with the tasks ``"relevance"`` and ``"click"``, grouped by query, and the truth.

    Raises:
        ValueError: an argument is outside what is said above.
    """
    from scipy import special

    if rows < 10 * DOCUMENTS or rows % DOCUMENTS:
        raise ValueError(
            f"`rows` must be a multiple of {DOCUMENTS}, at least {10 * DOCUMENTS}. Received: {rows}"
        )
    if not 0 <= conflict <= 1:
        raise ValueError(f"`conflict` must be in [0, 1]. Received: {conflict}")
    if len(rates) != 2 or not all(0 < rate < 1 for rate in rates):
        raise ValueError(f"`rates` must be two numbers in (0, 1). Received: {rates}")
    if len(loss_scales) != 2 or not all(scale > 0 for scale in loss_scales):
        raise ValueError(f"`loss_scales` must be two numbers above 0. Received: {loss_scales}")
    rng = np.random.default_rng(seed)
    queries = rows // DOCUMENTS
    half = FEATURES // 2
    of_query = np.repeat(rng.normal(size=(queries, half)), DOCUMENTS, axis=0)
    x = np.concatenate([of_query, rng.normal(size=(rows, FEATURES - half))], axis=1)
    first, other = np.linalg.qr(rng.normal(size=(FEATURES, 2)))[0].T
    angle = math.pi * conflict
    wanted = (first, math.cos(angle) * first + math.sin(angle) * other)
    truth = {
        task: special.expit(_offset(rate) + DEVIATION * (x @ direction))
        for task, direction, rate in zip(TASKS, wanted, rates, strict=True)
    }
    everything = Rows(
        {f"feature_{i}": x[:, i].astype("float32") for i in range(FEATURES)},
        {task: (rng.random(rows) < p).astype("float32") for task, p in truth.items()},
        groups=np.repeat(np.arange(queries), DOCUMENTS),
    )
    tenth = queries // 10 * DOCUMENTS
    return Synthetic(
        train=everything.take(slice(0, rows - 2 * tenth)),
        validation=everything.take(slice(rows - 2 * tenth, rows - tenth)),
        test=everything.take(slice(rows - tenth, None)),
        features=FeatureSpec({}, tuple(everything.columns)),
        tasks=TASKS,
        vocabularies={},
        probabilities={task: p[rows - tenth :] for task, p in truth.items()},
        loss_scales=dict(zip(TASKS, loss_scales, strict=True)),
    )


def _offset(rate: float) -> float:
    """The mean of normal log-odds for which labels are positive at a rate."""
    from scipy import optimize, special

    points, weights = np.polynomial.hermite_e.hermegauss(64)
    weights = weights / weights.sum()

    def excess(offset: float) -> float:
        return float(weights @ special.expit(offset + DEVIATION * points)) - rate

    return optimize.brentq(excess, -50, 50)
