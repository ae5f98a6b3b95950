"""Which task of a model reaches which variable of its backbone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import keras
import tensorflow as tf

from tfmtl import compat
from tfmtl.models.representation import recording
from tfmtl.objectives import by_name


class Reach:
    """What one traced pass through a backbone tells of its variables.

    Args:
        net: the backbone, built.
        example: inputs of it.
        strategy: the model's; a mirrored variable can be watched within its replicas only.
        shared: what the user calls shared, names as of :func:`tfmtl.compat.variable_name` or
            positions in ``net.weights``; ``None`` for what two outputs reach.

    Raises:
        ValueError: ``shared`` names something else than trainable variables.
    """

    def __init__(
        self,
        net: keras.Model,
        example,
        strategy: tf.distribute.Strategy,
        shared: Sequence[str | int] | None = None,
    ):
        self._net = net
        # Ids of floating weights, frozen or not: by output those it depends on, and those below a
        # marked representation; `None` where there is no mark.
        self._of_output: dict[str, frozenset[int]] = {}
        self._below_mark: frozenset[int] | None = None
        self._trace(example, strategy)
        self._given = None if shared is None else self._ids(shared)

    def _trace(self, example, strategy) -> None:
        weights = [each for each in self._net.weights if compat.is_floating(each)]

        def trace(example):
            watched = [compat.tf_variable(each) for each in weights]
            with (
                tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape,
                recording() as marked,
            ):
                tape.watch(watched)
                outputs = by_name(self._net(example, training=True))

            def reached(output) -> frozenset[int]:
                found = tape.gradient(output, watched)
                return frozenset(
                    id(v) for v, g in zip(weights, found, strict=True) if g is not None
                )

            self._of_output = {name: reached(output) for name, output in outputs.items()}
            mark = marked.tensors()
            self._below_mark = reached(mark) if mark else None

        tf.function(
            lambda example: strategy.run(trace, (example,)), autograph=False
        ).get_concrete_function(example)

    def _ids(self, shared: Sequence[str | int]) -> frozenset[int]:
        trainable = set(map(id, self._variables))
        known = {
            i: (each, compat.variable_name(each))
            for i, each in enumerate(self._net.weights)
            if id(each) in trainable
        }
        names = sorted(name for _, name in known.values())
        unknown = [each for each in shared if each not in known and each not in names]
        if unknown:
            raise ValueError(
                "`shared` must name trainable variables of the backbone. "
                f"Expected some of: {names}. Received: {unknown}"
            )
        return frozenset(id(v) for i, (v, name) in known.items() if i in shared or name in shared)

    @property
    def _variables(self) -> list:
        return self._net.trainable_variables

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the backbone's outputs."""
        return tuple(self._of_output)

    @property
    def marked(self) -> bool:
        """Whether the backbone marks a representation."""
        return self._below_mark is not None

    def above_mark(self, variables: Iterable) -> list[str]:
        """The names of those that are not below the marked representation."""
        below = self._below_mark or frozenset()
        return [compat.variable_name(v) for v in variables if id(v) not in below]

    def trains(self, output: str) -> bool:
        """Whether an output depends on a trainable variable."""
        return not self._of_output[output].isdisjoint(map(id, self._variables))

    def owners(self, outputs: Sequence[str]) -> list[tuple[int, ...]]:
        """For each trainable variable the outputs that depend on it, by their places."""
        found = [self._of_output[output] for output in outputs]
        return [tuple(i for i, each in enumerate(found) if id(v) in each) for v in self._variables]

    def is_shared(self, outputs: Sequence[str]) -> list[bool]:
        """For each trainable variable whether the outputs share it.

        That is where two depend on it, or one does and ``shared`` has named it. An output that
        occurs twice is two tasks.
        """
        least = 2 if self._given is None else 1
        return [
            len(owners) >= least and (self._given is None or id(v) in self._given)
            for owners, v in zip(self.owners(outputs), self._variables, strict=True)
        ]

    def given_places(self) -> list[int] | None:
        """``shared`` by position: a layer's automatic name is another one after loading."""
        if self._given is None:
            return None
        return [i for i, each in enumerate(self._net.weights) if id(each) in self._given]
