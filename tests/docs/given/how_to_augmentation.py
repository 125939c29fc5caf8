"""A dataset of photos."""

from __future__ import annotations

from pathlib import Path

from heliostat.data import convert

from tests.docs.given.how_to_your_data import write_photos


def prepare(folder: Path) -> dict[str, str]:
    write_photos(folder / "photos")
    convert(folder / "photos", folder / "photos-set")
    return {}
