"""Every block of README and of the pages in docs runs, in the order of its page, and prints what the page says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from . import page as program
from .page import ROOT, RUN, Block, blocks_of, faults_of, given, not_run, pages, run

QUICK = ("README.md",)
LIMIT_S = 300

PAGE = """text
<!-- file: job.py -->
```python
print(3)
```
```python
print(1)  # 1
```
- ```text
  no
  ```
<!-- not run: it deletes
everything -->

<!-- not run: it deletes everything -->
```bash
rm -r /
```
```bash
python job.py
```
"""
BLOCKS = [
    Block("python", 4, "print(3)\n", file="job.py"),
    Block("python", 7, "print(1)  # 1\n"),
    Block("text", 10, "no\n"),
    Block("bash", 17, "rm -r /\n", reason="it deletes everything"),
    Block("bash", 20, "python job.py\n"),
]


def name_of(page):
    return str(page.relative_to(ROOT))


def cases():
    """The pages with a block that runs; those that take long are slow."""
    for page in pages():
        if any(block.language in RUN and not block.reason for block in blocks_of(page.read_text())):
            slow = () if name_of(page) in QUICK else (pytest.mark.slow,)
            yield pytest.param(page, id=name_of(page), marks=(pytest.mark.ray, *slow))


def test_blocks_are_found_with_what_is_noted_above_them():
    assert list(blocks_of(PAGE)) == BLOCKS
    assert list(blocks_of("text\n\n    indented\n")) == [Block("", 3, "indented\n")]


def test_blocks_are_held_to_what_they_print(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in (BLOCKS[0], BLOCKS[1], BLOCKS[4]):
        run(block, "page")
    assert (tmp_path / "job.py").read_text() == "print(3)\n"
    with pytest.raises(AssertionError, match=r"page:3: the page says \['2'\], and it printed \['1'\]"):
        run(Block("python", 3, "print(1)  # 2\n"), "page")
    with pytest.raises(subprocess.CalledProcessError):
        run(Block("bash", 9, "false\ntrue\n"), "page")


def test_blocks_that_nothing_would_try_are_faults():
    assert len(faults_of(PAGE)) == 1  # the note over two lines
    assert faults_of(PAGE.replace("deletes\n", "deletes ").replace("-->\n\n<!-- not", "-->\n<!-- not")) != []
    assert faults_of("```text\n1\n```\n```{toctree}\na\n```\n```{click} a:b\n```\n```{eval-rst}\n```\n") == []
    assert faults_of("<!-- file: a.py -->\n```python\n1\n```\n```bash\npython a.py\n```\n") == []
    for page in (
        "```\nls\n```\n",
        "```sh\nls\n```\n",
        "```text\nheliostat runs\n```\n",
        "```{code-block} python\n1\n```\n",
        "text\n\n    indented\n",
        "<!-- not run: a -->\n```text\n1\n```\n",
        "<!-- not run: a -->\n\n```python\n1\n```\n",
        "<!-- not run -->\n```python\n1\n```\n",
        "<!-- file: a.py -->\n```python\n1\n```\n",
        "```bash\npython a.py\n```\n<!-- file: a.py -->\n```python\n1\n```\n",
        "<!-- file: a.py -->\n```python\n1\n```\n<!-- not run: a -->\n```bash\npython a.py\n```\n",
    ):
        assert len(faults_of(page)) == 1, page


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_block_of_a_page_is_tried_or_is_text(page):
    assert faults_of(page.read_text()) == []


def test_the_blocks_that_are_not_run_are_known():
    """After a look at the reasons: python tests/docs/page.py --not-run > tests/docs/not_run.txt"""
    known = (Path(__file__).parent / "not_run.txt").read_text()
    assert not_run() == known
    assert [name for name in re.findall(r"tests/[\w/.]*\w", known) if not (ROOT / name).exists()] == []


def test_whatever_is_given_belongs_to_a_page():
    assert {given(page) for page in pages()} >= set((Path(__file__).parent / "given").glob("*.py"))


@pytest.mark.parametrize("page", list(cases()))
def test_every_block_of_a_page_runs(page, tmp_path):
    folder, log = tmp_path / "page", tmp_path / "log"
    folder.mkdir()
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, program.__file__, str(page)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out, start_new_session=True)
        try:
            status = process.wait(timeout=LIMIT_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    assert status == 0, log.read_text()[-6000:]
