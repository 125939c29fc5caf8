"""Reading a whole dataset to find all damage."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .damage import Damage
from .opening import open_unchecked
from .progress import OnBytes
from .stored import StoredDataset


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What was found; `str()` gives it as lines of text. `num_rows` and `num_shards` count what was looked at."""

    path: str
    num_rows: int
    num_shards: int
    num_bytes: int
    damage: tuple[Damage, ...]

    @property
    def is_whole(self) -> bool:
        """Whether no damage was found."""
        return not self.damage

    @property
    def num_damaged_rows(self) -> int:
        """Rows in damaged shards, row groups or record batches."""
        return sum(item.num_rows for item in self.damage)

    def __str__(self) -> str:
        shards = "1 shard" if self.num_shards == 1 else f"{self.num_shards:,} shards"
        if self.is_whole:
            return f"{self.path}: {self.num_rows:,} rows in {shards}, {self.num_bytes:,} bytes: no damage."
        head = f"{self.path}: {self.num_damaged_rows:,} of {self.num_rows:,} rows in {shards} are damaged:"
        lines = []
        for item in self.damage:
            lines.append(f"  {item.file}, {item.num_rows:,} rows: {item}")
        return "\n".join([head, *lines])


def verify(dataset: StoredDataset | str | os.PathLike[str], *, on_progress: OnBytes | None = None) -> VerifyReport:
    """Read every byte of a dataset, or of the one at a path, and report all damage.

    Hashes are compared with the manifest; Parquet shards are decoded with their page checksums, so that damage is known
    by row group. Files that were opened without a manifest have no hash: they are decoded, which does not find every
    flipped bit. `on_progress` is called after each file with how many bytes were read, and how many there are. Raises
    DatasetNotFoundError, ManifestError.

    Example:
        >>> verify("shop").is_whole
        True
    """
    if not isinstance(dataset, StoredDataset):
        dataset = open_unchecked(dataset)
    manifest = dataset.manifest
    return VerifyReport(
        path=dataset.name,
        num_rows=manifest.num_rows,
        num_shards=len(manifest.shards),
        num_bytes=sum(shard.num_bytes for shard in manifest.shards),
        damage=tuple(dataset.find_damage(on_progress)),
    )
