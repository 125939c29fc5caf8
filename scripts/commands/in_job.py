"""``python -m heliostat.scripts.commands.in_job WANTED``: what a job of a Ray cluster runs for a command elsewhere.

WANTED is a `JobWanted` as JSON. A script is run as ``heliostat run`` does it, with the errors as messages of the log.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from heliostat.trainer.environment import Command, ask_for_plan, is_plan_waiting, name_workers
from heliostat.trainer.errors import ConfigurationError
from heliostat.trainer.remote.in_job import Work, do_in_job
from heliostat.trainer.remote.job_wanted import JobWanted, What
from heliostat.trainer.remote.links import linked, remove
from heliostat.trainer.remote.wire import Said, tell

from .run import as_main, nothing_to_plan


def main(text: str) -> int:
    """Do what is wanted; returns the exit status."""
    wanted = JobWanted.from_text(text)
    tells_files = wanted.what in ("script", "list")
    return do_in_job(wanted.job, partial(_ACTS[wanted.what], wanted), tells_files=tells_files)


def _run_script(wanted: JobWanted, work: Work) -> None:
    if wanted.data:
        work.begin("data")
        work.own_folder(wanted.data, with_code=True)
    if wanted.workers is not None:
        name_workers(wanted.workers)
    for run_dir in wanted.run_dirs:
        os.environ.update(Command(run_dir=Path(run_dir)).variables())
    if wanted.plan:
        ask_for_plan()
    work.begin("script")
    as_main(Path(wanted.script), wanted.arguments)
    if is_plan_waiting():
        raise ConfigurationError(nothing_to_plan(Path(wanted.script)))


def _list_files(wanted: JobWanted, work: Work) -> None:
    work.run_dirs = tuple(map(Path, wanted.run_dirs))


def _remove_folders(wanted: JobWanted, work: Work) -> None:
    for run_dir in wanted.run_dirs:
        remove(work.links, Path(run_dir))


def _look_at_cluster(_wanted: JobWanted, work: Work) -> object:
    from .doctor import examined_in_job

    work.begin("doctor")
    try:
        return examined_in_job(lambda line: tell(Said(text=line)))
    finally:
        for run_dir in linked(work.links).values():
            remove(work.links, run_dir)  # of its proof, whose folder is gone


_ACTS: Mapping[What, Callable[[JobWanted, Work], object]] = {
    "script": _run_script,
    "list": _list_files,
    "remove": _remove_folders,
    "doctor": _look_at_cluster,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
