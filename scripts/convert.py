"""``heliostat convert``: a file that people have, to a dataset, by the ending of its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from heliostat.data import StoredDataset, convert_csv, convert_npz
from heliostat.scripts.errors import ScriptError

_CSV_ENDINGS = (".csv", ".csv.gz")


def convert(
    source: Path,
    destination: Path,
    *,
    target: str | None = None,
    features: Sequence[str] | None = None,
    overwrite: bool = False,
    rows_per_shard: int | None = None,
) -> StoredDataset:
    """Write the file as a dataset; `target` and `features` choose columns of a CSV file, see `convert_csv`.

    Raises ScriptError for another ending or a choice of columns where there is none, and DatasetError.
    """
    name = source.name.lower()
    if name.endswith(_CSV_ENDINGS):
        return convert_csv(
            source,
            destination,
            target=target,
            features=features,
            overwrite=overwrite,
            rows_per_shard=rows_per_shard,
        )
    if not name.endswith(".npz"):
        raise ScriptError(
            f"{source} ends in {source.suffix!r}: .npz, .csv and .csv.gz can be converted. Rename the file if it is "
            "one of these, or write its arrays with heliostat.data.write_dataset(path, {'x': x, 'y': y})."
        )
    if target is not None or features is not None:
        raise ScriptError(
            f"--target and --features choose columns of a CSV file; {source} is an .npz file, whose arrays become "
            "columns under their own names. Leave the two out."
        )
    return convert_npz(source, destination, overwrite=overwrite, rows_per_shard=rows_per_shard)
