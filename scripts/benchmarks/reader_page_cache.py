"""Putting files out of the page cache, and looking whether they are."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

_MAX_RESIDENT = 0.05


def files_below(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]


def drop(paths: Iterable[Path]) -> None:
    """Written back and given up by `posix_fadvise`; raises RuntimeError if more than 5 % stay, as mapped pages do."""
    resident = total = 0
    for path in paths:
        with path.open("r+b") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        found, pages = resident_pages(path)
        resident, total = resident + found, total + pages
    if resident > _MAX_RESIDENT * total:
        raise RuntimeError(f"{resident} of {total} pages stayed in the page cache: something has the files mapped.")


def resident_pages(path: Path) -> tuple[int, int]:
    """(pages in the page cache, all pages) of a file, by mincore(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        num_pages = -(-len(mapped) // mmap.PAGESIZE)
        flags = np.zeros(num_pages, np.uint8)
        view = np.frombuffer(mapped, np.uint8)
        failed = libc.mincore(
            ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(len(mapped)), ctypes.c_void_p(flags.ctypes.data)
        )
        del view
        if failed:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    return int((flags & 1).sum()), num_pages
