"""The corpus on disk: one ``.npz`` of arrays and one ``.json`` of names, complete or not there."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Raised whenever the same packages would give another corpus.
CORPUS_VERSION = 1
Names = Mapping[str, tuple[str, ...]]


def cache_key(settings: Mapping[str, int], roots: Sequence[Path]) -> str:
    """Return a hex key of the settings, the Python version, the folders and the distributions installed in them."""
    installed = sorted(
        f"{distribution.metadata['Name']} {distribution.version}"
        for distribution in metadata.distributions(path=[str(root) for root in roots])
    )
    content = [CORPUS_VERSION, dict(settings), platform.python_version(), [str(root) for root in roots], installed]
    return blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=12).hexdigest()


def load_arrays(cache_dir: Path, key: str) -> tuple[dict[str, NDArray], dict[str, tuple[str, ...]]] | None:
    """Return what `save_arrays` kept under `key`, or None when it is absent or unreadable."""
    try:
        names = json.loads(_path(cache_dir, key, "json").read_text(encoding="utf-8"))
        with np.load(_path(cache_dir, key, "npz"), allow_pickle=False) as arrays:
            return dict(arrays), {name: tuple(values) for name, values in names.items()}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None  # built again, and written over


def save_arrays(cache_dir: Path, key: str, arrays: Mapping[str, NDArray], names: Names) -> None:
    """Write both files, each under a temporary name first; the arrays last, as they make the entry count."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir) as folder:
        described, packed = Path(folder, "names"), Path(folder, "arrays.npz")
        described.write_text(json.dumps(names, indent=1), encoding="utf-8")
        np.savez(packed, allow_pickle=False, **arrays)
        os.replace(described, _path(cache_dir, key, "json"))
        os.replace(packed, _path(cache_dir, key, "npz"))


def _path(cache_dir: Path, key: str, kind: str) -> Path:
    return cache_dir / f"docstrings-{key}.{kind}"
