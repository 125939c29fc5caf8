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
        if _has_pictures(place):
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


def _has_pictures(place: Path) -> bool:
    """Whether pictures are among the first files in the folders of a folder, each of them a class."""
    return any(each.name.lower().endswith(PICTURES) for each in islice(place.glob("*/*"), _LOOKED_AT))


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
