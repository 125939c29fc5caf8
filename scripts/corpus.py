"""A real text classification corpus that every machine has: the docstrings of its installed Python packages.

A text is one docstring, its class the module it comes from (the largest ones, see `corpus_classes`), its split decided
by a hash of its words: equal texts are kept once, so none is in two splits. The same installed packages give the same
corpus. Encoded as Keras's Reuters is: 0 pads, 1 starts a text, 2 stands for a word that is not in the vocabulary.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from heliostat.scripts.corpus_cache import cache_key, load_arrays, save_arrays
from heliostat.scripts.corpus_classes import choose_classes
from heliostat.scripts.corpus_harvest import Harvest, Text
from heliostat.scripts.docstrings import ReaderError, default_roots, find_files, words
from heliostat.scripts.errors import CorpusError
from numpy.typing import NDArray

PAD, START, UNKNOWN = 0, 1, 2
SPECIAL_WORDS = ("<pad>", "<start>", "<unknown>")
_MIN_WORDS = 20
_SPLITS = ("train",) * 8 + ("valid", "test")
ARRAYS = tuple(f"{axis}_{split}" for split in ("train", "valid", "test") for axis in "xy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """The encoded corpus: `x_*` are int32 [texts, sequence_length], `y_*` int64 [texts] with values below the classes.

    `class_names[label]` is the module's dotted name, `vocabulary[index]` the word.
    """

    x_train: NDArray[np.int32]
    y_train: NDArray[np.int64]
    x_valid: NDArray[np.int32]
    y_valid: NDArray[np.int64]
    x_test: NDArray[np.int32]
    y_test: NDArray[np.int64]
    class_names: tuple[str, ...]
    vocabulary: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of texts in all splits."""
        return len(self.y_train) + len(self.y_valid) + len(self.y_test)

    def class_counts(self) -> dict[str, int]:
        """Return the number of texts per class over all splits, the largest class first."""
        labels = np.concatenate([self.y_train, self.y_valid, self.y_test])
        counts = dict(zip(self.class_names, np.bincount(labels, minlength=len(self.class_names)).tolist(), strict=True))
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def largest_class_share(self) -> float:
        """The accuracy of always naming the largest class."""
        return max(self.class_counts().values()) / len(self)

    def describe(self) -> str:
        """Return one sentence on the splits and the balance of classes."""
        counts = self.class_counts()
        first, last = next(iter(counts)), next(reversed(counts))
        return (
            f"{len(self):,} docstrings of {len(counts)} modules (train {len(self.y_train):,}, valid "
            f"{len(self.y_valid):,}, test {len(self.y_test):,}); largest class {first} with {counts[first]} "
            f"({self.largest_class_share:.1%}), smallest {last} with {counts[last]}; {len(self.vocabulary):,} words"
        )


def build_corpus(
    *,
    num_texts: int = 11_000,
    num_classes: int = 46,
    vocabulary_size: int = 10_000,
    sequence_length: int = 300,
    cache_dir: Path | None,
    processes: int | None = None,
    roots: Sequence[Path] | None = None,
) -> Corpus:
    """Read, label, split and encode the docstrings below `roots` (this interpreter's packages when None).

    Word indices stay below `vocabulary_size`. With `cache_dir` the arrays are kept there, keyed by the settings and
    the installed distributions. Raises CorpusError when too few texts or classes are found, or a setting is
    out of range.
    """
    settings = {
        "num_texts": num_texts,
        "num_classes": num_classes,
        "vocabulary_size": vocabulary_size,
        "sequence_length": sequence_length,
    }
    _check(settings)
    folders = default_roots() if roots is None else tuple(Path(root).resolve() for root in roots)
    key = cache_key(settings, folders) if cache_dir is not None else ""
    if cache_dir is not None and (kept := load_arrays(cache_dir, key)) is not None:
        arrays, names = kept
        return Corpus(**arrays, class_names=names["class_names"], vocabulary=names["vocabulary"])
    texts = _read(folders, num_texts, num_classes, processes or os.cpu_count() or 1)
    corpus = encode(texts, vocabulary_size=vocabulary_size, sequence_length=sequence_length)
    if cache_dir is not None:
        arrays = {name: getattr(corpus, name) for name in ARRAYS}
        save_arrays(cache_dir, key, arrays, {"class_names": corpus.class_names, "vocabulary": corpus.vocabulary})
    return corpus


def encode(texts: Sequence[Text], *, vocabulary_size: int, sequence_length: int) -> Corpus:
    """Turn labelled texts, given in their final order, into a Corpus: pure, the vocabulary from the train split only.

    Words of the class names are left out of every text: a module's own name would tell its class. A
    text keeps its first words; a shorter one is padded in front, as `keras.utils.pad_sequences` does.
    """
    class_names = tuple(sorted({text.label for text in texts}))
    label_of = {name: index for index, name in enumerate(class_names)}
    told = {word for name in class_names for word in words(name)}
    splits: dict[str, list[tuple[list[str], int]]] = {name: [] for name in dict.fromkeys(_SPLITS)}
    for text in texts:
        kept = [word for word in text.words.split(" ") if word not in told]
        splits[_SPLITS[text.digest[-1] % len(_SPLITS)]].append((kept, label_of[text.label]))
    vocabulary = _vocabulary((kept for kept, _ in splits["train"]), vocabulary_size)
    index_of = {word: index for index, word in enumerate(vocabulary)}
    arrays: dict[str, NDArray] = {}
    for name, rows in splits.items():
        arrays[f"x_{name}"] = _sequences([kept for kept, _ in rows], index_of, sequence_length)
        arrays[f"y_{name}"] = np.array([label for _, label in rows], np.int64)
    return Corpus(**arrays, class_names=class_names, vocabulary=vocabulary)


def _vocabulary(texts: Iterable[list[str]], size: int) -> tuple[str, ...]:
    counts = Counter(word for text in texts for word in text)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return (*SPECIAL_WORDS, *ranked[: size - len(SPECIAL_WORDS)])


def _sequences(texts: Sequence[list[str]], index_of: Mapping[str, int], length: int) -> NDArray[np.int32]:
    sequences = np.full((len(texts), length), PAD, np.int32)
    for row, text in zip(sequences, texts, strict=True):
        indices = [START, *(index_of.get(word, UNKNOWN) for word in text[: length - 1])]
        row[length - len(indices) :] = indices
    return sequences


def _read(folders: Sequence[Path], num_texts: int, num_classes: int, processes: int) -> list[Text]:
    files = find_files(folders, threads=2 * processes)
    classes = choose_classes(files, num_texts=num_texts, num_classes=num_classes)
    harvest = Harvest(classes, num_texts=num_texts, num_classes=num_classes, min_words=_MIN_WORDS)
    where = ", ".join(map(str, folders))
    try:
        harvest.read_all(processes)
    except ReaderError as error:
        raise CorpusError(str(error)) from error
    texts = harvest.texts()
    found = len({text.label for text in texts})
    if len(texts) < num_texts or found < num_classes:
        raise CorpusError(
            f"Found {len(texts):,} different docstrings of {_MIN_WORDS} words or more in {found} modules, wanted "
            f"{num_texts:,} in {num_classes}: looked at {len(files):,} Python files below {where}. Probably few "
            f"packages are installed there, or without their sources. Ask for fewer texts or classes, or run it in "
            f"the environment where TensorFlow, Keras and Ray are installed."
        )
    return texts


def _check(settings: Mapping[str, int]) -> None:
    smallest = {"num_texts": 10, "num_classes": 2, "vocabulary_size": len(SPECIAL_WORDS) + 1, "sequence_length": 2}
    for name, value in settings.items():
        if value < smallest[name]:
            raise CorpusError(f"{name}={value} is too small: give {smallest[name]} or more.")
    if settings["num_classes"] > settings["num_texts"]:
        raise CorpusError(
            f"num_classes={settings['num_classes']} is more than num_texts={settings['num_texts']}: "
            f"every class needs a text. Give fewer classes or more texts."
        )
