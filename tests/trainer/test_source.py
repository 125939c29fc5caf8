"""The modules beside a script: what travels, and how another process finds them. With real files and processes."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from heliostat.trainer import source as source_module
from heliostat.trainer.errors import ConfigurationError
from heliostat.trainer.source import SourceTooLargeError, source_of

from ..slow import SLOW


@pytest.fixture
def project(tmp_path):
    """A script's folder: a module, a package with data, and much that is none of them."""
    folder = tmp_path / "project"
    for name, text in {
        "train.py": "import mine",
        "mine.py": "import parts\nWIDTH = parts.WIDTH",
        "parts/__init__.py": "from pathlib import Path\nWIDTH = int(Path(__file__).with_name('width.txt').read_text())",
        "parts/width.txt": "3",
        "parts/__pycache__/x.pyc": "",
        "data/rows.csv": "1",
        "data/read.py": "",
        "notes.md": "",
        ".git/hooks/hook.py": "",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(autouse=True)
def copies(tmp_path, monkeypatch):
    """Where copies lie, for this process and those that it starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"heliostat-{source_module.os.geteuid()}-source"


def used_elsewhere(found, **changed):
    """Where another process finds `mine`, and what is in it."""
    program = (
        "import pickle, sys\n"
        "source = pickle.loads(sys.stdin.buffer.read())\n"
        "source.put_on_path()\n"
        "import mine\n"
        "print(mine.WIDTH, mine.__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(found), capture_output=True, check=True, **changed
    )
    width, file = done.stdout.decode().split()
    return int(width), Path(file).parent


def test_modules_and_whole_packages_travel_and_nothing_else(project):
    found = source_of(project)
    assert found.names == ("mine.py", "parts/__init__.py", "parts/width.txt", "train.py")
    assert (found.has("mine"), found.has("parts"), found.has("data"), found.has("min")) == (True, True, False, False)
    assert found.file_of("parts") == project / "parts" / "__init__.py"
    assert found.file_of("data.read") is None


def test_a_machine_with_the_same_files_uses_them_in_place(project, copies):
    assert used_elsewhere(source_of(project)) == (3, project)
    assert not copies.exists()


def test_another_machine_gets_a_copy_also_where_an_old_one_lies(project, copies):
    found = source_of(project)
    (project / "mine.py").write_text("WIDTH = 99")  # what a machine has at this path that does not share the disk
    assert used_elsewhere(found) == (3, copies / found.digest)
    (copies / found.digest / "mine.py").write_text("WIDTH = 98")
    assert used_elsewhere(found) == (3, copies / found.digest)


def test_a_file_that_changes_all_the_time_travels_as_it_was_read(project, copies):
    (project / "parts" / "now.txt").symlink_to("/proc/sys/kernel/random/uuid")  # another text whenever it is read
    found = source_of(project)
    assert used_elsewhere(found, timeout=60 * SLOW) == (3, copies / found.digest)


def test_copies_that_nobody_uses_are_removed_and_others_stay(project, copies, monkeypatch):
    found = source_of(project)
    (project / "mine.py").write_text("WIDTH = 4")
    other = source_of(project)
    (project / "mine.py").unlink()
    monkeypatch.setattr(sys, "path", list(sys.path))
    place = found.put_on_path()  # of this process, which lives
    assert sys.path[0] == str(place) == str(copies / found.digest)
    used_elsewhere(other)
    (project / "train.py").write_text("")
    assert source_of(project).put_on_path() == project
    (project / "train.py").unlink()
    third = source_of(project)
    (project / "parts" / "width.txt").unlink()
    third.put_on_path()
    assert sorted(each.name for each in copies.iterdir()) == sorted([found.digest, third.digest])
    for lock in source_module._held:
        lock.close()
    source_module._held.clear()


def test_too_much_is_refused_with_the_largest_files(project, monkeypatch):
    monkeypatch.setattr(source_module, "LIMIT_BYTES", 10_000)
    (project / "parts" / "weights.bin").write_bytes(bytes(200_000))
    with pytest.raises(SourceTooLargeError, match=r"The largest files: parts/weights.bin \(0\.2 MB\), "):
        source_of(project)


def test_a_file_that_cannot_be_read_is_named(project):
    (project / "parts" / "lost.py").symlink_to(project / "nowhere")
    assert "parts/lost.py" not in source_of(project).names
    (project / "parts" / "width.txt").unlink()
    (project / "parts" / "width.txt").symlink_to("/proc/self/mem")
    with pytest.raises(ConfigurationError, match="cannot be sent to workers"):
        source_of(project)


def test_a_folder_without_modules_sends_nothing(tmp_path):
    assert source_of(tmp_path) is None


@pytest.mark.parametrize("arguments", [["train.py"], ["-m", "pip"], ["-c", ""]])
def test_the_folder_of_a_program(project, arguments):
    (project / "pip.py").write_text("")
    said = "from heliostat.trainer.source import script_folder; print(script_folder())"
    for name in ("train.py", "pip.py"):
        (project / name).write_text(said)
    command = [said if each == "" else each for each in arguments]
    done = subprocess.run([sys.executable, *command], cwd=project, capture_output=True, check=True, text=True)
    assert done.stdout.strip() == str(project)
