"""Scripts in the idioms of Keras's documentation, as they are and on Heliostat after at most three changed lines.

A line of `scripts/*.py` that Heliostat needs otherwise says so behind `# on Heliostat:`.
"""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from heliostat.trainer import Trainer

SCRIPTS = sorted(Path(__file__).parent.joinpath("scripts").glob("*.py"))
_CHANGED = re.compile(r"^.*?# on Heliostat: (.*)$", re.MULTILINE)


def on_heliostat(script: str) -> str:
    """The script as it is written for Heliostat."""
    return _CHANGED.sub(r"\1", script)


def ran(script: str, folder: Path, monkeypatch) -> dict[str, np.ndarray]:
    """The `results` of a script, run in a folder."""
    folder.mkdir()
    (folder / "script.py").write_text(script)
    monkeypatch.chdir(folder)
    names = runpy.run_path(str(folder / "script.py"), run_name="__main__")
    for each in names.values():
        if isinstance(each, Trainer):
            each.close()
    found = names["results"]
    return {name: np.asarray(value, np.float64) for name, value in found.items()}


def test_there_are_ten_scripts_of_which_at_most_three_lines_change():
    assert len(SCRIPTS) == 10
    for path in SCRIPTS:
        script = path.read_text()
        changed = [
            pair
            for pair in zip(script.splitlines(), on_heliostat(script).splitlines(), strict=True)
            if pair[0] != pair[1]
        ]
        assert 1 <= len(changed) <= 3, path.name


@pytest.mark.engine
@pytest.mark.parametrize("path", [pytest.param(p, marks=pytest.mark.slow, id=p.stem) for p in SCRIPTS])
def test_a_script_computes_on_heliostat_what_it_computes_with_keras(tmp_path, monkeypatch, float64, path):
    monkeypatch.setenv("HELIOSTAT_WORKERS", "0")
    script = path.read_text()
    wanted = ran(script, tmp_path / "keras", monkeypatch)
    got = ran(on_heliostat(script), tmp_path / "heliostat", monkeypatch)
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-10, atol=1e-12, err_msg=name)
