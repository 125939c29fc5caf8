"""A store of checkpoints on any file system of ``pyarrow.fs``; used in the driver and in workers, without TensorFlow.

::

    <location>/000003-00000120.g7/state.safetensors    written by a worker: all tensors, in the safetensors format
    <location>/000003-00000120.g7/manifest.json        written last, by the driver: it makes the folder a checkpoint
    <location>/final/...                               such a store by itself: the state in which the run ended

**A checkpoint is a folder with a manifest.** A worker writes the tensors under a name that carries its generation, so
that nobody else ever writes there, not even a worker that the group has given up and that wakes up later. The driver
alone writes the manifest, when the tensors are on the disk. Whatever dies when: a reader finds whole checkpoints, and
folders without a manifest, which count for nothing and are deleted with the old ones.

**What is read is not believed.** The manifest carries a hash of itself, and one of every tensor; the header of the
tensors' file follows from the manifest and is compared, not parsed; lengths are compared before memory is asked for.
Nothing is ever unpickled: a storage is a place where others can write. The hashes (xxh3_128) are for damage, not for
forgers: whoever may write the tensors may write the manifest as well.

What was not done: publishing a folder by renaming it, as checkpoint libraries do on a disk (object stores cannot
rename); one file for all (the driver would have to write a worker's file again); a checkpoint in shards, one for every
worker (every worker holds the whole state, and the chief writes beside the steps); keeping what has not changed since
the last one (all of it changes in every step).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import xxhash
from heliostat.data.format.files import flush_folder, replace_file

from ..errors import CheckpointError, ConfigurationError, DamagedCheckpointError
from .manifest import (
    MAX_MANIFEST_BYTES,
    CheckpointManifest,
    checkpoint_name,
    manifest_from_bytes,
    manifest_to_bytes,
    parse_checkpoint_name,
)
from .place import Place
from .tensors import TensorEntry, read_tensor, state_layout, tensor_entry, write_tensor

MANIFEST_FILE = "manifest.json"
STATE_FILE = "state.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialCheckpoint:
    """A checkpoint to begin from: where checkpoints are, and its name."""

    location: str
    name: str


class CheckpointStore:
    """The checkpoints under one location. It pickles, as its location.

    Attributes:
        location: as it was given, a local path made absolute.
        shown: the same without credentials, for messages.

    Args:
        location: a local path, or a URI for ``pyarrow.fs.FileSystem.from_uri`` (s3://, gs://, hdfs://, file://). It
            need not exist yet.

    Raises:
        CheckpointError: there is no such file system, it cannot be reached, or the location is a file.
    """

    def __init__(self, location: str | Path) -> None:
        self._place = Place(location)
        self.location, self.shown = self._place.location, self._place.shown

    def __reduce__(self) -> tuple[Any, ...]:
        return CheckpointStore, (self.location,)

    def below(self, folder: str) -> CheckpointStore:
        """The store in a folder of this one."""
        return CheckpointStore(self._place.below(folder))

    def write(self, name: str, tensors: Mapping[str, np.ndarray]) -> tuple[TensorEntry, ...]:
        """Write the tensors of a checkpoint that `commit` may complete; what an earlier attempt left is replaced.

        Args:
            name: made by `checkpoint_name` with this worker's generation.
            tensors: arrays of any shape (also 0-d and empty), of the dtypes in `tensors.DTYPE_CODES`, in
                native byte order.

        Returns:
            One entry per tensor, in the order of `tensors`.

        Raises:
            CheckpointError: the file cannot be written (names it and the reason; nothing of it is left), a tensor
                cannot be stored, or a checkpoint of this name is committed.
        """
        folder, path = self._paths(name, "", STATE_FILE)
        entries = tuple(tensor_entry(tensor_name, array) for tensor_name, array in tensors.items())
        if self._info(name, MANIFEST_FILE).type != pafs.FileType.NotFound:
            raise CheckpointError(
                f"{self.shown}/{name} is a committed checkpoint and will not be overwritten. Two worker groups have "
                "the same generation: start counting at next_generation()."
            )
        try:
            with self._place.errors("write", name, STATE_FILE):
                self._place.filesystem.create_dir(folder, recursive=True)
                with self._place.opened_to_write(path) as file:
                    header, ordered = state_layout(entries)
                    file.write(header)
                    for entry in ordered:
                        write_tensor(file, tensors[entry.name])
                self._place.flush(path)
        except BaseException:
            with suppress(OSError, pa.ArrowException):  # give the room back; the first error is the one to tell
                self._place.filesystem.delete_dir(folder)
            raise
        return entries

    def commit(self, name: str, manifest: CheckpointManifest) -> None:
        """Make what `write` left under `name` a checkpoint: all of its files are on the disk when this returns.

        Raises CheckpointError if it cannot be written, if `manifest` is of another position or generation, or if the
        state's file is missing or not as long as the manifest says.
        """
        folder, path, state_path = self._paths(name, "", MANIFEST_FILE, STATE_FILE)
        if manifest.name != name:
            raise CheckpointError(f"The manifest of {manifest.name} does not belong to checkpoint {name}.")
        raw = manifest_to_bytes(manifest)
        self._check_length(name, manifest.tensors)
        with self._place.errors("write", name, MANIFEST_FILE):
            self._place.flush(state_path)
            if not self._place.is_local:
                with self._place.filesystem.open_output_stream(path, compression=None) as file:
                    file.write(raw)
                return
            replace_file(Path(path), raw)
            flush_folder(folder)
            flush_folder(self._place.root or "/")

    def names(self) -> list[str]:
        """The committed checkpoints, oldest first: by position, then generation. Raises CheckpointError."""
        folders = self._folders()
        with self._place.errors("list"):
            infos = self._place.filesystem.get_file_info(
                [f"{self._place.root}/{name}/{MANIFEST_FILE}" for name in folders]
            )
        return [name for name, info in zip(folders, infos, strict=True) if info.type == pafs.FileType.File]

    def next_generation(self) -> int:
        """The first generation above that of every folder here, committed or not; 0 if there is none.

        A driver that starts counting here cannot meet files of workers that outlived an earlier driver.
        """
        return max((_position(name)[2] + 1 for name in self._folders()), default=0)

    def manifest(self, name: str) -> CheckpointManifest:
        """The manifest of a committed checkpoint.

        Raises DamagedCheckpointError if it is missing, altered or of another format version, and CheckpointError if it
        cannot be reached.
        """
        (path,), shown = self._paths(name, MANIFEST_FILE), f"{self.shown}/{name}/{MANIFEST_FILE}"
        size = self._info(name, MANIFEST_FILE).size or 0
        if size > MAX_MANIFEST_BYTES:
            raise DamagedCheckpointError(f"{shown} has {size} bytes, more than {MAX_MANIFEST_BYTES}. It was altered.")
        with self._place.errors("read", name, MANIFEST_FILE):
            with self._place.filesystem.open_input_stream(path, compression=None) as file:
                raw = file.read()
        manifest = manifest_from_bytes(raw, shown)
        if manifest.name != name:
            raise DamagedCheckpointError(f"{shown} is the manifest of {manifest.name}. The folder was renamed.")
        return manifest

    def manifest_of_whole(self, name: str) -> CheckpointManifest:
        """As `manifest`, if the tensors' file is there as well, and as long as it says; raises CheckpointError."""
        manifest = self.manifest(name)
        self._check_length(name, manifest.tensors)
        return manifest

    def load(self, name: str) -> tuple[CheckpointManifest, dict[str, np.ndarray]]:
        """A checkpoint's manifest and tensors, in the manifest's order, every byte of them verified.

        Raises DamagedCheckpointError, which names file, tensor, expected and found hash, and CheckpointError if the
        files cannot be reached.
        """
        manifest = self.manifest(name)
        arrays = {entry.name: array for entry, array in self._verified_tensors(name, manifest.tensors)}
        return manifest, {entry.name: arrays[entry.name] for entry in manifest.tensors}

    def latest(self, identity: Mapping[str, Any] | None = None) -> tuple[CheckpointManifest | None, list[str]]:
        """The last checkpoint of which every byte is good, and what there is to say of damaged ones after it.

        Args:
            identity: only those of the run with this identity count, where several keep theirs; None: all.

        Returns:
            Its manifest, None if there is none; and a sentence for each that was skipped.

        Raises:
            CheckpointError: the files cannot be reached, which says nothing about the checkpoint.
        """
        skipped = []
        for name in reversed(self.names()):
            try:
                manifest = self.manifest(name)
                if identity is not None and manifest.identity != identity:
                    continue
                for _ in self._verified_tensors(name, manifest.tensors):
                    pass
            except DamagedCheckpointError as error:
                skipped.append(f"Checkpoint {name} cannot be used and is skipped: {error}")
            else:
                return manifest, skipped
        return None, skipped

    def copy(self, other: CheckpointStore, name: str) -> None:
        """Take over a committed checkpoint of another store, every byte verified; raises CheckpointError."""
        manifest, tensors = other.load(name)
        self.write(name, tensors)
        self.commit(name, manifest)

    def prune(self, keep: int, spare: str | None = None) -> None:
        """Delete all committed checkpoints but the `keep` newest and `spare`, and what uncommitted ones left.

        An uncommitted folder goes if its position is before that of the newest committed one; a later one may be being
        written. Raises ConfigurationError if `keep` is below 1, and CheckpointError.
        """
        if keep < 1:
            raise ConfigurationError(f"keep is {keep}; at least one checkpoint must be kept.")
        committed = self.names()
        if not committed:
            return
        newest = _position(committed[-1])[:2]
        left = [name for name in self._folders() if name not in set(committed) and _position(name)[:2] < newest]
        old = [name for name in committed[:-keep] if name != spare]
        for name in old + left:
            folder, manifest_path = self._paths(name, "", MANIFEST_FILE)
            with self._place.errors("delete", name):
                # The manifest first: half of a checkpoint must not pass for one.
                for delete, path in (
                    (self._place.filesystem.delete_file, manifest_path),
                    (self._place.filesystem.delete_dir, folder),
                ):
                    with suppress(FileNotFoundError):
                        delete(path)

    def _paths(self, name: str, *files: str) -> list[str]:
        _position(name)  # a name from elsewhere must not lead out of the location
        return [f"{self._place.root}/{name}/{file}".rstrip("/") for file in files]

    def _folders(self) -> list[str]:
        with self._place.errors("list"):
            infos = self._place.filesystem.get_file_info(
                pafs.FileSelector(self._place.root or "/", allow_not_found=True)
            )
        names = [i.base_name for i in infos if i.type == pafs.FileType.Directory and parse_checkpoint_name(i.base_name)]
        return sorted(names, key=_position)

    def _info(self, name: str, file: str) -> pafs.FileInfo:
        with self._place.errors("read", name, file):
            return self._place.filesystem.get_file_info(self._paths(name, file)[0])

    def _check_length(self, name: str, entries: Sequence[TensorEntry]) -> None:
        expected = len(state_layout(entries)[0]) + sum(entry.num_bytes for entry in entries)
        info = self._info(name, STATE_FILE)
        if info.type != pafs.FileType.File:
            raise DamagedCheckpointError(f"{self.shown}/{name}/{STATE_FILE} is missing.")
        if info.size != expected:
            raise DamagedCheckpointError(
                f"{self.shown}/{name}/{STATE_FILE} has {info.size} bytes, the manifest amounts to {expected}. "
                f"It was {'cut short' if info.size < expected else 'altered'}."
            )

    def _verified_tensors(self, name: str, entries: Sequence[TensorEntry]) -> Iterator[tuple[TensorEntry, np.ndarray]]:
        # Nothing is allocated before the file is known to be as long as all tensors together.
        self._check_length(name, entries)
        (path,), shown = self._paths(name, STATE_FILE), f"{self.shown}/{name}/{STATE_FILE}"
        header, ordered = state_layout(entries)
        with self._place.errors("read", name, STATE_FILE):
            with self._place.filesystem.open_input_stream(path, compression=None) as file:
                found = file.read(len(header))
                if found != header:
                    hashes = [xxhash.xxh3_128_hexdigest(content) for content in (header, found)]
                    raise DamagedCheckpointError(
                        f"The header of {shown} was altered: expected xxh3_128 {hashes[0]}, found {hashes[1]}."
                    )
                for entry in ordered:
                    yield entry, read_tensor(file, entry, shown)


def _position(name: str) -> tuple[int, int, int]:
    numbers = parse_checkpoint_name(name)
    if numbers is None:
        raise CheckpointError(
            f"{name!r} is not the name of a checkpoint; one looks like {checkpoint_name(3, 120, 7)!r}."
        )
    return numbers
