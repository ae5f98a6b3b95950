"""The parts of a training step, by the names that its ops have in the graph."""

from __future__ import annotations

import dataclasses
import re

INPUT, FORWARD, BACKWARD = "input", "forward", "backward"
WEIGHTS, OPTIMIZER, OTHER = "weights", "optimizer", "other"

#: In the order of a step.
PARTS = (INPUT, FORWARD, BACKWARD, WEIGHTS, OPTIMIZER, OTHER)


@dataclasses.dataclass(frozen=True)
class Scopes:
    """Names by which the parts are told apart.

    The name scopes ``forward``, ``backward``, ``weights`` and ``optimizer`` tell what they hold.
    Where a step has none, the network's, the balancer's and the optimizer's own names do, as far as
    they go. What ``tf.GradientTape`` adds is named ``gradient_tape/`` and the forward op's name,
    whatever scope the gradient is asked for in: the tasks' backward passes are one part.

    Args:
        network, balancer, optimizer: names of the layers.
    """

    network: str | None = None
    balancer: str | None = None
    optimizer: str | None = None

    def part_of(self, origin: str) -> str:
        """The part that a node belongs to: that of the first scope in its name that has one."""
        parts = {self.network: FORWARD, self.balancer: WEIGHTS, self.optimizer: OPTIMIZER}
        parts |= {"gradient_tape": BACKWARD}
        parts |= {part: part for part in (FORWARD, BACKWARD, WEIGHTS, OPTIMIZER)}
        for scope in origin.split("/"):
            # TensorFlow numbers what is named alike.
            part = parts.get(scope) or parts.get(re.sub(r"_\d+$", "", scope))
            if part is not None:
                return part
        return OTHER
