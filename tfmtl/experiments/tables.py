"""What tables and pictures of comparisons share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def spread(values: np.ndarray, digits: int = 4) -> str:
    """Mean and standard deviation over seeds; a dash for what was not measured."""
    if np.isnan(values).any():
        return "–"
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"


def label(method: str) -> str:
    """A method as a reader says it."""
    kind, _, argument = method.partition(":")
    names = {
        "nmt": "NMT",
        "nmt-paper": "NMT, the paper's letter",
        "nmt-famo": "NMT with FAMO",
        "clippy": "ClippyAdam",
    }
    if kind == "single":
        return f"{argument} alone" if argument else "each task alone"
    if kind == "sum" and ":" in argument:
        return f"weighted sum, {argument.replace(':', ' : ')}"
    if kind == "sum":
        return f"weighted sum, {argument} on the primary"
    name = names.get(kind, kind)
    return f"{name}, {argument.replace('+', ', ')}" if argument else name


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table of cells, its head and the rule below it first."""
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
