"""Private names of other packages are used in one module of each folder, which checks that they are there.

The rule by which a name with an underscore is ours: the file that uses it defines it, or it is used on `self` and one
of our files defines it. A name that the checks list is never ours by the first half: `optimizer._learning_rate` is
Keras's, even in a file with a method of that name.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from heliostat.cluster.pools import private_api as ray_names
from heliostat.trainer.engine import private_names

ROOT = Path(__file__).parents[1]
# Where private names are used, and which; None for all that its check lists.
HOMES = {
    "trainer/engine/private_api.py": None,
    "trainer/engine/private_models.py": None,
    "trainer/engine/private_hooks.py": None,
    "trainer/engine/private_names.py": None,
    "trainer/engine/private_optimizers.py": None,
    "cluster/pools/private_api.py": None,
    "data/views/preprocess.py": {"_lookup_layer"},
}
LISTED = {name for names in private_names.NAMES.values() for name in names if name.startswith("_")}
LISTED |= {"_private", *(part for _, path in ray_names.NAMES for part in path.split("."))} - {"state"}
LISTED |= {"_lookup_layer"}
# Public in their packages' documentation, underscore or not.
PUBLIC = {"os._exit", "sys._current_frames", "_replace", "_asdict", "_render_traceback_"}
PRIVATE_MODULE = re.compile(r"keras\.src(\..+)?|tensorflow\.(python|core|compiler)(\..+)?|(.*\.)?_[a-z]\w*(\..+)?")
ACCESSORS = {"getattr", "setattr", "hasattr", "delattr", "attrgetter"}


def sources() -> dict[str, ast.Module]:
    files = (file for folder in ("cluster", "data", "trainer") for file in sorted((ROOT / folder).rglob("*.py")))
    return {str(file.relative_to(ROOT)): ast.parse(file.read_text()) for file in files}


def is_private(name: str) -> bool:
    return name == "__internal__" or (name.startswith("_") and not name.endswith("__") and name != "_")


def defined(tree: ast.Module) -> set[str]:
    """Names that a file gives to functions, classes, fields, variables and attributes of `self`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and on_self(node):
            names.add(node.attr)
    return names


def on_self(node: ast.Attribute) -> bool:
    return ast.unparse(node.value) in ("self", "cls", "super()")


def foreign_names(tree: ast.Module, ours: set[str]) -> Iterator[tuple[int, str]]:
    """Lines and private names of others that a file uses; `ours` are the names that any of our files defines."""
    here = defined(tree) - LISTED
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            own = node.attr in here or (on_self(node) and node.attr in ours)
            if not own and not {node.attr, ast.unparse(node)} & PUBLIC:
                yield node.lineno, node.attr
        elif isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0):
            yield from ((node.lineno, name) for name in imported(node) if PRIVATE_MODULE.fullmatch(name))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value in LISTED or (PRIVATE_MODULE.fullmatch(node.value) and "." in node.value):
                yield node.lineno, node.value
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ACCESSORS:
            texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            yield from ((node.lineno, text) for text in texts if is_private(text) and text not in here)


def imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if str(node.module).startswith(("heliostat", "__future__")):
        return []
    return [f"{node.module}.{alias.name}" for alias in node.names]


def test_no_other_module_uses_private_names_of_other_packages():
    trees = sources()
    ours = set().union(*map(defined, trees.values()))
    found = {
        f"{path}:{line} {name}"
        for path, tree in trees.items()
        for line, name in foreign_names(tree, ours)
        if path not in HOMES or (HOMES[path] is not None and name not in HOMES[path])
    }
    assert found == set()


def test_the_modules_that_may_use_them_do():
    trees = sources()
    assert all(path in trees and list(foreign_names(trees[path], set())) for path in HOMES)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("from keras.src.utils import naming", "keras.src.utils.naming"),
        ("from tensorflow.python.eager import context", "tensorflow.python.eager.context"),
        ("import ray._private.state", "ray._private.state"),
        ("ray._private.state.state.nodes()", "_private"),
        ("from keras import _tf_keras", "keras._tf_keras"),
        ("value = variable._value", "_value"),
        ("hidden = optimizer._anything", "_anything"),
        ("rate = getattr(optimizer, '_anything', None)", "_anything"),
        ("names = ['_exclude_from_weight_decay']", "_exclude_from_weight_decay"),
        ("tf.__internal__.autograph", "__internal__"),
        ("def _learning_rate(): ...\noptimizer._learning_rate", "_learning_rate"),
        ("importlib.import_module('keras.src.utils')", "keras.src.utils"),
        ("self._inherited", "_inherited"),
    ],
)
def test_foreign_names_are_found(line, name):
    assert name in [found for _, found in foreign_names(ast.parse(line), ours=set())]


@pytest.mark.parametrize(
    "line",
    [
        "self._own = 1\nother._own",
        "class A:\n    _field: int\n    def f(self, other): return other._field",
        "from __future__ import annotations",
        "named._replace(a=1)",
        "os._exit(1)",
        "self.__class__.__name__",
    ],
)
def test_own_and_documented_names_are_let_through(line):
    assert not list(foreign_names(ast.parse(line), ours=set()))
