"""Runs the blocks of a page, one after the other, in the current folder: `python tests/docs/page.py PAGE`.

Blocks of Python run in one process, with a name space each, and must print what stands as a comment behind their calls
of `print`; blocks of bash must end with status 0. One of these may stand on the line before a block:

    <!-- not run: REASON -->   it is not run; not_run.txt lists all of these (`page.py --not-run` prints them)
    <!-- file: train.py -->    it is saved in that file, and a block of bash further down runs it

What the page presumes that a user has is made by given/NAME.py, for docs/how-to/your-data.md how_to_your_data.py. Its
`prepare(folder)`, which runs in another process than the blocks, returns a dict: what is shown on the page, and what
takes its place here, such as a bucket. It may be a context manager that gives that, where something must be ended, and
set variables of the environment for the blocks.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
RUN = ("python", "bash")
SHOWN = ("text", "console", "diff", "yaml", "json", "toml", "ini", "dockerfile")
_DIRECTIVE = re.compile(r"\{(toctree|eval-rst|click|glossary|auto)[\w:-]*\}.*")  # of MyST; not its code-block
_NOTE = re.compile(r"<!-- (not run|file): (.*\S) -->")
_COMMAND = re.compile(
    r"^(?:\$ )?(?:heliostat|python3?|pip|ray|export|ssh|kubectl|docker|bash)\s+[\w.\-\[<'\"]", re.MULTILINE
)
_PRINTED = re.compile(r"^ *print\(.*\)  # (.*)$", re.MULTILINE)


class Block(NamedTuple):
    """A block of code: its language, the line it begins in, its text, why it is not run, the file it is saved in."""

    language: str
    line: int
    text: str
    reason: str = ""
    file: str = ""


def blocks_of(page: str) -> Iterator[Block]:
    """All blocks of a page, in order; the language of one that is only indented is ''."""
    lines = page.splitlines()
    for token in MarkdownIt().parse(page):
        if token.type == "code_block":
            yield Block("", token.map[0] + 1, token.content)
        elif token.type == "fence":
            note = _NOTE.fullmatch(lines[token.map[0] - 1].strip()) if token.map[0] else None
            said = {note[1]: note[2]} if note else {}
            language = token.info.strip()
            yield Block(language, token.map[0] + 2, token.content, said.get("not run", ""), said.get("file", ""))


def faults_of(page: str) -> list[str]:
    """What keeps blocks of a page from being tried."""
    found, blocks = [], list(blocks_of(page))
    for number, block in enumerate(blocks):
        if _DIRECTIVE.fullmatch(block.language):
            continue
        if block.language not in RUN + SHOWN:
            found.append(f"{block.line}: a block of {block.language!r}, which is none of {', '.join(RUN + SHOWN)}")
        if block.language in ("text", "console") and (command := _COMMAND.search(block.text)):
            found.append(f"{block.line}: a command that is shown as text: {command[0]!r}")
        if block.language not in RUN and (block.reason or block.file):
            found.append(f"{block.line}: a note above a block that is only shown")
        if block.file and not any(block.file in later.text for later in blocks[number:] if _is_run(later)):
            found.append(f"{block.line}: no block of bash below runs {block.file}")
    notes = len(re.findall(r"^\s*<!--\s*(?:not run|file)\b", page, re.MULTILINE))
    if notes != sum(bool(block.reason or block.file) for block in blocks):
        found.append("a note that no block follows, or that is written otherwise than the others")
    return found


def _is_run(block: Block) -> bool:
    return block.language == "bash" and not block.reason


def anchors_of_headings(page: str) -> set[str]:
    """Those that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def pages() -> list[Path]:
    """README and all of docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def not_run() -> str:
    """A line for each block that is not run: page, the block's first line, the reason."""
    found = ((page, block) for page in pages() for block in blocks_of(page.read_text()) if block.reason)
    lines = (f"{page.relative_to(ROOT)} | {block.text.splitlines()[0]} | {block.reason}\n" for page, block in found)
    return "".join(lines)


def run(block: Block, name: str) -> None:
    """Run a block; raises whatever it raises, AssertionError if it prints something else than the page says."""
    if block.file:
        Path(block.file).write_text(block.text)
        return
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


def run_blocks(page: str, replaced: dict[str, str]) -> None:
    """Run a page in this process; the error of a block that fails names its line."""
    sys.path[0] = os.getcwd()  # as for a script there
    text = Path(page).read_text()
    for shown, real in replaced.items():
        if shown not in text:
            raise AssertionError(f"{page} does not show {shown!r}, which is to be replaced")
        text = text.replace(shown, real)
    for block in blocks_of(text):
        if block.language in RUN and not block.reason:
            print(f"{page}:{block.line}", flush=True)
            run(block, page)


def given(page: Path) -> Path:
    """The file that makes what the page presumes."""
    folder = ROOT / "docs" if page.is_relative_to(ROOT / "docs") else page.parent
    name = "_".join(page.relative_to(folder).with_suffix("").parts).replace("-", "_").lower()
    return Path(__file__).parent / "given" / f"{name}.py"


def main(page: Path) -> int:
    """Prepare the current folder and run the page in a process of its own; returns its status."""
    sys.path[0] = str(ROOT)  # what is given may use what tests have
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    os.environ.pop("HELIOSTAT_REPORT", None)  # of tests, which want none
    prepare: Callable[[Path], object] = lambda folder: {}  # noqa: E731
    if given(page).exists():
        prepare = runpy.run_path(str(given(page)))["prepare"]
    made = prepare(Path.cwd())
    with made if hasattr(made, "__enter__") else contextlib.nullcontext(made) as replaced:
        return subprocess.run([sys.executable, __file__, "--blocks", str(page), json.dumps(replaced)]).returncode


if __name__ == "__main__":
    if sys.argv[1] == "--not-run":
        print(not_run(), end="")
    elif sys.argv[1] == "--blocks":
        run_blocks(sys.argv[2], json.loads(sys.argv[3]))
    else:
        sys.exit(main(Path(sys.argv[1]).resolve()))
