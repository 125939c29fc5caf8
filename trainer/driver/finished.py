"""A run that is finished: its folder answers, unless it is another run that is wanted.

What decides is known without a worker as long as the code of `build_model` is what it was. Where it has changed, the
model is built once and compared. So nothing starts for a script that is run again, and no old result passes for that
of another model. Callbacks and custom steps cannot be compared but by their code: where that has changed it is said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from heliostat.cluster.group.driver_loop import TaskLoop
from heliostat.cluster.group.messages import TaskEvent
from heliostat.cluster.group.task import Task

from ..code_digests import changed_code
from ..engine.times import StartTimes
from ..errors.texts import listed
from ..jobs import FitJob, PassJob, Ready
from .coordinator import Coordinator
from .display import Display
from .failures import explained
from .plan import Run, roots_of
from .result import Result, stored_result
from .run_folder import RunFolder, read_epochs
from .run_record import check_run
from .workers import Workers

MAX_CHANGED = 6  # names of changed code in a line


def finished_result(run: Run, job: FitJob, folder: RunFolder, workers: Workers, screen: Display) -> Result:
    """The result in the folder of a finished run.

    Args:
        run: what is wanted; `job` is what its workers would be told.
        job: see `run`.
        folder: holds the run.
        workers: of the trainer; started if the model has to be built.
        screen: what the user sees.

    Raises:
        ConfigurationError: it holds another run.
    """
    check_run(folder.record.get("identity", {}), job, folder.path)
    if folder.record.get("code") != run.code:
        workers.start(screen, StartTimes(), job.settings.threads)
        _compare_model(job, folder, workers, screen)
        say_changed_code(run, folder, screen)
    say_changed_callbacks(job, folder, screen, "This is the result with those of then")
    screen.say(f"the run in {folder.path} is finished; this is its result")
    return stored_result(folder.path, folder.record, read_epochs(folder.path), job)


def describe(job: FitJob | PassJob, workers: Workers, hear: Callable[[Ready], None]) -> None:
    """Let workers build the model of a task, and compute nothing.

    Args:
        job: the task.
        workers: of the trainer; they run.
        hear: called with what each worker tells; what it raises is raised here.

    Raises:
        what `explained` raises.
    """
    state = job.begins.state if isinstance(job, FitJob) else job.model
    job = replace(job, disk=workers.serve(roots_of([job.data], state)))
    coordinator = Coordinator(job.settings.mixed_hardware)
    loop = TaskLoop(workers.group, Task(method="describe", job=job))
    with explained(workers, None):
        for event in loop.events():
            if isinstance(event, TaskEvent) and isinstance(event.content, Ready):
                hear(event.content)
            loop.answer(coordinator.take(event))


def _compare_model(job: FitJob, folder: RunFolder, workers: Workers, screen: Display) -> None:
    """Build the model of a finished run again; raises ConfigurationError if it is another one."""
    before, told = folder.model_record(), list[Ready]()

    def compare(ready: Ready) -> None:
        before.check(ready.model, ready.settings, folder.path, ready.platform.get("keras", ""))
        told.append(ready)

    describe(job, workers, compare)
    if line := before.not_compared(told[-1].settings, told[-1].platform.get("keras", "")):
        screen.say(line)


def say_changed_code(run: Run, folder: RunFolder, screen: Display) -> None:
    """Say which code has changed since a run began: code of the same settings may still make another model."""
    changed = changed_code(folder.record.get("code", run.code), run.code)
    if changed:
        screen.say(
            f"warning: code that build_model uses has changed since the run in {folder.path} began, although the "
            f"settings of its model have not: {', '.join(changed)}. For a run with the new code give another run_dir."
        )


def say_changed_callbacks(
    job: FitJob, folder: RunFolder, screen: Display, follows: str = "It goes on with what is given now"
) -> None:
    """Say which callbacks, settings of callbacks and custom steps are not those with which a run began.

    Args:
        job: what is wanted now.
        folder: holds the run.
        screen: what the user sees.
        follows: what becomes of it.
    """
    now = job.wanted.code_digests
    changed = changed_code(folder.record.get("fit_code", now), now)
    if changed:
        screen.say(
            f"warning: callbacks or steps are not those with which the run in {folder.path} began: "
            f"{listed(changed, MAX_CHANGED)}. {follows}; for all of it with what is given now give another "
            "run_dir."
        )
