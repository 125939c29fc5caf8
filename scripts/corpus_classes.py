"""Which modules become the classes of the docstring corpus, and how many texts each may give: pure decisions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from heliostat.scripts.docstrings import SourceFile

# Below this share of the size at which a package is split, a submodule is not worth a class of its own.
_SMALLEST_SHARE_OF_SPLIT = 16
# Texts per estimated docstring, on the low side: many are too short, some are no docstrings.
_CAUTIOUS_YIELD = 0.35


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleClass:
    """A module that may become a class: its dotted name, its files in reading order and their estimated docstrings."""

    name: str
    files: tuple[SourceFile, ...]
    estimated_docstrings: int


def choose_classes(files: Sequence[SourceFile], *, num_texts: int, num_classes: int) -> list[ModuleClass]:
    """Return the candidates for classes, the largest first: top-level packages where these suffice.

    Where a few huge packages hold most texts, the cut becomes finer until the `num_classes` largest candidates
    are expected to give `num_texts` with none above `largest_class_size`; where none does, the best cut counts.
    """
    limit = largest_class_size(num_texts, num_classes)
    best: list[ModuleClass] = []
    most = -1
    split_above = max(1, _estimate(files))
    while most < num_texts and split_above:
        classes = split_into_classes(files, split_above=split_above)
        expected = sum(
            min(int(_CAUTIOUS_YIELD * candidate.estimated_docstrings), limit) for candidate in classes[:num_classes]
        )
        if len(classes) >= num_classes and expected > most:
            best, most = classes, expected
        split_above //= 2
    return best or split_into_classes(files, split_above=1)


def largest_class_size(num_texts: int, num_classes: int) -> int:
    """Return the most texts that one class may give: 15 % of all, or twice an even share where that is more."""
    return max(num_texts * 15 // 100, 2 * num_texts // num_classes)


def split_into_classes(files: Iterable[SourceFile], *, split_above: int) -> list[ModuleClass]:
    """Cut the tree of modules into classes, the largest first.

    A package with more than `split_above` estimated docstrings is replaced by its submodules, again and again; its
    own files and submodules too small for a class stay together under its name.
    """
    classes = _split((), list(files), split_above, max(1, split_above // _SMALLEST_SHARE_OF_SPLIT))
    return sorted(classes, key=lambda candidate: (-candidate.estimated_docstrings, candidate.name))


def quota_for(available: Sequence[int], num_texts: int) -> int:
    """Return the smallest number per class with which classes of these sizes give `num_texts` together, or fewer.

    When all of them do not suffice the answer is the size of the largest.
    """
    quota, wanted = 0, num_texts
    ordered = sorted(available)
    for index, size in enumerate(ordered):
        share = -(-wanted // (len(ordered) - index))
        if share <= size:
            return share
        quota, wanted = size, wanted - size
    return quota


def files_to_read(unread: Sequence[SourceFile], *, missing_texts: int, texts_per_docstring: float) -> int:
    """Return how many of the `unread` files are expected to hold `missing_texts` texts, at least one if any is left."""
    expected = 0.0
    for index, file in enumerate(unread):
        if expected >= missing_texts:
            return index
        expected += file.estimated_docstrings * texts_per_docstring
    return len(unread)


def _split(prefix: tuple[str, ...], files: list[SourceFile], split_above: int, smallest: int) -> list[ModuleClass]:
    groups: dict[tuple[str, ...], list[SourceFile]] = {}
    for file in files:
        groups.setdefault(file.module[: len(prefix) + 1], []).append(file)
    own = groups.pop(prefix, []) if prefix else []
    if prefix and (_estimate(files) <= split_above or not groups):
        return [_module_class(prefix, files)]
    classes = []
    for child, members in groups.items():
        if prefix and _estimate(members) < smallest:
            own = own + members
        else:
            classes += _split(child, members, split_above, smallest)
    return classes + ([_module_class(prefix, own)] if own else [])


def _module_class(prefix: tuple[str, ...], files: list[SourceFile]) -> ModuleClass:
    # In the order of a hash, so that what is read first is a fair sample of the module.
    ordered = sorted(files, key=lambda file: blake2b(".".join(file.module).encode(errors="replace")).digest())
    return ModuleClass(name=".".join(prefix), files=tuple(ordered), estimated_docstrings=_estimate(files))


def _estimate(files: Iterable[SourceFile]) -> int:
    return sum(file.estimated_docstrings for file in files)
