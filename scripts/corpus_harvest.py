"""Reads texts for the docstring corpus, class by class in rounds, until there are enough and no more.

What is read in a round depends only on what earlier rounds found, never on timing: the result is reproducible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from heliostat.scripts.corpus_classes import ModuleClass, files_to_read, largest_class_size, quota_for
from heliostat.scripts.docstrings import SourceFile, read_docstrings

# Nearly half of all docstrings are long enough and no repetition; each class soon has its own measured value.
_FIRST_YIELD = 0.45
# A class with fewer texts than this share of an even one gives way to the next candidate.
_SMALLEST_SHARE = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """One docstring: its words joined by blanks, the module that is its class, a 16-byte hash of the words."""

    words: str
    label: str
    digest: bytes


@dataclass(slots=True)
class _Progress:
    candidate: ModuleClass
    num_files_read: int = 0
    num_docstrings_read: int = 0
    texts: list[Text] = field(default_factory=list)

    @property
    def unread(self) -> Sequence[SourceFile]:
        return self.candidate.files[self.num_files_read :]

    @property
    def texts_per_docstring(self) -> float:
        if not self.num_docstrings_read:
            return _FIRST_YIELD
        return max(0.1, len(self.texts) / self.num_docstrings_read)


class Harvest:
    """Fills the `num_classes` largest candidates evenly with `num_texts` different texts; `classes` largest first."""

    def __init__(self, classes: Sequence[ModuleClass], *, num_texts: int, num_classes: int, min_words: int) -> None:
        self._num_texts = num_texts
        self._min_words = min_words
        self._smallest = _SMALLEST_SHARE * num_texts / num_classes
        self._active = [_Progress(candidate) for candidate in classes[:num_classes]]
        self._reserve = list(classes[num_classes:])
        self._seen: set[bytes] = set()
        self._quota = -(-num_texts // num_classes)
        self._largest = largest_class_size(num_texts, num_classes)

    def read_all(self, processes: int) -> None:
        """Read rounds of files until every class has its quota and together they are enough, or all is read."""
        while wanted := self._next_round():
            files = [file for progress, count in wanted for file in progress.unread[:count]]
            answers = iter(read_docstrings(files, min_words=self._min_words, processes=processes))
            for progress, count in wanted:
                for file in progress.unread[:count]:
                    progress.num_docstrings_read += file.estimated_docstrings
                    self._keep(progress, next(answers))
                progress.num_files_read += count

    def texts(self) -> list[Text]:
        """Return the texts found, at most `num_texts`, at most the quota of each class, in the order of their hash."""
        chosen = [text for progress in self._active for text in progress.texts[: self._quota]]
        return sorted(chosen, key=lambda text: text.digest)[: self._num_texts]

    def _next_round(self) -> list[tuple[_Progress, int]]:
        """Return which classes to read how many more files of; nothing when there are enough or nothing is left."""
        self._replace_poor_classes()
        # What the exhausted classes lack, the others give.
        sizes = [self._num_texts if progress.unread else len(progress.texts) for progress in self._active]
        self._quota = min(max(self._quota, quota_for(sizes, self._num_texts)), self._largest)
        wanted = []
        for progress in self._active:
            missing = self._quota - len(progress.texts)
            if missing > 0 and progress.unread:
                share = progress.texts_per_docstring
                count = files_to_read(progress.unread, missing_texts=missing, texts_per_docstring=share)
                wanted.append((progress, count))
        return wanted

    def _replace_poor_classes(self) -> None:
        for index, progress in enumerate(self._active):
            if not progress.unread and len(progress.texts) < self._smallest and self._reserve:
                self._active[index] = _Progress(self._reserve.pop(0))

    def _keep(self, progress: _Progress, found: Sequence[str]) -> None:
        for text in found:
            digest = blake2b(text.encode(), digest_size=16).digest()
            if digest not in self._seen:
                self._seen.add(digest)
                progress.texts.append(Text(words=text, label=progress.candidate.name, digest=digest))
