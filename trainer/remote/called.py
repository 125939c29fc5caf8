"""``python -m heliostat.trainer.remote.called WANTED``: the side of a call that runs in the job.

It reads in the order in which things happen, which is what `stage` tells whoever waits: what this machine has is
compared with what the call needs (start), a dataset is unpickled (unpickle), the call is made by the same class that
makes it in a process of one's own (train). Its prints, its run folder and its errors go the way of every job
(`in_job`); the value of `evaluate` is in the last message, predictions are a file.

Run folders of calls lie below ``calls`` in the home of jobs, in a folder for each trainer. They stay when the job ends,
for the next call goes on from them, until the trainer is closed.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec
from heliostat.cluster.preflight import Facts, look
from heliostat.data.remote.filesystem import is_uri

from ..checkpoints.store import CheckpointStore
from ..checkpoints.values import pack as pack_values
from ..columns import Columns
from ..driver.inputs import Data, noted_columns
from ..driver.runs import Runs
from ..driver.trained import FitEnd, end_in_folder
from ..environment import hand_to_driver, job_home
from ..errors import ConfigurationError, OtherEnvironmentError, StateNotKeptError
from ..trackers.trackers import Trackers
from ..trackers.wanted import TrackersWanted
from .call_folder import PREDICTIONS, Call, CallFolder
from .enclosed import CALL_THERE, DATA_THERE, RUNS_THERE
from .in_job import Work, do_in_job
from .links import prefix_of, remove
from .wire import display_for

CALLS = "calls"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallWanted:
    """What the command line says.

    Attributes:
        job: the submission id.
        home: the name of the folder of the trainer's runs.
        packages: URIs of what came with the call.
        removes: folders that earlier jobs have made, by submission ids. They are deleted, and all of the trainer's, and
            no call is made; None makes one.
    """

    job: str
    home: str
    packages: tuple[str, ...] = ()
    removes: tuple[tuple[str, tuple[str, ...]], ...] | None = None


def main(text: str) -> int:
    """Do what is wanted; returns the exit status."""
    wanted = msgspec.json.decode(text, type=CallWanted)
    act = _do if wanted.removes is None else _remove
    return do_in_job(wanted.job, partial(act, wanted), tells_files=wanted.removes is None)


def differences(here: Facts, there: Facts) -> dict[str, tuple[str, str]]:
    """What a cluster has otherwise than a call needs: (there, here) by name.

    Args:
        here: of the machine that calls.
        there: of the cluster's.
    """
    found: dict[str, tuple[str, str]] = {}
    minors = [each.python[0].rpartition(".")[0] for each in (there, here)]
    if minors[0] != minors[1]:
        found["Python"] = (there.python[0], here.python[0])
    for name, wanted in here.versions.items():
        if wanted and there.versions.get(name, "") != wanted:
            found[name] = (there.versions.get(name) or "not installed", wanted)
    for name in there.missing:
        if name not in here.missing:
            found[f"module {name}"] = ("not installed", "installed")
    for name, digest in here.contents.items():
        if there.contents.get(name, "") != digest:
            found[f"module {name}"] = ("other files" if there.contents.get(name) else "not there", "in no package")
    return found


def _do(wanted: CallWanted, work: Work) -> object:
    """Make the call; what comes of it, as JSON has it."""
    unpacked = work.own_folder(wanted.packages, with_code=False)
    folder, home = CallFolder(unpacked / CALL_THERE), job_home() / CALLS / wanted.home
    call = folder.call()
    found = look(call.must_have)
    if lacking := differences(call.facts, found):
        raise OtherEnvironmentError(found.host, found.python[1], lacking)
    _settle(unpacked / RUNS_THERE, home)
    trackers = TrackersWanted(**call.trackers)
    has_servers = bool(trackers.mlflow or trackers.wandb)
    runtime_env = hand_to_driver(call.runtime_env) if has_servers else call.runtime_env
    runs = Runs(folder.settings(call), "", home / call.run_dir, runtime_env, Trackers(trackers))
    with contextlib.closing(runs), contextlib.closing(display_for("auto")) as screen:
        if call.before:
            runs.model.end = _end_in(home / call.before, call, folder)
        work.begin("unpickle")
        data = unpacked / DATA_THERE
        if call.method == "fit":
            asked = folder.fit_call(call, data)
            opened, columns = decided(asked.data, asked.wanted.columns, call.undecided)
            work.begin("train")
            runs.fit(replace(asked, data=opened, wanted=replace(asked.wanted, columns=columns)), screen, call.program)
            return None
        passing = folder.pass_call(call, data)
        opened, columns = decided(passing.data, passing.wanted.columns, call.undecided)
        passing = replace(passing, data=opened, wanted=replace(passing.wanted, columns=columns))
        work.begin("train")
        if call.method == "evaluate":
            return runs.evaluate(passing, screen)
        place = home / call.run_dir
        place.mkdir(parents=True)
        screen.run_folder(place)
        if call.output:
            runs.predict(replace(passing, output=_output_there(call.output, place)), screen)
        else:
            (place / PREDICTIONS).write_bytes(pack_values(runs.predict(passing, screen)))
        return None


def _output_there(output: str, place: Path) -> str:
    """Where a dataset of predictions is written: a URI, or a folder here, which is brought to the one who calls."""
    return output if is_uri(output) else str(place / output)


def _settle(runs: Path, home: Path) -> None:
    """Put the run folders that came with the call where they stay."""
    if runs.is_dir():
        home.mkdir(parents=True, exist_ok=True)
        for each in runs.iterdir():
            shutil.move(each, home / each.name)


def _end_in(path: Path, call: Call, folder: CallFolder) -> FitEnd:
    """How the fit before has left the model; raises StateNotKeptError if its run folder is gone."""
    store = CheckpointStore(call.before_checkpoints) if call.before_checkpoints else None
    if not path.is_dir():
        raise StateNotKeptError(f"its run folder {path} is not on the cluster any more")
    return end_in_folder(path, folder.prepared(call), store)


def decided(data: Data, columns: Columns, undecided: Sequence[str]) -> tuple[Data, Columns]:
    """Data of this cluster's own, opened where they are to tell the columns, and those.

    Args:
        data: as they are named in the call.
        columns: as the caller's machine has them.
        undecided: which of them ("inputs", "targets") it could not tell.
    """
    if not undecided:
        return data, columns
    given = {name: None if name in undecided else getattr(columns, name) for name in ("inputs", "targets")}
    opened, inputs, targets = noted_columns(data, given["inputs"], given["targets"])
    return opened, replace(columns, inputs=inputs, targets=None if columns.targets is None else targets)


def _remove(wanted: CallWanted, work: Work) -> None:
    """Delete the folders of a trainer."""
    calls, home = job_home() / CALLS, job_home() / CALLS / wanted.home
    if home.parent != calls or wanted.home in ("", ".", ".."):
        raise ConfigurationError(f"{wanted.home!r} is no name of a folder of calls: nothing is deleted.")
    for job, paths in wanted.removes or ():
        for path in paths:
            remove(prefix_of(work.links.parent, job), Path(path))
    shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
