"""Weights & Biases, by its own client, which has a process of its own beside the driver.

Its server is asked for nothing that has to be waited for: where no key is found (``wandb login``, `WANDB_API_KEY`), or
with ``WANDB_MODE=offline``, the run is written into the run folder, for ``wandb sync``. Our
run's id is its id there, so a run that goes on is the same one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..environment import names_wandb_mode
from ..events import EpochRecord, Event
from ..samples import Sample
from .numbers import MAX_LETTERS, epoch_metrics, event_text, parameters, sample_metrics, verdict_in
from .tracker import FOLDER, Tracker

if TYPE_CHECKING:
    import wandb

_INIT_S = 60.0  # its client tries that long to reach the server


class WandbTracker(Tracker):
    """Sends to Weights & Biases, or writes for it.

    Args:
        project: "project" or "team/project"; empty for that of `WANDB_PROJECT`, else W&B's own default.
    """

    def __init__(self, project: str) -> None:
        self._team, _, self._project = project.rpartition("/")
        self._run: wandb.Run | None = None
        self._path = Path()
        self._before: Sample | None = None
        self._has_no_key = False

    @property
    def name(self) -> str:
        """What lines call it."""
        return "W&B"

    @property
    def note(self) -> str:
        """Where the run is seen, or lies."""
        if self._run is None or self._run.disabled:
            return ""
        if not self._run.offline:
            return f"W&B: {self._run.url}"
        folder = Path(self._run.dir).parent
        why = "no key is known here" if self._has_no_key else "as WANDB_MODE says"
        return f"W&B: offline ({why}): wandb sync {folder}"

    def begin(self, path: Path, record: Mapping[str, Any]) -> None:
        """Begin the run there, or go on with it; its configuration."""
        self._path, self._before = path, None
        (path / FOLDER).mkdir(exist_ok=True)
        with _passing():
            import wandb

            self._has_no_key = not names_wandb_mode() and not wandb.login(prompt=False, verify=False)
            self._run = wandb.init(
                entity=self._team or None,
                project=self._project or None,
                id=str(record["id"])[-64:],
                name=path.name,
                dir=path / FOLDER,
                mode="offline" if self._has_no_key else None,
                resume="allow",
                reinit="create_new",  # the script may have one of its own
                settings=wandb.Settings(silent=True, console="off", init_timeout=_INIT_S, disable_git=True),
            )
            self._run.config.update(parameters(record), allow_val_change=True)  # type: ignore[no-untyped-call]
            for names, axis in (("*", "epoch"), ("system/*", "step"), ("workers/*", "step")):
                self._run.define_metric(names, step_metric=axis)

    def epoch(self, record: EpochRecord, epochs: int, seconds: float) -> None:
        """Its metrics, over its number."""
        self._log({"epoch": record.epoch, **epoch_metrics(record, seconds)})

    def sample(self, sample: Sample) -> None:
        """What the workers do, over the step of the run."""
        found = sample_metrics(sample, self._before)
        self._log({"step": sample.step, **{_named(name): value for name, value in found.items()}})
        self._before = sample

    def event(self, event: Event) -> None:
        """The last one of each kind, in the summary."""
        if text := event_text(event):
            self._summarize({f"events/{event.event}": text[:MAX_LETTERS]})

    def end(self, record: Mapping[str, Any]) -> None:
        """The state and the verdict."""
        verdict = verdict_in(self._path)
        self._summarize({"state": str(record["state"])} | ({"verdict": verdict} if verdict else {}))
        with _passing():
            if self._run is not None:
                self._run.finish(exit_code=0 if record["state"] in ("finished", "paused") else 1)
            self._run = None

    def _log(self, values: Mapping[str, float]) -> None:
        with _passing():
            if self._run is not None:
                self._run.log(dict(values))

    def _summarize(self, values: Mapping[str, str]) -> None:
        with _passing():
            if self._run is not None:
                self._run.summary.update(dict(values))


def _named(name: str) -> str:
    return name if name.startswith("workers/") else f"system/{name}"


@contextlib.contextmanager
def _passing() -> Iterator[None]:
    """Errors of the block that may pass are ConnectionError: the server does not answer."""
    from wandb.errors import CommError

    try:
        yield
    except CommError as error:
        raise ConnectionError(str(error)) from error
