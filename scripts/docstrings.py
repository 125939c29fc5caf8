"""Docstrings of installed Python packages, read with ``ast``: nothing is imported, nothing is executed.

Standard library only, because `read_docstrings` runs this very file as a bare child interpreter (about 20 ms to
start): parsing holds the interpreter lock, and children started this way need no importable main module.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_WORD = re.compile(r"[a-z]{2,}")
_SKIPPED_FOLDERS = frozenset({"__pycache__", "site-packages", "dist-packages", "tests", "test"})
# Copies of other packages: their texts would stand under a wrong name.
_SKIPPED_FOLDERS_OF_COPIES = frozenset({"_vendor", "vendor", "thirdparty_files"})
_CHUNK_BYTES = 2_000_000
_CHILD_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One Python file: its path, its dotted module as a tuple, its size and a cheap estimate of its docstrings."""

    path: str
    module: tuple[str, ...]
    num_bytes: int
    estimated_docstrings: int


class ReaderError(RuntimeError):
    """A child interpreter that reads docstrings ended without an answer."""


def words(text: str) -> list[str]:
    """Return the lower-cased words of `text`, two letters or longer; digits and signs separate words."""
    return _WORD.findall(text.lower())


def default_roots() -> tuple[Path, ...]:
    """Return the folders of this interpreter's standard library and installed packages, without repetition."""
    named = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    found = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    return tuple(dict.fromkeys(Path(entry).resolve() for entry in (*named, *found) if Path(entry).is_dir()))


def find_files(roots: Iterable[Path], threads: int) -> list[SourceFile]:
    """Return the Python files under `roots` that may hold docstrings, sorted by module then path, tests left out."""
    found: dict[tuple[str, ...], str] = {}
    for root in roots:
        for path in _python_files(str(root)):
            found.setdefault(_module_of(os.path.relpath(path, root)), path)
    with ThreadPoolExecutor(threads) as pool:
        files = pool.map(_measured, found.values(), found.keys())
        return sorted((file for file in files if file.estimated_docstrings), key=lambda file: (file.module, file.path))


def read_docstrings(files: Sequence[SourceFile], *, min_words: int, processes: int) -> list[list[str]]:
    """Return per file, in the order given, its docstrings as normalised texts (words joined by one blank).

    Raises ReaderError when a child interpreter crashes or hangs.
    """
    chunks = list(_chunks(files))
    with ThreadPoolExecutor(processes) as pool:
        answers = pool.map(lambda chunk: _read_in_child([file.path for file in chunk], min_words), chunks)
        return [texts for answer in answers for texts in answer]


def docstrings_of(source: bytes, min_words: int) -> list[str]:
    """Return the normalised docstrings of one module's source that have at least `min_words` words."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []  # Python 2 code, templates and the like: not ours to judge
    texts = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found = words(ast.get_docstring(node, clean=False) or "")
            if len(found) >= min_words:
                texts.append(" ".join(found))
    return texts


def _python_files(folder: str) -> Iterator[str]:
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_skipped(name))
        yield from (os.path.join(path, name) for name in sorted(names) if name.endswith(".py"))


def _is_skipped(folder: str) -> bool:
    return folder in _SKIPPED_FOLDERS or folder in _SKIPPED_FOLDERS_OF_COPIES or folder.endswith(("_test", "_tests"))


def _module_of(relative_path: str) -> tuple[str, ...]:
    parts = relative_path.removesuffix(".py").split(os.sep)
    return tuple(parts[:-1]) if parts[-1] == "__init__" and len(parts) > 1 else tuple(parts)


def _measured(path: str, module: tuple[str, ...]) -> SourceFile:
    try:
        source = Path(path).read_bytes()
    except OSError:
        source = b""  # unreadable, or removed since it was listed
    quotes = source.count(b'"""') + source.count(b"'''")
    return SourceFile(path=path, module=module, num_bytes=len(source), estimated_docstrings=quotes // 2)


def _chunks(files: Sequence[SourceFile]) -> Iterator[list[SourceFile]]:
    chunk: list[SourceFile] = []
    num_bytes = 0
    for file in files:
        chunk.append(file)
        num_bytes += file.num_bytes
        if num_bytes >= _CHUNK_BYTES:
            yield chunk
            chunk, num_bytes = [], 0
    if chunk:
        yield chunk


def _read_in_child(paths: Sequence[str], min_words: int) -> list[list[str]]:
    command = [sys.executable, "-I", "-S", __file__]
    request = json.dumps({"paths": paths, "min_words": min_words}).encode()
    try:
        done = subprocess.run(command, input=request, capture_output=True, timeout=_CHILD_TIMEOUT_S, check=True)
    except subprocess.SubprocessError as error:
        stderr = (getattr(error, "stderr", None) or b"").decode(errors="replace")
        raise ReaderError(
            f"Reading the docstrings of {len(paths)} files ({paths[0]} … {paths[-1]}) failed: {error}. {stderr[-500:]}"
        ) from error
    answer: list[list[str]] = json.loads(done.stdout)
    return answer


def _serve() -> None:
    """Answer one request on standard input: the child's side of `_read_in_child`."""
    warnings.simplefilter("ignore")  # other people's escape sequences
    request = json.load(sys.stdin.buffer)
    answer = []
    for path in request["paths"]:
        try:
            source = Path(path).read_bytes()
        except OSError:
            source = b""
        answer.append(docstrings_of(source, request["min_words"]))
    sys.stdout.buffer.write(json.dumps(answer).encode())


if __name__ == "__main__":
    _serve()
