"""A table of flats: texts, a missing number, several rows for each tenant."""

from __future__ import annotations

from pathlib import Path


def prepare(folder: Path) -> dict[str, str]:
    lines = ["city,rooms,area,tenant,rent", "Bern,1,25.5,17,400", "Basel,,48.0,17,610"]
    cities = ("Bern", "Basel", "Chur", "Genf")
    for row in range(2, 40):
        lines.append(f"{cities[row % 4]},{row % 5 + 1},{20 + 2.5 * row},{17 + row // 2},{300 + 25 * row}")
    (folder / "flats.csv").write_text("\n".join(lines) + "\n")
    return {}
