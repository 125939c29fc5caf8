"""A link in place of the driver's run folder, on a machine that does not see that folder.

Callbacks are made by scripts, and scripts know the run folder by its absolute path. Where it is not to be seen, their
files go to a folder of that machine, and a link lets the path lead there. It is put only where nothing lies, since what
lies there is somebody's. A note says what was made, so that whoever cleans up after a process that died needs to know
nothing else: the link goes, and the folders above it that were made for it, as far as nothing else is in them.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

NOTE = "stand-in.json"


def stand_in(path: str, folder: Path) -> bool:
    """Let a path lead to a folder; a link that was made for a folder beside that one is led there.

    Args:
        path: absolute.
        folder: where it is to lead; the note lies beside it.

    Returns:
        Whether it leads there now; False where something else lies in the way, or nothing may be made.
    """
    link, note = Path(path), folder.with_name(NOTE)
    try:
        if link.is_symlink() and _noted(note)[:1] == [path]:
            unready = link.with_name(f".{link.name}.new")
            unready.symlink_to(folder)
            unready.replace(link)
            return True
        if os.path.lexists(link):
            return False
        made = [str(each) for each in link.parents if not each.exists()]
        note.write_text(json.dumps([path, *made]))
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder)
    except OSError:
        remove_stand_ins(folder.parent)
        return False
    return True


def remove_stand_ins(scratch: Path) -> None:
    """Remove what was made by `stand_in` for folders in this one, however deep; nothing where nothing was."""
    for note in scratch.rglob(NOTE):
        _remove(note)


def _remove(note: Path) -> None:
    path, *made = _noted(note) or [""]
    with contextlib.suppress(OSError):
        if os.path.islink(path):
            os.unlink(path)
        for folder in made:  # the inner ones first
            os.rmdir(folder)
    with contextlib.suppress(OSError):
        note.unlink()


def _noted(note: Path) -> list[str]:
    try:
        return list(json.loads(note.read_text()))
    except (OSError, ValueError):
        return []
