"""What a call sends: the modules beside the script, the call's own folder, data, and runs that the cluster lacks.

All but the modules goes in the data packages, which the job unpacks into a folder of its own that ends with it:
``call`` is the call, ``data/...`` are files at the absolute paths that they have here, ``runs/...`` run folders, which
the job puts where they stay.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from heliostat.cluster.head.api import Head
from heliostat.cluster.preflight import Wanted, look
from heliostat.data import Dataset
from heliostat.data.remote.filesystem import is_uri, local_path

from ..columns import Columns
from ..config import TrainerConfig
from ..driver.display import Display
from ..driver.inputs import Data, open_input
from ..driver.lease import LEASE_FILE
from ..driver.plan import Program
from ..driver.run_folder import DATA as DATA_FOLDER
from ..driver.run_folder import RUN_FILE
from ..driver.runs import FitCall, PassCall
from ..errors import size_text
from ..preflight import wanted_for
from ..shipping import Packed, pack
from ..source import Source, script_folder, source_of
from .call_folder import (
    BUILD_MODEL,
    CODE,
    DATA,
    MODULE,
    PREPARE,
    VALIDATION,
    Call,
    CallFolder,
    Method,
    payload_of,
    plain_columns,
    plain_every,
    plain_settings,
    plain_wanted,
    prepared_name,
)
from .elsewhere import Elsewhere
from .handle import HANDLE_FILE, Handle, new_submission_id
from .packing import pack_datasets
from .submitting import Shipment, submit_shipment

CALL_THERE, DATA_THERE, RUNS_THERE = "call", "data", "runs"
_STAYS_HERE = {DATA_FOLDER, "logs", HANDLE_FILE, LEASE_FILE}  # of a run folder that is sent


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
class Luggage:
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


class Sender:
    """Packs the calls of one trainer, and makes their jobs.

    Attributes:
        home: the name of the folder of the trainer's runs on the cluster; `fills_home` says whether a job of it was to
            put something there.

    Args:
        head: the cluster.
        settings: the trainer's.
        name: of the model.
        runtime_env: what Ray is to set up for the workers' processes.
    """

    def __init__(self, head: Head, settings: TrainerConfig, name: str, runtime_env: Mapping[str, Any] | None) -> None:
        self._head, self._settings, self._name, self._runtime_env = head, settings, name, runtime_env
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "run"
        self.home = f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
        self.fills_home, self._num_folders, self._said = False, 0, set[str]()
        self._coming, self._there = dict[Path, str](), dict[Path, str]()  # runs that were sent, by their folders here

    def fit(
        self,
        call: FitCall,
        rows: Mapping[str, Rows],
        path: Path,
        there: str,
        begins: Elsewhere | None,
        number: int,
        hashes: Mapping[str, str],
        screen: Display,
    ) -> Handle:
        """Make the job of a fit.

        Args:
            call: what is asked for.
            rows: the data, by what they are for.
            path: the run folder here.
            there: the run folder that an earlier job has on the cluster; empty without.
            begins: the fit that it goes on from.
            number: which fit of this process it is.
            hashes: of what decides the result.
            screen: what the user sees.
        """
        wanted = call.wanted
        if call.has_callbacks:
            line = "callbacks run on the cluster: their files, prints and logs come back, their attributes do not"
            self._say_once(screen, line)
        run_dir, runs = self._place_there(path, there)
        sent, luggage = self._made("fit", call, rows, begins, Program.here(number), run_dir)
        sent = replace(
            sent,
            checkpoint_every=plain_every(wanted.checkpoint_every),
            is_validated=VALIDATION in rows,
            anew=call.anew,
            code=dict(call.code),
        )
        pickles = {**luggage.pickles, CODE: payload_of(wanted.code)}
        if wanted.prepare is not None:
            pickles[PREPARE] = payload_of(wanted.prepare)
        luggage = replace(luggage, pickles=pickles, weights=wanted.initial_weights, runs={**luggage.runs, **runs})
        return self._submit(sent, luggage, path, (there,) if there else (), hashes, screen)

    def run_pass(
        self, method: Method, call: PassCall, rows: Rows, path: Path, model: Elsewhere | None, screen: Display
    ) -> Handle:
        """Make the job of a pass.

        Args:
            method: of the trainer.
            call: what is asked for.
            rows: the data.
            path: the folder here for what comes out.
            model: the fit whose model is to answer; None for a new one.
            screen: what the user sees.
        """
        run_dir, _ = self._place_there(path, "")
        sent, luggage = self._made(method, call, {DATA: rows}, model, Program.here(1), run_dir)
        return self._submit(sent, luggage, path, (), {}, screen)

    def _made(
        self,
        method: Method,
        call: FitCall | PassCall,
        rows: Mapping[str, Rows],
        begins: Elsewhere | None,
        program: Program,
        run_dir: str,
    ) -> tuple[Call, Luggage]:
        """A call as it travels, as far as fits and passes are alike, and what goes with it.

        Args:
            method: of the trainer.
            call: what is asked for.
            rows: the data, by what they are for.
            begins: the fit whose model it is; None for a new one.
            program: what asks for it.
            run_dir: the run folder on the cluster, or that of what comes out.
        """
        before, runs = ("", {}) if begins is None else self._place_there(begins.path, begins.there)
        prepared = () if begins is None else begins.prepared
        sets = {name: each.dataset for name, each in rows.items() if each.dataset is not None}
        sent = Call(
            method=method,
            settings=plain_settings(self._settings),
            wanted=plain_wanted(call.wanted),
            columns=plain_columns(call.wanted.columns),
            undecided=call.undecided,
            runtime_env=None if self._runtime_env is None else dict(self._runtime_env),
            data=rows[DATA].named,
            validation_data=rows[VALIDATION].named if VALIDATION in rows else None,
            run_dir=run_dir,
            before=before,
            before_checkpoints="" if begins is None else begins.checkpoints,
            num_prepared=len(prepared),
            program=program,
        )
        pickles = {BUILD_MODEL: payload_of(self._settings.build_model)}
        pickles |= {prepared_name(number): each for number, each in enumerate(prepared)}
        pickles |= {name: pack(dataset) for name, dataset in sets.items()}
        return sent, Luggage(pickles=pickles, datasets=tuple(sets.values()), runs=runs)

    def _place_there(self, path: Path, there: str) -> tuple[str, dict[str, Path]]:
        """The folder on the cluster for one here, and what must be sent for it: the run here, unless it is `there`."""
        if there or path in self._there:
            return there or self._there[path], {}
        self._num_folders += 1
        name = f"run-{self._num_folders}"
        if not (path / RUN_FILE).exists():
            return name, {}
        self._coming[path] = name
        return name, {name: path}

    def _submit(
        self,
        sent: Call,
        luggage: Luggage,
        path: Path,
        runs: tuple[str, ...],
        hashes: Mapping[str, str],
        screen: Display,
    ) -> Handle:
        """Pack a call, write its handle, make its job.

        Args:
            sent: the call; `luggage` goes with it.
            path: where the handle is written.
            runs: the run folder that an earlier job has on the cluster, if there is one.
            hashes: as in `fit`.
            screen: what the user sees.
        """
        for name in filter(None, (sent.data, sent.validation_data)):
            if not is_uri(name):
                self._say_once(screen, f"{name} is not on this machine: the cluster's own is read")
        job = new_submission_id(f"{self._name}-{sent.method}")
        shipment = shipment_of(sent, luggage, job, self.home)
        handle = Handle(
            address=self._head.address,
            submission_id=job,
            what="call",
            script=sent.program.argv[0] if sent.program.argv else "",
            runs=runs,
            code=dict(hashes),
        )
        num_bytes = sum(map(len, (shipment.code, *shipment.data)))
        screen.say(f"{sent.method} on the cluster at {handle.address}: job {job}, {size_text(num_bytes)} are sent")
        self.fills_home = self.fills_home or sent.method != "evaluate" or bool(luggage.runs)
        submit_shipment(self._head, handle, shipment, path, screen.say)
        return handle

    def arrived(self) -> None:
        """Note that the job has what was sent, so that it need not be sent again."""
        self._there |= self._coming

    def removed(self) -> None:
        """Note that the trainer's folder on the cluster is gone."""
        self._there.clear()
        self._coming.clear()
        self.fills_home = False

    def _say_once(self, screen: Display, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            screen.say(line)


def shipment_of(call: Call, luggage: Luggage, job: str, home: str) -> Shipment:
    """Pack a call.

    Args:
        call: what is asked for.
        luggage: what goes with it.
        job: the submission id.
        home: the name of the folder of the trainer's runs on the cluster.

    Raises:
        DataTooLargeError, SourceTooLargeError: it is more than is sent.
        ConfigurationError: something cannot be read.
    """
    folder = script_folder()
    source = None if folder is None else source_of(folder)
    must_have = must_have_of((name for each in luggage.pickles.values() for name in each.modules), source)
    call = replace(call, must_have=must_have, facts=look(must_have))
    with tempfile.TemporaryDirectory(prefix="heliostat-call-") as scratch:
        CallFolder(Path(scratch)).write(call, luggage.pickles, luggage.weights)
        files = {path for each in luggage.datasets for path in each.folders()}
        places = {CALL_THERE: Path(scratch), **{f"{DATA_THERE}{path}": Path(path) for path in sorted(files)}}
        data = pack_datasets({**places, **_runs(luggage.runs)})

    def argument(packages: tuple[str, ...]) -> str:
        return json.dumps({"job": job, "home": home, "packages": packages})

    return Shipment(module=MODULE, argument=argument, code=b"" if source is None else source.archive, data=data)


def rows_of(data: Data, name: str, columns: Columns, folder: Path, *, began: bool = False) -> Rows:
    """Data as a call sends them.

    URIs, and absolute paths of which nothing is here, are the cluster's own.

    Args:
        data: as the caller gave it.
        name: what it is called in `folder`.
        columns: which are read.
        folder: where arrays and streams are written.
        began: whether a run has begun with what lies there; see `open_input`.

    Raises:
        ConfigurationError, DataError, DatasetError: as `open_input`.
    """
    if isinstance(data, (str, Path)):
        text = os.fspath(data)
        if (is_uri(text) and local_path(text) is None) or (os.path.isabs(text) and not os.path.exists(text)):
            return Rows(named=text)
    return Rows(dataset=open_input(data, name, columns, folder, began=began))


def sent_parts(data: Iterable[tuple[Data, Rows]]) -> list[str]:
    """What would be sent, in words.

    Raises:
        SourceTooLargeError, DataTooLargeError: it is too much.
    """
    folder = script_folder()
    source = None if folder is None else source_of(folder)
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
    return {
        f"{RUNS_THERE}/{name}/{entry.name}": entry
        for name, folder in runs.items()
        for entry in folder.iterdir()
        if entry.name not in _STAYS_HERE
    }
