"""The first steps of a run held against plain Keras, in this process: what ``heliostat verify-run`` asks of a script.

In float64 rounding is 1e-16, and whatever else differs shows. So Keras's float type is set to it before the model is
built, whatever the script has set. A model that cannot be computed so (an array of the script's that is float32, an
operation that has no other kernel) is compared in the script's own float type, and that is said.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace

from heliostat.cluster.group.driver_loop import TaskLoop
from heliostat.cluster.group.messages import TaskEvent
from heliostat.cluster.group.task import Task

from ..engine.times import StartTimes
from ..errors import TrainerError
from ..quiet_load import load_tensorflow
from ..step_states import Compared, StepCompared
from .coordinator import Coordinator
from .display import Display
from .failures import explained
from .plan import Run
from .run_folder import COMPARED_FILE, RunFolder
from .workers import Workers

EXACT = "float64"


def compare_with_plain(run: Run, screen: Display) -> None:
    """Train the first steps, each beside plain Keras from the same state; what was found is in ``verify.json``.

    Args:
        run: what is wanted, with its command.
        screen: what the user sees.

    Raises:
        what `run.fit` raises of such a run.
    """
    folder = run.open_folder()
    with folder.held(take_over=False):
        folder.update(state="running")
        try:
            with _computing_in(EXACT):
                found = Compared(steps=_steps(run, folder, screen))
        except TrainerError as error:
            reason = " ".join(str(error).split())
            screen.say(f"in {EXACT} the step cannot be computed; comparing in the script's own float type")
            found = Compared(steps=_steps(run, folder, screen), why_not_exact=reason)
        folder.save(COMPARED_FILE, found.to_json())


@contextlib.contextmanager
def _computing_in(floatx: str) -> Iterator[None]:
    """Inside the block models that are built compute in this float type, unless their layers say otherwise."""
    load_tensorflow()
    import keras

    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(floatx)
    try:
        yield
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(policy)


def _steps(run: Run, folder: RunFolder, screen: Display) -> tuple[StepCompared, ...]:
    alone = replace(
        run.settings,
        workers=0,
        in_process=False,
        address=None,
        min_workers=None,
        max_workers=None,
        threads_per_worker=None,  # what this process has: rounding is allowed for
        gradient_dtype=None,
    )
    workers, store, final = Workers(alone), run.open_store(folder), run.final_store(folder)
    found: list[StepCompared] = []
    with contextlib.closing(workers), tempfile.TemporaryDirectory(prefix="heliostat-verify-") as scratch:
        data = run.opened().open_data(folder)
        workers.start(screen, StartTimes())
        job = replace(run, settings=alone).job(workers.share, data, folder, store, final)
        wanted = replace(job.wanted, checkpoint_every=None, probe=False)
        quiet = replace(job, wanted=wanted, run_dir=scratch, final_dir=None)
        coordinator, loop = Coordinator(), TaskLoop(workers.group, Task(method="fit", job=quiet))
        with explained(workers, None):
            for event in loop.events():
                if isinstance(event, TaskEvent) and isinstance(event.content, StepCompared):
                    found.append(event.content)
                loop.answer(coordinator.take(event))
    return tuple(found)
