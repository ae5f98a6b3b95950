"""Which file of a folder is which part of a data set."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterable, Mapping

#: The words in a file's name that say which part it is.
WORDS = {
    "train": {"train"},
    "validation": {"validation", "valid", "vali", "val"},
    "test": {"test"},
}
Path = str | os.PathLike[str]


def find_parts(
    path: Path | Mapping[str, Path],
    endings: Iterable[str],
    required: Iterable[str] = ("train", "test"),
) -> dict[str, pathlib.Path]:
    """The files of ``"train"``, ``"validation"`` and ``"test"``.

    Args:
        path: a folder, in which a file's name tells its part by one of :data:`WORDS`, set off
            from other letters (``Fold1/vali.txt``, ``set1.train.txt``, ``ali_ccp_test.csv``); or
            the files themselves as ``{part: file}``.
        endings: how the names of files in a folder may end.
        required: parts that must be there.

    Raises:
        FileNotFoundError: no such folder or file, or a part that is required is not there.
        ValueError: a part that is none of the three, or one for which two files qualify.
    """
    required = list(required)
    if isinstance(path, Mapping):
        unknown = sorted(set(path) - set(WORDS))
        if unknown:
            raise ValueError(f"`path` must name parts of {list(WORDS)}. Received: {unknown}")
        parts = {part: pathlib.Path(file) for part, file in path.items()}
        absent = [str(file) for file in parts.values() if not file.is_file()]
        received = f"files that do not exist: {absent}" if absent else f"{sorted(parts)}"
        if absent or not set(required) <= set(parts):
            raise FileNotFoundError(f"`path` must hold {required}. Received: {received}")
        return parts
    folder = pathlib.Path(path)
    names = sorted(item.name for item in folder.iterdir()) if folder.is_dir() else []
    endings = tuple(endings)
    parts = {}
    for part, words in WORDS.items():
        found = [
            name
            for name in names
            if name.lower().endswith(endings) and words & set(re.split("[^a-z]+", name.lower()))
        ]
        if len(found) > 1:
            raise ValueError(
                f"`path` must be a folder with one file for {part!r}, or name the files as "
                f"{{'train': ..., 'validation': ..., 'test': ...}}. Received: {found}"
            )
        if found:
            parts[part] = folder / found[0]
    missing = [part for part in required if part not in parts]
    if missing:
        raise FileNotFoundError(
            f"`path` must be a folder with files named after their part ({', '.join(required)}), "
            f"ending in one of {list(endings)}. Missing: {missing}. "
            f"Received: {str(folder)!r} with {names if folder.is_dir() else 'no folder'}"
        )
    return parts


def find_file(path: Path) -> pathlib.Path:
    """The file at ``path``.

    Raises:
        FileNotFoundError: it is not there, or a folder.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"`path` must be a file. Received: {str(file)!r}")
    return file


def check_fraction(name: str, value: float) -> None:
    """Raise ``ValueError`` unless ``value`` lies in (0, 1)."""
    if not 0.0 < value < 1.0:
        raise ValueError(f"`{name}` must lie in (0, 1). Received: {value}")
