"""What the docs say of tried versions is what pyproject.toml allows and what errors name."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from heliostat.cluster.pools.private_api import TRIED_RAY
from heliostat.trainer.engine.private_names import TRIED_KERAS, TRIED_TENSORFLOW
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent


def test_what_tests_need_is_there():
    """Else tests would be skipped in silence, those of remote data among them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    missing = []
    for needed in map(Requirement, project["optional-dependencies"]["test"]):
        try:
            found = Version(metadata.version(needed.name))
        except metadata.PackageNotFoundError:
            missing.append(f"{needed}")
            continue
        if found not in needed.specifier:
            missing.append(f"{needed}: {found}")
    assert not missing, "install them: source scripts/environment.sh test"


def table():
    """Package -> (versions tried, specifier), of docs/reference/versions.md."""
    page = (ROOT / "docs" / "reference" / "versions.md").read_text()
    rows = re.findall(r"^\| ([a-z0-9-]+) \| ([^|]+) \| `([^`]+)` \|$", page, re.M)
    return {name: ([Version(each) for each in tried.split(", ")], allowed) for name, tried, allowed in rows}


def requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {found.name: found for found in map(Requirement, project["dependencies"])} | {
        f"{found.name} (gpu)": found for found in map(Requirement, project["optional-dependencies"]["gpu"])
    }


def test_the_table_has_every_package_with_its_bounds():
    found = requirements()
    gpu = found.pop("tensorflow (gpu)")
    assert {name: str(Requirement(f"{name}{allowed}").specifier) for name, (_, allowed) in table().items()} == {
        name: str(requirement.specifier) for name, requirement in found.items()
    }
    assert gpu.specifier == found["tensorflow"].specifier


@pytest.mark.parametrize("name", table())
def test_the_upper_bound_is_the_first_version_that_was_not_tried(name):
    tried, _ = table()[name]
    specifier = requirements()[name].specifier
    (bound,) = (Version(each.version) for each in specifier if each.operator == "<")
    finals = [version for version in tried if not version.is_prerelease]
    assert finals
    assert all(version in specifier for version in finals)
    newest = max(finals).release
    level = len(bound.release) - 1
    assert bound.release == (*newest[:level], newest[level] + 1), "versions between the newest tried one and the bound"


@pytest.mark.parametrize(
    ("name", "said"), [("keras", TRIED_KERAS), ("tensorflow", TRIED_TENSORFLOW), ("ray", TRIED_RAY)]
)
def test_errors_name_the_versions_of_the_table(name, said):
    assert [Version(each) for each in re.split(", | and ", said)] == table()[name][0]
