"""Photos, a table of flats, logs and a folder of Parquet files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def prepare(folder: Path) -> dict[str, str]:
    (folder / "flats.csv").write_text("rooms,area,rent\n1,25.5,400\n2,48.0,610\n3,71.5,890\n")
    (folder / "logs").mkdir()
    for part in range(2):
        lines = [json.dumps({"ids": [row, part], "user": row}) for row in range(5)]
        (folder / "logs" / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    write_photos(folder / "photos")
    (folder / "shop").mkdir()
    table = pa.table({"customer": np.arange(100.0), "amount": np.arange(100) + 0.5})
    for part in range(2):
        pq.write_table(table.slice(part * 50, 50), folder / "shop" / f"{part}.parquet")
    return {}


def write_photos(folder: Path) -> None:
    numbers = np.random.default_rng(0)
    for number in range(12):
        of_class = folder / ("cat" if number % 2 else "dog")
        of_class.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbers.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(of_class / f"{number}.jpg")
