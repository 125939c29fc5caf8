"""How large the parts of the project are, how much they explain, and which files import each other in a circle.

    python scripts/benchmarks/house.py [FOLDER ...] [--root CHECKOUT]

Files are parsed, nothing is imported. A statement is one of Python's grammar, docstrings included; "code" are those
that are none. Words are lines of docstrings and comments. Any counts parameters and results annotated with nothing but
Any (or Any | None). Imports inside of functions and for types count as others do. Ends with status 1 after a circle.
"""

from __future__ import annotations

import argparse
import ast
import io
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

FOLDERS = ("cluster", "trainer", "data", "scripts", "tests")
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
HEADINGS = ("files", "lines", "stmts", "code", "words", "stmts/line", "classes", "Any", "longest file")
ROW = "{:<24}{:>7}{:>8}{:>8}{:>8}{:>8}{:>12}{:>9}{:>6}   {}"


def docstrings(tree: ast.Module) -> list[ast.Expr]:
    """The statements that are the docstring of a module, class or function."""
    owners = [node for node in ast.walk(tree) if isinstance(node, (ast.Module, ast.ClassDef, *FUNCTION))]
    return [each.body[0] for each in owners if ast.get_docstring(each, clean=False) is not None]


def num_comments(source: str) -> int:
    """Lines with a comment."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return len({token.start[0] for token in tokens if token.type == tokenize.COMMENT})


def num_any(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Parameters and results that say nothing of their type."""
    given = [each for each in ast.walk(function.args) if isinstance(each, ast.arg)]
    types = [each.annotation for each in given] + [function.returns]
    said = [ast.unparse(each).removeprefix("typing.") for each in types if each is not None]
    return sum(each in ("Any", "Any | None", "None | Any", "Optional[Any]") for each in said)


def measured(path: Path) -> Counter[str]:
    """What is counted of a file, by heading."""
    source = path.read_text()
    tree = ast.parse(source)
    nodes, told = list(ast.walk(tree)), docstrings(tree)
    statements = sum(isinstance(node, ast.stmt) for node in nodes)
    return Counter(
        {
            "files": 1,
            "lines": len(source.splitlines()),
            "stmts": statements,
            "code": statements - len(told),
            "words": num_comments(source) + sum(each.end_lineno - each.lineno + 1 for each in told),
            "classes": sum(isinstance(node, ast.ClassDef) for node in nodes),
            "Any": sum(num_any(node) for node in nodes if isinstance(node, FUNCTION)),
        }
    )


def row(name: str, figures: Mapping[Path, Counter[str]]) -> str:
    """The line of a folder."""
    total = sum(figures.values(), Counter())
    longest = max(figures, key=lambda path: figures[path]["lines"])
    shown: dict[str, object] = dict(total)
    shown["words"] = f"{total['words'] / total['lines']:.0%}"
    shown["stmts/line"] = f"{total['stmts'] / total['lines']:.2f}"
    shown["longest file"] = f"{longest.name} {figures[longest]['lines']}"
    return ROW.format(name, *(shown.get(heading, 0) for heading in HEADINGS))


def imported(path: Path, root: Path) -> Iterator[Path]:
    """The files of the project that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ("heliostat", *path.relative_to(root).parent.parts[: 1 - node.level or None]) if node.level else ()
            names = [".".join([*above, *filter(None, [node.module]), alias.name]) for alias in node.names]
        for package, _, name in (each.partition(".") for each in names):
            place = root / name.replace(".", "/")
            # A module, a package, a name in a module, a name in a package.
            tries = [f"{place}.py", place / "__init__.py", f"{place.parent}.py", place.parent / "__init__.py"]
            found = [each for each in map(Path, tries) if package == "heliostat" and each.is_file() and each != path]
            yield from found[:1]


def circles(graph: Mapping[Path, Iterable[Path]]) -> list[list[Path]]:
    """Files that reach each other, largest circle first."""
    reached: dict[Path, set[Path]] = {}
    for start in graph:
        waiting, seen = [start], set()
        while waiting:
            for other in graph.get(waiting.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
        reached[start] = seen
    found = {tuple(sorted(b for b in reached[a] if a in reached.get(b, ()))) for a in graph if a in reached[a]}
    return sorted(map(list, found), key=lambda circle: (-len(circle), circle))


def main(folders: Sequence[str], root: Path) -> bool:
    """Print the figures; whether there is a circle."""
    print(ROW.format("", *HEADINGS))
    figures: dict[Path, Counter[str]] = {}
    for folder in folders:
        inside = {path: measured(path) for path in sorted((root / folder).rglob("*.py"))}
        figures |= inside
        print(row(f"{folder}/", inside))
        for name in sorted({path.parent for path in inside} - {root / folder}):
            print(row(f"  {name.relative_to(root / folder)}/", {p: n for p, n in inside.items() if p.parent == name}))
    print(row("all", figures))
    found = circles({path: list(imported(path, root)) for path in figures})
    for each in found:
        print(f"circle of {len(each)} files: {', '.join(str(path.relative_to(root)) for path in each)}")
    return bool(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", default=FOLDERS)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2])
    given = parser.parse_args()
    raise SystemExit(main(given.folders, given.root.resolve()))
