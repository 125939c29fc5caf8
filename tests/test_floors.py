"""Imports go down or stay on their floor, those for types and inside of functions too, and never in a circle.

A floor is a row of files and folders that may import each other and what stands below. Whoever adds a file or a folder
to `cluster/`, `data/` or `trainer/` says here on which floor it stands. Nothing is imported to find out, files are
parsed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
Floors = Sequence[set[str]]
# From below. `cluster` and `data` know nothing of each other; the same holds for two names of a row in `BESIDE`.
TOP: Floors = [{"cluster", "data"}, {"trainer"}, {"scripts"}]
BESIDE = {"cluster", "data"}
FLOORS: Mapping[str, Floors] = {
    "cluster": [
        {"tree", "vectors", "assignment", "pace", "cores", "spec", "errors", "instruments"} | {"knocking"},
        {"allreduce", "disk", "links", "preflight"},
        {"group"},
        {"pools", "head", "__init__"},
    ],
    "data": [
        {"errors", "progress"},
        {"order"},
        {"format"},
        {"read", "write"},
        {"foreign", "remote", "damage", "same_files"},
        {"dataset", "views", "opening", "stored", "upload", "writer"},
        {"conversion", "verify", "__init__"},
    ],
    "trainer": [
        {"arguments", "class_weight", "code_digests", "columns", "config", "environment", "errors", "events"}
        | {"caller_words", "global_sums", "hardware", "quiet_load"}
        | {"jobs", "keras_arguments", "preflight", "shipping", "source", "storage_thread"}
        | {"checked", "trainer_config", "samples", "beginning", "pass_messages", "single_steps"}
        | {"shortened", "step_states"},
        {"engine", "report"},
        {"checkpoints"},
        {"worker"},
        {"driver"},
        {"trackers"},
        {
            "trainer",
            "given_rows",
            "held_runs",
            "model_use",
            "pass_hooks",
            "remote",
            "saved_model",
            "run_making",
            "training_session",
            "__init__",
        },
        {"doctor"},
    ],
}
# A dataset has methods that make views, which are datasets: the one pair of files and folders that know each other.
PAIR = (("data", "dataset"), ("data", "views"))
FORBIDDEN = {"data": {"ray"}, "cluster": {"tensorflow", "keras"}}
NO_PACKAGES = {"build", "dist", "docs", "tests"}


def imports_of(path: Path, root: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line, module or name in it as a path of names) for every import of a file; ours begin without "heliostat"."""
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ("heliostat", *package[: len(package) - node.level + 1]) if node.level else ()
            names = [".".join([*above, *filter(None, [node.module]), alias.name]) for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            names = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        for name in names:
            parts = tuple(name.split("."))
            yield node.lineno, parts[1:] if parts[0] == "heliostat" else ("", *parts)


def sources(root: Path, folder: str) -> list[Path]:
    return sorted((root / folder).rglob("*.py"))


def height(floors: Floors, name: str) -> int:
    """The number of the floor; those of unknown names are another test's matter."""
    return next((number for number, floor in enumerate(floors) if name in floor), 0)


def unit_of(parts: Sequence[str], floors: Floors) -> str:
    """The file or folder of a package that a path of names leads to; the package itself if it is a name in there."""
    return parts[1] if len(parts) > 1 and any(parts[1] in floor for floor in floors) else "__init__"


def steps_up(root: Path) -> list[str]:
    """The imports that go up, into the house next door, or to a package that a folder must not know."""
    found = []
    for folder in sorted(set().union(*TOP)):
        for path in sources(root, folder):
            here = path.relative_to(root).with_suffix("").parts
            for line, parts in imports_of(path, root):
                said = f"{path.relative_to(root)}:{line} imports {'.'.join(filter(None, parts))}"
                if parts[0] == folder and folder in FLOORS:
                    floors = FLOORS[folder]
                    if height(floors, unit_of(parts, floors)) > height(floors, unit_of(here, floors)):
                        found.append(f"{said}, which is above")
                elif parts[0] in set().union(*TOP) - {folder}:
                    if height(TOP, parts[0]) > height(TOP, folder) or {parts[0], folder} <= BESIDE:
                        found.append(f"{said}, which is above or beside")
                elif parts[0] == "" and parts[1] in FORBIDDEN.get(folder, ()):
                    found.append(f"{said}, which {folder} does not need")
    return found


def unplaced(root: Path) -> list[str]:
    """Folders, and files and folders of the packages with floors, that have no place; and places that are empty."""
    found = []
    for package, floors in [("", TOP), *FLOORS.items()]:
        entries = [path for path in (root / package).iterdir() if path.suffix == ".py" or any(path.rglob("*.py"))]
        names = {path.name.removesuffix(".py") for path in entries if not path.name.startswith(".")}
        names -= NO_PACKAGES if not package else {"__pycache__"}
        places = set().union(*floors)
        found += [f"{package}/{name} has no floor" for name in sorted(names - places)]
        found += [f"{package}/{name} has a floor and is not there" for name in sorted(places - names)]
    return found


def circle(root: Path, folder: str) -> list[str]:
    """Files of a folder that import each other in a circle; [] if none do."""
    files = {path.relative_to(root).with_suffix("").parts: path for path in sources(root, folder)}
    graph: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for here, path in files.items():
        graph[here] = set()
        for _, parts in imports_of(path, root):
            # A module, a name in a module, a package, or a name in a package.
            tries = [parts, parts[:-1], (*parts, "__init__"), (*parts[:-1], "__init__")]
            if (here, parts[:2]) == PAIR:
                continue
            graph[here].update([each for each in tries if each in files and each != here][:1])
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return ["/".join(each) for each in error.args[1]]
    return []


def test_imports_go_down_or_stay_on_their_floor():
    assert steps_up(ROOT) == []


def test_everything_has_a_floor():
    assert unplaced(ROOT) == []


@pytest.mark.parametrize("folder", FLOORS)
def test_there_is_no_circle_of_imports(folder):
    assert circle(ROOT, folder) == []


@pytest.fixture
def tree(tmp_path):
    """A made-up tree with every file and folder that has a place; write(path, source) changes it."""
    for top in set().union(*TOP):
        (tmp_path / top).mkdir()
        (tmp_path / top / "__init__.py").touch()
    for package, floors in FLOORS.items():
        for name in set().union(*floors):
            # Names that are folders here are files there, and the other way round: it makes no difference.
            (tmp_path / package / f"{name}.py").touch()

    def write(path: str, source: str) -> Path:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(source)
        return tmp_path

    return write


UP = [
    ("data/order.py", "from .format import columns"),
    ("data/read/reader.py", "from ..views.view import checked_row_ids"),
    ("data/remote/cache.py", "def late():\n    from ..stored import StoredDataset"),
    ("data/views/tf.py", "from heliostat.data import Dataset"),
    ("cluster/tree.py", "from heliostat.cluster.group import pool"),
    ("cluster/allreduce.py", "import heliostat.cluster.group"),
    ("trainer/config.py", "from .engine import step"),
    ("trainer/config.py", "from . import engine"),
    ("trainer/engine/step.py", "from ..worker.worker import Worker"),
    ("trainer/engine/step.py", "from .. import worker"),
    ("trainer/engine/step.py", "from .. import Trainer"),
    ("trainer/checkpoints.py", "from heliostat.trainer import Trainer"),
    ("trainer/jobs.py", "import importlib\nimportlib.import_module('heliostat.trainer.driver')"),
    ("trainer/jobs.py", "def late():\n    from .driver import fit_run"),
    ("trainer/jobs.py", "if TYPE_CHECKING:\n    from .driver import fit_run"),
    ("trainer/jobs.py", "class A:\n    with warnings:\n        from .driver import fit_run"),
    ("cluster/tree.py", "from heliostat.trainer.errors import TrainerError"),
    ("trainer/trainer.py", "import heliostat.scripts.cli"),
    ("cluster/pools.py", "from heliostat.data import Dataset"),
    ("data/stored.py", "from heliostat import cluster"),
    ("data/views/tf.py", "from ...trainer import Trainer"),
    ("data/views/tf.py", "def late():\n    import ray.data"),
    ("cluster/pools/local.py", "from tensorflow.python import eager"),
    ("cluster/group.py", "import keras as k"),
]


@pytest.mark.parametrize(("path", "source"), UP)
def test_a_step_up_is_found(tree, path, source):
    (found,) = steps_up(tree(path, source))
    assert found.startswith(f"{path}:{source[: source.rindex('import')].count(chr(10)) + 1} imports ")


DOWN = [
    ("cluster/allreduce.py", "from heliostat.cluster import links, tree\nimport heliostat.cluster.errors"),
    ("trainer/engine/step.py", "from ..config import FitConfig\nfrom . import phase\nfrom .phase import Phase"),
    ("trainer/trainer.py", "from .driver import fit_run\nfrom heliostat import cluster, data\nimport tensorflow, ray"),
    ("scripts/cli.py", "from heliostat.trainer import Trainer\nfrom heliostat.data import Dataset"),
    ("data/views/tf.py", "import tensorflow\nfrom ..dataset import Dataset\nfrom ..read.reader import Reader"),
    ("data/dataset.py", "def late():\n    from .views.tf import tf_dataset"),
    ("cluster/pools/ray.py", "import ray\nfrom ..group import pool"),
]


@pytest.mark.parametrize(("path", "source"), DOWN)
def test_a_step_down_or_aside_is_none_up(tree, path, source):
    assert steps_up(tree(path, source)) == []


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("trainer/extra.py", "trainer/extra has no floor"),
        ("cluster/extra/deep/file.py", "cluster/extra has no floor"),
        ("extra/file.py", "/extra has no floor"),
        ("extra.py", "/extra has no floor"),
    ],
)
def test_what_has_no_floor_is_found(tree, path, said):
    root = tree("cluster/tree.py", "")
    assert unplaced(root) == []
    tree(path, "")
    assert unplaced(root) == [said]
    (root / "cluster" / "tree.py").unlink()
    assert sorted(unplaced(root)) == sorted([said, "cluster/tree has a floor and is not there"])


def test_a_circle_is_found(tree):
    tree("trainer/engine/a.py", "from .b import something")
    tree("trainer/engine/b.py", "def late():\n    from ..engine import c")
    root = tree("trainer/engine/c.py", "if TYPE_CHECKING:\n    import heliostat.trainer.engine.d")
    assert circle(root, "trainer") == []
    tree("trainer/engine/d.py", "from . import a")
    tree("data/views/view.py", "from ..dataset import Dataset")
    tree("data/dataset.py", "def late():\n    from .views.view import View")
    assert circle(root, "data") == []
    tree("data/stored.py", "from .dataset import Dataset")
    tree("data/dataset.py", "from .stored import StoredDataset")
    assert len(set(circle(root, "data"))) == 2
    assert len(set(circle(root, "trainer"))) == 4
    assert circle(root, "cluster") == []
