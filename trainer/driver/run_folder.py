"""The run folder: plain files that say what a run was and what came out. Only the driver writes its top level.

What lies in it is listed once, in `jobs.RUN_FOLDER`, since workers must know it, too.

The lines are those of `events`. JSON has no NaN and no infinity: such numbers are written as the strings "NaN",
"Infinity" and "-Infinity" (`values.to_line`). Version 3 of the format is written; version 2 is read, too, and a run of
then goes on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from heliostat.cluster.disk.served import TOKEN
from heliostat.data.format.files import flush_folder

from ..checkpoints.manifest import identity_of_today
from ..checkpoints.model_record import ModelRecord
from ..checkpoints.values import from_line, to_line
from ..config import FitConfig
from ..errors import ConfigurationError, DamagedRecordError, StorageError, TrainerError
from ..events import CheckpointCommitted, EpochRecord, Event, FirstStepDone, event_of
from ..jobs import CALLBACKS_MODEL_FILE, MODEL_FILE, WEIGHTS_FILE, model_name
from ..report.recorded import RecordedRun
from ..samples import Sample, of_steps_that_count
from ..step_states import StepSeen
from .lease import Lease
from .patient_files import PatientFiles
from .shown_text import masked

FORMAT_VERSION, READ_VERSIONS = 3, (2, 3)
Line = TypeVar("Line")
RUN_FILE, METRICS_FILE, EVENTS_FILE, SAMPLES_FILE = "run.json", "metrics.jsonl", "events.jsonl", "samples.jsonl"
SETTINGS_FILE = "model.json"
REPORT_FILE, SUMMARY_FILE = "report.html", "summary.json"
REPLAY_FILE, TRACE_FILE = "replay.json", "trace.json"
STEPS_FILE, COMPARED_FILE = "verify.jsonl", "verify.json"
CHECKPOINTS, DATA = "checkpoints", "data"
FINAL_FOLDER = "final"  # in the place of checkpoints: the state in which a run has ended
_MAX_RECORD_BYTES = 64 << 20  # of run.json; a real one has some thousand


class RunFolder:
    """One run's folder.

    Attributes:
        path: where; absolute.
        resumes: whether it holds a run, which then goes on.
        files: writes them; what cannot be written waits in memory.

    Args:
        path: where.
        resume: whether it may hold a run already.
        is_new: whether it was made for this run; it counts as such where it does not exist, too.
        is_made: whether to make it where it does not exist; False only looks.

    Raises:
        ConfigurationError: it holds a run and may not, or its record cannot be read.
        StorageError: it cannot be made.
    """

    def __init__(self, path: Path, *, resume: bool, is_new: bool = False, is_made: bool = True) -> None:
        self.path = path.absolute()
        self._record: dict[str, Any] = {"format_version": FORMAT_VERSION, "state": "starting"}
        self.files = PatientFiles(self.path)
        try:
            recorded = (self.path / RUN_FILE).exists()
        except OSError as error:
            raise StorageError(self.path, error) from error
        self.resumes = recorded or has_checkpoints(self.path)
        if self.resumes and not resume:
            raise ConfigurationError(
                f"{str(self.path)!r} holds a run already. Give another run_dir, leave it out to get a new one, or "
                "leave out resume=False to go on with that run."
            )
        if recorded:
            self._record = read_record(self.path)
        self._record.setdefault("id", f"{self.path.name}-{uuid.uuid4().hex[:8]}")
        self._is_at_usual_place = is_new
        self._is_new = is_new or not self.path.exists()
        if not is_made:
            return
        try:
            Path(self.log_dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(self.path, error) from error

    @contextlib.contextmanager
    def held(self, *, take_over: bool) -> Iterator[None]:
        """Hold the folder's lease in the block; if that fails before the run began, a new folder goes again.

        Args:
            take_over: whether to take a lease that has ended without a word.

        Raises:
            LeaseHeldError: another driver holds it.
            StorageError: the folder cannot be written.
        """
        with contextlib.ExitStack() as after:
            self.files.lease = after.enter_context(Lease(self.path, take_over=take_over))
            try:
                if (self.path / RUN_FILE).exists():  # another driver may have gone on with it meanwhile
                    self._record, self.resumes = {"id": self.run_id} | read_record(self.path), True
                yield
            except BaseException:
                if self._is_new and not (self.path / RUN_FILE).exists() and not self.has_logs:
                    self._clear()
                    after.close()  # the lease is the last that is in there
                    with contextlib.suppress(OSError):
                        self.path.rmdir()
                        if self._is_at_usual_place:
                            self.path.parent.rmdir()  # runs/, unless others are in there
                raise
            finally:
                self.files.lease = None

    def _clear(self) -> None:
        """Take away what a start has made."""
        with contextlib.suppress(OSError):
            (self.path / TOKEN).unlink(missing_ok=True)
            Path(self.log_dir).rmdir()
        shutil.rmtree(self.path / DATA, ignore_errors=True)

    @property
    def record(self) -> Mapping[str, Any]:
        """What ``run.json`` says."""
        return self._record

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are."""
        return self.path / CHECKPOINTS

    @property
    def run_id(self) -> str:
        """What the run is called where it is kept together with others; it stays when the folder is moved."""
        return str(self._record["id"])

    @property
    def has_epochs(self) -> bool:
        """Whether an epoch of the run was written down; raises StorageError if the disk does not tell."""
        return has_epochs(self.path)

    def model_record(self) -> ModelRecord:
        """What the folder says of the model of the run; raises TrainerError if it cannot be read."""
        path = self.path / SETTINGS_FILE
        try:
            is_there = path.exists()
        except OSError as error:
            raise StorageError(path, error) from error
        return ModelRecord(
            hashes=self._record.get("model", {}),
            settings=read_json(path) if is_there else {},
            keras=self._record.get("platform", {}).get("keras", ""),
        )

    @property
    def log_dir(self) -> str:
        """Where the workers' log files are."""
        return str(self.path / "logs")

    def log_here(self, text: str) -> None:
        """Add a text of this process to the log of its worker; left out where that cannot be written."""
        with contextlib.suppress(OSError):
            with (Path(self.log_dir) / "worker-0.log").open("a") as log:
                log.write(text)

    @property
    def began(self) -> bool:
        """Whether the run in it has made a step, with the data that is written there; raises StorageError."""
        return has_begun(self.path)

    def is_finished(self, wanted: FitConfig) -> bool:
        """Whether it holds a run that has done all that is wanted."""
        first = self._record.get("identity", {}).get("initial_epoch", 0)
        enough = first + self._record.get("epochs_done", 0) >= wanted.epochs or self._record.get("stopped_early", False)
        return self.resumes and self._record["state"] == "finished" and (enough or wanted.is_open)

    def update(self, **fields: object) -> None:
        """Set fields of ``run.json``, without the secrets of URIs; None takes one away. Raises StorageError."""
        self._record |= {name: masked(each) if isinstance(each, str) else each for name, each in fields.items()}
        self._record = {name: each for name, each in self._record.items() if each is not None}
        self.save(RUN_FILE, self._record, indent=2)

    @property
    def has_logs(self) -> bool:
        """Whether workers have left log files."""
        return any(Path(self.log_dir).glob("*.log"))

    def set_epochs(self, epochs: Sequence[EpochRecord]) -> None:
        """Write ``metrics.jsonl`` anew, when a run goes on from an earlier epoch; raises StorageError."""
        self.files.write(METRICS_FILE, "".join(_epoch_line(epoch) for epoch in epochs).encode(), anew=True)

    def add_epoch(self, epoch: EpochRecord) -> None:
        """Append an epoch to ``metrics.jsonl``; raises StorageError."""
        self.files.write(METRICS_FILE, _epoch_line(epoch).encode(), anew=False)

    def add_event(self, event: Event) -> None:
        """Append an event to ``events.jsonl``; raises StorageError."""
        self.files.write(EVENTS_FILE, (to_line(event.to_json()) + "\n").encode(), anew=False)

    def add_sample(self, sample: Sample) -> None:
        """Append a sample to ``samples.jsonl``; raises StorageError."""
        self.files.write(SAMPLES_FILE, (to_line(sample.to_json()) + "\n").encode(), anew=False)

    def add_step(self, seen: StepSeen) -> None:
        """Append what a step has come to to ``verify.jsonl``; raises StorageError."""
        self.files.write(STEPS_FILE, (to_line(seen.to_json()) + "\n").encode(), anew=False)

    def save(self, name: str, value: object, *, indent: int | None = None) -> None:
        """Write a file of JSON.

        Args:
            name: of the file.
            value: its content, as `values.to_line` takes it.
            indent: spaces per level; None for one line.

        Raises:
            StorageError: it cannot be written.
        """
        self.files.write(name, json_text(value, indent), anew=True)

    def take_model(self, name: str) -> None:
        """Give the model that a worker has written here its name, and delete those of workers that died over it.

        What callbacks have written under that name is kept under another one.

        Raises:
            StorageError: it is not there, or cannot be renamed.
        """
        self.files.check_lease()
        written = self.path / Path(name).name
        kept = next(each for each in (MODEL_FILE, WEIGHTS_FILE) if name.endswith(each.partition(".")[2]))
        model = self.path / kept
        try:
            with written.open("rb") as file:
                os.fsync(file.fileno())
            if model.name == MODEL_FILE and model.exists():
                model.replace(self.path / CALLBACKS_MODEL_FILE)
            written.replace(model)
            flush_folder(self.path)
            for pattern in (model_name("*"), model_name("*", WEIGHTS_FILE)):
                for left in self.path.glob(pattern):
                    left.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(model, error) from error


def json_text(value: object, indent: int | None = None) -> bytes:
    """A file of JSON, as `values.to_line` writes it."""
    return (to_line(value, indent) + "\n").encode()


def has_checkpoints(path: Path) -> bool:
    """Whether a run folder holds checkpoints that count; raises StorageError if the disk does not tell."""
    try:
        return any((path / CHECKPOINTS).glob("*/manifest.json"))
    except OSError as error:
        raise StorageError(path / CHECKPOINTS, error) from error


def has_epochs(path: Path) -> bool:
    """Whether an epoch was written down in a run folder; raises StorageError if the disk does not tell."""
    path = path / METRICS_FILE
    try:
        about = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise StorageError(path, error) from error
    return stat.S_ISREG(about.st_mode) and about.st_size > 0


def has_begun(path: Path) -> bool:
    """Whether the run in a folder has made a step; raises StorageError if the disk does not tell."""
    if has_checkpoints(path) or has_epochs(path):
        return True
    with contextlib.suppress(TrainerError):  # what cannot be read will be said when it is to be written
        return any(isinstance(event, FirstStepDone | CheckpointCommitted) for event in read_events(path))
    return False


def read_record(path: Path) -> dict[str, Any]:
    """What ``run.json`` in a folder says.

    Raises:
        ConfigurationError: there is none, it is damaged, or no record of a run.
    """
    file = path / RUN_FILE
    try:
        about = file.stat()
        if not stat.S_ISREG(about.st_mode) or about.st_size > _MAX_RECORD_BYTES:
            raise ValueError(f"no file of at most {_MAX_RECORD_BYTES} bytes")
        record = from_line(file.read_bytes())
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{str(path)!r} is no run folder: it holds no {RUN_FILE}. Give the folder that fit has made, such as "
            "runs/NAME-TIME; heliostat runs lists them."
        ) from error
    except (OSError, ValueError) as error:
        raise DamagedRecordError(file, str(error), can_go_on=has_checkpoints(path)) from error
    if not isinstance(record, dict) or record.get("format_version") not in READ_VERSIONS:
        raise ConfigurationError(
            f"{str(file)!r} was written by another version of Heliostat (format "
            f"{record.get('format_version') if isinstance(record, dict) else None}, this one reads "
            f"{' and '.join(map(str, READ_VERSIONS))}). Go on with the version that wrote it, or give another run_dir."
        )
    if not isinstance(record.get("state"), str) or not isinstance(record.get("identity", {}), dict):
        raise DamagedRecordError(file, "it lacks the state of the run", can_go_on=has_checkpoints(path))
    if "identity" in record:
        record["identity"] = identity_of_today(record["identity"])
    return record | {"format_version": FORMAT_VERSION}


def read_epochs(path: Path) -> list[EpochRecord]:
    """The epochs in the ``metrics.jsonl`` of a run folder.

    Raises:
        TrainerError: it cannot be read, or an epoch is missing where a line is damaged.
    """
    found, damaged = _read(path / METRICS_FILE, EpochRecord.from_json)
    numbers = [epoch.epoch for epoch in found]
    if damaged and (1 in damaged or numbers != list(range(numbers[0], numbers[0] + len(numbers)))):
        raise TrainerError(_damage(path / METRICS_FILE, damaged)[0])
    return found


def read_events(path: Path) -> list[Event]:
    """The events in the ``events.jsonl`` of a run folder, but for damaged lines; raises TrainerError."""
    return _read(path / EVENTS_FILE, event_of)[0]


def read_samples(path: Path) -> list[Sample]:
    """The samples in the ``samples.jsonl`` of a run folder, but for damaged lines and those of steps computed again.

    Raises:
        TrainerError: it cannot be read.
    """
    return of_steps_that_count(_read(path / SAMPLES_FILE, Sample.from_json)[0])


def num_samples(path: Path) -> int:
    """How many lines ``samples.jsonl`` has; 0 where it cannot be read."""
    try:
        return (path / SAMPLES_FILE).read_bytes().count(b"\n")
    except OSError:
        return 0


def read_run(path: Path) -> RecordedRun:
    """All that a run folder records.

    Raises:
        ConfigurationError: it holds no run.
        TrainerError: something in it cannot be read.
    """
    return RecordedRun(
        record=read_record(path),
        epochs=tuple(read_epochs(path)),
        events=tuple(read_events(path)),
        samples=tuple(read_samples(path)),
    )


def read_steps(path: Path) -> list[StepSeen]:
    """The steps in the ``verify.jsonl`` of a run folder, each as every worker has told it; raises TrainerError."""
    return _read(path / STEPS_FILE, StepSeen.from_json)[0]


def damaged_lines(path: Path) -> list[str]:
    """What is wrong with each line of a run folder that was left out, in a sentence; raises TrainerError."""
    makers = {METRICS_FILE: EpochRecord.from_json, EVENTS_FILE: event_of, SAMPLES_FILE: Sample.from_json}
    return [line for name, make in makers.items() for line in _damage(path / name, _read(path / name, make)[1])]


def _damage(path: Path, damaged: Mapping[int, str]) -> list[str]:
    return [f"{path}, line {number} {reason}" for number, reason in damaged.items()]


def _read(path: Path, make: Callable[[Mapping[str, Any]], Line]) -> tuple[list[Line], dict[int, str]]:
    """The lines of a file, none if there is no such file; and by number what is wrong with those that are left out.

    A last line without its end may be being written: nothing is wrong with it.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], {}
    except OSError as error:
        raise TrainerError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    found: list[Line] = []
    damaged: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        try:
            values = from_line(line)
        except ValueError as error:
            if number < len(lines):
                damaged[number] = f"is no JSON: {error}"
            continue
        try:
            if not isinstance(values, dict):
                raise ValueError("it is no JSON object")
            found.append(make(values))
        except (ValueError, TypeError, AttributeError) as error:
            damaged[number] = f"is not what Heliostat writes: {error}"
    return found, damaged


def read_json(path: Path) -> dict[str, Any]:
    """What `RunFolder.save` wrote.

    Raises:
        TrainerError: it cannot be read, or is no JSON object.
    """
    try:
        found = from_line(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError) as error:
        raise TrainerError(
            f"{str(path)!r} cannot be read: {error}. It was cut short or altered: run the command again that wrote it."
        ) from error
    return found


def _epoch_line(epoch: EpochRecord) -> str:
    """Row ids are proofs, which checkpoints keep; they would be most of the file."""
    line = epoch.to_json()
    del line["row_ids"]
    return to_line(line) + "\n"
