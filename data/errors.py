"""What can go wrong with a dataset.

DatasetError                    everything below
├── DatasetNotFoundError        no dataset at the path
├── DatasetExistsError          the path is taken
├── ManifestError               manifest.json cannot be used
├── ShardError                  a shard file is missing or damaged
├── BadColumnError              a column cannot be stored
├── UnknownColumnError          a column was asked for that is not there
├── RowError                    row ids or output buffers do not fit the dataset
├── SourceError                 a file to convert cannot be read
├── PlanError                   a row order or batch plan that cannot exist
├── SelectionError              a choice of rows, columns or datasets that cannot be made
├── TransformError              a change of rows failed, or gave something else than announced
├── RemoteError                 a remote file system cannot be reached, or refuses
└── CacheError                  the local cache of remote shards has no room, or cannot be used

Every error carries `path` and `column` where they are known, and pickles with them.
"""

from __future__ import annotations

import os


class DatasetError(Exception):
    """Something is wrong with a dataset or with what was asked of it.

    Base class of all errors of data; `path` and `column` are known where the message names them.
    """

    def __init__(self, message: str, *, path: str | os.PathLike[str] | None = None, column: str | None = None) -> None:
        # Optional fields only: the default pickling calls cls(message) and then restores __dict__.
        super().__init__(message)
        self.path = None if path is None else os.fspath(path)
        self.column = column


class DatasetNotFoundError(DatasetError, FileNotFoundError):
    """There is no dataset at the given path.

    The message says what is there instead, and names that are near. Make a dataset with `write_dataset` or
    ``heliostat convert``.
    """

    # OSError would print its errno fields; one message is all there is here.
    __str__ = Exception.__str__


class DatasetExistsError(DatasetError, FileExistsError):
    """The path of a new dataset is already taken.

    Give another path, or ``overwrite=True``.
    """

    __str__ = Exception.__str__


class ManifestError(DatasetError):
    """The manifest is unreadable, incomplete, altered, or from a newer Heliostat.

    Copy the whole folder again, or write the dataset again.
    """


class ShardError(DatasetError):
    """A shard file is missing, cut short, altered, or not what the manifest says.

    Found when its rows are read, or by ``heliostat verify``. Copy the folder again, write it again, or leave the
    damaged parts out with ``on_corrupt="skip"``.
    """


class BadColumnError(DatasetError, ValueError):
    """A column cannot be stored: wrong kind, wrong length, missing or malformed values.

    The message has the column, the row, and how to fill, cast or leave it out.
    """


class UnknownColumnError(DatasetError, KeyError):
    """A column was asked for that the dataset does not have.

    The message lists those that it has.
    """

    # KeyError would print the repr of the message.
    __str__ = Exception.__str__


class RowError(DatasetError, IndexError):
    """Row ids outside the dataset, or output buffers that do not fit the rows.

    They were probably made for another dataset.
    """


class SourceError(DatasetError):
    """A source file cannot be converted because it is missing or malformed.

    The message has the file and the place in it, and what to mend there.
    """


class PlanError(DatasetError, ValueError):
    """A row order or a batch plan was asked for that cannot exist.

    A number is out of its range; the message has both.
    """


class SelectionError(DatasetError, ValueError):
    """A choice of rows, columns or datasets that leaves nothing, or does not go together.

    Raised where a view is made, before rows are read.
    """


class TransformError(DatasetError):
    """A change of rows failed, or gave something else than announced.

    Your function raised, or returned another column: the message has the function and the rows.
    """


class RemoteError(DatasetError):
    """A remote file system cannot be reached, or refuses what was asked of it.

    It was tried several times. Look at the network, the endpoint and the credentials.
    """


class CacheError(DatasetError):
    """The local cache of remote shards has no room for what is needed at once, or cannot be used.

    Give a larger ``cache_bytes``, another ``cache_dir``, or a smaller shuffle window.
    """
