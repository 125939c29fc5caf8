"""`Trainer(address="http://HEAD:8265")`: each call becomes a job of the cluster, and comes back as if it had run here.

**A call is a submitted job plus its result.** What a call consists of is written into a folder (`call_folder`) and put
as packages with the code and the data (`sending`); the job (`called`) makes the same call there; its log is shown here,
its run folder is fetched, and the result is read from that. So there is one way to train, and nothing that a submitted
script has not: whoever closes the laptop finds the run by its handle, and the same script, started again with the same
`run_dir`, attaches to it or takes its result (`known`).

**The model lives on the cluster between two calls**, in the run folder of the last fit: the next call names it, and the
job begins there (`driver.trained.end_in_folder`). Nothing is kept up for it meanwhile, no connection and no actor. So a
fit that follows goes on, and `evaluate` uses its model, tomorrow too. Where that folder is gone (`close` takes it away)
or the run was made elsewhere, the copy here is sent.

What was not done: to drive workers from here through the one port (each step would wait for the internet, and the run
end with the connection), and a pickled result (it would bind both sides to one version of everything; what comes back
are JSON, arrays and the model's file).
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from heliostat.cluster.errors import ClusterError
from heliostat.cluster.head.api import Head
from heliostat.cluster.links import PairBandwidth
from heliostat.data import DatasetError, open_dataset
from heliostat.data.remote.filesystem import is_uri

from ..checkpoints.values import unpack as unpack_values
from ..driver.asked import checked_runtime_env
from ..driver.display import Display
from ..driver.result import Result, stored_result
from ..driver.run_folder import DATA as DATA_FOLDER
from ..driver.run_folder import has_begun, read_epochs, read_record
from ..driver.run_paths import make_new
from ..driver.runs import FitCall, PassCall, Place, Places
from ..driver.screen import make_display
from ..driver.stream_files import taken_by_fit, taken_by_pass
from ..driver.uncaught import show_errors_shortly
from ..environment import begin_fit, is_plan_wanted
from ..errors import CallError, ConfigurationError, TrainerError
from ..trackers.wanted import TrackersWanted
from ..trainer_config import TrainerConfig
from .alone import alone_in
from .call_folder import DATA, PREDICTIONS, VALIDATION, Method
from .elsewhere import Elsewhere, Leftover, not_removed
from .enclosed import Rows, rows_of, sent_parts
from .fetch import fetch
from .follow import Outcome, Told, follow
from .guards import check_call, check_output, cleared, detaching
from .handle import Handle
from .known import Step, handle_in, hashes_of, step_for
from .remote_errors import error_of
from .sending import Sender


class RemoteRuns:
    """The runs of one trainer on a cluster that is reached by its job server alone; see `driver.runs.Runs`.

    Args:
        settings: the trainer's.
        address: of the job server.
        name: of the model.
        run_dir: the folder here that the user has named; None for a new one each time.
        runtime_env: what Ray is to set up for the workers' processes.
        trackers: where numbers of fits are to go, from the cluster.

    Raises:
        PlacementError: the address is not of a job server's form.
        ConfigurationError: trackers that cannot be there.
    """

    def __init__(
        self,
        settings: TrainerConfig,
        address: str,
        name: str,
        run_dir: Path | None,
        runtime_env: Mapping[str, Any] | None = None,
        trackers: TrackersWanted | None = None,
    ) -> None:
        self._settings, self._head = settings, Head(address)
        wanted = {} if trackers is None else trackers.plain()
        self._sender = Sender(self._head, settings, name, checked_runtime_env(runtime_env, settings), wanted)
        self._places, self._leftovers = Places(name, run_dir), list[Leftover]()
        self._end: Elsewhere | None = None

    # -- fit ----------------------------------------------------------------------------------------------------------

    def fit(self, call: FitCall, screen: Display) -> Result | None:
        """Make a run on the cluster, go on with it, attach to it, or take its result.

        Args:
            call: what is asked for.
            screen: what the user sees.

        Returns:
            The result; None after a plan (see `environment`).

        Raises:
            CallError: it failed there; it is of the class of the error there as well, if that is ours.
            CallDetachedError: Ctrl-C; the run goes on.
            TrainerError, DatasetError, ClusterError: a mistake, or the cluster cannot be reached.
        """
        number, command = begin_fit()
        check_call(call, command)
        if is_plan_wanted():
            self._plan("fit", call, screen)
            return None
        end = self._end
        before, finished = (None, False) if end is None else (end.path, end.finished)
        place = self._places.next(call, number, command, before, finished=finished)
        begins = None if call.anew or end is None else end.begins if place.again else end
        path = make_new(place.path) if place.is_new else place.path.absolute()
        with cleared(path, is_new=place.is_new), alone_in(path, screen.say), self._packing():
            handle, step = self._job_of(call, path, begins, number, screen)
        run = Elsewhere.of(call, path, begins)
        if step == "take":
            screen.say(f"the run in {path} is finished; this is its result")
            self._began(call, place, run, handle)
        else:
            handle = self._fitted(call, place, run, handle, screen)
        self._leftovers.append(Leftover(job=handle.submission_id, there=handle.runs, path=path))
        self._end = replace(run, there="".join(handle.runs[:1]), finished=True)
        self._places.finished()
        return stored_result(path, read_record(path), read_epochs(path))

    def _job_of(
        self, call: FitCall, path: Path, begins: Elsewhere | None, number: int, screen: Display
    ) -> tuple[Handle, Step]:
        """The job of a fit, which is made unless there is one, and what is to be done with it.

        Args:
            call: what is asked for.
            path: the run folder here.
            begins: the fit that it goes on from.
            number: which fit of this process it is.
            screen: what the user sees.
        """
        handle = handle_in(path, self._head, call)
        if handle is None or handle.ended != "SUCCEEDED":
            self._head.check()
        began = (handle is not None and not handle.ended) or has_begun(path)
        rows = _rows_of(call, path / DATA_FOLDER, began=began)
        hashes = hashes_of(self._settings, call, list(rows.values()), None if begins is None else begins.path)
        if handle is not None and (step := step_for(handle, path, hashes, self._head, screen)) != "submit":
            return handle, step
        there = "" if handle is None else "".join(handle.runs[:1])
        return self._sender.fit(call, rows, path, there, begins, number, hashes, screen), "attach"

    def _fitted(self, call: FitCall, place: Place, run: Elsewhere, handle: Handle, screen: Display) -> Handle:
        """Follow the job of a fit to its end, and bring the run here; the handle, with what was told."""
        try:
            handle, outcome = self._followed(handle, run.path, screen)
        except KeyboardInterrupt:  # the next fit is the same one, and attaches
            self._began(call, place, run, Handle.read(run.path))
            raise
        if handle.runs:
            self._began(call, place, run, handle)
        self._brought(handle, outcome, run.path, screen)
        return handle

    def _began(self, call: FitCall, place: Place, run: Elsewhere, handle: Handle) -> None:
        """Note that a fit has begun, and is what the model comes from."""
        self._end = replace(run, there="".join(handle.runs[:1]))
        self._places.began(call, place)

    def _plan(self, method: Method, call: FitCall | PassCall, screen: Display) -> None:
        """Say where a call would run, and what would be sent."""
        with self._packing(), tempfile.TemporaryDirectory(prefix="heliostat-") as scratch:
            version = self._head.check()
            rows = _rows_of(call, Path(scratch))
            given = [call.data, call.validation_data if isinstance(call, FitCall) else None]
            screen.say(
                f"plan: {method} in a job of the cluster at {self._head.address} (Ray {version}), "
                f"{self._settings.workers} worker(s) there; its first lines say who computes what"
            )
            screen.say(f"sent there: {', '.join(sent_parts(zip(given, rows.values(), strict=False)))}")

    # -- passes -------------------------------------------------------------------------------------------------------

    def evaluate(self, call: PassCall, screen: Display) -> dict[str, Any]:
        """Metrics of the model over all rows; raises what `fit` raises."""
        with tempfile.TemporaryDirectory(prefix="heliostat-") as scratch:
            outcome = self._pass("evaluate", call, Path(scratch) / "pass", screen)
        return dict(outcome.done.value) if outcome.done is not None else {}

    def predict(self, call: PassCall, screen: Display) -> Any:  # Any: see `Trainer.predict`
        """The model's outputs for all rows, in the structure that it has, or the dataset; raises what `fit` raises."""
        check_output(call.output)
        with tempfile.TemporaryDirectory(prefix="heliostat-") as scratch:
            folder = Path(scratch) / "pass"
            self._pass("predict", call, folder, screen)
            if not call.output:
                return unpack_values((folder / PREDICTIONS).read_bytes())
            if not is_uri(call.output):
                Path(call.output).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(folder / PREDICTIONS, call.output)
        return open_dataset(call.output)

    def _pass(self, method: Method, call: PassCall, folder: Path, screen: Display) -> Outcome:
        """Have a pass made, and bring its files into a folder. Ctrl-C ends it: there is nothing to go on with."""
        if is_plan_wanted():
            self._plan(method, call, screen)
            sys.exit(0)
        with self._packing():
            self._head.check()
            rows = _rows_of(call, folder.with_name("data"))
            handle = self._sender.run_pass(method, call, rows[DATA], folder, self._end, screen)
        try:
            handle, outcome = self._followed(handle, folder, screen)
        except KeyboardInterrupt:
            with contextlib.suppress(ClusterError):
                self._head.stop(handle.submission_id)
            raise KeyboardInterrupt from None
        self._leftovers.append(Leftover(job=handle.submission_id, there=handle.runs, path=None))
        self._brought(handle, outcome, folder, screen)
        return outcome

    # -- what both have -----------------------------------------------------------------------------------------------

    def _followed(self, handle: Handle, path: Path, screen: Display) -> tuple[Handle, Outcome]:
        """Show the job until it has ended; the handle, with what it has told."""
        held = [handle]

        def note(new: Handle) -> None:
            held[0] = new
            new.write_news(path)

        with detaching(handle, path):
            outcome = follow(self._head, handle, screen, note)
        never_begun = {name for name, files in outcome.files.items() if not files.link}
        if never_begun & set(held[0].runs):
            note(replace(held[0], runs=tuple(each for each in held[0].runs if each not in never_begun)))
        return held[0], outcome

    def _brought(self, handle: Handle, outcome: Outcome, path: Path, screen: Display) -> None:
        """Bring here what came out; raises the error of a call that has failed."""
        has_failed, lacks = outcome.failed is not None or outcome.state != "SUCCEEDED", ""
        if handle.runs:
            try:
                with detaching(handle, path):
                    told = Told(folders=dict(outcome.folders), files=dict(outcome.files))
                    fetch(self._head, handle, path, screen, told)
            except (TrainerError, ClusterError) as error:
                lacks = f"Stage of the call: fetch. 'heliostat fetch {path}' tries it again"
                if not has_failed:
                    error.add_note(f"{lacks}; so does the same command.")
                    raise
                lacks += f": {error}"
        if not has_failed:
            if outcome.done is None and not handle.runs:
                raise self._untold(handle)
            self._sender.arrived()
            return
        failure = self._failure(handle, outcome, path)
        if lacks:
            failure.add_note(lacks)
        show_errors_shortly()
        raise failure

    def _untold(self, handle: Handle) -> CallError:
        return CallError(
            f"The job {handle.submission_id} has succeeded, but its log, which tells what came of it, cannot be read "
            "to its end: the machine of its driver is gone, or the log was deleted. Make the call again.",
            self._head.address,
            "fetch",
        )

    def _failure(self, handle: Handle, outcome: Outcome, path: Path) -> CallError:
        if outcome.failed is not None:
            return error_of(outcome.failed, self._head.address, dict.fromkeys(handle.runs[:1], path))
        return CallError(
            f"The job {handle.submission_id} ended without a word ({outcome.state.lower()}, status "
            f"{outcome.exit_status}): its driver was killed, by hand or by the system when memory ran out, or its "
            f"machine was lost. The same command goes on from the last checkpoint. Ray says: {outcome.message}",
            self._head.address,
            "train",
        )

    @contextlib.contextmanager
    def _packing(self) -> Iterator[None]:
        """Errors of the block say that the call did not leave this machine."""
        try:
            yield
        except (TrainerError, ClusterError, DatasetError) as error:
            error.add_note(f"(on this machine, for the cluster at {self._head.address}; stage of the call: pack)")
            raise

    # -- the rest of a trainer ----------------------------------------------------------------------------------------

    def resize(self, workers: int) -> None:
        """Not from here: raises ConfigurationError."""
        raise ConfigurationError(
            f"resize({workers}): the workers of {self._head.address} are started by each call anew. Give workers= and "
            "max_workers= to another Trainer with the same run_dir; results do not depend on them."
        )

    def measure_links(self) -> tuple[PairBandwidth, ...]:
        """Not from here: raises ConfigurationError."""
        raise ConfigurationError(
            f"No worker of {self._head.address} runs between two calls, so their links are not measured from here: "
            f"heliostat doctor --address {self._head.address}"
        )

    @property
    def hosts(self) -> dict[int, str]:
        """No worker is up between two calls."""
        return {}

    def close(self) -> None:
        """Delete from the cluster what was brought here; what stays there is said."""
        gone, self._leftovers, end = self._leftovers, [], self._end
        if not any(each.there for each in gone) and not self._sender.fills_home:
            return
        with contextlib.closing(make_display("auto")) as screen:
            if end is not None and not end.finished:  # it may need the runs before it
                screen.say(f"the run is not finished, and stays on the cluster: {end.there or self._sender.home}")
                return
            if why := not_removed(self._head, self._sender.home, gone):
                paths = ", ".join([path for each in gone for path in each.there])
                screen.say(f"folders stay on the cluster ({paths or self._sender.home}): {why}")
                return
        for each in gone:
            if each.path is not None:
                with contextlib.suppress(TrainerError):
                    replace(Handle.read(each.path), runs=()).write(each.path)
        self._sender.removed()
        self._end = None if end is None else replace(end, there="")


def _rows_of(call: FitCall | PassCall, folder: Path, *, began: bool = False) -> dict[str, Rows]:
    """The data of a call by what they are for; see `rows_of`."""
    if not isinstance(call, FitCall):
        return {DATA: rows_of(call.data, "rows", call.wanted.columns, folder, taken=taken_by_pass(call.wanted))}
    wanted = call.wanted
    rows = {DATA: rows_of(call.data, "train", wanted.columns, folder, taken=taken_by_fit(wanted), began=began)}
    if (valid := call.validation_data) is not None:
        columns, taken = wanted.validation_columns, taken_by_pass(wanted.validation_pass)
        rows[VALIDATION] = rows_of(valid, "valid", columns, folder, taken=taken, began=began)
    return rows
