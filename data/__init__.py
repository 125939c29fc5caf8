"""Heliostat's data layer: which rows a run reads, in what order, and reading them (no TensorFlow, no Ray)."""

from __future__ import annotations

from heliostat.data.convert import convert_csv, convert_npz
from heliostat.data.dataset import Dataset
from heliostat.data.describe import ColumnDescription, DatasetDescription, describe
from heliostat.data.errors import (
    BadColumnError,
    DatasetError,
    DatasetExistsError,
    DatasetNotFoundError,
    ManifestError,
    PlanError,
    RowError,
    ShardError,
    SourceError,
    UnknownColumnError,
)
from heliostat.data.idx import read_idx
from heliostat.data.manifest import Column, ColumnStatistics
from heliostat.data.order import ORDER_VERSION, RowOrder, Shuffle
from heliostat.data.plan import BatchPlan, row_ids
from heliostat.data.reader import Reader, aligned_empty
from heliostat.data.stored import StoredDataset, open_dataset
from heliostat.data.writer import write_dataset

__all__ = [
    "ORDER_VERSION",
    "BadColumnError",
    "BatchPlan",
    "Column",
    "ColumnDescription",
    "ColumnStatistics",
    "Dataset",
    "DatasetDescription",
    "DatasetError",
    "DatasetExistsError",
    "DatasetNotFoundError",
    "ManifestError",
    "PlanError",
    "Reader",
    "RowError",
    "RowOrder",
    "ShardError",
    "Shuffle",
    "SourceError",
    "StoredDataset",
    "UnknownColumnError",
    "aligned_empty",
    "convert_csv",
    "convert_npz",
    "describe",
    "open_dataset",
    "read_idx",
    "row_ids",
    "write_dataset",
]
