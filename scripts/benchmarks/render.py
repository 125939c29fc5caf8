"""Puts kept results into the pages of benchmarks: every `<!--result NAME-->` ... `<!--/result-->` in them is made anew.

    python scripts/benchmarks/render.py [--check]

The table is that of the rows in docs/explanation/benchmarks/NAME.json, beside the pages, below a line that says with
which command, commit, machine and versions they were measured. With --check nothing is written; status 1 where a page
would change.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from run import RESULTS, Found  # type: ignore[import-not-found]

PAGES = sorted(RESULTS.glob("*.md"))
BLOCK = re.compile(r"<!--result (\w+)-->\n.*?<!--/result-->", re.DOTALL)


def text_of(value: object) -> str:
    """A figure as a cell shows it."""
    if isinstance(value, list):
        return ", ".join(map(text_of, value)) or "–"
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)


def result(kept: Found) -> str:
    """A kept result as Markdown: where it comes from, and its rows as a table."""
    about, rows = kept["about"], kept["rows"]
    host = ", ".join(f"{name} {value}" for name, value in about["host"].items())
    versions = ", ".join(f"{name} {value}" for name, value in about["versions"].items())
    head = f"`{about['command']}`, at {about['commit']} on {about['day']}; {host}; {versions}."
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names), *([text_of(row.get(name, "")) for name in names] for row in rows)]
    return "\n".join(
        [head, *([kept["note"]] if "note" in kept else []), "", *(f"| {' | '.join(each)} |" for each in lines)]
    )


def rendered(page: str, folder: Path) -> str:
    """The page with its results made anew from the files in a folder."""

    def block(found: re.Match[str]) -> str:
        kept = json.loads((folder / f"{found[1]}.json").read_text())
        return f"<!--result {found[1]}-->\n{result(kept)}\n<!--/result-->"

    return BLOCK.sub(block, page)


def main() -> None:
    """Make the pages anew, or say whether they are."""
    for page in PAGES:
        before = page.read_text()
        after = rendered(before, RESULTS)
        if "--check" not in sys.argv[1:]:
            page.write_text(after)
        elif after != before:
            sys.exit(f"{page} is not what scripts/benchmarks/render.py makes of {RESULTS}: run it")


if __name__ == "__main__":
    main()
