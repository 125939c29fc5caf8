"""Which files of a script's folder go to a cluster, and as what; nothing is read but manifests' first bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from heliostat.data.conversion.files import ENDINGS, has_ending
from heliostat.data.format.manifest import FORMAT_NAME, MANIFEST_NAME

_NEVER = {"__pycache__", "node_modules", "runs"}
_MARKS = {
    "pyvenv.cfg": "an environment",
    "conda-meta": "an environment",
    "run.json": "a run",
    "submitted.json": "a submitted run",
}
_HEAD_BYTES = 4096  # of a manifest, in which the format is named


@dataclass(slots=True)
class ScriptFolder:
    """What is in a folder.

    Attributes:
        root: the folder, without links.
        code: the files that go there as they are, by their names in it, with slashes.
        data: those that are data, likewise.
        left_out: what does not travel, with the reason where the name does not tell it.
    """

    root: Path
    code: dict[str, Path] = field(default_factory=dict)
    data: dict[str, Path] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path) -> ScriptFolder:
        """Look into a folder and those below it. Raises OSError if it cannot be read."""
        found = cls(root=Path(os.path.realpath(folder)))
        found._look_into(found.root, "", is_data=False, above=())
        return found

    def _look_into(self, folder: Path, prefix: str, *, is_data: bool, above: tuple[str, ...]) -> None:
        here = (*above, os.path.realpath(folder))
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        names = {entry.name for entry in entries}
        if above and (mark := next((mark for mark in _MARKS if mark in names), None)):
            self.left_out.append(f"{prefix} ({_MARKS[mark]})")
            return
        is_data = is_data or (MANIFEST_NAME in names and _is_dataset(folder / MANIFEST_NAME))
        for entry in entries:
            name = prefix + entry.name
            why = self._reason_against(entry, here)
            if why is not None:
                self.left_out.append(f"{_printable(name)}{'/' if entry.is_dir() else ''}{why and f' ({why})'}")
            elif entry.is_dir():
                self._look_into(Path(entry.path), f"{name}/", is_data=is_data, above=here)
            else:
                of_kind = self.data if is_data or _is_data(entry.name) else self.code
                of_kind[name] = Path(entry.path)

    def _reason_against(self, entry: os.DirEntry[str], above: tuple[str, ...]) -> str | None:
        """Why an entry does not travel, empty if its name tells; None if it does."""
        if entry.name.startswith(".") or (entry.is_dir() and entry.name in _NEVER):
            return ""
        if entry.is_symlink() and (why := self._reason_against_link(os.path.realpath(entry.path), above)):
            return why
        if not entry.is_dir() and not entry.is_file():
            return "no file"
        if not os.access(entry.path, os.R_OK | (os.X_OK if entry.is_dir() else 0)):
            return "cannot be read"
        return None if _printable(entry.name) == entry.name else "its name is no UTF-8"

    def _reason_against_link(self, target: str, above: tuple[str, ...]) -> str:
        if not os.path.exists(target):
            return "a link to nothing"
        if target in above:
            return "a link back"
        return "" if Path(target).is_relative_to(self.root) else f"a link to {target}"


def data_files(name: str, place: Path, above: tuple[str, ...] = ()) -> dict[str, Path]:
    """The files of data that lie somewhere, links followed; but for those whose names begin with a dot.

    Args:
        name: what theirs begin with.
        place: a file, or a folder.
        above: the folders that it lies in, by their real paths.

    Raises:
        OSError: it cannot be read.
    """
    if not place.is_dir():
        return {name: place}
    here = (*above, os.path.realpath(place))
    found: dict[str, Path] = {}
    for path in sorted(place.iterdir()):
        leads_back = any(Path(folder).is_relative_to(os.path.realpath(path)) for folder in here)
        if not path.name.startswith(".") and not leads_back:
            found |= data_files(f"{name}/{path.name}", path, here)
    return found


def _is_data(name: str) -> bool:
    """Whether a file is data by its name; JSON may be either, and is small where it is not."""
    return not name.lower().endswith(".json") and any(has_ending(name, kind) for kind in ENDINGS)


def _is_dataset(manifest: Path) -> bool:
    with manifest.open("rb") as file:
        return FORMAT_NAME.encode() in file.read(_HEAD_BYTES)


def _printable(name: str) -> str:
    return os.fsencode(name).decode(errors="replace")
