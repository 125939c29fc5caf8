"""A line for each hour of three plants."""

from __future__ import annotations

from pathlib import Path


def prepare(folder: Path) -> dict[str, str]:
    lines = ["hour,plant,load,price"]
    lines += [f"{hour},{plant},{hour % 24 + plant},{hour * 0.5}" for hour in range(60) for plant in range(3)]
    (folder / "hours.csv").write_text("\n".join(lines) + "\n")
    return {}
