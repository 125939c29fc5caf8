"""The hosted object of a worker: builds the model, and runs the tasks fit, describe, evaluate and predict."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heliostat.cluster import instruments
from heliostat.cluster.disk.reach import Reach
from heliostat.cluster.group.liveness import Activity
from heliostat.cluster.group.member import Member
from heliostat.cluster.group.worker_process import host_name
from heliostat.data import Dataset

from ..checkpoints.manifest import FinalStateWritten
from ..checkpoints.place import shown_place
from ..checkpoints.snapshot import make_snapshot
from ..checkpoints.store import CheckpointStore
from ..columns import sample_rows
from ..config import LoopName
from ..engine.evaluate import Evaluator
from ..engine.memory import memory_parts
from ..engine.metric_rules import note_on_unlisted
from ..engine.model import BuiltModel
from ..engine.private_models import in_list_order
from ..engine.runtime import Runtime, set_up
from ..engine.state import state_sha256
from ..engine.times import StartTimes
from ..events import CheckpointNotMade, FilesLeftOut
from ..jobs import Final, FitJob, FitReport, PassJob, model_name
from ..pass_messages import PassReport, PassStart, Shard, ShardResult
from ..shipping import UserCode, unship
from ..trainer_config import TrainerConfig
from . import custom, fit, train_on_batch
from .callback_files import CallbackFiles
from .callback_hooks import check_callbacks
from .callback_state import notes_on_lost_state
from .entering import announce, join_pass, join_run
from .held_model import HeldModel
from .model_file import kind_of, write_model
from .pass_told import PassTold
from .places import fit_here, pass_here, reach_of
from .predict import Predictor
from .saver import reason_of, saving_told, written
from .session import Session
from .step_functions import open_pass, test_step
from .tracing import Tracing

# The three ways to train, by name.
LOOPS: dict[LoopName, Callable[[Session], None]] = {
    "fit": fit.run,
    "train_on_batch": train_on_batch.run,
    "custom": custom.run,
}


def make_worker(settings: TrainerConfig, slot: int, imports_s: float) -> Worker:
    """Set up TensorFlow in this process, and make a worker.

    Args:
        settings: the trainer's, with `replicas_per_worker` as a number.
        slot: which share of the process this worker uses, where workers are threads of one.
        imports_s: how long it took to load TensorFlow.

    Raises:
        RuntimeSetupError: TensorFlow runs with other settings, or there are too few devices.
    """
    times, replicas = StartTimes({"imports": imports_s}), settings.replicas
    with times.part("set_up"):
        runtime = set_up(
            replicas=replicas,
            threads=settings.threads,
            device=settings.device,
            deterministic=settings.deterministic,
            first_device=slot * replicas if settings.local else 0,
            num_devices=replicas * settings.max_size if settings.local else replicas,
            owns_process=not settings.local,
        )
    return Worker(runtime, times)


def _checked(dataset: Dataset) -> Dataset:
    """The dataset, which must be readable on this host as well."""
    dataset.check()
    return dataset


@dataclass(slots=True)
class Worker:
    """One worker: one `MirroredStrategy`, one model, kept between tasks."""

    runtime: Runtime
    _times: StartTimes = field(default_factory=StartTimes)
    _model: HeldModel = field(init=False)

    def __post_init__(self) -> None:
        self._model = HeldModel(self.runtime)

    def fit(self, job: FitJob, member: Member) -> object:
        """Train a whole run; the worker that delivers returns a `FitReport`; None when it pauses."""
        reach = reach_of(job.disk)
        job = fit_here(job, reach)
        wanted = job.wanted
        times, self._times = self._times, StartTimes()
        with times.part("open"):
            dataset = _checked(job.data)
        with times.part("build"):
            code: UserCode = unship(wanted.code, "callbacks and steps")
            check_callbacks(code.callbacks)
            built, lacking = self._model.for_run(job, dataset, code.build_model)
            told = (kind_of(built.model).note, note_on_unlisted(built.model))
        with contextlib.ExitStack() as stack:
            stack.enter_context(WORKING_DIRECTORY.kept())
            files = stack.enter_context(_callback_files(job, reach, member))
            session = Session(Tracing(built, job, dataset, code, member, stack), code, files, times)
            notes = tuple(filter(None, told))
            notes += () if job.settings.local else notes_on_lost_state(code.callbacks)
            announce(built, member, notes, memory_parts(built, job.rows_per_microbatch))
            member.take_state = session.snapshot
            member.deliver = lambda at_end: _paused(session, files, member)
            session.steps.early()
            with times.part("join"):
                join_run(session, built, member, lacking, reach)
            session.start()
            with instruments.recording(session.recorder):
                LOOPS[wanted.loop](session)
            session.finish()
            sha256 = state_sha256(built)
            member.request(Final(sha256=sha256))

            def deliver(at_end: bool) -> FitReport:
                _bring(files, job, member)
                return self._fit_report(job, built, member, sha256, reach)

            member.deliver = deliver
            self._model.key = job.key
            return member.end()

    def describe(self, job: FitJob | PassJob, member: Member) -> object:
        """Build the model of a task and tell the driver what it is; no worker returns anything."""
        if isinstance(job, FitJob):
            job = fit_here(job, reach_of(job.disk))
            built, _ = self._model.for_run(job, _checked(job.data))
        else:
            job = pass_here(job, reach_of(job.disk))
            built, _ = self._model.for_pass(job, _checked(job.data))
        rows = job.settings.rows_per_microbatch(job.wanted.global_batch_size)
        announce(built, member, (), memory_parts(built, rows, trains=isinstance(job, FitJob)))
        member.join(digest="", fresh=True)
        return member.end()

    def evaluate(self, job: PassJob, member: Member) -> object:
        """Global metrics of a dataset; the worker that delivers returns a `PassReport`."""
        reach = reach_of(job.disk)
        job = pass_here(job, reach)
        dataset = _checked(job.data)
        built, lacking = self._model.for_pass(job, dataset)
        columns, sample = job.wanted.columns, sample_rows(dataset, job.wanted.columns)
        gradients = self._model.once(
            "evaluate", columns, sample, lambda: test_step(built, columns).trace(built, columns, sample)
        )
        with closing(open_pass(built, gradients, dataset, job.wanted, job.settings)) as microbatches:
            evaluator = Evaluator(microbatches)
            join_pass(built, member, lacking, reach)
            self._model.key = job.model.key
            told = PassTold(member)
            answer = member.request(PassStart(num_microbatches=evaluator.num_microbatches))
            while isinstance(answer, Shard):
                for step in evaluator.start(answer.lo, answer.hi):
                    instruments.fault_point("validation")
                    member.note_activity(Activity.READ)
                    rows = evaluator.read(int(step[0]))
                    member.note_activity(Activity.EVALUATE)
                    told.add(evaluator.step(int(step[0]), rows))
                nodes, num_rows = evaluator.finish()
                found = ShardResult(shard=answer, nodes=nodes, rows=num_rows, nonfinite=evaluator.nonfinite)
                answer = member.request(found)
            _, sums, maxima = answer.vector
            logs = in_list_order(built.model, evaluator.logs(sums, maxima, answer.rows))
            member.deliver = lambda at_end: PassReport(logs=logs, nonfinite=answer.nonfinite)
            return member.end()

    def predict(self, job: PassJob, member: Member) -> object:
        """Predictions of all rows, told to the driver shard by shard."""
        reach = reach_of(job.disk)
        job = pass_here(job, reach)
        dataset = _checked(job.data)
        built, lacking = self._model.for_pass(job, dataset)
        columns = job.wanted.columns
        rows_at_once = job.settings.rows_per_microbatch(job.wanted.global_batch_size)
        sample = sample_rows(dataset, columns)
        predictor = self._model.once("predict", columns, sample, lambda: Predictor(built, columns, sample))
        join_pass(built, member, lacking, reach)
        self._model.key = job.model.key
        # Cut alike for every number of workers: the same rows at once give the same bits.
        num_rows = job.wanted.num_rows(len(dataset))
        told = PassTold(member)
        answer = member.request(PassStart(num_microbatches=-(-num_rows // rows_at_once)))
        while isinstance(answer, Shard):
            member.note_activity(Activity.PREDICT)
            instruments.fault_point("validation")
            start, stop = (min(cut * rows_at_once, num_rows) for cut in (answer.lo, answer.hi))
            outputs = predictor.rows(dataset, start, stop, rows_at_once, told.add)
            answer = member.request(ShardResult(shard=answer, outputs=outputs, rows=stop - start))
        member.deliver = lambda at_end: PassReport(logs={})
        return member.end()

    def _fit_report(
        self, job: FitJob, built: BuiltModel, member: Member, sha256: dict[str, str], reach: Reach
    ) -> FitReport:
        """What the run came to, kept where later passes and fits find it.

        Args:
            job: the run.
            built: its model.
            member: this worker's membership.
            sha256: hashes of the state in which it ended.
            reach: how this machine reaches the driver's disk.
        """
        if job.final_dir is not None:
            with saving_told(member, shown_place(job.final_dir)):
                _keep_end(job.final_dir, job, built, member)
        name, not_written = model_name(job.first_generation + member.generation, kind_of(built.model).name), None
        with saving_told(member, job.run_dir):
            try:
                write_model(built.model, Path(job.run_dir, name), reach)
            except OSError as error:  # the driver raises it: the run is over, and no other worker could do better
                not_written = error
        return FitReport(sha256=sha256, model_file=name, not_written=not_written)


def _keep_end(place: str, job: FitJob, built: BuiltModel, member: Member) -> None:
    """Write the state in which the run has ended to a place; where that cannot be, the driver is told."""
    extra: dict[str, Any] = {"new": True, "callbacks": []}  # whoever begins with it begins a run
    try:
        store = CheckpointStore(place)  # which looks there
        end = make_snapshot(built, epoch=0, step=0, begun=False, totals={}, extra=extra)
    except Exception as error:  # as for a checkpoint, no reason is one to lose the run; the model is still to be saved
        member.send(CheckpointNotMade(name="of the run's end", reason=reason_of(error), is_final=True))
        return
    manifest = written(store, end, job.first_generation, member, is_final=True)
    if manifest is not None:
        member.send(FinalStateWritten(manifest=manifest))


def _paused(session: Session, files: CallbackFiles, member: Member) -> None:
    member.note_activity(Activity.SAVE)
    session.saver.save_now(session.position.of_run)
    session.tell_sample()
    _bring(files, session.job, member, session.saved_files)


def _bring(files: CallbackFiles, job: FitJob, member: Member, version: int | None = None) -> None:
    """Let what callbacks have written count, on the worker that delivers; see `CallbackFiles.finish`."""
    with saving_told(member, job.run_dir):
        files.finish(job.first_generation + member.generation, version)


@contextlib.contextmanager
def _callback_files(job: FitJob, reach: Reach, member: Member) -> Iterator[CallbackFiles]:
    """Where callbacks work, during a task."""

    def tell(what: str, reason: str) -> None:
        member.send(FilesLeftOut(host=host_name(), what=what, reason=reason))

    files = CallbackFiles(job.run_dir, reach, tell)
    with files.kept(lambda: job.first_generation + member.generation):
        yield files


class _WorkingDirectory:
    """The working directory of this process: the chief's callbacks work in the run folder.

    It is where it was when the last worker of this process is done: a worker that begins while another one's callbacks
    are in the run folder must not take that for the place to go back to.
    """

    def __init__(self) -> None:
        self._lock, self._num_inside, self._before = threading.Lock(), 0, ""

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Go back after the block, and after those of other threads."""
        with self._lock:
            if not self._num_inside:
                self._before = os.getcwd()
            self._num_inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_inside -= 1
                if not self._num_inside:
                    os.chdir(self._before)


WORKING_DIRECTORY = _WorkingDirectory()
