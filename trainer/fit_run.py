"""One run as the driver sees it: the plan, what workers report meanwhile, the run folder, the result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from heliostat.data import Dataset

from .config import TrainerConfig
from .coordinator import Coordinator, EpochRecord
from .display import Display
from .errors import TrainerError
from .jobs import FitJob, FitReport, Progress, Ready
from .result import Result, history_of
from .run_folder import RunFolder
from .shipping import Shipped
from .workers import Workers

_CONFIGURATION = ("loop", "epochs", "initial_epoch", "global_batch_size", "steps_per_epoch", "shuffle")
# run_task(jobs, coordinator) -> the workers' reports
RunTask = Callable[[list[FitJob], Coordinator], list[FitReport]]


@dataclass(slots=True, kw_only=True)
class FitRun:
    """Runs one `fit` job on started workers.

    Attributes:
        job: what to train, as all workers but the chief get it.
        chief_code: the user's code with the callbacks, for the chief.
        train: its training data.
        valid: its validation data, or None.
        config: the trainer's configuration.
        workers: the worker group, started.
        folder: the run folder.
        display: what the user sees.
        began_s: when the run began (monotonic clock).
    """

    job: FitJob
    chief_code: Shipped
    train: Dataset
    valid: Dataset | None
    config: TrainerConfig
    workers: Workers
    folder: RunFolder
    display: Display
    began_s: float
    _epochs: list[EpochRecord] = field(default_factory=list)
    _clock_s: float = 0.0

    def run(self, run_task: RunTask) -> Result:
        """Train to the end; returns the result, which the run folder holds as well."""
        plan = self.workers.plan(self.job.model.num_microbatches, self.job.global_batch_size)
        self.folder.update(state="running", plan=plan, **self._record())
        self.display.say(f"run folder {self.folder.path}")
        self.display.say(self.workers.describe(plan, len(self.train), self.job.steps_per_epoch))
        num_workers = self.config.group_size
        coordinator = Coordinator(
            num_workers=num_workers, on_ready=self._on_ready, on_progress=self._on_progress, on_epoch=self._on_epoch
        )
        chief_job = replace(self.job, user_code=self.chief_code)
        return self._finish(run_task([chief_job, *[self.job] * (num_workers - 1)], coordinator))

    def _on_ready(self, reports: list[Ready]) -> None:
        self.folder.update(platform=reports[0].platform)
        size = f"{reports[0].num_weights:,}"
        self.display.say(f"workers are ready, the model has {size} weights; tracing and compiling")
        self._restart_clock()

    def _on_progress(self, progress: Progress) -> None:
        if progress.step == 1 and not self._epochs:
            self._restart_clock()  # the first step traces and compiles
        self.display.progress(progress, self.job.epochs, self.config.group_size)

    def _on_epoch(self, record: EpochRecord) -> None:
        self._epochs.append(record)
        self.folder.add_epoch(record)
        self.display.epoch(record, self.job.epochs, self._restart_clock())

    def _restart_clock(self) -> float:
        """Seconds since the last start; begins anew."""
        now = time.monotonic()
        elapsed, self._clock_s = now - self._clock_s, now
        return elapsed

    def _finish(self, reports: list[FitReport]) -> Result:
        hashes = {report.sha256["weights"] + report.sha256["optimizer"] for report in reports}
        chief = reports[0]
        if len(hashes) > 1 or chief.model_file is None:
            raise TrainerError("The workers ended the run with different weights; this is a defect of Heliostat.")
        self.folder.save_model(chief.model_file)
        seconds = time.monotonic() - self.began_s
        done = len(self._epochs)
        self.folder.update(state="finished", epochs_done=done, sha256=chief.sha256, seconds=round(seconds, 3))
        return Result(
            history=history_of(self._epochs),
            run_dir=self.folder.path,
            sha256=chief.sha256,
            seconds=seconds,
            epochs=self._epochs,
            in_process=self.config.local,
        )

    def _record(self) -> dict[str, Any]:
        """What ``run.json`` says of the run: everything its results depend on."""
        job, config = self.job, self.config
        datasets = {"train": self.train, "valid": self.valid}
        return {
            "configuration": {name: getattr(job, name) for name in _CONFIGURATION}
            | {
                "seed": config.seed,
                "num_microbatches": job.model.num_microbatches,
                "threads_per_worker": config.threads,
                "deterministic": config.deterministic,
                "initial_weights": job.model.initial_weights is not None,
                "inputs": job.columns.inputs,
                "targets": job.columns.targets,
                "sample_weight": job.columns.sample_weight,
            },
            "data": {
                name: {"path": str(dataset.path), "rows": len(dataset), "fingerprint": dataset.fingerprint}
                for name, dataset in datasets.items()
                if dataset is not None
            },
            "versions": self.workers.versions(),
            "workers": [{"rank": info.rank, "host": info.host, "pid": info.pid} for info in self.workers.infos],
        }
