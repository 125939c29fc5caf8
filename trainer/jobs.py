"""What the driver asks of workers, and what they tell it: plain values that travel between processes.

===============  =================================  ================================  ================================
message          who sends it                       who acts                          what follows
===============  =================================  ================================  ================================
`FitJob`         the driver, as a task              `Worker.fit`                      a whole run
`FitJob`         the driver, as a task              `Worker.describe`                 a `Ready`: which model it is
`PassJob`        the driver, as a task              `Worker.evaluate`, `.predict`     a pass without training
`Ready`          a worker with its model            `Coordinator`                     refused if models differ
`TraceAsked`     a worker, before it traces         `Coordinator`                     what callbacks have set
`StepsTraced`    a member, once it has traced       `Coordinator`                     an answer when all have
`Progress`       the chief, in an epoch             `Record`                          the screen; time to regroup
`WorkerSample`   every worker, about each second    `Sampling`, then `Record`         screens, ``samples.jsonl``
`StillSaving`    who waits for storage, at an end   `Record`                          the screen
`EpochPart`      every worker, after the steps      `Coordinator`                     they meet: views must agree
`PassStart`      a worker, before a pass            `Coordinator`                     a `Shard`, or the pass is complete
`ShardResult`    a worker, after its shard          `Coordinator`                     the next `Shard`, or the `PassSum`
`EpochLogs`      the chief, after its callbacks     `Coordinator`, then `Record`      the epoch's line and history
`Final`          every worker, at the end           `Coordinator`                     all hashes must be equal
`ClockAsked`     a worker that is traced            `Coordinator`                     its clock is compared
`WorkerTrace`    a worker, after those steps        `Coordinator`                     a pause when all have told
`StepSeen`       a worker, after a first step       `Record`                          a line of ``verify.jsonl``
`StepCompared`   the same beside plain Keras        `compare`                         ``verify.json``
`FitReport`      the worker that delivers           `run.fit`                         the result and ``model.keras``
`PassReport`     the worker that delivers           `run_pass`                        metrics
`ReplayReport`   the worker of a replay             `replay`                          ``replay.json``
===============  =================================  ================================  ================================

Besides these a worker tells events of the run (`events`), and that a checkpoint or the final state is written
(`checkpoints.manifest.CheckpointWritten`, `FinalStateWritten`). What is said in passes without training stands in
`pass_messages`, of steps that are traced or computed again in `single_steps`; all else here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from heliostat.data import Dataset

from .beginning import Beginning, ModelState, Numbering
from .config import FitConfig, PassConfig
from .environment import ReplayWanted, TraceWanted
from .events import Lines
from .shipping import Shipped
from .shortened import VerifyWanted
from .trainer_config import TrainerConfig

if TYPE_CHECKING:
    from heliostat.cluster.disk.disk import Disk  # which loads Ray


MODEL_FILE = "model.keras"
WEIGHTS_FILE = "trained.weights.h5"  # in its place, of a model that Keras cannot write
CALLBACKS_MODEL_FILE = "model.callbacks.keras"  # what callbacks have written as MODEL_FILE
# All that a run keeps in its folder, by path ("*" stands for anything), and what it is; all else in there is of the
# user's callbacks. Of checkpoints the names are those of `checkpoints.manifest`.
RUN_FOLDER: Mapping[str, str] = {
    "run.json": "configuration, plan, versions, data fingerprints, state of the run and, at its end, its hashes",
    "model.json": "the settings of the model: what it is compiled with, its layers, names and shapes of its state",
    "metrics.jsonl": "one line per epoch: global metrics, rows, seconds by worker and part of a step",
    "samples.jsonl": "now and then how far workers were, and where their time had gone",
    "events.jsonl": "one line per event: workers lost and joined, checkpoints, pauses, gradients that were not finite",
    "report.html": "what came out, what limited the run and what happened, for people",
    "summary.json": "the same as numbers, for programs",
    "logs/worker-*": "what each worker's process printed",
    "checkpoints/final": "the state in which the run ended; beside it the last checkpoints",
    MODEL_FILE: "the trained model, for plain Keras",
    WEIGHTS_FILE: "in its place, where Keras cannot write the model: its weights",
    "data/train*": "arrays and streams that were passed to fit, as a dataset",
    "data/valid*": "those to validate on",
    "trackers": "what trackers write: event files for TensorBoard, runs of W&B that are not sent",
    "replay.json": "the step that `heliostat replay` computed again last",
    "trace.json": "what `heliostat trace` recorded",
    "verify.json": "for `heliostat verify-run`: each of the first steps beside plain Keras",
    "verify.jsonl": "for `heliostat verify-run`: what each of the first steps has come to",
    ".heliostat-*": "while a fit runs on a cluster: whose disk this is (`cluster.disk`)",
    "driver.lease*": "while a fit runs: which driver it is (`driver.lease`)",
    ".driver.lease*": "the same, while it is made",
    ".callbacks": "while a fit runs: callbacks' files that do not count yet (`worker.staged_files`)",
    ".model.g*": "the model, while a worker writes it (`model_name`)",
    ".*.writing": "any of these, while the driver writes it",
}


def model_name(generation: int | str, name: str = MODEL_FILE) -> str:
    """The name under which a worker of a generation writes the model into the run folder; "*" stands for all.

    Args:
        generation: of the group.
        name: that the file is to have: `MODEL_FILE` or `WEIGHTS_FILE`.
    """
    return f".model.g{generation}.{name.partition('.')[2]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PassJob:
    """A pass over a dataset without training: evaluate or predict.

    Attributes:
        settings: the trainer's, with replicas and microbatches as numbers; `wanted` is what this call wants.
        data: the rows.
        model: the state that answers.
        disk: the driver's, for machines that do not see it; None where all are the driver's own.
    """

    settings: TrainerConfig
    wanted: PassConfig
    data: Dataset
    model: ModelState
    disk: Disk | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FitJob:
    """A whole run.

    Attributes:
        settings: the trainer's, with replicas and microbatches as numbers; `wanted` is what this `fit` wants, with the
            place of its checkpoints as `checkpoint_dir`.
        data, validation_data: the rows.
        run_dir: absolute path of the run folder.
        begins: where the run begins.
        first_generation: added to the generation in the names of checkpoints.
        key: names the state in which the run ends, as `ModelState.key`.
        final_dir: where that state is kept; None keeps it nowhere.
        replay: compute this step only, and report on it.
        trace: record what happens in these steps.
        verify: tell what each step comes to.
        disk: as in `PassJob`.
    """

    settings: TrainerConfig
    wanted: FitConfig
    data: Dataset
    validation_data: Dataset | None
    run_dir: str
    begins: Beginning = field(default_factory=Beginning)
    first_generation: int = 0
    key: str = ""
    final_dir: str | None = None
    replay: ReplayWanted | None = None
    trace: TraceWanted | None = None
    verify: VerifyWanted | None = None
    disk: Disk | None = None

    @property
    def prepared(self) -> tuple[Shipped, ...]:
        """What has changed the model when this run trains it, as `ModelState.prepared`."""
        own = self.wanted.prepare
        return (*self.begins.state.prepared, *(() if own is None else (own,)))

    @property
    def num_steps(self) -> int:
        """Steps of an epoch."""
        return self.wanted.num_steps(len(self.data))

    def steps_of(self, epoch: int) -> int:
        """Steps of one epoch; the last of a pass may have fewer."""
        per_pass = -(-len(self.data) // self.wanted.global_batch_size)
        return min(self.num_steps, per_pass - self.numbering.part_of(epoch) * self.num_steps)

    @property
    def rows_per_microbatch(self) -> int:
        """Rows of a microbatch."""
        return self.settings.rows_per_microbatch(self.wanted.global_batch_size)

    @property
    def numbering(self) -> Numbering:
        """How epochs and steps are counted: on from the fit before, or from the epoch with which a new model begins."""
        first, parts = self.wanted.initial_epoch, self.wanted.epochs_per_pass(len(self.data))
        first_pass, first_step = first, first * self.num_steps
        if self.begins.sha256 is not None:
            first_pass, first_step = self.begins.epochs, self.begins.steps
        return Numbering(first_epoch=first, first_pass=first_pass, first_step=first_step, epochs_per_pass=parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A worker has built the model.

    Attributes:
        shapes: hash of the shapes and types of its state.
        num_weights: trainable numbers.
        platform: what its bits depend on besides the run's arguments: device type, versions, processor.
        model: what identifies the model, by part (layers, optimizer, loss ...): hashes; `settings` are its settings
            themselves.
        notes: what the user should know of how it is trained.
        memory: bytes of what the worker holds, by name; empty if it is not to train.
    """

    shapes: str
    num_weights: int
    platform: dict[str, str]
    model: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    memory: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceAsked:
    """A worker asks for the `StepsTraced.attributes` of those that train; None if they have not traced yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepsTraced:
    """A member has traced the steps after callbacks' hooks; it waits for the others.

    Attributes:
        attributes: the Python values that callbacks have set before, as `worker.attributes` has them.
    """

    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Lines):
    """The chief's view of a running epoch, several times a second at most."""

    epoch: int
    step: int
    steps: int
    rows: int
    logs: dict[str, Any]
    num_workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """What a hook of the chief's callbacks has printed.

    Attributes:
        worker: the chief.
        hook: its name.
        step: of the run; `epoch` is the epoch's number.
        text: what it printed.
    """

    worker: int
    hook: str
    step: int
    epoch: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StillSaving:
    """A worker waits until its state is written at `location`, for so many seconds until now; told again and again."""

    location: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsWanted:
    """A worker has come to this part of data that arrive while it trains."""

    part: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochPart:
    """A worker's view of an epoch's training.

    Attributes:
        epoch: its number.
        logs: the global training metrics as this worker has them.
        digest: its training state.
        rows: rows trained on, over all workers; `rows_by_worker` how many each has computed.
        times: this worker's time split, in seconds.
        num_microbatches: microbatches of the validation pass, 0 without.
        row_ids: per step the row ids that each worker computed, in order of rank, if the job asks for them.
    """

    epoch: int
    logs: dict[str, Any]
    digest: str
    rows: int
    rows_by_worker: dict[int, int]
    times: dict[str, float]
    num_microbatches: int
    row_ids: tuple[tuple[tuple[int, ...], ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochLogs:
    """The chief's numbers of an epoch, after its callbacks have seen (and perhaps extended) them."""

    epoch: int
    logs: dict[str, Any]
    stopped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """A worker is at the end of the run: hashes of its weights and optimizer state."""

    sha256: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """What one worker returns at the end of a run, for all.

    Attributes:
        sha256: hashes of weights and optimizer state.
        model_file: name of the model's file in the run folder, which the driver puts in place.
        not_written: why there is no such file; None if there is.
    """

    sha256: dict[str, str]
    model_file: str
    not_written: OSError | None = None
