"""What of JSON lines must be known of their text before Arrow parses them.

Arrow takes text that is not UTF-8 without a look, and ends the process where values are nested too deep, or where a
null stands for a row. Depths are known without parsing: brackets count up and down outside of text, and the parity of
the quotation marks so far says where text is. Most files need less: no line has more than some opening brackets, and
null nowhere follows something else than a key or an element.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import SourceError

_MAX_DEPTH = 100  # of lists and objects inside of each other: parsers and schemas are recursive
_BEFORE_NULL = (b":", b": ", b",", b", ", b"[")  # as programs write values: keys and elements
_OTHERS = bytes(sorted(set(range(256)) - set(b'[]{}"\n\0')))
_ALL_BUT_OPENING = bytes(sorted(set(range(256)) - set(b"[{\n")))
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1


def check_text(block: bytes, path: Path, row: int) -> None:
    """Raise SourceError for lines that are not UTF-8, values nested too deep and a null that stands for a row."""
    if not block.isascii():
        _check_utf8(block, path, row)
    if b"\0" in block or _may_have_null_rows(block) or _may_be_deep(block):
        _check_depths(block, path, row)


def _check_utf8(block: bytes, path: Path, row: int) -> None:
    try:
        block.decode()
    except UnicodeDecodeError as error:
        line = row + 1 + block.count(b"\n", 0, error.start)
        raise SourceError(
            f"{path} cannot be read as JSON lines: line {line} is no UTF-8 text ({error.reason}). Turn it into UTF-8, "
            "such as with iconv -f latin1 -t utf-8.",
            path=path,
        ) from error


def _may_have_null_rows(block: bytes) -> bool:
    """Whether a null, in text or not, stands where no value of a key or element is."""
    count = block.count(b"null")
    return count > 0 and count > sum(block.count(before + b"null") for before in _BEFORE_NULL)


def _may_be_deep(block: bytes) -> bool:
    """Whether a line has so many opening brackets, in text or not, that they may be too deep inside of each other."""
    lines = block.translate(None, _ALL_BUT_OPENING).split(b"\n")
    return max(map(len, lines)) > _MAX_DEPTH


def _check_depths(block: bytes, path: Path, row: int) -> None:
    # Without these, a quotation mark begins or ends text, and the parity of their number so far says where it is open.
    unescaped = block.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in block else block
    marks = np.frombuffer(unescaped.replace(b"null", b"\0").translate(None, _OTHERS), np.uint8)
    is_text = np.cumsum(marks == ord('"'), dtype=np.uint8) & 1
    depths = np.cumsum(np.where(is_text, 0, _STEPS[marks]), dtype=np.int32)
    no_object = np.flatnonzero((marks == 0) & (depths == 0) & (is_text == 0))
    if no_object.size:
        line = row + 1 + int(np.count_nonzero(marks[: no_object[0]] == ord("\n")))
        raise SourceError(
            f"{path} cannot be read as JSON lines: line {line} has null or zero bytes where an object belongs. Leave "
            "it out.",
            path=path,
        )
    too_deep = np.flatnonzero(depths > _MAX_DEPTH)
    if too_deep.size:
        line = row + 1 + int(np.count_nonzero(marks[: too_deep[0]] == ord("\n")))
        raise SourceError(
            f"{path} has values nested more than {_MAX_DEPTH} deep in line {line}. Store them flat, or as text.",
            path=path,
        )
