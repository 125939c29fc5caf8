"""One command at a time in a folder: others wait, and a folder that goes meanwhile is made anew."""

from __future__ import annotations

import threading

import pytest
from heliostat.trainer.errors import StorageError
from heliostat.trainer.remote.alone import alone_in


def ignore(_line: str) -> None:
    pass


def test_the_second_comes_in_when_the_first_has_left(tmp_path):
    order, folder = list[str](), tmp_path / "runs" / "new"

    def second() -> None:
        with alone_in(folder, ignore):
            order.append("second")
            (folder / "file").touch()

    with alone_in(folder, ignore):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert (folder / "file").exists()  # the first has taken the empty folder away


def test_a_folder_in_which_nothing_came_is_not_left(tmp_path):
    with pytest.raises(KeyError), alone_in(tmp_path / "new", ignore):
        raise KeyError
    (tmp_path / "old").mkdir()
    with alone_in(tmp_path / "old", ignore):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"), alone_in(tmp_path / "file" / "run", ignore):
        pass
