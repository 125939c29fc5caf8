"""A real text classification corpus that every machine has: the docstrings of its installed Python packages.

A text is one docstring, its class the package, its split decided by a hash of its words: equal texts are kept once, so
none is in two splits. Sources are parsed, not imported. Encoded as Keras's Reuters is: 0 pads, 1 begins a text, 2 is
any other word.
"""

from __future__ import annotations

import ast
import itertools
import os
import re
import sys
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import CorpusError

PAD, START, UNKNOWN = 0, 1, 2
SPECIAL_WORDS = ("<pad>", "<start>", "<unknown>")
SPLITS = ("train",) * 8 + ("valid", "test")
MIN_WORDS = 20
# No class has more than so many times the mean: what small packages lack, the others give.
MOST_OF_A_CLASS = 2
# Tests, and copies of other packages, whose texts would stand under a wrong name.
_LEFT_OUT = re.compile(r"__pycache__|(site|dist)-packages|tests?|.*_tests?|_?vendor|thirdparty_files|.*-info")
_OWNERS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """int32 texts [texts, sequence_length] and int64 labels [texts] of the splits "train", "valid" and "test"."""

    x: dict[str, NDArray[np.int32]]
    y: dict[str, NDArray[np.int64]]
    class_names: tuple[str, ...]
    vocabulary: tuple[str, ...]

    def __str__(self) -> str:
        labels = np.concatenate([*self.y.values()])
        counts = Counter({name: int(np.sum(labels == place)) for place, name in enumerate(self.class_names)})
        ((first, most), *_, (last, fewest)) = counts.most_common()
        splits = ", ".join(f"{name} {len(y):,}" for name, y in self.y.items())
        return (
            f"{len(labels):,} docstrings of {len(counts)} packages ({splits}); largest class {first} with {most} "
            f"({most / len(labels):.1%}), smallest {last} with {fewest}; {len(self.vocabulary):,} words"
        )


def build_corpus(
    *, num_texts: int, num_classes: int, vocabulary_size: int, sequence_length: int, roots: Sequence[Path] | None = None
) -> Corpus:
    """Read, label, split and encode the docstrings of the largest packages.

    Args:
        num_texts: in all splits; where the packages have fewer, all of them.
        num_classes: so many packages.
        vocabulary_size: word numbers stay below it.
        sequence_length: words of a text, the start among them: the first ones of a longer text.
        roots: folders of packages; None for those of this interpreter.

    Raises CorpusError when there are not half as many texts, or fewer packages.
    """
    folders = installed() if roots is None else roots
    most = -(-MOST_OF_A_CLASS * num_texts // num_classes)
    texts: dict[bytes, tuple[list[str], str]] = {}
    names: list[str] = []
    for name, files in largest(folders):
        found: dict[bytes, tuple[list[str], str]] = {}
        for text in itertools.chain.from_iterable(map(docstrings, files)):
            found.setdefault(blake2b(" ".join(text).encode()).digest(), (text, name))
            if len(found) == most:
                break
        if len(found) >= most // 20:  # else it has hardly a text: the next one, then
            names, texts = [*names, name], found | texts
        if len(names) == num_classes:
            break
    if 2 * len(texts) < num_texts or len(names) < num_classes:
        raise CorpusError(
            f"Found {len(texts):,} different docstrings of {MIN_WORDS} words or more in {len(names)} packages, wanted "
            f"{num_texts:,} in {num_classes}, below {', '.join(map(str, folders))}. Few packages are there, or without "
            "their sources: run it in the environment where TensorFlow, Keras and Ray are installed."
        )
    chosen = [(key, *texts[key]) for key in sorted(texts)[:num_texts]]
    return encode(chosen, vocabulary_size=vocabulary_size, sequence_length=sequence_length)


def encode(texts: Sequence[tuple[bytes, list[str], str]], *, vocabulary_size: int, sequence_length: int) -> Corpus:
    """Turn texts (hash, words, class) into a Corpus; words of class names are left out: they would tell it."""
    class_names = tuple(sorted({name for _, _, name in texts}))
    told = {word for name in class_names for word in words(name)}
    rows: dict[str, list[tuple[list[str], int]]] = {split: [] for split in dict.fromkeys(SPLITS)}
    for key, text, name in texts:
        kept = [word for word in text if word not in told]
        rows[SPLITS[key[-1] % len(SPLITS)]].append((kept, class_names.index(name)))
    counts = Counter(word for text, _ in rows["train"] for word in text)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    vocabulary = (*SPECIAL_WORDS, *ranked[: vocabulary_size - len(SPECIAL_WORDS)])
    number_of = {word: number for number, word in enumerate(vocabulary)}
    x = {split: np.full((len(found), sequence_length), PAD, np.int32) for split, found in rows.items()}
    for split, found in rows.items():
        for row, (text, _) in zip(x[split], found, strict=True):
            numbers = [START, *(number_of.get(word, UNKNOWN) for word in text[: sequence_length - 1])]
            row[sequence_length - len(numbers) :] = numbers
    y = {split: np.array([label for _, label in found], np.int64) for split, found in rows.items()}
    return Corpus(x=x, y=y, class_names=class_names, vocabulary=vocabulary)


def words(text: str) -> list[str]:
    """The lower-cased words of a text, two letters or longer; digits and signs separate words."""
    return re.findall("[a-z]{2,}", text.lower())


def installed() -> tuple[Path, ...]:
    """The folders of this interpreter's standard library and installed packages."""
    found = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    return tuple(dict.fromkeys(Path(entry).resolve() for entry in (sysconfig.get_path("stdlib"), *found)))


def largest(folders: Sequence[Path]) -> list[tuple[str, list[Path]]]:
    """The packages in folders with their Python files, those with most bytes of source first."""
    files: dict[str, dict[Path, Path]] = {}  # by package, path inside of the folder
    for folder in folders:
        for parent, children, names in os.walk(folder):
            children[:] = sorted(name for name in children if not _LEFT_OUT.fullmatch(name))
            for path in (Path(parent, name) for name in names if name.endswith(".py")):
                inside = path.relative_to(folder)
                files.setdefault(inside.parts[0].removesuffix(".py"), {}).setdefault(inside, path)
    found = [(name, [paths[inside] for inside in sorted(paths)]) for name, paths in sorted(files.items())]
    return sorted(found, key=lambda each: -sum(path.stat().st_size for path in each[1] if path.exists()))


def docstrings(path: Path) -> Iterator[list[str]]:
    """The docstrings in a file that have enough words, as words; none where it cannot be read as Python."""
    with warnings.catch_warnings(action="ignore"):  # other people's escape sequences
        try:
            nodes = ast.walk(ast.parse(path.read_bytes()))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            return  # Python 2 code, templates and the like: not ours to judge
    texts = (words(ast.get_docstring(node, clean=False) or "") for node in nodes if isinstance(node, _OWNERS))
    yield from (text for text in texts if len(text) >= MIN_WORDS)
