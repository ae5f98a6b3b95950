"""What a comparison is: who is in it, who runs beside whom, and what must hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

#: The two stacks.
STACKS = ("tf221", "tf215")
PEERS = "peers"
TITLES = {"tf221": "TensorFlow 2.21", "tf215": "TensorFlow 2.15", "peers": "peers"}


@dataclasses.dataclass(frozen=True)
class Against:
    """A ratio: this contender's figure by another's, round by round.

    Args:
        label: the other contender's.
        column: heading of the ratios.
        limit: the ratio is to be at most this.
        environment: the other contender's; by default one's own.
    """

    label: str
    column: str
    limit: float | None = None
    environment: str | None = None


@dataclasses.dataclass(frozen=True)
class Contender:
    """One of those that are compared.

    Args:
        label: what it is called; unique in its environment within a comparison.
        environment: a folder of ``.venv``.
        case: ``module.function`` of :mod:`benchmarks.cases`, and
        arguments: of the function.
        against: ratios to others.
        limit: its own figure is to be at most this.
        cycle: steps come in multiples of it.
        process: contenders of an environment with the same word share a process. With a word of
            its own, a contender's peak of memory is read.
    """

    label: str
    environment: str
    case: str
    arguments: dict = dataclasses.field(default_factory=dict)
    against: Sequence[Against] = ()
    limit: float | None = None
    cycle: int = 1
    process: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.environment, self.label


@dataclasses.dataclass(frozen=True)
class Heat:
    """Contenders that are alive at the same time and have their turns one after the other.

    Args:
        title: above its table.
        contenders: all of them.
        rounds: how many turns each has.
        turn: about how many seconds a turn takes; at least one cycle of steps.
        figure: what ratios and limits are about.
        shown: the figures in the table.
        in_turn: cases are built one after the other, because building one is what is measured.
            Otherwise the environments build theirs side by side.
    """

    title: str
    contenders: Sequence[Contender]
    rounds: int = 9
    turn: float = 0.5
    figure: str = "ms"
    shown: Sequence[str] = ("ms",)
    in_turn: bool = False


@dataclasses.dataclass
class Reading:
    """What was found about a contender: figures by name, a list with a value for each round."""

    contender: Contender
    figures: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    error: str | None = None


Readings = dict[tuple[str, str], Reading]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A section of the results.

    Args:
        name: what ``--only`` takes.
        title: heading.
        text: what is compared, for the reader of the results.
        heats: what runs.
        notes: makes sentences from the readings of each heat.
    """

    name: str
    title: str
    text: str
    heats: Sequence[Heat]
    notes: Callable[[Sequence[Readings]], list[str]] | None = None


def with_(heat: Heat, rounds: int | None, turn: float | None) -> Heat:
    """A heat with other rounds and turns, where they are given."""
    given = {"rounds": rounds, "turn": turn}
    return dataclasses.replace(heat, **{k: v for k, v in given.items() if v is not None})
