"""What may have been meant by a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def hint(name: str, known: Iterable[str]) -> str:
    """The known name that a name comes closest to, whatever its case, as the end of a message; or
    nothing.
    """
    of_lower = {each.lower(): each for each in map(str, known)}
    found = difflib.get_close_matches(name.lower(), of_lower, 1)
    return f" (did you mean {of_lower[found[0]]!r}?)" if found else ""
