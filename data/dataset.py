"""What a dataset is to everybody who reads one: columns, a number of rows, a fingerprint, readers.

`Dataset` has two sides. What makes a dataset (the first, abstract part) is little: how many rows of which columns,
what decides them, and a reader of rows by id; files and every view say it in their own way. What users do with one
stands below it and is the same for all: each method names its arguments, says what it does in the words of a user,
with an example that a test runs, and calls the function of `views/` that does it. Shuffling is none of them: in which
order rows are read is said where they are read, so that one dataset serves every epoch.

A view is itself a dataset, so the methods import their modules when they are called, and `dataset` and `views` are the
one pair in the data layer that know each other. The file is long by what it tells users; it is not divided, because
whoever looks for a method would have to know in which part of the class it is.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy.typing as npt

from .format.columns import Column, ColumnStatistics
from .order.order import RowOrder, Shuffle
from .read.batches import iterate_batches
from .read.reader import Reader

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import tensorflow as tf

    from .views.describe import DatasetDescription
    from .views.preprocess import FittedPreprocessing


class Dataset(ABC):
    """Columns of equal length, read by row id; a value that pickles and holds no file open.

    Example:
        >>> red = dataset.filter(lambda rows: np.array(rows["colour"].to_list()) == "red", ["colour"])
        >>> for batch in red.select_columns(["customer"]).batches(3, shuffle=False):
        ...     print(batch["customer"].tolist())
        [0, 2, 4]
        [1, 3]
    """

    @abstractmethod
    def __len__(self) -> int: ...

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, rows={len(self)}, columns={list(self.schema)})"

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call it: the path of a stored dataset, with what was done to it since."""

    @property
    @abstractmethod
    def schema(self) -> Mapping[str, Column]:
        """The columns by name, in their order."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digest of all that decides what a row holds: equal for equal content."""

    @property
    @abstractmethod
    def statistics(self) -> Mapping[str, ColumnStatistics]:
        """Smallest and largest value of the columns for which they are known."""

    @property
    def bounds(self) -> Mapping[str, ColumnStatistics]:
        """What is known of columns without reading a row: no value lies outside of their smallest and largest."""
        return self.statistics

    @property
    def bounds_are_reached(self) -> bool:
        """Whether the smallest and largest values of `bounds` occur; some rows of a dataset need not have them."""
        return True

    @abstractmethod
    def reader(self, columns: Sequence[str] | None = None) -> Reader:
        """A new reader of these columns (all for None); raises UnknownColumnError."""

    @abstractmethod
    def check(self) -> None:
        """Look on this host whether all that is read is there and fits, without reading every byte.

        Raises DatasetNotFoundError, ManifestError, ShardError.
        """

    def folders(self) -> frozenset[str]:
        """The folders and single files of this host that its rows are read from; none of what is fetched."""
        return frozenset()

    def reached(self, uri_of: Callable[[str], str]) -> Dataset:
        """The same rows, as this machine reaches the files of the one that opened the dataset.

        What has the same content at the same path here stays as it is; other files are fetched into the cache of this
        machine, when their rows are needed. Rows, their order and the fingerprint are the same. Raises nothing for what
        is missing: that is seen when it is read.

        Args:
            uri_of: for the path of a file of the other machine its URI, such as driver:///home/me/shop/manifest.json;
                the path itself if this machine has that disk, another one where it has a copy of the files.
        """
        del uri_of
        return self

    @property
    def num_skipped(self) -> int:
        """Rows that are left out of what is stored because they are damaged."""
        return 0

    @property
    def is_random(self) -> bool:
        """Whether a row may differ from pass to pass, because it is drawn or changed at random."""
        return False

    def pass_reader(self, columns: Sequence[str] | None = None, *, seed: int, epoch: int) -> Reader:
        """A new reader of these columns that reads for this pass; raises UnknownColumnError."""
        reader = self.reader(columns)
        reader.start_pass(seed=seed, epoch=epoch)
        return reader

    # To look at it.

    def head(self, num_rows: int = 5) -> list[dict[str, Any]]:
        """The first rows, to look at; each as `row` gives it. Raises PlanError, ShardError.

        Example:
            >>> dataset.head(2)
            [{'customer': 0, 'colour': 'red', 'y': 0}, {'customer': 1, 'colour': 'blue', 'y': 1}]
        """
        from .views.export import head

        return head(self, num_rows)

    def row(self, row_id: int) -> dict[str, Any]:
        """One row by column: numbers, arrays, str and bytes; -1 is the last one. Raises RowError, ShardError.

        Example:
            >>> dataset.row(-1)["colour"]
            'blue'
        """
        from .views.export import row

        return row(self, row_id)

    def __getitem__(self, key: object) -> NoReturn:
        raise TypeError(
            f"{self.name} is neither indexed nor iterated over as a list would be. dataset.row(0) is one row, "
            "dataset.head(5) the first ones, dataset.select(ids) a dataset of some; for batch in "
            "dataset.batches(256, shuffle=False) gives all of them, dataset.select_columns([name]) columns."
        )

    def describe(
        self,
        *,
        num_samples: int = 0,
        label: str | None = None,
        shuffles: Sequence[Shuffle] = ("window", "full"),
        batch_size: int = 1024,
        full: bool = True,
    ) -> DatasetDescription:
        """What is in it, as `heliostat inspect` prints it; reads columns of few values and of variable length once.

        Args:
            num_samples: so many first rows are shown.
            label: an integer or bool column; it is computed how well each of `shuffles` mixes its classes.
            shuffles: see `batches`.
            batch_size: of the batches in which classes are counted.
            full: look at all rows; else at up to 12,288 from the begin, the middle and the end.

        Raises:
            UnknownColumnError, SelectionError: there is no such label, or it holds no classes.
            ShardError: on the way.

        Example:
            >>> print(dataset.select_columns(["y"]).describe().columns[0])
            y: int64 scalar, 0 to 1, 2 classes of 5 to 5 rows
        """
        from .views.describe import described

        return described(
            self, num_samples=num_samples, label=label, shuffles=shuffles, batch_size=batch_size, full=full
        )

    # To feed a loop or a model.

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: Shuffle = "full",
        seed: int = 0,
        epoch: int = 0,
        columns: Sequence[str] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Every row once, in row order, as dicts of new arrays `[rows, *shape]`, of `Ragged` for variable lengths;
        the last batch may be short.

        Args:
            batch_size: rows of a batch.
            shuffle: "full", "window" (blocks of 4,096 rows, mixed in windows of them), "window:ROWS",
                "window:ROWS:BLOCK_ROWS", or False for stored order.
            seed: another one gives other orders.
            epoch: which pass of that seed.
            columns: their names; all for None.

        Raises:
            PlanError, UnknownColumnError: at once.
            ShardError: on the way.

        Example:
            >>> for batch in dataset.batches(4, seed=1, epoch=0):
            ...     print(len(batch["y"]))
            4
            4
            2
        """
        order = RowOrder(num_rows=len(self), seed=seed, epoch=epoch, shuffle=shuffle)
        return iterate_batches(self.pass_reader(columns, seed=seed, epoch=epoch), order, batch_size)

    def tf(
        self,
        batch_size: int,
        *,
        shuffle: Shuffle = "full",
        seed: int = 0,
        epoch: int = 0,
        epochs: int = 1,
        columns: Sequence[str] | None = None,
        inputs: str | Sequence[str] | Mapping[str, str] | None = None,
        targets: str | Sequence[str] | Mapping[str, str] | None = None,
        sample_weight: str | None = None,
        drop_remainder: bool = False,
        prefetch_bytes: int = 64 << 20,
        num_threads: int = 1,
    ) -> tf.data.Dataset:
        """A `tf.data.Dataset` of batches in row order, for plain Keras and any other user of TensorFlow.

        Elements are dicts of tensors by column, or (x, y) and (x, y, sample_weight) if `inputs` is given. Columns of
        variable length are `tf.RaggedTensor`, text and bytes `tf.string`. One iteration is `epochs` passes from `epoch`
        on; the next iteration goes on with the passes after them, or begins anew the one during which an iteration was
        left.

        Args:
            batch_size: rows of a batch.
            shuffle: see `batches`.
            seed: another one gives other orders, and other numbers to random maps.
            epoch: the first pass of the first iteration.
            epochs: passes of an iteration.
            columns: names of those in the dicts; all for None. Not together with `inputs`.
            inputs: x: a column, a list of columns, or a dict of names to columns.
            targets: y, in the same way.
            sample_weight: a column.
            drop_remainder: leave out the last rows of a pass that fill no batch.
            prefetch_bytes: so many bytes of batches are read ahead; 0 reads on demand.
            num_threads: threads of TensorFlow that read, in which functions of `map` then run.

        Raises:
            PlanError: arguments that do not go together, or no batch.
            UnknownColumnError: there is no such column.

        Example:
            >>> model = keras.Sequential([keras.layers.Dense(1)])
            >>> model.compile("sgd", "mse")
            >>> inputs = dataset.map(lambda rows: rows["y"].astype("float32")[:, None], ["y"], "x")
            >>> history = model.fit(inputs.tf(5, inputs="x", targets="y"), verbose=0)
        """
        from .views.tf_dataset import TfOptions, tf_dataset

        options = TfOptions(
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            epoch=epoch,
            epochs=epochs,
            drop_remainder=drop_remainder,
            prefetch_bytes=prefetch_bytes,
            num_threads=num_threads,
        )
        return tf_dataset(self, options, columns=columns, inputs=inputs, targets=targets, sample_weight=sample_weight)

    # Some of its rows, and more of them.

    def split(
        self,
        fraction: float,
        *,
        seed: int = 0,
        by: str | None = None,
        stratify: str | None = None,
        gap: int | None = None,
    ) -> tuple[Dataset, Dataset]:
        """Two parts, both in stored order: round(fraction · rows) pseudo-random rows, and the others.

        Which part a row is in depends on (fraction, seed, row id, number of rows) only, and takes no memory; with `by`
        or `stratify` the column is read once, and it takes 4 bytes per row.

        Args:
            fraction: share of the first part, between 0 and 1.
            seed: another one divides otherwise.
            by: a column of one value per row, such as "customer"; rows of one value are in the same part. The parts
                have about their shares.
            stratify: a column of classes; both parts have their share of every class. With `by`, all rows of one
                value must be of one class.
            gap: divide in stored order instead, and leave out so many rows between the parts, as a series in time
                wants it; `fraction` is of the rows that are left.

        Raises:
            SelectionError: the share is none, a part has no rows, or the arguments do not go together.
            UnknownColumnError: there is no such column.

        Example:
            >>> train, valid = dataset.split(0.9, seed=1)
            >>> train, valid = dataset.split(0.8, by="customer")
            >>> past, future = dataset.split(0.8, gap=2)
            >>> len(past), len(future)
            (6, 2)
        """
        from .views.split import split

        return split(self, fraction, seed=seed, by=by, stratify=stratify, gap=gap)

    def take(self, num_rows: int) -> Dataset:
        """The first rows, all if there are fewer; raises PlanError.

        Example:
            >>> len(dataset.take(3))
            3
        """
        from .views.selection import take

        return take(self, num_rows)

    def skip(self, num_rows: int) -> Dataset:
        """All but the first rows; raises PlanError, SelectionError if none is left.

        Example:
            >>> dataset.skip(3).row(0)["customer"]
            3
        """
        from .views.selection import skip

        return skip(self, num_rows)

    def select(self, row_ids: npt.ArrayLike) -> Dataset:
        """The rows with these ids [rows], in that order; one may come more than once.

        Takes 4 bytes of memory per row (8 in a dataset of 2**32 rows or more). Raises RowError, SelectionError.

        Example:
            >>> [row["customer"] for row in dataset.select([4, 0, 4]).head()]
            [4, 0, 4]
        """
        from .views.selection import select

        return select(self, row_ids)

    def filter(
        self, predicate: Callable[[dict[str, Any]], npt.ArrayLike], columns: Sequence[str] | None = None
    ) -> Dataset:
        """The rows for which `predicate` returns True, in stored order.

        It is called now, for up to 4096 rows (16 MiB) at a time, with a dict of `columns` (all for None), and returns
        bool [rows]. Takes memory as `select` does. Raises UnknownColumnError, TransformError, SelectionError if no
        row is left.

        Example:
            >>> len(dataset.filter(lambda rows: rows["customer"] < 2, ["customer"]))
            4
        """
        from .views.selection import filtered

        return filtered(self, predicate, columns)

    def concatenate(self, *others: Dataset) -> Dataset:
        """These rows and then those of the others; the columns must be alike. Raises SelectionError.

        Example:
            >>> len(dataset.concatenate(dataset))
            20
        """
        from .views.concatenate import concatenate

        return concatenate([self, *others])

    # Other columns, computed whenever rows are read.

    def select_columns(self, names: Sequence[str]) -> Dataset:
        """Some columns, in this order; raises UnknownColumnError.

        Example:
            >>> dataset.select_columns(["y"]).row(0)
            {'y': 0}
        """
        from .views.column_views import select_columns

        return select_columns(self, names)

    def rename(self, names: Mapping[str, str]) -> Dataset:
        """Columns under other names (old name -> new name); raises UnknownColumnError, SelectionError.

        Example:
            >>> list(dataset.rename({"y": "label"}).schema)
            ['customer', 'colour', 'label']
        """
        from .views.column_views import rename

        return rename(self, names)

    def map(
        self,
        function: Callable[..., Any],
        columns: Sequence[str] | None = None,
        output: str | Sequence[str] | Mapping[str, Column | None] | None = None,
        *,
        per_row: bool = False,
        random: bool = False,
        tensorflow: bool = False,
        version: str | None = None,
    ) -> Dataset:
        """New or replaced columns, computed by `function` whenever rows are read.

        Args:
            function: it is given a dict of columns of some rows, read-only arrays `[rows, *shape]` and `Ragged`, and
                returns a dict of columns, or what `output` names. It counts in the fingerprint by its code and the
                values it refers to.
            columns: what it is given; all for None.
            output: what it returns: the name of one column, the names of several (a tuple of them is returned), or a
                mapping of names to `Column` where the first rows do not show kind, dtype and shape (text from
                TensorFlow is taken for bytes).
            per_row: call it for one row at a time, with arrays, numbers, str and bytes.
            random: give it seeds int32 [rows, 2] as well, for `tf.random.stateless_*` or `row_uniform` (per row: a
                numpy Generator, in TensorFlow a seed [2]), that depend on (seed of the pass, epoch, row id) only.
            tensorflow: give it tensors; it is traced once.
            version: what counts in the fingerprint instead of the function; another text whenever its effect changes.

        Raises:
            UnknownColumnError: there is no such column.
            SelectionError: `output` names a column twice, or none.
            TransformError: it raises, returns no columns, or others than for the first rows; or it refers to something
                of which cannot be told whether it is the same another time, and there is no `version`.

        Example:
            >>> dataset.map(lambda rows: rows["y"] * 10, ["y"], "tens").row(1)["tens"]
            10
        """
        from .views.map_function import mapped

        return mapped(
            self,
            function,
            columns,
            output,
            per_row=per_row,
            random=random,
            tensorflow=tensorflow,
            version=version,
        )

    def pad(
        self,
        column: str,
        length: int,
        *,
        value: float = 0,
        truncate: Literal["end", "start", "error"] = "end",
        output: str | None = None,
    ) -> Dataset:
        """A column of variable length as one of fixed shape `[length, *shape]`, filled up with `value` at the end.

        Args:
            column: its name.
            length: elements of every row.
            value: what the rest of shorter rows is filled with; for text and bytes the number of a byte.
            truncate: what is cut off of longer rows, or "error" for none (TransformError when they are read).
            output: a new column for it; the column is replaced for None.

        Raises:
            UnknownColumnError: there is no such column.
            SelectionError: its rows all have one shape, or `value` is none of its dtype.

        Example:
            >>> words = write_dataset("words", {"ids": [[1, 2, 3], [4]]})
            >>> words.pad("ids", 2).row(1)["ids"].tolist()
            [4, 0]
        """
        from .views.padding import padded

        return padded(self, column, length, value=value, truncate=truncate, output=output)

    def windows(self, columns: str | Sequence[str], length: int, *, stride: int | None = None) -> Dataset:
        """Stretches of `length` elements of long rows, one row for each; nothing is written.

        Windows begin at every multiple of `stride`; elements that fill no window are left out. Other columns, such as
        a label, are those of the long row. Lengths of lists are read once, and take 8 bytes of memory per long row.

        Args:
            columns: one or several of equal length: lists, or tensors, which are cut along their first axis.
            length: elements of a window.
            stride: from the begin of one window to the next; `length` for None, so that none overlap.

        Raises:
            SelectionError: columns that cannot be cut, or no row that is long enough.
            UnknownColumnError: there is no such column.

        Example:
            >>> series = write_dataset("series", {"load": [np.arange(5.0), np.arange(3.0)], "plant": [7, 8]})
            >>> windows = series.windows("load", 3, stride=1)
            >>> windows.row(2)
            {'load': array([2., 3., 4.]), 'plant': 7}
        """
        from .views.windows import windowed

        return windowed(self, columns, length, stride)

    def decode(
        self, column: str, size: tuple[int, int] | None = None, *, channels: int = 3, output: str | None = None
    ) -> Dataset:
        """Encoded images (JPEG, PNG, BMP, GIF's first frame) of a bytes column as uint8 [height, width, channels].

        Decoding uses TensorFlow, in threads.

        Args:
            column: its name.
            size: (height, width) that images of another size are resized to: bilinear with antialiasing, not keeping
                proportions, rounded. With None all must have the size of the first one.
            channels: 1 (grey), 3 (RGB) or 4 (RGBA).
            output: a new column for it; the column is replaced for None.

        Raises:
            UnknownColumnError: there is no such column.
            SelectionError: it holds no bytes, or a size or number of channels that cannot be.
            TransformError: an image cannot be decoded, when it is read; at once if `size` is None and the first one
                does not tell its own.

        Example:
            >>> photos = write_dataset("photos", {"image": [jpeg, jpeg]})
            >>> photos.decode("image", (32, 32)).schema["image"].shape
            (32, 32, 3)
        """
        from .views.decode import decoded

        return decoded(self, column, size, channels=channels, output=output)

    def vectorize(self, column: str, fitted: FittedPreprocessing, *, output: str | None = None) -> Dataset:
        """A column through a fitted preprocessing layer, see `fit_preprocessing`; `output` names a new column for it.

        Raises UnknownColumnError, SelectionError, TransformError.

        Example:
            >>> fitted = fit_preprocessing(dataset, "y", keras.layers.Normalization())
            >>> dataset.vectorize("y", fitted).row(0)["y"]
            -1.0
        """
        from .views.preprocess import vectorized

        return vectorized(self, column, fitted, output=output)

    def cache(self, path: str | os.PathLike[str]) -> Dataset:
        """The same rows, computed once: now written to a path of this host, and read from there.

        A path is used again if it holds a cache of a dataset with the same fingerprint, and replaced if of another one.
        Raises SelectionError if the rows differ from pass to pass or the path is a URI, DatasetExistsError if something
        else is at the path.

        Example:
            >>> scaled = dataset.map(lambda rows: rows["y"] / 2, ["y"], "y").cache("scaled")
            >>> scaled.row(1)["y"]
            0.5
        """
        from .views.cache import cached

        return cached(self, path)

    # To take it elsewhere.

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows in stored order as an Arrow table in memory.

        Scalars are plain Arrow columns (bools `bool`), rows of a shape `fixed_shape_tensor`, lists `large_list`, text
        `large_string`, bytes `large_binary`. Raises UnknownColumnError, ShardError.

        Example:
            >>> dataset.to_arrow(["y"]).num_rows
            10
        """
        from .views.export import to_record_batches

        return to_record_batches(self, columns).read_all()

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All rows in stored order as a pandas `DataFrame`, with the dtypes of the dataset; needs pandas.

        Rows of a shape and lists are arrays in object columns, text is `str`, bytes are objects. Raises
        UnknownColumnError, ShardError, ImportError.

        Example:
            >>> dataset.to_pandas().groupby("colour")["y"].sum().to_dict()
            {'blue': 5, 'red': 0}
        """
        from .views.export import to_pandas

        return to_pandas(self, columns)

    def to_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        columns: Sequence[str] | None = None,
        compression: str = "zstd",
        overwrite: bool = False,
    ) -> Path:
        """Write the rows in stored order to one Parquet file, in bounded memory, and return its path.

        Types are those of `to_arrow`; pages have checksums. The file appears complete or not at all.

        Args:
            path: a file of this host.
            columns: their names; all for None.
            compression: what pyarrow calls it.
            overwrite: replace the file if there is one.

        Raises:
            DatasetExistsError: the path is taken.
            SelectionError: the path is a URI.
            UnknownColumnError, ShardError, OSError: as they say.

        Example:
            >>> dataset.to_parquet("rows.parquet", columns=["y"]).name
            'rows.parquet'
        """
        from .views.export import to_parquet

        return to_parquet(self, path, columns=columns, compression=compression, overwrite=overwrite)
