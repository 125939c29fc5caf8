"""The files below a folder, for all that look for files of others.

Not `glob` and `rglob`, which go in circles where a link leads back, or follow none: a folder of links to one copy of
data is how people share it. Datasets of our own that lie below are one name each: their shards are no files of others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from fnmatch import fnmatchcase
from typing import TypeAlias

from .manifest import MANIFEST_NAME

Pattern: TypeAlias = tuple[str, ...]
"""What the parts of a name should fit, as `fnmatch` has it, "**" being any number of them; () fits all."""


def files_below(
    folder: str | os.PathLike[str],
    patterns: Set[Pattern] = frozenset({()}),
    above: tuple[str, ...] = (),
    prefix: str = "",
) -> Iterator[str]:
    """The names, from the folder on, of the files below it that fit one of the patterns; raises OSError.

    A link to a folder that it lies in is a name that ends in "/", a dataset below the folder the name of its manifest.
    The files behind any other link are there as often as they have names.

    Args:
        folder: Where to look.
        patterns: What the parts of a name should fit.
        above: The folders that it lies in, by their real paths.
        prefix: What names begin with.
    """
    here = (*above, os.path.realpath(folder))
    entries = list(os.scandir(folder))
    if above and () in patterns and any(entry.name == MANIFEST_NAME for entry in entries):
        yield prefix + MANIFEST_NAME
        return
    for entry in entries:
        left = _after(patterns, entry.name)
        if not left or not os.path.isdir(entry.path):
            yield from [prefix + entry.name] if () in left else []
        elif os.path.realpath(entry.path) in here:
            yield f"{prefix}{entry.name}/"
        else:
            yield from files_below(entry.path, left, here, f"{prefix}{entry.name}/")


def _after(patterns: Set[Pattern], name: str) -> Set[Pattern]:
    """What is left of patterns behind a name that they begin with; of one that ends here (), which fits all below."""
    found = {pattern for pattern in patterns if not pattern}
    for first, *others in patterns - found:
        if name.startswith(".") and not first.startswith("."):
            continue
        if first == "**":
            found |= {(first, *others)} | _after({tuple(others)}, name)
        elif fnmatchcase(name, first):
            found.add(tuple(others))
    return found
