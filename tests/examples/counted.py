"""How many lines make a Heliostat script of a Keras script: `python tests/examples/counted.py` shows them all.

Counted is every line of the example that its plain twin (scripts/examples/plain) does not have at that place, whether
it is new or stands for another one. Not counted are imports, comments, docstrings, and the move of the model into
`build_model()`: the line `def build_model():`, its `return model`, and the indentation. What stands in `build_model`
and not, in the same words and order, in the twin, is counted. A statement is one line however it is wrapped, and two
statements on one line are two: both scripts are parsed, and written anew by `ast.unparse`.
"""

from __future__ import annotations

import ast
from difflib import SequenceMatcher, unified_diff
from pathlib import Path
from typing import NamedTuple

EXAMPLES = Path(__file__).parents[2] / "scripts" / "examples"
_MODEL = "build_model"


class Compared(NamedTuple):
    """An example against its twin.

    Attributes:
        counted: lines of the example that are new, or stand for another one.
        shown: the difference that a reader sees, with the model back at its place.
    """

    counted: list[str]
    shown: str


def compared(plain: str, example: str) -> Compared:
    """Count the lines that make `example` of `plain`; both are the text of a script."""
    before = _lines(_body(plain))
    moved, rest = _taken_out(_body(example))
    kept, strange = _apart(before, moved)
    _, added = _apart(kept, rest)
    shown = unified_diff(kept, rest, "plain, without the model", "example, without build_model", lineterm="", n=1)
    return Compared(strange + added, "\n".join([*(f"+ (in {_MODEL}) {line}" for line in strange), *shown]))


def _body(text: str) -> list[ast.stmt]:
    """The statements of a script without imports and docstrings, wherever they stand."""

    class Without(ast.NodeTransformer):
        def visit_Import(self, _: ast.Import) -> None:
            return None

        visit_ImportFrom = visit_Import

        def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
            return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node

    return Without().visit(ast.parse(text)).body


def _taken_out(body: list[ast.stmt]) -> tuple[list[str], list[str]]:
    """(the lines in `build_model` but for its return, the lines of all else)"""
    found = [one for one in body if isinstance(one, ast.FunctionDef) and one.name == _MODEL]
    if len(found) != 1:
        raise ValueError(f"{len(found)} functions {_MODEL}")
    (function,) = found
    last = function.body[-1]
    plain = isinstance(last, ast.Return) and isinstance(last.value, ast.Name)
    rest = [one for one in body if one is not function]
    return _lines(function.body[:-1] if plain else function.body), _lines(rest)


def _lines(body: list[ast.stmt]) -> list[str]:
    text = ast.unparse(ast.fix_missing_locations(ast.Module(body, [])))
    return [line for line in text.splitlines() if line.strip()]


def _apart(before: list[str], after: list[str]) -> tuple[list[str], list[str]]:
    """(lines of `before` without a partner in `after`, and the other way round); partners stand in the same order."""
    pairs = SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
    in_before = {pair.a + i for pair in pairs for i in range(pair.size)}
    in_after = {pair.b + i for pair in pairs for i in range(pair.size)}
    left = [line for i, line in enumerate(before) if i not in in_before]
    return left, [line for i, line in enumerate(after) if i not in in_after]


def names() -> list[str]:
    """The examples that have a twin."""
    return sorted(path.stem for path in (EXAMPLES / "plain").glob("*.py"))


def of_example(name: str) -> Compared:
    """An example of the repository against its twin."""
    return compared((EXAMPLES / "plain" / f"{name}.py").read_text(), (EXAMPLES / f"{name}.py").read_text())


if __name__ == "__main__":
    for each in names():
        found = of_example(each)
        print(f"{each}: {len(found.counted)} lines\n{found.shown}\n")
