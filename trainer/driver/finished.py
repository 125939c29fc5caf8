"""A run that is finished: its folder answers, unless it is another run that is wanted.

What decides is known without a worker as long as the code of `build_model` is what it was. Where it has changed, the
model is built once and compared. So nothing starts for a script that is run again, and no old result passes for that
of another model. Callbacks and custom steps cannot be compared but by their code: where that has changed it is said.
"""

from __future__ import annotations

from dataclasses import replace

from heliostat.cluster.group.driver_loop import Task, TaskLoop
from heliostat.cluster.group.messages import TaskEvent

from ..code_digests import changed_code
from ..engine.times import StartTimes
from ..jobs import FitJob, Ready
from .coordinator import Coordinator
from .display import Display
from .failures import explained
from .plan import Run, check_run, roots_of
from .result import Result, stored_result
from .run_folder import RunFolder, read_epochs
from .workers import Workers

_MAX_NAMES = 6  # of changed code, in a line


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
    return stored_result(folder.path, folder.record, read_epochs(folder.path))


def _compare_model(job: FitJob, folder: RunFolder, workers: Workers, screen: Display) -> None:
    """Build the model of a finished run again; raises ConfigurationError if it is another one."""
    before, line = folder.model_record(), ""
    coordinator = Coordinator(job.settings.mixed_hardware)
    job = replace(job, disk=workers.serve(roots_of([job.data], job.begins.state)))
    loop = TaskLoop(workers.group, Task(method="describe", job=job))
    with explained(workers, None):
        for event in loop.events():
            if isinstance(event, TaskEvent) and isinstance(event.content, Ready):
                ready, keras = event.content, event.content.platform.get("keras", "")
                before.check(ready.model, ready.settings, folder.path, keras)
                line = before.not_compared(ready.settings, keras)
            loop.answer(coordinator.take(event))
    if line:
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
        more = f" and {len(changed) - _MAX_NAMES} more" if len(changed) > _MAX_NAMES else ""
        screen.say(
            f"warning: callbacks or steps are not those with which the run in {folder.path} began: "
            f"{', '.join(changed[:_MAX_NAMES])}{more}. {follows}; for all of it with what is given now give another "
            "run_dir."
        )
