"""What a worker can be asked to run. Each module needs the environment it is named for."""

import dataclasses
import pathlib
import re
from collections.abc import Callable


@dataclasses.dataclass
class Case:
    """Something to run.

    Args:
        run: takes how many steps, and returns when they are done; ``None`` where building the case
            was all there is to do.
        per: calls within a step: times are divided by it.
        figures: what else was found, by name.
    """

    run: Callable[[int], None] | None = None
    per: int = 1
    figures: dict[str, float] = dataclasses.field(default_factory=dict)


def resident_peak() -> float:
    """The largest resident memory of this process so far, in MB."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024
