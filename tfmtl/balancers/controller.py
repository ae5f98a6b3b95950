"""How NMT's multipliers follow the violations of its constraints."""

from __future__ import annotations

import numpy as np

#: Bounds of a multiplier under the controller, which moves its logarithm.
BOUNDS = (1e-2, 1e2)
#: A reading moves the controller by at most this many noise widths.
LARGEST_VIOLATION = 2.0


def follow(
    state: np.ndarray, excess: np.ndarray, *, start: float, integral: float, proportional: float
) -> tuple[np.ndarray, np.ndarray]:
    r"""One step of a proportional-integral controller of :math:`\log\lambda` (Stooke et al., 2020),
    whose gains are divided by 1 + the number of times that the violation has changed its sign
    (Kesten, 1958).

    Args:
        state: ``[4, tasks]``: sum and moving average of the violations, the last violation, and how
            often its sign has changed; zeros to begin with.
        excess: ``[tasks]``, the violations in noise widths.
        start: the multiplier of no violation.
        integral: how far a violation of 1 moves :math:`\log\lambda` for good.
        proportional: how far it moves it as long as it lasts.

    Returns:
        The new state and the multipliers ``[tasks]``, within :data:`BOUNDS`.
    """
    excess = np.clip(excess, -LARGEST_VIOLATION, LARGEST_VIOLATION)
    summed, smoothed, last, turns = state
    turns = turns + (last * excess < 0)
    gain = 1.0 / (1.0 + turns)
    low, high = np.log(np.array(BOUNDS) / max(start, BOUNDS[0]))
    summed = np.clip(summed + gain * integral * excess, low, high)
    smoothed = 0.5 * (smoothed + excess)
    moved = start * np.exp(summed + gain * proportional * smoothed)
    return np.stack([summed, smoothed, excess, turns]), np.clip(moved, *BOUNDS)
