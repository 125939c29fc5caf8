"""What is enclosed with a call: the modules beside the script, data, and runs that the cluster lacks.

All but the modules goes in the data packages, which the job unpacks into a folder of its own that ends with it:
``call`` is the call, ``data/...`` are files at the absolute paths that they have here, ``runs/...`` run folders, which
the job puts where they stay.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from heliostat.cluster.preflight import Wanted, look
from heliostat.data import Dataset
from heliostat.data.remote.filesystem import is_uri, local_path

from ..checkpoints.store import CheckpointStore
from ..columns import Columns
from ..driver.inputs import Data, open_input
from ..driver.lease import LEASE_FILE
from ..driver.run_folder import CHECKPOINTS, FINAL_FOLDER
from ..driver.run_folder import DATA as DATA_FOLDER
from ..driver.stream_files import Taken
from ..errors.texts import size_text
from ..jobs import MODEL_FILE
from ..preflight import wanted_for
from ..shipping import Packed
from ..source import Source, own_source
from .call_folder import MODULE, Call, CallFolder
from .handle import HANDLE_FILE
from .packing import pack_datasets
from .submitting import Shipment

CALL_THERE, DATA_THERE, RUNS_THERE = "call", "data", "runs"
_STAYS_HERE = {DATA_FOLDER, "logs", MODEL_FILE, HANDLE_FILE, LEASE_FILE}  # of a run folder that is sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Data of a call: a dataset that is sent, or else the name that it has on the cluster."""

    dataset: Dataset | None = None
    named: str | None = None

    @property
    def identity(self) -> str:
        """What tells it from others."""
        return self.named or ("" if self.dataset is None else self.dataset.fingerprint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enclosed:
    """What goes with a call.

    Attributes:
        pickles: by name.
        weights: the initial ones, None without.
        datasets: those whose files are on this machine, or elsewhere for all.
        runs: run folders of this machine, by the name that they get there.
    """

    pickles: Mapping[str, Packed]
    weights: tuple[np.ndarray, ...] | None = None
    datasets: Sequence[Dataset] = ()
    runs: Mapping[str, Path] = field(default_factory=dict)


def shipment_of(call: Call, enclosed: Enclosed, job: str, home: str) -> Shipment:
    """Pack a call.

    Args:
        call: what is asked for.
        enclosed: what goes with it.
        job: the submission id.
        home: the name of the folder of the trainer's runs on the cluster.

    Raises:
        DataTooLargeError, SourceTooLargeError: it is more than is sent.
        ConfigurationError: something cannot be read.
    """
    source = own_source()
    must_have = must_have_of((name for each in enclosed.pickles.values() for name in each.modules), source)
    call = replace(call, must_have=must_have, facts=look(must_have))
    with tempfile.TemporaryDirectory(prefix="heliostat-call-") as scratch:
        CallFolder(Path(scratch)).write(call, enclosed.pickles, enclosed.weights)
        files = {path for each in enclosed.datasets for path in each.folders()}
        places = {CALL_THERE: Path(scratch), **{f"{DATA_THERE}{path}": Path(path) for path in sorted(files)}}
        data = pack_datasets({**places, **_runs(enclosed.runs)})

    def argument(packages: tuple[str, ...]) -> str:
        return json.dumps({"job": job, "home": home, "packages": packages})

    return Shipment(module=MODULE, argument=argument, code=b"" if source is None else source.archive, data=data)


def rows_of(
    data: Data, name: str, columns: Columns, folder: Path, *, taken: Taken | None = None, began: bool = False
) -> Rows:
    """Data as a call sends them.

    URIs, and absolute paths of which nothing is here, are the cluster's own.

    Args:
        data: as the caller gave it.
        name: what it is called in `folder`.
        columns: which are read.
        folder: where arrays and streams are written.
        taken: how much of a stream is wanted; None for all.
        began: whether a run has begun with what lies there; see `open_input`.

    Raises:
        ConfigurationError, DataError, DatasetError: as `open_input`.
    """
    if isinstance(data, (str, Path)):
        text = os.fspath(data)
        if (is_uri(text) and local_path(text) is None) or (os.path.isabs(text) and not os.path.exists(text)):
            return Rows(named=text)
    return Rows(dataset=open_input(data, name, columns, folder, taken=taken, began=began))


def sent_parts(data: Iterable[tuple[Data, Rows]]) -> list[str]:
    """What would be sent, in words.

    Raises:
        SourceTooLargeError, DataTooLargeError: it is too much.
    """
    source = own_source()
    parts = [] if source is None else [f"{len(source.names)} file(s) of modules beside the script, in {source.folder}"]
    for given, rows in data:
        name = rows.dataset.name if rows.dataset is not None and isinstance(given, (str, Path, Dataset)) else "arrays"
        files = {} if rows.dataset is None else {f"{DATA_THERE}{path}": Path(path) for path in rows.dataset.folders()}
        if files:
            parts.append(f"{size_text(sum(map(len, pack_datasets(files))))} of {name}")
        else:
            parts.append(f"not {rows.named or name}, which the cluster opens by itself")
    return parts or ["nothing but the call"]


def must_have_of(modules: Iterable[str], source: Source | None) -> Wanted:
    """What the cluster must have for code that names these modules.

    Args:
        modules: by their dotted names.
        source: the modules that are sent, None without.
    """
    found = wanted_for(modules, source)
    packages = {name: each for name, each in found.packages.items() if name != "ray"}  # it stays on its side
    return replace(
        found, packages={**packages, "cloudpickle": ("cloudpickle",)}, folders=(), room_bytes=0, memory_bytes=0
    )


def _runs(runs: Mapping[str, Path]) -> dict[str, Path]:
    """What is sent of run folders: of their checkpoints the last, and the state in which the run has ended."""
    found: dict[str, Path] = {}
    for name, folder in runs.items():
        kept = {*CheckpointStore(folder / CHECKPOINTS).names()[-1:], FINAL_FOLDER}
        entries = [each for each in folder.iterdir() if each.name not in {*_STAYS_HERE, CHECKPOINTS}]
        entries += [folder / CHECKPOINTS / each for each in kept if (folder / CHECKPOINTS / each).is_dir()]
        found |= {f"{RUNS_THERE}/{name}/{each.relative_to(folder).as_posix()}": each for each in entries}
    return found
