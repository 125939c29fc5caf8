"""Tasks that leave a run as it is: evaluating, predicting, planning, and computing one step of a run again."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from heliostat.cluster.group.driver_loop import TaskLoop
from heliostat.cluster.group.messages import TaskEvent
from heliostat.cluster.group.task import Task, WorkersSeen
from heliostat.cluster.group.worker_process import host_name
from heliostat.data import Dataset

from ..beginning import ModelState
from ..checkpoints.store import CheckpointStore, InitialCheckpoint
from ..config import PassConfig
from ..engine.times import StartTimes
from ..errors import ConfigurationError, StateNotKeptError
from ..jobs import FitJob, PassJob, Ready
from ..pass_messages import PassReport
from ..single_steps import ReplayReport
from ..trainer_config import TrainerConfig
from .coordinator import Coordinator
from .display import Display
from .doing import Doing, doing_of
from .event_lines import nonfinite_line
from .failures import explained
from .finished import describe, finished_result
from .inputs import Data, open_input
from .plan import Run, roots_of, stored_microbatches, stored_share, stored_threads
from .plan_lines import model_line, pass_lines, plan_lines
from .run_folder import REPLAY_FILE, RunFolder
from .run_record import check_ready, check_run
from .stream_files import taken_by_pass
from .trained import TrainedModel
from .workers import Workers

_PASSES = {"evaluate": "evaluation", "predict": "prediction"}
_PLAN_ENDS = "this was a plan: nothing was computed, and the script ends here"


def run_pass(
    method: Literal["evaluate", "predict"],
    settings: TrainerConfig,
    wanted: PassConfig,
    data: Data,
    workers: Workers,
    screen: Display,
    model: TrainedModel,
    take: Callable[[list[object]], None] | None = None,
) -> tuple[PassReport, Coordinator]:
    """A pass over a dataset without training.

    Args:
        method: what for.
        settings: the trainer's.
        wanted: those of the pass.
        data: the rows, as the caller gave them.
        workers: of the trainer; started unless they run, stopped if the pass fails.
        screen: what the user sees.
        model: the trainer's: the state that is to answer.
        take: gets predictions as they come, in the order of the rows, which then are not kept.

    Returns:
        What the worker that ended the pass delivered, and what all have told.

    Raises:
        TrainingFailedError: a worker raised, or workers were lost in a way that cannot be made good.
        TrainerError, DatasetError: a mistake in arguments, data or model.
        StateNotKeptError: the state that is to answer is nowhere any more.
    """
    with _job_of_pass(settings, wanted, data, workers, screen, model) as job:
        size = None if take is None else job.settings.total_microbatches
        coordinator = Coordinator(settings.mixed_hardware, shard_size=size)
        loop = TaskLoop(workers.group, Task(method=method, job=job))
        what, total = _PASSES[method], wanted.num_rows(len(job.data))
        with explained(workers, None):
            for event in loop.events():
                loop.answer(coordinator.take(event))
                if isinstance(event, WorkersSeen):
                    rows = coordinator.rows_passed
                    passed = None if rows is None else Doing(what=what, done=min(rows, total), total=total, unit="rows")
                    screen.doing(doing_of(event.heartbeats, workers.hosts, f"{what}: {coordinator.stage}", passed))
                if take is not None:
                    take(coordinator.taken_outputs())
        screen.doing(None)
        report: PassReport = next(iter(loop.results.values()))
        if found := report.nonfinite.num_rows:
            screen.say(nonfinite_line(job.data.name, found, report.nonfinite.first))
    return report, coordinator


@contextlib.contextmanager
def _job_of_pass(
    settings: TrainerConfig, wanted: PassConfig, data: Data, workers: Workers, screen: Display, model: TrainedModel
) -> Iterator[PassJob]:
    """What workers, which run, are told of a pass; arrays lie on the disk in the block. Arguments as for `run_pass`."""
    end = model.end
    state = ModelState() if end is None else end.state
    if state.key and not state.name and not workers.infos:
        raise StateNotKeptError("it was not kept")
    with tempfile.TemporaryDirectory(prefix="heliostat-") as scratch:
        dataset = open_input(data, "rows", wanted.columns, Path(scratch), taken=taken_by_pass(wanted))
        workers.start(screen, StartTimes(), None if end is None else end.threads)
        yield PassJob(
            settings=settings.for_run(workers.share, None if end is None else end.num_microbatches),
            wanted=wanted,
            data=dataset,
            model=state,
            disk=workers.serve(roots_of([dataset], state)),
        )


def plan_pass(
    method: Literal["evaluate", "predict"],
    settings: TrainerConfig,
    wanted: PassConfig,
    data: Data,
    workers: Workers,
    screen: Display,
    model: TrainedModel,
) -> None:
    """Say how a pass would be computed; its workers only build the model. Arguments, errors: those of `run_pass`."""
    where = "" if isinstance(data, (str, Path, Dataset)) else "what the script passes"
    with _job_of_pass(settings, wanted, data, workers, screen, model) as job:
        _say_plan(pass_lines(method, job, workers.hosts, host_name(), where), job, workers, screen)


def plan_fit(run: Run, workers: Workers, screen: Display) -> None:
    """Say how a run would be computed: its workers only build the model, and no run folder is made.

    Args:
        run: what is wanted.
        workers: of the trainer; started, and stopped.
        screen: what the user sees.

    Raises:
        what `run.fit` raises before a run begins.
    """
    with tempfile.TemporaryDirectory(prefix="heliostat-") as scratch:
        run, folder = run.opened(), run.look_at_folder()
        store, final = run.open_store(folder), run.final_store(folder)
        data = run.open_data(folder, None if folder.began else Path(scratch))
        if folder.is_finished(run.wanted):
            job = run.job(stored_share(run.settings, folder), data, folder, store, final)
            finished_result(run, job, folder, workers, screen)
            screen.say(_PLAN_ENDS)
            return
        workers.start(screen, StartTimes(), run.threads(folder))
        job = run.job(workers.share, data, folder, store, final)
        job = replace(job, disk=workers.serve(roots_of(data, job.begins.state)))
        screen.say(_beginning(run, folder, job, store))
        lines = plan_lines(job, workers.hosts, host_name(), scratch)
        _say_plan(lines, job, workers, screen, lambda ready: _check(ready, folder, job))


def _beginning(run: Run, folder: RunFolder, job: FitJob, store: CheckpointStore | None) -> str:
    """Where a run would begin; raises ConfigurationError if the folder holds another one."""
    if not folder.resumes:
        return f"run folder {folder.path} (it is not made for a plan)"
    shared, manifest = run.shared_store(), None if store is None else store.latest()[0]
    if manifest is None and shared is not None:
        manifest = shared.latest(folder.record.get("identity", {}))[0]
    if manifest is None:
        return f"{folder.path} holds a run without a checkpoint: it would begin again"
    check_run(manifest.identity, job, folder.path)
    where = f"checkpoint {manifest.name}: epoch {manifest.epoch + 1}, step {manifest.step}"
    return f"the run in {folder.path} would go on from {where}"


def _check(ready: Ready, folder: RunFolder, job: FitJob) -> None:
    check_ready(ready, folder.model_record(), folder.record.get("platform", {}), job, folder.path)


def _say_plan(
    lines: Iterable[str],
    job: FitJob | PassJob,
    workers: Workers,
    screen: Display,
    check: Callable[[Ready], None] = lambda _: None,
) -> None:
    """Say the lines, and that of the model, which the workers build for it; then stop them.

    Args:
        lines: what is known without a model.
        job: the task.
        workers: of the trainer; they run.
        screen: what the user sees.
        check: called with what each worker tells; may raise.
    """
    told: list[Ready] = []

    def hear(ready: Ready) -> None:
        check(ready)
        told.append(ready)

    describe(job, workers, hear)
    workers.close()
    for line in [*lines, model_line(told[0], job.settings.replicas)]:
        screen.say(line)
    screen.say(_PLAN_ENDS)


def replay(run: Run, screen: Display) -> None:
    """Compute one step of the run in a folder again, in this process, from the last checkpoint before it.

    Nothing of the run is changed; what was found is written to ``replay.json``.

    Raises:
        ConfigurationError: the run is another one, was computed on other hardware, or never got as far as that step.
    """
    folder = run.open_folder()
    given = run.settings.num_microbatches
    total = given if isinstance(given, int) else stored_microbatches(folder)
    alone = replace(
        run.settings,
        num_microbatches=total,
        threads_per_worker=run.settings.threads_per_worker or stored_threads(folder),
        workers=0,
        in_process=False,
        address=None,
        min_workers=None,
        max_workers=None,
    )
    store, wanted = run.open_store(folder), None if run.command is None else run.command.replay
    if store is None or wanted is None:
        raise ConfigurationError(
            "A run without checkpoints cannot be replayed, since nothing says what its weights were: it was trained "
            "with checkpoint_every=None. Train it again with checkpoints."
        )
    final = run.final_store(folder)
    workers = Workers(alone)
    with contextlib.closing(workers), tempfile.TemporaryDirectory(prefix="heliostat-replay-") as scratch:
        data = run.open_data(folder)
        workers.start(screen, StartTimes())
        job = replace(run, settings=alone).job(workers.share, data, folder, store, final)
        check_run(folder.record.get("identity", {}), job, folder.path)
        start = _checkpoint_before(wanted.step, job, store)
        begins = "the beginning" if start is None else f"checkpoint {start.name}"
        screen.say(f"computing from {begins} up to step {wanted.step}")
        quiet = replace(job, wanted=replace(job.wanted, checkpoint_every=None), run_dir=scratch, final_dir=None)
        model, platform = folder.model_record(), folder.record.get("platform", {})
        coordinator, loop = Coordinator(), TaskLoop(workers.group, Task(method="fit", job=quiet, initial_state=start))
        with explained(workers, None):
            for event in loop.events():
                if isinstance(event, TaskEvent) and isinstance(event.content, Ready):
                    check_ready(event.content, model, platform, job, folder.path)
                loop.answer(coordinator.take(event))
    report = loop.results.get(0)
    if not isinstance(report, ReplayReport):
        raise ConfigurationError(f"The run ended before step {wanted.step}: callbacks stopped it.")
    folder.save(REPLAY_FILE, asdict(report))


def _checkpoint_before(step: int, job: FitJob, store: CheckpointStore) -> InitialCheckpoint | None:
    """The last checkpoint before a step of the run; raises ConfigurationError if the run has no such step."""
    epochs, steps = job.wanted.epochs, job.wanted.num_steps(len(job.data))
    if step >= epochs * steps:
        raise ConfigurationError(
            f"step {step} is beyond the run: {epochs} epochs of {steps} steps have steps 0 to {epochs * steps - 1}."
        )
    found = None
    for name in store.names():
        manifest = store.manifest(name)
        if manifest.epoch * steps + manifest.step <= step:
            found = InitialCheckpoint(location=store.location, name=name)
    return found
