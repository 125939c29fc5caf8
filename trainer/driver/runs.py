"""The runs of one trainer, made by this process: fits one after another, and passes with the model that they leave."""

from __future__ import annotations

import contextlib
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from heliostat.cluster.links import PairBandwidth
from heliostat.data import Dataset, DatasetWriter

from ..beginning import Beginning
from ..config import FitConfig, PassConfig
from ..engine.times import StartTimes
from ..environment import Command, begin_fit, is_plan_wanted, quick_command
from ..errors import ConfigurationError, SessionError
from ..pass_messages import PassReport
from ..shortened import a_little_of_a_pass, first_steps
from ..trainer_config import TrainerConfig
from .audience import Audience
from .comparing import compare_with_plain
from .coordinator import Coordinator
from .dialogue import Dialogue
from .display import Display
from .inputs import Data
from .passes import plan_fit, plan_pass, replay, run_pass
from .plan import Program, Run
from .predictions import joined_outputs, write_outputs
from .quick import fit_a_little, pass_noted
from .result import Result
from .run import fit
from .run_paths import job_line, new_run_path, numbered_run_path
from .streams import is_stream
from .trained import TrainedModel
from .workers import Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class FitCall:
    """What one call of `fit` asks for.

    Attributes:
        wanted: its settings.
        data: what to train on, as the caller gave it; likewise `validation_data`.
        anew: whether it begins with a new model, whatever was trained before.
        code: hashes of the user's code that makes the model.
        undecided: "inputs", "targets": columns that the dataset is to tell, and could not be opened for.
        has_callbacks: whether there are any.
    """

    wanted: FitConfig
    data: Data
    validation_data: Data | None
    anew: bool
    code: Mapping[str, str]
    undecided: tuple[str, ...] = ()
    has_callbacks: bool = False

    def __post_init__(self) -> None:
        if is_stream(self.data):  # as Keras: a stream gives its rows in the order that they are to have
            object.__setattr__(self, "wanted", replace(self.wanted, shuffle=False))

    @property
    def begins_with(self) -> str | None:
        """What names the initial weights that were given; None where none were."""
        return (self.wanted.initial_weights_digest or "new") if self.anew else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PassCall:
    """What one call of `evaluate` or `predict` asks for.

    Attributes:
        wanted: its settings.
        data: the rows, as the caller gave them.
        undecided: as in `FitCall`.
        output: where predictions are written as a dataset, a path or URI; empty where they are returned.
    """

    wanted: PassConfig
    data: Data
    undecided: tuple[str, ...] = ()
    output: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a fit is to be.

    Attributes:
        path: its run folder.
        is_new: whether that is to be a new one, which nobody else uses.
        again: whether the fit before is tried again; `left` whether that one is left behind unfinished.
    """

    path: Path
    is_new: bool
    again: bool
    left: bool


class Places:
    """Which folder each fit of a trainer has.

    Args:
        name: of the model.
        run_dir: the folder that the user has named; None for a new one each time.
    """

    def __init__(self, name: str, run_dir: Path | None) -> None:
        self._name, self._run_dir = name, run_dir
        self._num_fits = 0  # those that are over, finished or left for another
        self._began_with: str | None = None  # the initial weights given for the last fit that began

    def next(
        self, call: FitCall, number: int, command: Command | None, before: Path | None, *, finished: bool
    ) -> Place:
        """Where a fit is to be.

        Args:
            call: what is asked for.
            number: which fit of this process it is, counted from 1.
            command: what a command of `heliostat` wants of it, or None.
            before: the folder of the fit before; None without.
            finished: whether that one is.
        """
        unfinished, in_new = before is not None and not finished, self._run_dir is None and command is None
        may_be = call.begins_with in (None, self._began_with) and (call.wanted.resume == "auto" or not in_new)
        if before is not None and unfinished and may_be:
            return Place(path=before, is_new=False, again=True, left=False)
        path = self._path(number, command, left=unfinished)
        return Place(path=path, is_new=in_new, again=False, left=unfinished)

    def began(self, call: FitCall, place: Place) -> None:
        """The fit has begun there, and is what the trainer's model comes from."""
        self._num_fits += place.left
        self._began_with = self._began_with if place.again else call.begins_with

    def finished(self) -> None:
        """The fit has come to its end."""
        self._num_fits += 1

    def _path(self, number: int, command: Command | None, *, left: bool) -> Path:
        given = self._run_dir
        if command is not None:
            return numbered_run_path(command.run_dir, 1 if command.fit is not None else number)
        return new_run_path(self._name) if given is None else numbered_run_path(given, self._num_fits + 1 + left)


class Runs:
    """The runs of one trainer on the workers that this process starts.

    Attributes:
        workers: its workers.
        model: what they have made of the model.

    Args:
        settings: the trainer's.
        name: of the model.
        run_dir: the folder that the user has named; None for a new one each time.
        runtime_env: what Ray is to set up for the workers' processes.
        audience: who watches fits besides the screen; it is closed with these runs.

    Raises:
        ConfigurationError: the address of the cluster is none, or `runtime_env` has no use.
    """

    def __init__(
        self,
        settings: TrainerConfig,
        name: str,
        run_dir: Path | None,
        runtime_env: Mapping[str, Any] | None = None,
        audience: Audience | None = None,
    ) -> None:
        self._settings, self._audience = settings, audience or Audience()
        self.workers, self.model = Workers(settings, runtime_env), TrainedModel()
        self._places = Places(name, run_dir)
        self._id, self._num_calls = uuid.uuid4().hex, 0
        self._busy = threading.Lock()

    def fit(
        self,
        call: FitCall,
        screen: Display,
        program: Program | None = None,
        dialogue: Dialogue | None = None,
    ) -> Result | None:
        """Make a run, or go on with it; see `run.fit`.

        Args:
            call: what is asked for.
            screen: what the user sees.
            program: what asks for it; None for this process.
            dialogue: with the caller of a session.

        Returns:
            The result; None after a plan, a replay or a trace (see `environment`).
        """
        with self._alone("fit"):
            return self._fit(call, screen, program, dialogue)

    def _fit(self, call: FitCall, screen: Display, program: Program | None, dialogue: Dialogue | None) -> Result | None:
        wanted, data = call.wanted, (call.data, call.validation_data)
        self.workers.expect(wanted.code, wanted.prepare, *(each for each in data if isinstance(each, Dataset)))
        number, command = begin_fit()
        end = self.model.end
        before, finished = (None, False) if end is None else (end.path, end.finished)
        place = self._places.next(call, number, command, before, finished=finished)
        self._num_calls += 1
        verify = None if command is None else command.verify
        if verify is not None and dialogue is not None:
            raise ConfigurationError(
                "The script trains in a session, whose steps are its own: heliostat verify-run looks at fit. Prove the "
                "same model with fit(loop='train_on_batch'), which computes the same bits."
            )
        run = Run(
            settings=self._settings,
            wanted=wanted if verify is None else first_steps(wanted, verify),
            data=call.data,
            validation_data=call.validation_data,
            path=place.path,
            path_is_new=place.is_new,
            begins=Beginning() if end is None or call.anew else end.begins,
            program=program or Program.here(number),
            key=f"{self._id}.{self._num_calls}",
            model=self.model,
            code=call.code,
            command=command,
            dialogue=dialogue,
        )
        try:
            if program is None and (line := job_line(run.path)):
                screen.say(line)
            if is_plan_wanted():
                plan_fit(run, self.workers, screen)
                return None
            if command is not None and command.replay is not None:
                replay(run, screen)
                return None
            if verify is not None and verify.plain:
                compare_with_plain(run, screen)
                return None
            result = self._made(run, screen)
        finally:
            if self.model.end is not end:  # it has begun
                self._places.began(call, place)
        if result is not None:
            self._places.finished()
        return result if verify is None else None

    def _made(self, run: Run, screen: Display) -> Result | None:
        """Make a run, as far as a command wants it; trackers are told of whole ones."""
        command = run.command
        if command is not None and command.verify is not None:
            return fit(run, self.workers, screen)
        if command is not None and command.quick is not None and run.dialogue is None:
            return fit_a_little(run, command.quick, self.workers, screen)
        with self._audience.watching(screen) as watched:
            return fit(run, self.workers, watched)

    @contextlib.contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        """While the block runs, others are refused; raises SessionError where the workers are at work already."""
        if not self._busy.acquire(blocking=False):
            raise SessionError.busy(what)
        try:
            yield
        finally:
            self._busy.release()

    def evaluate(self, call: PassCall, screen: Display) -> dict[str, Any]:
        """Metrics of the model over all rows; see `run_pass`."""
        return dict(self._pass("evaluate", call, screen)[0].logs)

    def predict(self, call: PassCall, screen: Display) -> Any:  # Any: see `Trainer.predict`
        """The model's outputs for all rows, in the structure that it has, or the dataset of them; see `run_pass`."""
        if not call.output or is_plan_wanted():
            return joined_outputs(self._pass("predict", call, screen)[1].outputs)
        with DatasetWriter(call.output) as writer:
            self._pass("predict", call, screen, lambda outputs: write_outputs(writer, outputs))
        return writer.dataset

    def _pass(
        self,
        method: Literal["evaluate", "predict"],
        call: PassCall,
        screen: Display,
        take: Callable[[list[object]], None] | None = None,
    ) -> tuple[PassReport, Coordinator]:
        command, wanted = quick_command(), call.wanted
        if method == "evaluate" and command is not None and command.quick is not None:
            wanted = a_little_of_a_pass(wanted, command.quick)  # a script counts on all of its predictions
        task = method, self._settings, wanted, call.data, self.workers, screen, self.model
        if is_plan_wanted():
            plan_pass(*task)
            sys.exit(0)
        with self._alone(method), pass_noted(method, command):
            return run_pass(*task, take)

    def resize(self, workers: int) -> None:
        """Change how many workers there shall be, now or once they are started; from any thread.

        Raises:
            ConfigurationError: less than one, or more than `max_workers`.
        """
        if not 1 <= workers <= self._settings.max_size or self._settings.workers == 0:
            raise ConfigurationError(
                f"resize({workers}): this trainer can have 1 to {self._settings.max_size} workers. Give max_workers= "
                "when you make it, so that there are enough microbatches for more."
            )
        self.workers.resize(workers)

    def measure_links(self) -> tuple[PairBandwidth, ...]:
        """Bandwidth and latency between every two workers."""
        self.workers.start(Display(), StartTimes())
        if len(self.workers.infos) < 2:
            return ()
        try:
            return self.workers.group.measure_links()
        except BaseException:
            self.workers.close()  # some may still wait for each other
            raise

    @property
    def hosts(self) -> dict[int, str]:
        """The machine of every worker that is up, by the worker's number."""
        return self.workers.hosts

    def close(self) -> None:
        """Stop the workers, and the Ray that was started for them; there is no audience any more."""
        try:
            self.workers.close()
        finally:
            self._audience.close()
