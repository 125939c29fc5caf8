"""The docstring corpus: what it reads, how it labels, splits and encodes."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from heliostat.scripts.demo.corpus import PAD, START, UNKNOWN, Corpus, build_corpus, docstrings, encode, largest
from heliostat.scripts.errors import CorpusError

SMALL = {"num_texts": 200, "num_classes": 4, "vocabulary_size": 300, "sequence_length": 40}


def sentence(seed: object, num_words: int = 25) -> str:
    draw = random.Random(str(seed))
    return " ".join("".join(draw.choices("abcdefgh", k=4)) for _ in range(num_words))


def module_source(name: str, num_functions: int) -> str:
    return "\n".join(f'def f{i}():\n    """{sentence((name, i))}"""\n' for i in range(num_functions))


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Five packages of falling size; the fifth is too small to be among the four largest."""
    root = tmp_path / "installed"
    for package, num_modules in {"alpha": 8, "beta": 6, "gamma": 4, "delta": 3, "omega": 1}.items():
        (root / package).mkdir(parents=True)
        for index in range(num_modules):
            (root / package / f"part{index}.py").write_text(module_source(f"{package}{index}", 20))
    return root


def equal(left: Corpus, right: Corpus) -> bool:
    arrays = (np.array_equal(getattr(left, a)[s], getattr(right, a)[s]) for a in "xy" for s in left.x)
    return all(arrays) and (left.class_names, left.vocabulary) == (right.class_names, right.vocabulary)


def test_the_classes_are_the_largest_packages_and_the_arrays_are_as_promised(packages: Path) -> None:
    corpus = build_corpus(**SMALL, roots=[packages])
    assert corpus.class_names == ("alpha", "beta", "delta", "gamma")
    assert sum(map(len, corpus.y.values())) == 200
    for split, x in corpus.x.items():
        y = corpus.y[split]
        assert x.dtype == np.int32
        assert x.shape == (len(y), 40)
        assert y.dtype == np.int64
        assert 0 <= y.min() <= y.max() < 4
        assert 0 <= x.min() <= x.max() < len(corpus.vocabulary) == 300
    assert len(corpus.y["train"]) > 4 * len(corpus.y["valid"])
    assert "200 docstrings of 4 packages" in str(corpus)


def test_the_corpus_depends_on_the_texts_and_not_on_the_order_of_files(packages: Path, tmp_path: Path) -> None:
    corpus = build_corpus(**SMALL, roots=[packages])
    copied = tmp_path / "elsewhere"
    for path in sorted(packages.rglob("*.py"), reverse=True):
        target = copied / path.relative_to(packages)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    assert equal(corpus, build_corpus(**SMALL, roots=[copied]))
    for path in (copied / "alpha").iterdir():
        path.write_text(path.read_text().replace('"""', '"""changed ', 1))
    assert not equal(corpus, build_corpus(**SMALL, roots=[copied]))


def test_no_class_has_more_than_twice_the_mean_and_packages_with_hardly_a_text_give_way(packages: Path) -> None:
    (packages / "empty").mkdir()
    (packages / "empty" / "large.py").write_text("x = 1\n" * 100_000)
    corpus = build_corpus(**SMALL | {"num_texts": 200}, roots=[packages])
    assert corpus.class_names == ("alpha", "beta", "delta", "gamma")
    counts = np.bincount(np.concatenate([*corpus.y.values()]))
    assert counts.max() <= 2 * 200 / 4


def test_equal_texts_are_kept_once_so_no_text_is_in_two_splits(packages: Path) -> None:
    copied = (packages / "alpha" / "part0.py").read_text().replace("    ", "\t").replace(" ", "  ").upper()
    (packages / "beta" / "copy.py").write_text(copied.replace("DEF", "def"))
    corpus = build_corpus(num_texts=420, num_classes=4, vocabulary_size=100_000, sequence_length=300, roots=[packages])
    # Words unknown to the training split are alike, but no two texts consist of them alone.
    assert len(np.unique(corpus.x["train"], axis=0)) == len(corpus.x["train"])
    assert sum(map(len, corpus.y.values())) == 420


def test_nothing_is_imported_and_broken_files_are_passed_over(packages: Path, tmp_path: Path) -> None:
    touched = tmp_path / "imported"
    evil, old, binary, gone = (packages / "alpha" / f"{name}.py" for name in ("evil", "old", "binary", "gone"))
    evil.write_text(f'"""{sentence(1)}"""\nopen({str(touched)!r}, "w").close()\n')
    old.write_text(f'"""{sentence(2)}"""\nprint "python 2"\n')
    binary.write_bytes(b'"""\x00\xff"""')
    gone.symlink_to(packages / "nowhere.py")
    assert [list(docstrings(path)) for path in (evil, old, binary, gone)] == [[sentence(1).split()], [], [], []]
    assert build_corpus(**SMALL, roots=[packages])
    assert not touched.exists()


def test_docstrings_of_modules_classes_functions_and_methods_are_read_and_no_other_strings(tmp_path: Path) -> None:
    long = {name: f"{sentence(name)} {name}" for name in ("module", "cls", "attribute", "method", "inner")}
    (tmp_path / "a.py").write_text(f'''"""{long["module"]}"""
class A:
    """{long["cls"]}"""
    attribute = """{long["attribute"]}"""
    async def method(self):
        """{long["method"]}!"""
        def inner():
            "{long["inner"]}4."
def short():
    """Short."""
''')
    found = {text[-1] for text in docstrings(tmp_path / "a.py")}
    assert found == {"module", "cls", "method", "inner"}


def test_tests_and_vendored_copies_are_left_out(tmp_path: Path) -> None:
    for folder in ("pkg", "pkg/tests", "pkg/_vendor/other", "pkg/unit_tests", "pkg-1.0.dist-info"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "module.py").write_text("")
    assert largest([tmp_path]) == [("pkg", [tmp_path / "pkg" / "module.py"])]


def test_a_class_name_never_stands_in_its_texts() -> None:
    texts = [(bytes([0]), ["keras", "layers", "model"], "keras.layers"), (bytes([0]), ["ray", "actor"], "ray")]
    corpus = encode(texts, vocabulary_size=50, sequence_length=5)
    assert set(corpus.vocabulary[3:]) == {"model", "actor"}


def test_sequences_start_with_the_start_mark_and_are_padded_in_front_and_cut_at_the_end() -> None:
    texts = [(bytes([0]), ["one", "two", "two"], "a"), (bytes([8]), ["two", "three", "one", "two", "one"], "b")]
    corpus = encode(texts, vocabulary_size=10, sequence_length=5)
    one, two = (corpus.vocabulary.index(word) for word in ("one", "two"))
    np.testing.assert_array_equal(corpus.x["train"], [[PAD, START, one, two, two]])
    np.testing.assert_array_equal(corpus.x["valid"], [[START, two, UNKNOWN, one, two]])
    assert corpus.class_names == ("a", "b")
    assert corpus.y["valid"].tolist() == [1]


def test_too_few_texts_say_what_was_found_and_where(packages: Path) -> None:
    with pytest.raises(CorpusError, match=rf"wanted 5,000 in 4, below {packages}"):
        build_corpus(**SMALL | {"num_texts": 5_000}, roots=[packages])
    with pytest.raises(CorpusError, match="in 5 packages, wanted 200 in 6"):
        build_corpus(**SMALL | {"num_classes": 6}, roots=[packages])
