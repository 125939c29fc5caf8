"""Heliostat's data layer: which rows a run reads, in what order, and reading them (no TensorFlow, no Ray)."""

from __future__ import annotations

from .conversion.convert import Conversion, convert
from .conversion.from_objects import (
    from_arrow,
    from_dataset,
    from_generator,
    from_pandas,
    from_ray_dataset,
    from_tf_dataset,
)
from .conversion.idx import read_idx
from .dataset import Dataset
from .errors import (
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
from .format.columns import Column, ColumnKind, ColumnStatistics, LengthStatistics
from .format.memory import ALIGNMENT_BYTES, aligned_empty
from .format.ragged import Ragged
from .order.order import ORDER_VERSION, RowOrder, Shuffle
from .order.plan import BatchPlan, row_ids
from .order.window import parse_shuffle
from .read.reader import Reader
from .remote.remote_dataset import RemoteDataset
from .remote.upload import upload_dataset
from .stored import StoredDataset, open_dataset
from .verify import VerifyReport, verify
from .views.concatenate import concatenate
from .views.mix import mix
from .views.preprocess import FittedPreprocessing, fit_preprocessing, load_preprocessing
from .views.randomness import row_uniform
from .writer import DatasetWriter, write_dataset

__all__ = [
    "ALIGNMENT_BYTES",
    "ORDER_VERSION",
    "BadColumnError",
    "BatchPlan",
    "CacheError",
    "Column",
    "ColumnKind",
    "ColumnStatistics",
    "Conversion",
    "Dataset",
    "DatasetError",
    "DatasetExistsError",
    "DatasetNotFoundError",
    "DatasetWriter",
    "FittedPreprocessing",
    "LengthStatistics",
    "ManifestError",
    "PlanError",
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
    "upload_dataset",
    "verify",
    "write_dataset",
]
