"""The built docs: no warning, every link leads somewhere, every public name is there, nothing comes from outside."""

from __future__ import annotations

import importlib
import inspect
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import heliostat.data
import heliostat.trainer
import pytest
from heliostat.data import Dataset
from heliostat.scripts.cli import main

from .conftest import ROOT, names_of
from .test_architecture import unknown

DOCS = ROOT / "docs"
MOST_LINES, MOST_WORDS = 200, 20
LOADS = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href"), ("object", "data")}
# Of `link`: where a page stands among others, which no browser loads.
SAYS = {"index", "search", "next", "prev", "author", "copyright", "canonical"}
# What somebody asks who knows Keras and has two GPUs, in these words.
QUESTIONS = """
How do I use both GPUs?
What happens to my batch size and learning rate?
Where is the model?
Can I stop it?
Is it faster? When not?
What does it cost?
My data are JPEGs in folders
My data are in a generator
Why is my metric different?
How do I debug?
"""
ERRORS = ("heliostat.trainer", "heliostat.data", "heliostat.cluster")


class Page(HTMLParser):
    """What a page of HTML holds that leads elsewhere, and where one can come to in it.

    Attributes:
        links: where its links go; `loads`, what a browser loads to show it.
        anchors: the ids in it; `text`, what one reads.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "link" and found.get("rel") in SAYS:
            return
        self.loads += [found[name] for name in found if (tag, name) in LOADS]

    def handle_data(self, data: str) -> None:
        self.text += data


@cache
def page_of(path: Path) -> Page:
    return Page(path.read_text())


def pages(site: Path) -> dict[str, Page]:
    """The pages by path, but for what the theme brings along."""
    return {name: page_of(site / name) for name in names_of(site)}


def wrong_in(site: Path, name: str, link: str) -> str:
    """Why a link of a page leads nowhere; empty for one that is right, or leads to another site."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return ""
    target = (site / name).parent / unquote(parts.path) if parts.path else site / name
    if not target.resolve().is_file():
        return f"{name}: there is no {link}"
    is_page = target.suffix == ".html" and parts.fragment
    if is_page and unquote(parts.fragment) not in page_of(target.resolve()).anchors:
        return f"{name}: there is no such place: {link}"
    return ""


def test_a_link_to_nowhere_is_noticed(tmp_path):
    (tmp_path / "a.html").write_text('<h1 id="there">A</h1><a href="b.html"><a href="#there"><a href="#gone">')
    found = [wrong_in(tmp_path, "a.html", link) for link in page_of(tmp_path / "a.html").links]
    assert found == ["a.html: there is no b.html", "", "a.html: there is no such place: #gone"]


@pytest.mark.slow
def test_sphinx_warns_of_nothing(built):
    assert built.errors == ""


@pytest.mark.slow
def test_every_link_leads_somewhere(site):
    wrong = [wrong_in(site, name, link) for name, page in pages(site).items() for link in page.links + page.loads]
    assert sorted({each for each in wrong if each}) == []
    assert len(pages(site)) >= len(written())


@pytest.mark.slow
def test_nothing_is_loaded_from_outside(site):
    outside = re.compile(r"^(\w+:)?//")
    assert [(name, each) for name, page in pages(site).items() for each in page.loads if outside.match(each)] == []
    for sheet in site.rglob("*.css"):
        found = re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", sheet.read_text())
        assert [each for each in found if outside.match("".join(each))] == [], sheet


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(site):
    for module, page in ((heliostat.trainer, "trainer"), (heliostat.data, "data")):
        names = [name for name in module.__all__ if not name.endswith("Error")]
        expected = {f"{module.__name__}.{name}" for name in names}
        assert expected - page_of(site / "reference" / f"{page}.html").anchors == set()
    methods = {name for name, one in vars(Dataset).items() if inspect.isfunction(one) and not name.startswith("_")}
    methods = {f"heliostat.data.Dataset.{name}" for name in methods}
    assert methods - page_of(site / "reference" / "data.html").anchors == set()


@pytest.mark.slow
def test_every_error_has_a_place(site):
    anchors = page_of(site / "reference" / "errors.html").anchors
    for package in ERRORS:
        module, exported = importlib.import_module(f"{package}.errors"), importlib.import_module(package)
        for name, each in vars(module).items():
            if isinstance(each, type) and issubclass(each, Exception):
                known = package if name in getattr(exported, "__all__", ()) else module.__name__
                assert f"{known}.{name}" in anchors, f"{package}: {name}"


@pytest.mark.slow
def test_what_errors_say_is_on_their_page(site):
    shown = " ".join(page_of(site / "reference" / "errors.html").text.split())
    documented = {each.rpartition(".")[2] for each in page_of(site / "reference" / "errors.html").anchors}
    said = re.findall(r"^== (\w+).*\n(.+)$", (ROOT / "tests" / "error_texts.txt").read_text(), re.M)
    ours = [(name, " ".join(text.split())) for name, text in said if name in documented]
    assert [name for name, text in ours if text not in shown] == []
    assert len(ours) > len(said) / 2


def test_every_command_is_in_the_reference():
    page = (DOCS / "reference" / "command-line.md").read_text()
    assert sorted(re.findall(r"^   :prog: heliostat ([\w-]+)$", page, re.M)) == sorted(main.commands)


def written() -> list[Path]:
    """The pages that somebody has written."""
    return [each for each in [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md"))] if each.name != "CHANGELOG.md"]


@pytest.mark.parametrize("name", [each.relative_to(ROOT).as_posix() for each in written()])
def test_a_page_is_no_longer_than_somebody_reads(name):
    num_lines = len((ROOT / name).read_text().splitlines())
    assert num_lines <= MOST_LINES


@pytest.mark.parametrize("name", [each.relative_to(ROOT).as_posix() for each in written()])
def test_links_between_pages_lead_to_files(name):
    """On GitHub; what is below a heading of that name is Sphinx's to tell."""
    page = ROOT / name
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.M | re.S)
    links = [link for link in re.findall(r"\]\(([^)\s#]+)", text) if not urlsplit(link).scheme]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("folder", ["how-to", "how-to/moving", "reference", "explanation"])
def test_every_page_is_on_the_first_page_of_its_folder(folder):
    first = (DOCS / folder / "index.md").read_text()
    pages = {page.name for page in (DOCS / folder).glob("*.md")} - {"index.md"}
    assert {name for name in pages if f"]({name})" not in first} == set()


@pytest.mark.parametrize("name", ["README.md", "docs/index.md"])
def test_every_question_leads_to_its_answer(name):
    links = re.findall(r"\[([^\]]+)\]\([^)]+\.md[^)]*\)", (ROOT / name).read_text())
    assert [link for link in links if link in QUESTIONS.splitlines()] == QUESTIONS.split("\n")[1:-1]


def test_the_tree_for_contributors_is_that_of_the_code():
    assert list(unknown((ROOT / "CONTRIBUTING.md").read_text())) == []


def test_the_glossary_is_short():
    words = re.findall(r"^\| ([a-z -]+) \| (?!meaning)", (DOCS / "glossary.md").read_text(), re.M)
    assert 0 < len(words) <= MOST_WORDS
