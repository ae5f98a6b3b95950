"""YAML files whose errors name the file, the line and the key."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tfmtl.data.encode import require

_MISSING = object()


class Section:
    """A mapping of a file.

    Args:
        path: the file, as errors name it.
        values: by key.
        lines: of the keys, the first line being 1.
        prefix: of the keys in errors.
    """

    def __init__(self, path: str, values: dict, lines: dict, prefix: str = ""):
        self._path = path
        self._values = values
        self._lines = lines
        self._prefix = prefix

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def check_keys(self, known: Iterable[str], required: Iterable[str] = ()) -> None:
        """Raise ``ValueError`` for a key that is not known, or one that is missing."""
        known = list(known)
        for key in self._values:
            if key not in known:
                raise self.error(key, f"is unknown. Expected some of: {sorted(known)}")
        missing = sorted(set(required) - set(self._values))
        if missing:
            raise ValueError(f"{self._path}: {self._prefix}{missing[0]} is missing")

    def value(self, key: str, kind: type | None = None, default: Any = _MISSING):
        """What a key has, of a kind; where the key is missing, the default."""
        if key not in self._values:
            if default is _MISSING:
                raise ValueError(f"{self._path}: {self._prefix}{key} is missing")
            return default
        value = self._values[key]
        if kind is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise self.error(key, f"must be of type {kind.__name__}. Received: {value!r}")
        return value

    def choice(self, key: str, choices: Sequence[str], default: Any = _MISSING) -> str:
        """What a key has, one of some words."""
        value = self.value(key, default=default)
        if value not in choices:
            raise self.error(key, f"must be one of {list(choices)}. Received: {value!r}")
        return value

    def section(self, key: str) -> Section:
        """The mapping that a key has; an empty one where the key is missing."""
        values = self.value(key, dict, {})
        lines = {name[1:]: line for name, line in self._lines.items() if name[:1] == (key,)}
        return Section(self._path, values, lines, f"{self._prefix}{key}.")

    @contextlib.contextmanager
    def naming(self, key: str) -> Iterator[None]:
        """Within, a ``ValueError`` is one of this key."""
        try:
            yield
        except ValueError as error:
            raise self.error(key, f": {error}") from error

    def error(self, key: str, what: str) -> ValueError:
        """The error that a key causes.

        Args:
            key: whose value is wrong.
            what: is said of it, behind its name; or behind a colon.
        """
        line = self._lines.get((key,))
        where = self._path if line is None else f"{self._path}, line {line}"
        return ValueError(f"{where}: {self._prefix}{key}{'' if what[0] == ':' else ' '}{what}")


def read(path: str | os.PathLike) -> Section:
    """A file that holds a mapping.

    Only plain values are read: YAML that asks for objects is an error.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: PyYAML is not installed.
        ValueError: it is not YAML of a mapping, or a key stands twice.
    """
    yaml = require("yaml", "Reading a configuration")
    shown = pathlib.Path(path).name
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
        root = yaml.compose(text, yaml.SafeLoader)
        values = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = shown if mark is None else f"{shown}, line {mark.line + 1}"
        reason = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise ValueError(f"{where}: not YAML of plain values: {reason}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ValueError(f"{shown}: expected a mapping of keys to values. Received: {values!r:.60}")
    lines: dict[tuple, int] = {}
    _note_lines(shown, root, (), lines)
    return Section(shown, values, lines)


def _note_lines(path: str, node, above: tuple, lines: dict) -> None:
    if node.id != "mapping":
        return
    for key, value in node.value:
        name, line = (*above, key.value), key.start_mark.line + 1
        if name in lines:
            raise ValueError(f"{path}, line {line}: {'.'.join(name)} stands twice")
        lines[name] = line
        _note_lines(path, value, name, lines)
