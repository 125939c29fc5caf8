"""What there is where no dataset is, and what to do about it."""

from __future__ import annotations

import difflib
import glob
import os
from itertools import islice
from pathlib import Path

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
"""How files end that are taken for pictures."""

_MOST = 3  # names, in a message
_LOOKED_AT = 1000  # files and folders, to tell what is in one


def not_found_message(place: Path, manifest_name: str) -> str:
    """What there is at a path instead of a dataset.

    Args:
        place: the path.
        manifest_name: the file that a dataset's folder has.
    """
    said = f"There is no dataset at {place}"
    if place.is_dir():
        below = sorted(each.parent.name for each in place.glob(f"*/{manifest_name}"))[:_MOST]
        if below:
            return (
                f"{said}: the folder holds several. Give one of them: {', '.join(str(place / name) for name in below)}."
            )
        made = f"'{place.name}-set'"
        if _holds_pictures(place):
            return (
                f"{said}: it is a folder of pictures. Make one of them, once: heliostat.data.convert({str(place)!r}, "
                f"{made}). Then give open_dataset({made}).decode('image', (height, width)), of the size of the model's "
                "input."
            )
        return (
            f"{said}: the folder has no {manifest_name}. Give the folder that write_dataset made, or make a dataset of "
            f"the files: heliostat.data.convert({str(place)!r}, {made})."
        )
    if place.exists():
        return (
            f"{said}: it is a file, a dataset is a folder with a {manifest_name}. Make one of it: "
            f"heliostat.data.convert({str(place)!r}, '{place.name.split('.')[0]}-set'), or heliostat convert."
        )
    if replaced := sorted(place.parent.glob(f".{glob.escape(place.name)}.replaced-*")):
        return (
            f"{said}: replacing it was interrupted. The one before is in {replaced[-1]}: rename it back, or write the "
            "new one again."
        )
    if glob.has_magic(str(place)):
        return (
            f"{said}: it is a pattern, and a dataset is one folder. Make one of the files: "
            f"heliostat.data.convert({str(place)!r}, 'train-set'), or heliostat convert; of pictures give the folder "
            "that has a folder for each class."
        )
    return f"{said}: no such folder{_nearest(place)}. Make one with write_dataset or heliostat convert."


def is_class(entry: os.DirEntry[str]) -> bool:
    """Whether what lies in a folder of pictures is the folder of a class."""
    return os.path.isdir(entry.path) and not entry.name.startswith(".")


def has_pictures(place: Path, most: int | None = None) -> bool:
    """Whether a folder has the folder of a class with a picture right in it; raises OSError.

    Args:
        place: the folder.
        most: look at so many files and folders at most.
    """
    names = (name for entry in os.scandir(place) if is_class(entry) for name in os.listdir(entry.path))
    return any(name.lower().endswith(PICTURES) for name in islice(names, most))


def _holds_pictures(place: Path) -> bool:
    try:
        return has_pictures(place, _LOOKED_AT)
    except OSError:  # what may not be read says nothing
        return False


def _nearest(place: Path) -> str:
    """What there is nearest to a path that is not there."""
    there = next((each for each in place.parents if each.is_dir()), place)
    if there != place.parent:
        return f", and none of it beyond {there}"
    try:
        names = [each.name for each in os.scandir(there)]
    except OSError:
        return ""
    close = difflib.get_close_matches(place.name, names, n=_MOST)
    return f"; did you mean {' or '.join(str(there / name) for name in close)}" if close else ""
