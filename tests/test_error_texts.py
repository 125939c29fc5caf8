"""The whole text of every error: what happened, where, why, and one thing to do, as users read it.

`error_texts.txt` has the texts, one after another, to be read as a whole. Whoever adds a class of errors adds an
example of it, and whoever changes a text changes it there: ``python -m tests.test_error_texts`` writes the file.
"""

from __future__ import annotations

import ast
import builtins
import functools
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from .error_examples import EXAMPLES, WITH_TENSORFLOW, Made, text_of

FILE = Path(__file__).parent / "error_texts.txt"
ROOT = Path(__file__).parents[1]
FOLDERS = ("cluster", "data", "trainer", "scripts")
# Bases that nothing raises itself (a test holds that), and what never comes to a user, with what becomes of it.
BASES = {"DatasetError", "CollectiveError"}
INSIDE = {
    "BenchmarkError": "of the benchmarks, which no user gets",
    "Ending": "its text is that of the error that it ends a command with",
    "Interrupted": "a task's thread that waits is woken",
    "LeftAlone": "its text is that of a command",
    "MailboxClosed": "a task's thread that waits is woken",
    "Refused": "PeerError.stranger",
    "WorkerKilled": "a point where a test lets a worker of this process die",
    "_SeveralPhases": "a step is cut into phases",
    "_Stopped": "the end of a job's process",
    "_Told": "CallError and the class of the error there, with its text",
    "_UncertainError": "TransformError",
}


@functools.cache
def nodes() -> list[ast.AST]:
    """Of all code."""
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return [node for path in files for node in ast.walk(ast.parse(path.read_text()))]


@functools.cache
def classes() -> dict[str, ast.ClassDef]:
    """The classes of errors in all packages, by name."""
    found: dict[str, ast.ClassDef] = {}
    raised = {
        name for name, each in vars(builtins).items() if isinstance(each, type) and issubclass(each, BaseException)
    }
    raised |= {"ClickException"}
    defined = [node for node in nodes() if isinstance(node, ast.ClassDef)]
    while True:
        more = {
            node.name: node
            for node in defined
            if node.name not in found and {ast.unparse(base).split(".")[-1] for base in node.bases} & raised
        }
        if not more:
            return found
        found |= more
        raised |= set(more)


def makers(node: ast.ClassDef) -> set[str]:
    """The class methods that make an error of a class, each with another text."""
    return {
        each.name
        for each in node.body
        if isinstance(each, ast.FunctionDef) and "classmethod" in map(ast.unparse, each.decorator_list)
    }


def sections(text: str) -> dict[str, str]:
    """By heading what stands below it."""
    parts = re.split(r"^== (.+)$", text, flags=re.MULTILINE)[1:]
    return {heading: body.strip("\n") for heading, body in zip(parts[::2], parts[1::2], strict=True)}


def heading(kind: str, what: str) -> str:
    return f"{kind}: {what}" if what else kind


def made(examples: Iterable[tuple[str, str, Made]], here: Path) -> dict[str, str]:
    found = {}
    for kind, what, function in examples:
        name, found[heading(kind, what)] = text_of(function, here)
        assert name == kind, found[heading(kind, what)]
    return found


def written() -> dict[str, str]:
    return sections(FILE.read_text())


def test_texts_are_as_they_are_written(tmp_path):
    expected = written()
    names = {heading(kind, what) for kind, what, _ in EXAMPLES}
    assert made(EXAMPLES, tmp_path) == {name: expected[name] for name in expected if name in names}


@pytest.mark.engine
def test_texts_of_models_are_as_they_are_written(tmp_path):
    expected = written()
    names = {heading(kind, what) for kind, what, _ in WITH_TENSORFLOW}
    assert made(WITH_TENSORFLOW, tmp_path) == {name: expected[name] for name in expected if name in names}


def test_every_text_has_an_example_and_no_two_share_a_name():
    names = [heading(kind, what) for kind, what, _ in (*EXAMPLES, *WITH_TENSORFLOW)]
    assert sorted(names) == sorted(written())


def test_every_class_has_a_text():
    found = {kind for kind, _, _ in (*EXAMPLES, *WITH_TENSORFLOW)}
    assert sorted({*classes()} - found) == sorted({*BASES, *INSIDE})
    assert found <= {*classes()}


def test_every_way_to_make_an_error_has_a_text():
    source = (ROOT / "tests" / "error_examples.py").read_text()
    ways = [f"{name}.{maker}" for name, node in classes().items() for maker in sorted(makers(node))]
    assert len(ways) > 20
    # Of PreflightError.of_all, whose text is that of all complaints together.
    assert [way for way in ways if f"{way}(" not in source] == ["PreflightError.of_all"]


def test_nothing_raises_a_base():
    calls = [ast.unparse(node.func).split(".")[-1] for node in nodes() if isinstance(node, ast.Call)]
    assert [name for name in BASES if name in calls] == []


def test_a_text_ends_a_sentence_and_is_no_longer_than_a_screen():
    for name, text in written().items():
        assert len(text) < 700, name
        assert text[-1] in ".)" or name.split(":")[0] in NO_SENTENCE, name


# Told by one part of Heliostat to another; a user sees `TrainingFailedError`.
NO_SENTENCE = {"TaskFailed", "Dismissed", "Aborted", "CallDetachedError"}


def test_every_class_says_in_a_sentence_what_has_happened():
    for name, node in classes().items():
        first = (ast.get_docstring(node) or "").partition("\n")[0]
        assert first.endswith("."), name


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        texts = made((*EXAMPLES, *WITH_TENSORFLOW), Path(place).resolve())
    FILE.write_text("\n".join(f"== {name}\n{text}\n" for name, text in texts.items()))
