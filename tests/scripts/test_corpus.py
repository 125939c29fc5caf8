"""The docstring corpus: what it reads, how it labels, splits and encodes, and what it keeps on disk."""

from __future__ import annotations

import pickle
import random
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from heliostat.scripts.corpus import PAD, START, UNKNOWN, Corpus, build_corpus, encode
from heliostat.scripts.corpus_classes import (
    choose_classes,
    files_to_read,
    largest_class_size,
    quota_for,
    split_into_classes,
)
from heliostat.scripts.corpus_harvest import Text
from heliostat.scripts.docstrings import ReaderError, SourceFile, docstrings_of, find_files, read_docstrings, words
from heliostat.scripts.errors import CorpusError
from hypothesis import given, settings
from hypothesis import strategies as st

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
    pairs = [(getattr(left, field.name), getattr(right, field.name)) for field in fields(Corpus)]
    return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)


def source_file(module: str, docstrings: int) -> SourceFile:
    return SourceFile(path=module, module=tuple(module.split(".")), num_bytes=1, estimated_docstrings=docstrings)


def test_the_classes_are_the_largest_modules_and_the_arrays_are_as_promised(packages: Path) -> None:
    corpus = build_corpus(**SMALL, cache_dir=None, roots=[packages])
    assert corpus.class_names == ("alpha", "beta", "delta", "gamma")
    assert len(corpus) == 200
    for split in ("train", "valid", "test"):
        x, y = getattr(corpus, f"x_{split}"), getattr(corpus, f"y_{split}")
        assert x.dtype == np.int32
        assert x.shape == (len(y), 40)
        assert y.dtype == np.int64
        assert 0 <= y.min() <= y.max() < 4
        assert 0 <= x.min() <= x.max() < len(corpus.vocabulary) == 300
    assert len(corpus.y_train) > 4 * len(corpus.y_valid)
    assert "200 docstrings of 4 modules" in corpus.describe()
    assert corpus.largest_class_share == max(corpus.class_counts().values()) / 200


def test_the_corpus_depends_neither_on_the_number_of_processes_nor_on_the_order_of_files(
    packages: Path, tmp_path: Path
) -> None:
    corpus = build_corpus(**SMALL, cache_dir=None, processes=1, roots=[packages])
    assert equal(corpus, build_corpus(**SMALL, cache_dir=None, processes=3, roots=[packages]))
    copied = tmp_path / "elsewhere"
    for path in sorted(packages.rglob("*.py"), reverse=True):
        target = copied / path.relative_to(packages)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    assert equal(corpus, build_corpus(**SMALL, cache_dir=None, roots=[copied]))


def test_another_docstring_gives_another_corpus(packages: Path) -> None:
    corpus = build_corpus(**SMALL, cache_dir=None, roots=[packages])
    for path in (packages / "alpha").iterdir():
        path.write_text(path.read_text().replace("f0", "f00").replace('"""', '"""changed ', 1))
    assert not equal(corpus, build_corpus(**SMALL, cache_dir=None, roots=[packages]))


def test_equal_texts_are_kept_once_so_no_text_is_in_two_splits(packages: Path) -> None:
    copied = (packages / "alpha" / "part0.py").read_text().replace("    ", "\t").replace(" ", "  ").upper()
    (packages / "beta" / "copy.py").write_text(copied.replace("DEF", "def"))
    limits = {**SMALL, "sequence_length": 300, "vocabulary_size": 100_000, "num_texts": 420}
    corpus = build_corpus(**limits, cache_dir=None, roots=[packages])
    rows = np.concatenate([corpus.x_train, corpus.x_valid, corpus.x_test])
    # Words unknown to the training split are alike, but no two texts consist of them alone.
    known = rows[: len(corpus.x_train)]
    assert len(np.unique(known, axis=0)) == len(known)
    assert corpus.class_counts() == {"alpha": 160, "beta": 120, "gamma": 80, "delta": 60}


def test_nothing_is_imported_and_broken_files_are_passed_over(packages: Path, tmp_path: Path) -> None:
    touched = tmp_path / "imported"
    (packages / "alpha" / "evil.py").write_text(f'"""{sentence(1)}"""\nopen({str(touched)!r}, "w").close()\n')
    (packages / "alpha" / "old.py").write_text(f'"""{sentence(2)}"""\nprint "python 2"\n')
    (packages / "alpha" / "binary.py").write_bytes(b'"""\x00\xff"""')
    (packages / "alpha" / "gone.py").symlink_to(packages / "nowhere.py")
    files = {file.module[-1]: file for file in find_files([packages], threads=2)}
    assert "gone" not in files
    texts = read_docstrings([files["evil"], files["old"], files["binary"]], min_words=20, processes=2)
    assert texts == [[sentence(1)], [], []]
    assert not touched.exists()


def test_docstrings_of_modules_classes_functions_and_methods_are_read_and_no_other_strings() -> None:
    source = '''"""Module text one."""
class A:
    """Class text two."""
    attribute = """no docstring at all"""
    async def method(self):
        """Method text three!"""
        def inner():
            "Inner text four4."
def short():
    """Short."""
'''
    assert sorted(docstrings_of(source.encode(), 3)) == [
        "class text two",
        "inner text four",
        "method text three",
        "module text one",
    ]


def test_tests_and_vendored_copies_are_left_out(tmp_path: Path) -> None:
    for folder in ("p", "p/tests", "p/_vendor/q", "p/idle_test", "p/__pycache__", "site-packages/r"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "__init__.py").write_text('"""Some text."""')
    (tmp_path / "p" / "bare.py").write_text("x = 1")
    assert [file.module for file in find_files([tmp_path], threads=1)] == [("p",)]


def test_a_crashed_reader_is_an_error_that_names_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heliostat.scripts.docstrings.sys.executable", "/bin/false")
    with pytest.raises(ReaderError, match=r"docstrings of 1 files \(a\.b"):
        read_docstrings([source_file("a.b", 1)], min_words=1, processes=1)


def test_a_module_name_never_stands_in_its_texts() -> None:
    texts = [
        Text(words=f"alpha common beta word{chr(97 + i)}", label="alpha.beta", digest=bytes([i])) for i in range(20)
    ]
    texts += [Text(words="gamma common", label="gamma", digest=bytes([i])) for i in range(20, 40)]
    corpus = encode(texts, vocabulary_size=50, sequence_length=5)
    assert not {"alpha", "beta", "gamma"} & set(corpus.vocabulary)
    assert "common" in corpus.vocabulary


def test_sequences_start_with_the_start_mark_and_are_padded_in_front_and_cut_at_the_end() -> None:
    texts = [
        Text(words="bb cc", label="x", digest=b"\x00"),
        Text(words="bb bb bb cc cc dd", label="y", digest=b"\x01"),
        Text(words="cc zz bb", label="y", digest=b"\x08"),  # the only text of the validation split
    ]
    corpus = encode(texts, vocabulary_size=5, sequence_length=5)
    assert corpus.vocabulary == ("<pad>", "<start>", "<unknown>", "bb", "cc")
    assert corpus.x_train.tolist() == [[PAD, PAD, START, 3, 4], [START, 3, 3, 3, 4]]
    assert corpus.x_valid.tolist() == [[PAD, START, 4, UNKNOWN, 3]]
    assert corpus.y_train.tolist() == [0, 1]
    assert corpus.x_test.shape == (0, 5)


def test_too_few_texts_say_what_was_found_and_where(packages: Path) -> None:
    with pytest.raises(CorpusError, match=r"Found 440 different docstrings .* in 5 modules, wanted 900 in 5") as raised:
        build_corpus(**{**SMALL, "num_texts": 900, "num_classes": 5}, cache_dir=None, roots=[packages])
    assert str(packages) in str(raised.value)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


@pytest.mark.parametrize(
    "bad", [{"num_texts": 0}, {"num_classes": 1}, {"vocabulary_size": 3}, {"sequence_length": 1}, {"num_classes": 201}]
)
def test_settings_out_of_range_are_named(packages: Path, bad: dict[str, int]) -> None:
    with pytest.raises(CorpusError, match=next(iter(bad))):
        build_corpus(**{**SMALL, **bad}, cache_dir=None, roots=[packages])


def test_the_cache_is_used_until_an_installed_distribution_changes(packages: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = build_corpus(**SMALL, cache_dir=cache, roots=[packages])
    sources = tmp_path / "kept"
    shutil.copytree(packages, sources)
    for package in packages.iterdir():
        shutil.rmtree(package)
    assert equal(first, build_corpus(**SMALL, cache_dir=cache, roots=[packages]))
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".npz"]
    (packages / "alpha-2.0.dist-info").mkdir()
    (packages / "alpha-2.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: alpha\nVersion: 2.0\n")
    with pytest.raises(CorpusError, match="Found 0"):
        build_corpus(**SMALL, cache_dir=cache, roots=[packages])


def test_a_damaged_cache_is_built_again(packages: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = build_corpus(**SMALL, cache_dir=cache, roots=[packages])
    arrays = next(cache.glob("*.npz"))
    whole = arrays.read_bytes()
    for damaged in (whole[: len(whole) // 2], b""):
        arrays.write_bytes(damaged)
        assert equal(first, build_corpus(**SMALL, cache_dir=cache, roots=[packages]))
        assert arrays.read_bytes() == whole


def test_real_installed_packages_give_a_balanced_corpus() -> None:
    corpus = build_corpus(num_texts=600, num_classes=8, cache_dir=None)
    assert len(corpus) == 600
    assert len(corpus.class_counts()) == 8
    assert corpus.largest_class_share < 0.26
    assert min(corpus.class_counts().values()) >= 10


def test_one_huge_package_is_cut_into_its_submodules() -> None:
    files = [source_file(f"huge.part{i}.leaf{j}", 200) for i in range(6) for j in range(5)]
    files += [source_file(f"small{i}", 150) for i in range(3)]
    classes = choose_classes(files, num_texts=1000, num_classes=6)
    assert [candidate.name for candidate in classes[:6]] == [f"huge.part{i}" for i in range(6)]
    assert sum(candidate.estimated_docstrings for candidate in classes) == 6 * 5 * 200 + 3 * 150


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("pqr"), st.integers(1, 50)), min_size=1, max_size=30),
    st.integers(1, 200),
)
@settings(deadline=None, derandomize=True)
def test_cutting_the_tree_of_modules_keeps_every_file_once(parts: list[tuple[str, str, int]], split_above: int) -> None:
    files = [source_file(f"{a}.{b}.m{i}", n) for i, (a, b, n) in enumerate(parts)]
    classes = split_into_classes(files, split_above=split_above)
    assert sorted(file.path for one in classes for file in one.files) == sorted(file.path for file in files)
    assert len({one.name for one in classes}) == len(classes)
    assert all(file.path.startswith(one.name) for one in classes for file in one.files)
    sizes = [one.estimated_docstrings for one in classes]
    assert sizes == sorted(sizes, reverse=True)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=12), st.integers(1, 300))
@settings(deadline=None, derandomize=True)
def test_the_quota_is_the_smallest_that_suffices(available: list[int], num_texts: int) -> None:
    quota = quota_for(available, num_texts)
    together = sum(min(size, quota) for size in available)
    if sum(available) >= num_texts:
        assert together >= num_texts
        assert sum(min(size, quota - 1) for size in available) < num_texts
    else:
        assert quota == max(available)


def test_reading_asks_for_as_many_files_as_are_expected_to_suffice() -> None:
    unread = [source_file(f"m{i}", 10) for i in range(5)]
    assert files_to_read(unread, missing_texts=11, texts_per_docstring=0.5) == 3
    assert files_to_read(unread, missing_texts=1, texts_per_docstring=0.5) == 1
    assert files_to_read(unread, missing_texts=900, texts_per_docstring=0.5) == 5
    assert files_to_read([], missing_texts=9, texts_per_docstring=0.5) == 0


def test_no_class_may_hold_a_fifth_of_a_corpus_of_many_classes() -> None:
    assert largest_class_size(11_000, 46) / 11_000 < 0.2
    assert words("Héllo, tf.Tensor_2 a") == ["llo", "tf", "tensor"]
