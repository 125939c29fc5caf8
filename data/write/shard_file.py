"""Writing one shard file: record batches to Arrow IPC, hashed on their way."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import xxhash

from ..format.manifest import Shard


def shard_name(number: int) -> str:
    """The file name of a dataset's shard."""
    return f"shard-{number:05d}.arrow"


class HashedFile:
    """A new file that knows the size and hash of what was written to it, so that it need not be read again."""

    def __init__(self, path: Path) -> None:
        self._file, self._digest = open(path, "wb"), xxhash.xxh3_128()  # noqa: SIM115 (closed by close)
        self.num_bytes = 0

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._file.closed

    @property
    def xxh3_128(self) -> str:
        """The hash (hex) of the bytes so far."""
        return self._digest.hexdigest()

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes; raises OSError."""
        block = memoryview(data)
        self._file.write(block)
        self._digest.update(block)
        self.num_bytes += block.nbytes
        return block.nbytes

    def tell(self) -> int:
        """The bytes written so far."""
        return self.num_bytes

    def flush(self) -> None:
        """Hand what is buffered to the operating system."""
        self._file.flush()

    def sync(self) -> None:
        """Wait until the bytes are on the disk; raises OSError."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class ShardFile:
    """One shard in the making. Raises OSError."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._file = HashedFile(path)
        self._chunk_rows: list[int] = []
        self._arrow = pa.ipc.new_file(pa.PythonFile(self._file, mode="w"), schema)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a record batch."""
        self._arrow.write_batch(batch)
        self._chunk_rows.append(batch.num_rows)

    def finish(self, rows_per_batch: int) -> Shard:
        """Complete the file and wait until it is on the disk."""
        self._arrow.close()
        self._file.sync()
        self._file.close()
        rows = self._chunk_rows
        is_regular = all(count == rows_per_batch for count in rows[:-1]) and rows[-1] <= rows_per_batch
        return Shard(
            file=self._path.name,
            num_rows=sum(rows),
            num_bytes=self._file.num_bytes,
            xxh3_128=self._file.xxh3_128,
            chunk_rows=None if is_regular else tuple(rows),
        )

    def abandon(self) -> None:
        """Close the file without completing it."""
        self._file.close()
