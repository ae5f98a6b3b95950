"""What may have been meant by a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near(name: str, known: Iterable[str]) -> str:
    """The known name that a name comes closest to, whatever its case."""
    of_lower = {each.lower(): each for each in map(str, known)}
    found = difflib.get_close_matches(name.lower(), of_lower, 1)
    return of_lower[found[0]] if found else ""


def hint(name: str, known: Iterable[str]) -> str:
    """The same as the end of a message, or nothing."""
    meant = near(name, known)
    return f" (did you mean {meant!r}?)" if meant else ""
