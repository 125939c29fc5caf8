"""The directive `errors`: the tree of errors of a package, and a section for each, `#heliostat.trainer.DataError`.

All of it comes from the classes (which error is below which, the first sentence of its docstring, its fields) and from
`tests/error_texts.txt`, which holds the text of each, with real values, and which a test keeps true.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx

_TEXTS = Path(__file__).parents[2] / "tests" / "error_texts.txt"
_HEADING = re.compile(r"^== (\w+)(?:: .+)?\n", re.MULTILINE)


def texts() -> dict[str, list[str]]:
    """By the name of an error what it says, one text for each thing that it is raised for."""
    found: dict[str, list[str]] = {}
    _, *parts = _HEADING.split(_TEXTS.read_text())
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        found.setdefault(name, []).append(text.strip("\n"))
    return found


def errors_of(package: str) -> list[type]:
    """The errors of `PACKAGE.errors`, each followed by those below it."""
    module = importlib.import_module(f"{package}.errors")
    drawn = (module.__doc__ or "").split()  # the tree at the head of the module has their order
    own = sorted(
        {
            each
            for name, each in vars(module).items()
            if isinstance(each, type) and issubclass(each, Exception) and name in drawn
        },
        key=lambda each: drawn.index(each.__name__),
    )

    def below(base: type) -> Iterator[type]:
        yield base
        for each in own:
            if base in each.__bases__:
                yield from below(each)

    return [found for root in own if not set(root.__bases__) & set(own) for found in below(root)]


def anchor(package: str, error: type) -> str:
    """The full name by which users import it, where they can."""
    exported = getattr(importlib.import_module(package), "__all__", ())
    return f"{package}.{error.__name__}" if error.__name__ in exported else f"{package}.errors.{error.__name__}"


class Errors(Directive):
    """`.. errors:: heliostat.trainer`"""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The tree as a list of links, then a section per error."""
        package = self.arguments[0]
        errors = errors_of(package)
        lines: list[str] = []
        for error in errors:
            depth = sum(each in errors for each in error.__mro__) - 1
            meaning = (inspect.getdoc(error) or "").split("\n\n")[0].replace("\n", " ")
            lines += [f"{'  ' * depth}* :py:exc:`~{anchor(package, error)}`: {meaning}", ""]
        said = texts()
        for error in errors:
            lines += [f".. autoexception:: {anchor(package, error)}", "   :show-inheritance:", ""]
            for text in said.get(error.__name__, ()):
                lines += ["   .. code-block:: none", "      :class: said", ""]
                lines += [f"      {line}".rstrip() for line in text.splitlines()]
                lines += [""]
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source=f"{package}.errors"), self.content_offset, node)
        return node.children


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("errors", Errors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
