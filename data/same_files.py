"""Whether this machine has the files that another one has opened, at the same path; and which files those are.

A dataset that is sent to another machine names a folder of the one that opened it. What is found at that path here may
be the same folder (a shared disk), a copy of it, another folder of that name, or nothing. What is the same is read
where it lies, and only what is not is fetched. Asking where disks are mounted was not tried: a copy is as good.

The same is what its manifest says, if it has one, with all files in their sizes: the manifest holds their hashes. Files
of other programs are the same if their sizes are, and their ends (`edge_hash`), of some hundred files at most. Who is
deceived by that reads no wrong rows: hashes of what is decoded are compared when it is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .errors import DatasetError
from .format.manifest import Manifest, read_manifest
from .format.shards import EDGE_PREFIX, edge_hash

_MOST_EDGES = 512
_NUM_THREADS = 8


def has_same_files(folder: Path, manifest: Manifest, used: Sequence[int], edges: Sequence[str] = ()) -> bool:
    """Whether the folder holds here what the manifest says; never raises.

    Args:
        folder: where the dataset lies on the machine that opened it.
        manifest: its columns and files.
        used: the numbers of the files that are read.
        edges: the edge hashes of files that have no manifest beside them and other hashes.
    """
    try:
        sizes = [(folder / manifest.shards[number].file).stat().st_size for number in used]
        if sizes != [manifest.shards[number].num_bytes for number in used]:
            return False
        if edges or any(shard.xxh3_128.startswith(EDGE_PREFIX) for shard in manifest.shards):
            return _has_same_edges(folder, manifest, used, edges)
        found = read_manifest(folder)
        return (found.columns, found.shards) == (manifest.columns, manifest.shards)
    except (DatasetError, OSError):
        return False


def _has_same_edges(folder: Path, manifest: Manifest, used: Sequence[int], edges: Sequence[str]) -> bool:
    some = used[:: -(-len(used) // _MOST_EDGES)]

    def is_same(number: int) -> bool:
        shard = manifest.shards[number]
        return edge_hash(folder / shard.file) == (edges[number] if edges else shard.xxh3_128)

    with ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="heliostat-look") as pool:
        return all(pool.map(is_same, some))


def places_of(folder: Path, manifest: Manifest) -> frozenset[str]:
    """Where the files of a dataset really lie: its folder (of a single file that file alone), and where links lead."""
    files = [folder / shard.file for shard in manifest.shards]
    home = os.path.realpath(folder)
    # Few folders, many files: only links among the files are followed one by one.
    folders = {parent: os.path.realpath(parent) for parent in {file.parent for file in files}}
    real = [os.path.realpath(file) if file.is_symlink() else f"{folders[file.parent]}/{file.name}" for file in files]
    outside = {path for path in real if not path.startswith(f"{home}/")}
    return frozenset({str(files[0])} if len(files) == 1 else {str(folder)}) | outside
