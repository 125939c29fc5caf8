"""Runs the blocks of a page, one after the other, in the current folder: `python page.py PAGE [SHOWN=REAL ...]`.

Python blocks have a name space each and must print what stands as a comment behind their calls of `print`; blocks of
bash must end with status 0. What is shown on the page and cannot be there, such as a bucket, is replaced by what is.
"""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_FENCE = re.compile(r"```(\w*)\n(.*?)```\n", re.DOTALL)
_PRINTED = re.compile(r"^ *print\(.*\)  # (.*)$", re.MULTILINE)


class Block(NamedTuple):
    """A block of code: its language, the line it begins in, its text."""

    language: str
    line: int
    text: str


def blocks_of(page: str) -> Iterator[Block]:
    """The blocks of Python and bash on a page, in order."""
    for found in _FENCE.finditer(page):
        if found[1] in ("python", "bash"):
            yield Block(found[1], page[: found.start(2)].count("\n") + 1, found[2])


def run(block: Block, name: str) -> None:
    """Run a block; raises whatever it raises, AssertionError if it prints something else than the page says."""
    if block.language == "bash":
        subprocess.run(["bash", "-euo", "pipefail", "-c", block.text], check=True)
        return
    out = io.StringIO()
    code = compile("\n" * (block.line - 1) + block.text, name, "exec")
    with contextlib.redirect_stdout(out):
        exec(code, {"__name__": "__main__"})
    printed, said = out.getvalue().splitlines(), _PRINTED.findall(block.text)
    if [line for line in printed if line in said] != said:
        raise AssertionError(f"{name}:{block.line}: the page says {said}, and it printed {printed}")


def main(page: str, *replaced: str) -> None:
    """Run a page; the error of a block that fails names its line."""
    text = Path(page).read_text()
    for pair in replaced:
        shown, _, real = pair.partition("=")
        text = text.replace(shown, real)
    for block in blocks_of(text):
        print(f"{page}:{block.line}", flush=True)
        run(block, page)


if __name__ == "__main__":
    main(*sys.argv[1:])
