"""Who makes the jobs of a trainer's calls: what each is told, what is enclosed, and its handle here."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from heliostat.cluster.head.api import Head
from heliostat.data.remote.filesystem import is_uri

from ..driver.display import Display
from ..driver.plan import Program
from ..driver.run_folder import RUN_FILE
from ..driver.run_paths import plain_name
from ..driver.runs import FitCall, PassCall
from ..errors.texts import size_text
from ..shipping import pack
from ..trainer_config import TrainerConfig
from .call_folder import (
    BUILD_MODEL,
    CODE,
    DATA,
    PREDICTIONS,
    PREPARE,
    VALIDATION,
    Call,
    Method,
    payload_of,
    plain_columns,
    plain_every,
    plain_settings,
    plain_wanted,
    prepared_name,
)
from .elsewhere import Elsewhere
from .enclosed import Enclosed, Rows, shipment_of
from .handle import Handle, new_submission_id
from .submitting import submit_shipment


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
        trackers: of the trainer, as `TrackersWanted.plain` has them.
    """

    def __init__(
        self,
        head: Head,
        settings: TrainerConfig,
        name: str,
        runtime_env: Mapping[str, Any] | None,
        trackers: Mapping[str, Any],
    ) -> None:
        self._head, self._settings, self._name, self._runtime_env = head, settings, name, runtime_env
        self._trackers = dict(trackers)
        self.home = f"{plain_name(name, 'run')}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
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
        sent, enclosed = self._made("fit", call, rows, begins, Program.here(number), run_dir)
        sent = replace(
            sent,
            checkpoint_every=plain_every(wanted.checkpoint_every),
            is_validated=VALIDATION in rows,
            anew=call.anew,
            trackers=self._trackers,
            code=dict(call.code),
        )
        pickles = {**enclosed.pickles, CODE: payload_of(wanted.code)}
        if wanted.prepare is not None:
            pickles[PREPARE] = payload_of(wanted.prepare)
        enclosed = replace(enclosed, pickles=pickles, weights=wanted.initial_weights, runs={**enclosed.runs, **runs})
        return self._submit(sent, enclosed, path, (there,) if there else (), hashes, screen)

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
        sent, enclosed = self._made(method, call, {DATA: rows}, model, Program.here(1), run_dir)
        if call.output:  # a dataset for a path here is brought like a file
            sent = replace(sent, output=call.output if is_uri(call.output) else PREDICTIONS)
        return self._submit(sent, enclosed, path, (), {}, screen)

    def _made(
        self,
        method: Method,
        call: FitCall | PassCall,
        rows: Mapping[str, Rows],
        begins: Elsewhere | None,
        program: Program,
        run_dir: str,
    ) -> tuple[Call, Enclosed]:
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
        return sent, Enclosed(pickles=pickles, datasets=tuple(sets.values()), runs=runs)

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
        enclosed: Enclosed,
        path: Path,
        runs: tuple[str, ...],
        hashes: Mapping[str, str],
        screen: Display,
    ) -> Handle:
        """Pack a call, write its handle, make its job.

        Args:
            sent: the call; `enclosed` goes with it.
            path: where the handle is written.
            runs: the run folder that an earlier job has on the cluster, if there is one.
            hashes: as in `fit`.
            screen: what the user sees.
        """
        for name in filter(None, (sent.data, sent.validation_data)):
            if not is_uri(name):
                self._say_once(screen, f"{name} is not on this machine: the cluster's own is read")
        job = new_submission_id(f"{self._name}-{sent.method}")
        shipment = shipment_of(sent, enclosed, job, self.home)
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
        self.fills_home = self.fills_home or sent.method != "evaluate" or bool(enclosed.runs)
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
