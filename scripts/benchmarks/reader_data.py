"""The rows that the reading benchmarks read, made here: the same bytes for every source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

Kind = Literal["fixed", "tokens", "images"]
KINDS: tuple[Kind, ...] = ("fixed", "tokens", "images")

BATCH_SIZE, NUM_CLASSES = 256, 10
ROW_BYTES = 784
TOKENS_PADDED, MIN_TOKENS, MAX_TOKENS, VOCABULARY = 200, 10, 400, 20_000
MIN_SIDE, MAX_SIDE, DECODED_SIDE = 28, 64, 32
NUM_ROWS: dict[Kind, int] = {"fixed": 60_000, "tokens": 200_000, "images": 20_000}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """`values` of all rows: uint8 [rows, 784], or one after the other, int32 tokens or the bytes of JPEG files, with
    `splits` int64 [rows + 1]; `y` int64 [rows]."""

    kind: Kind
    values: np.ndarray
    splits: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def row(self, number: int) -> np.ndarray:
        if self.kind == "fixed":
            return np.asarray(self.values[number])
        return np.asarray(self.values[self.splits[number] : self.splits[number + 1]])

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        for name in ("values", "splits", "y"):
            np.save(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, kind: Kind, folder: Path) -> Rows:
        return cls(kind=kind, **{name: np.load(folder / f"{name}.npy") for name in ("values", "splits", "y")})


def make_rows(kind: Kind, num_rows: int) -> Rows:
    """Rows of a kind."""
    numbers = np.random.default_rng(0)
    y = numbers.integers(0, NUM_CLASSES, num_rows)
    if kind == "fixed":
        values = numbers.integers(0, 256, (num_rows, ROW_BYTES), dtype=np.uint8)
        return Rows(kind=kind, values=values, splits=np.zeros(1, np.int64), y=y)
    if kind == "tokens":
        splits = _splits(numbers.integers(MIN_TOKENS, MAX_TOKENS + 1, num_rows))
        values = numbers.integers(1, VOCABULARY, splits[-1], dtype=np.int32)
        return Rows(kind=kind, values=values, splits=splits, y=y)
    encoded = _jpegs(numbers, num_rows)
    splits = _splits(np.array([len(data) for data in encoded]))
    return Rows(kind=kind, values=np.frombuffer(b"".join(encoded), np.uint8), splits=splits, y=y)


def pad_row(tokens: np.ndarray) -> np.ndarray:
    """One row's first tokens and zeros, int32 [200]: for the libraries that pad row by row."""
    out = np.zeros(TOKENS_PADDED, np.int32)
    kept = tokens[:TOKENS_PADDED]
    out[: len(kept)] = kept
    return out


def pad_all(rows: Rows) -> np.ndarray:
    """All rows of tokens padded, int32 [rows, 200]."""
    lengths = np.minimum(np.diff(rows.splits), TOKENS_PADDED)
    places = np.arange(TOKENS_PADDED)
    out = np.zeros((len(rows), TOKENS_PADDED), np.int32)
    taken = places < lengths[:, None]
    out[taken] = rows.values[(rows.splits[:-1, None] + places)[taken]]
    return out


def decode_row(data: bytes) -> np.ndarray:
    """One JPEG as uint8 [32, 32, 1] by PIL: for the libraries that decode in Python."""
    import io

    from PIL import Image

    image = Image.open(io.BytesIO(data)).resize((DECODED_SIDE, DECODED_SIDE), Image.Resampling.BILINEAR)
    return np.asarray(image)[..., None]


def _splits(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)


def _jpegs(numbers: np.random.Generator, num_rows: int) -> list[bytes]:
    import tensorflow as tf

    sides = numbers.integers(MIN_SIDE, MAX_SIDE + 1, num_rows)
    source = numbers.random((num_rows, 8, 8, 1), np.float32) * 255
    encoded = [b""] * num_rows
    for side in range(MIN_SIDE, MAX_SIDE + 1):
        places = np.flatnonzero(sides == side)
        scaled = tf.image.resize(source[places], (side, side), method="bilinear")
        for place, image in zip(places.tolist(), tf.cast(tf.round(scaled), tf.uint8), strict=True):
            encoded[place] = tf.io.encode_jpeg(image, format="grayscale", quality=90).numpy()
    return encoded
