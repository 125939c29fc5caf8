"""Pages for what the docs link to outside of their folder: `[the script](../../scripts/examples/laptop.py)`.

On GitHub such a link opens the file. Here a page of the site shows it, `files/scripts/examples/laptop.py.html`; of a
notebook its cells, of a folder its list of files, which have a page each.
"""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from docutils import nodes
from markdown_it import MarkdownIt
from pygments.lexers import get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

_log = logging.getLogger(__name__)
_FOLDER = "files"  # of the site
_EXAMPLE = re.compile(r"\w+://(HEAD|HOST|localhost|\d)")  # addresses in texts, which a reader would not open
_LINK = re.compile(r"\]\(([^)#\s]+)")  # up to its anchor
_NO_TEXT = {".png", ".arrow", ".gz", ".npz"}


class Dashes(SphinxTransform):
    """Between an argument and what it is Sphinx writes two hyphens, and counts on smart quotes, which spoil options."""

    default_priority = 5

    def apply(self, **kwargs: Any) -> None:
        """Change the document."""
        for text in list(self.document.findall(nodes.Text)):
            if text == " -- " and isinstance(text.parent, nodes.paragraph):
                text.parent.replace(text, nodes.Text(" – "))


class OutsideLinks(SphinxTransform):
    """Turns links to files of the checkout, outside of the docs, into links to their pages; examples are no links."""

    default_priority = 5  # before references are resolved

    def apply(self, **kwargs: Any) -> None:
        """Change the document; a file that is not there is warned of by its name."""
        found = [*self.document.findall(addnodes.download_reference), *self.document.findall(addnodes.pending_xref)]
        for node in found:
            if node.get("reftype") == "myst" and (path := self._outside(node)) is not None:
                self._change(node, path)

        for link in list(self.document.findall(nodes.reference)):
            if _EXAMPLE.match(link.get("refuri", "")):
                link.replace_self(link.children)

    def _outside(self, node: nodes.Element) -> Path | None:
        """What a link of Markdown leads to, if that is no page of these docs and no file that lies beside them."""
        docs = Path(self.env.srcdir)
        is_page = node.get("refdomain") == "doc"
        here = docs if is_page else (docs / self.env.docname).parent
        target = str(node["reftarget"]).partition("#")[0]
        path = Path(os.path.normpath(here / (f"{target}.md" if is_page else target)))
        if path.is_relative_to(docs):
            return path if target and path.is_dir() else None
        return path if path.is_relative_to(docs.parent) else None

    def _change(self, node: nodes.Element, path: Path) -> None:
        name = path.relative_to(Path(self.env.srcdir).parent).as_posix()
        if not path.exists():
            _log.warning("there is no %s", name, location=node, type="outside")
            return
        self.env.metadata[self.env.docname].setdefault("outside", []).append(name)
        up = "../" * self.env.docname.count("/")
        node.replace_self(nodes.reference("", "", *node.children, refuri=f"{up}{_FOLDER}/{name}.html", internal=True))


def _files_below(folder: Path) -> list[Path]:
    """The files of a folder that Git knows, or all of them in a copy that is no checkout."""
    listed = subprocess.run(["git", "ls-files", "."], cwd=folder, capture_output=True, text=True)
    if listed.returncode:
        return sorted(each for each in folder.rglob("*") if each.is_file() and "__pycache__" not in each.parts)
    return [folder / line for line in listed.stdout.splitlines() if (folder / line).is_file()]


def _pages(app: Sphinx) -> Iterator[tuple[str, dict[str, str], str]]:
    """Of every file that is linked, and of all files of a folder that is: the page's name, context and template."""
    root = Path(app.srcdir).parent
    linked = {name for page in app.env.metadata.values() for name in page.get("outside", [])}
    files = {Path(root / name) for name in linked}
    for folder in sorted(each for each in files if each.is_dir()):
        name = folder.relative_to(root).as_posix()
        inside = _files_below(folder)
        files |= set(inside)
        here = PurePosixPath(folder.name)
        links = [
            f'<li><a href="{here / each.relative_to(folder).as_posix()}.html">{each.relative_to(folder)}</a></li>'
            for each in inside
        ]
        yield _page(name, f"<ul>{''.join(links)}</ul>")
    for notebook in [each for each in files if each.suffix == ".ipynb"]:
        files |= {each for each in _led_to(notebook) if each.is_file() and not each.is_relative_to(app.srcdir)}
    for file in sorted(each for each in files if each.is_file() and each.suffix not in _NO_TEXT):
        shown = _notebook if file.suffix == ".ipynb" else _code
        yield _page(file.relative_to(root).as_posix(), shown(app, file))


def _code(app: Sphinx, file: Path) -> str:
    """The HTML of a file of code or text."""
    try:
        language = get_lexer_for_filename(file.name).aliases[0]
    except ClassNotFound:
        language = "text"
    return app.builder.highlighter.highlight_block(file.read_text(), language)


def _cells(file: Path) -> list[tuple[str, str]]:
    """The kind and the text of a notebook's cells."""
    return [(each["cell_type"], "".join(each["source"])) for each in json.loads(file.read_text())["cells"]]


def _led_to(file: Path) -> set[Path]:
    """What a notebook's text links to on this disk."""
    found = {link for kind, text in _cells(file) if kind == "markdown" for link in _LINK.findall(text)}
    return {Path(os.path.normpath(file.parent / link)) for link in found if "://" not in link}


def _notebook(app: Sphinx, file: Path) -> str:
    """The HTML of a notebook's cells, without what they have printed; its links lead to pages of the site."""
    docs, root = Path(app.srcdir), Path(app.srcdir).parent
    top = "../" * len(file.relative_to(root).parts)

    def on_site(link: re.Match[str]) -> str:
        path = Path(os.path.normpath(file.parent / link[1]))
        if "://" in link[1] or not path.is_relative_to(root):
            return link[0]
        if path.is_relative_to(docs):
            return f"]({top}{path.relative_to(docs).with_suffix('.html').as_posix()}"
        return f"]({top}{_FOLDER}/{path.relative_to(root).as_posix()}.html"

    markdown = MarkdownIt("commonmark", {"html": False})
    return "".join(
        app.builder.highlighter.highlight_block(text, "python", force=True)
        if kind == "code"
        else markdown.render(_LINK.sub(on_site, text))
        for kind, text in _cells(file)
    )


def _page(name: str, body: str) -> tuple[str, dict[str, str], str]:
    title = html.escape(name)
    return f"{_FOLDER}/{name}", {"title": title, "body": f"<h1>{title}</h1>{body}"}, "page.html"


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_transform(OutsideLinks)
    app.add_transform(Dashes)
    app.connect("html-collect-pages", _pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
