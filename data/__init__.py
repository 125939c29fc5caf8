"""Heliostat's data layer: which rows a run reads, in what order, and reading them (no TensorFlow, no Ray)."""

from __future__ import annotations

from heliostat.data.converters.convert import Conversion, convert, convert_csv, convert_npz
from heliostat.data.converters.from_objects import (
    from_arrow,
    from_dataset,
    from_generator,
    from_pandas,
    from_ray_dataset,
    from_tf_dataset,
)
from heliostat.data.converters.idx import read_idx
from heliostat.data.converters.to_arrow import to_arrow, to_pandas, to_parquet, to_record_batches
from heliostat.data.dataset import Dataset
from heliostat.data.describe import ColumnDescription, DatasetDescription, describe
from heliostat.data.errors import (
    BadColumnError,
    CacheError,
    DatasetError,
    DatasetExistsError,
    DatasetNotFoundError,
    ManifestError,
    PlanError,
    RemoteError,
    RowError,
    SelectionError,
    ShardError,
    SourceError,
    TransformError,
    UnknownColumnError,
)
from heliostat.data.ordering.order import ORDER_VERSION, RowOrder, Shuffle
from heliostat.data.ordering.plan import BatchPlan, row_ids
from heliostat.data.ordering.shuffle_quality import shuffle_quality
from heliostat.data.ordering.window import parse_shuffle
from heliostat.data.reading.prefetch import Prefetcher
from heliostat.data.reading.reader import ALIGNMENT_BYTES, Reader, aligned_empty
from heliostat.data.remote.remote_dataset import RemoteDataset
from heliostat.data.remote.upload import upload_dataset
from heliostat.data.storage.columns import Column, ColumnKind, ColumnStatistics, LengthStatistics
from heliostat.data.storage.ragged import Ragged
from heliostat.data.stored import StoredDataset, open_dataset
from heliostat.data.verify import VerifyReport, verify
from heliostat.data.views.concatenate import concatenate
from heliostat.data.views.mix import mix
from heliostat.data.views.preprocess import FittedPreprocessing, fit_preprocessing, load_preprocessing
from heliostat.data.views.randomness import row_uniform
from heliostat.data.writer import write_dataset
from heliostat.data.writing.dataset_writer import DatasetWriter

__all__ = [
    "ALIGNMENT_BYTES",
    "ORDER_VERSION",
    "BadColumnError",
    "BatchPlan",
    "CacheError",
    "Column",
    "ColumnDescription",
    "ColumnKind",
    "ColumnStatistics",
    "Conversion",
    "Dataset",
    "DatasetDescription",
    "DatasetError",
    "DatasetExistsError",
    "DatasetNotFoundError",
    "DatasetWriter",
    "FittedPreprocessing",
    "LengthStatistics",
    "ManifestError",
    "PlanError",
    "Prefetcher",
    "Ragged",
    "Reader",
    "RemoteDataset",
    "RemoteError",
    "RowError",
    "RowOrder",
    "SelectionError",
    "ShardError",
    "Shuffle",
    "SourceError",
    "StoredDataset",
    "TransformError",
    "UnknownColumnError",
    "VerifyReport",
    "aligned_empty",
    "concatenate",
    "convert",
    "convert_csv",
    "convert_npz",
    "describe",
    "fit_preprocessing",
    "from_arrow",
    "from_dataset",
    "from_generator",
    "from_pandas",
    "from_ray_dataset",
    "from_tf_dataset",
    "load_preprocessing",
    "mix",
    "open_dataset",
    "parse_shuffle",
    "read_idx",
    "row_ids",
    "row_uniform",
    "shuffle_quality",
    "to_arrow",
    "to_pandas",
    "to_parquet",
    "to_record_batches",
    "upload_dataset",
    "verify",
    "write_dataset",
]
