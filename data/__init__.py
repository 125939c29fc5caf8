"""Heliostat's data layer: which rows a run reads, in what order, and reading them (no TensorFlow, no Ray).

open_dataset      a dataset that is there: written before, or Parquet and Arrow files, on this host or an object store
write_dataset     one from arrays; DatasetWriter, from batch after batch
convert           one from files: CSV, JSON lines, Parquet, TFRecord, pictures and others, exactly or with an account
from_generator    one from what Python yields; from_pandas, from_arrow, from_tf_dataset, from_ray_dataset, and
                  from_dataset, which writes what a view computes
Dataset           what all of them return: its methods look at rows, choose and change them, and feed a model
mix               rows of several datasets, in proportions
fit_preprocessing what a Keras layer learns from a column, for `Dataset.vectorize`: a FittedPreprocessing, that
                  is saved, loaded, and made a layer again
upload_dataset    a dataset to an object store
verify            every byte of a dataset, compared with its hashes

`Column` says what a column holds, `Ragged` are rows of different lengths, `row_uniform` draws numbers that belong
to a row; errors are in a tree below `DatasetError`. Everything else is an inner matter.
"""

from __future__ import annotations

from .conversion.convert import convert
from .conversion.from_objects import (
    from_arrow,
    from_dataset,
    from_generator,
    from_pandas,
    from_ray_dataset,
    from_tf_dataset,
)
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
from .format.columns import Column
from .format.ragged import Ragged
from .opening import open_dataset
from .upload import upload_dataset
from .verify import verify
from .views.mix import mix
from .views.preprocess import FittedPreprocessing, fit_preprocessing
from .views.randomness import row_uniform
from .writer import DatasetWriter, write_dataset

__all__ = [
    "BadColumnError",
    "CacheError",
    "Column",
    "Dataset",
    "DatasetError",
    "DatasetExistsError",
    "DatasetNotFoundError",
    "DatasetWriter",
    "FittedPreprocessing",
    "ManifestError",
    "PlanError",
    "Ragged",
    "RemoteError",
    "RowError",
    "SelectionError",
    "ShardError",
    "SourceError",
    "TransformError",
    "UnknownColumnError",
    "convert",
    "fit_preprocessing",
    "from_arrow",
    "from_dataset",
    "from_generator",
    "from_pandas",
    "from_ray_dataset",
    "from_tf_dataset",
    "mix",
    "open_dataset",
    "row_uniform",
    "upload_dataset",
    "verify",
    "write_dataset",
]
