"""What goes to a cluster with a script that is submitted: its code in one package, data in pieces of another.

A rule of ours decides what of the script's folder goes, and what it leaves out is said. `.gitignore` was not taken:
what it names is what is not kept in git, data and generated code among it, which a script needs all the same; Ray's
users are surprised by it both ways.

- **Left out**: all that begins with a dot (`.git`, caches, and what holds secrets); environments of Python (by
  ``pyvenv.cfg`` and ``conda-meta``, whatever they are called), `node_modules`, `__pycache__`; `runs`, and run folders
  and folders of submitted runs under other names; links that lead outside of the folder, sockets and pipes.
- **Data**, up to 256 MB: files of formats of data, and datasets of ours. They go as a zip that is cut into pieces, for
  the job server takes 100 MiB at once; the job puts them beside the script.
- **Code**, up to 80 MB: all else. Ray unpacks it, and the job runs in it.

More is refused before anything is packed, with the largest files by name: a folder with a gigabyte in it is most often
one that was not meant. What was not done: a file with exceptions (a script can be moved into a folder of its own), and
packing only what the script imports or opens (nobody can tell).

A file may change while it is packed. That does no harm: packages are named by the hash of what is in them.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from heliostat.cluster.head.api import PACKAGE_BYTES
from heliostat.cluster.head.archive import archive

from ..errors import ConfigurationError
from ..errors.texts import listed
from .script_folder import ScriptFolder, data_files

CODE_BYTES = 80_000_000
DATA_BYTES = 256_000_000
_NUM_NAMED = 5


class FolderTooLargeError(ConfigurationError):
    """The script's folder has more in it, besides data, than is sent to a cluster."""

    def __init__(self, folder: Path, sizes: Mapping[str, int]) -> None:
        """Make the sentence.

        Args:
            folder: that of the script.
            sizes: bytes of every file that would be sent, by its path in there.
        """
        super().__init__(
            f"The script's folder {folder} goes to the cluster with it, and has {len(sizes)} files of "
            f"{_megabytes(sum(sizes.values()))} besides data; up to {_megabytes(CODE_BYTES)} are sent. The largest: "
            f"{_largest(sizes)}. Move what the script does not need out of the folder, or the script into a folder of "
            "its own."
        )


class DataTooLargeError(ConfigurationError):
    """Data are more than what is sent to a cluster."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        """Make the sentence; `sizes` are the bytes of every file or folder that would be sent, by its name."""
        super().__init__(
            f"Data of {_megabytes(sum(sizes.values()))} would go to the cluster; up to "
            f"{_megabytes(DATA_BYTES)} are sent. The largest: {_largest(sizes)}. Put them where both sides see them "
            "(heliostat upload DATA s3://BUCKET/DATA), and open them by that URI; or copy them to the cluster's head, "
            "and open them by their path there. What lies in a submitted script's folder is to be moved out of it."
        )


class DamagedPackageError(ConfigurationError):
    """A package of data is not what was sent."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"The data that were sent with this job cannot be unpacked: {why}. The package was cut short or altered: "
            "submit the script again."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """A folder, packed.

    Attributes:
        code: a zip of all but the data.
        data: pieces of a zip of the data; none if there are none.
        left_out: what does not travel, by its path in the folder, with the reason where the name does not tell it.
        num_files: how many travel.
    """

    code: bytes
    data: tuple[bytes, ...]
    left_out: tuple[str, ...]
    num_files: int

    @property
    def said(self) -> str:
        """What was left out, in a line; empty if nothing was."""
        return f"not sent: {listed(self.left_out, _NUM_NAMED)}" if self.left_out else ""


def pack_folder(folder: Path) -> Packing:
    """Pack the folder of a script.

    Raises:
        FolderTooLargeError: there is too much in it besides data.
        DataTooLargeError: the data in it are too large.
        ConfigurationError: it cannot be read.
    """
    try:
        found = ScriptFolder.of(folder)
        sizes = _sizes(found.code)
        if sum(sizes.values()) > CODE_BYTES:
            raise FolderTooLargeError(folder, sizes)
        data = _packed_data(found.data, _sizes(found.data))
        code = archive(found.code, PACKAGE_BYTES)
    except OSError as error:
        raise _unreadable(error) from error
    if len(code) > 1:  # names count too
        raise FolderTooLargeError(folder, sizes)
    num_files = len(found.code) + len(found.data)
    return Packing(code=b"".join(code), data=data, left_out=tuple(found.left_out), num_files=num_files)


def pack_datasets(places: Mapping[str, Path]) -> tuple[bytes, ...]:
    """Pack files and folders of data.

    Args:
        places: where each lies here, by the name under which the job is to find it: a path with slashes.

    Returns:
        Pieces of a zip, for `unpack`.

    Raises:
        DataTooLargeError: they are too large together.
        ConfigurationError: one cannot be read.
    """
    try:
        files = {name: data_files(name, place) for name, place in places.items()}
        sizes = {name: sum(_sizes(found).values()) for name, found in files.items()}
        return _packed_data({name: path for found in files.values() for name, path in found.items()}, sizes)
    except OSError as error:
        raise _unreadable(error) from error


def unpack(pieces: Iterable[bytes], folder: Path) -> None:
    """Unpack data; a file that is there already is overwritten.

    Args:
        pieces: what `pack_folder` or `pack_datasets` has made of them, in order.
        folder: where to; it is made if it is missing.

    Raises:
        DamagedPackageError: they are no such archive, or one that writes outside of the folder.
        OSError: the folder cannot be written.
    """
    with tempfile.TemporaryFile() as joined:
        for piece in pieces:
            joined.write(piece)
        try:
            with zipfile.ZipFile(joined) as opened:
                targets = [(entry, _target(entry, folder)) for entry in opened.infolist()]
                for entry, path in targets:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with opened.open(entry) as source, path.open("wb") as target:
                        shutil.copyfileobj(source, target, 1 << 20)
                    path.chmod(stat.S_IMODE(entry.external_attr >> 16) or 0o644)
        except (zipfile.BadZipFile, EOFError) as error:
            raise DamagedPackageError(str(error)) from None


def _target(entry: zipfile.ZipInfo, folder: Path) -> Path:
    """Where a file of an archive goes; raises DamagedPackageError if that is not in the folder."""
    name, home = PurePosixPath(entry.filename), os.path.realpath(folder)
    path = Path(folder, name)
    inside = os.path.realpath(path).startswith(home.rstrip(os.sep) + os.sep)
    if name.is_absolute() or ".." in name.parts or not inside or not stat.S_ISREG(entry.external_attr >> 16):
        raise DamagedPackageError(f"{entry.filename!r} is no file in the folder {folder}")
    return path


def _packed_data(files: Mapping[str, Path], sizes: Mapping[str, int]) -> tuple[bytes, ...]:
    if sum(sizes.values()) > DATA_BYTES:
        raise DataTooLargeError(sizes)
    return archive(files, PACKAGE_BYTES)


def _sizes(files: Mapping[str, Path]) -> dict[str, int]:
    return {name: path.stat().st_size for name, path in files.items()}


def _unreadable(error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"{error.filename} cannot be read, to be sent to the cluster: {error.strerror}. Mend that, or move it away."
    )


def _largest(sizes: Mapping[str, int]) -> str:
    return ", ".join(
        f"{name} ({_megabytes(sizes[name])})" for name in sorted(sizes, key=lambda n: -sizes[n])[:_NUM_NAMED]
    )


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes < 100e6 else f"{num_bytes / 1e6:,.0f} MB"
