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
`StillSaving`    who waits for storage, at an end   `Record`                          the screen
`EpochPart`      every worker, after the steps      `Coordinator`                     they meet: views must agree
`PassStart`      a worker, before a pass            `Coordinator`                     a `Shard`, or the pass is complete
`ShardResult`    a worker, after its shard          `Coordinator`                     the next `Shard`, or the `PassSum`
`EpochLogs`      the chief, after its callbacks     `Coordinator`, then `Record`      the epoch's line and history
`Final`          every worker, at the end           `Coordinator`                     all hashes must be equal
`ClockAsked`     a worker that is traced            `Coordinator`                     its clock is compared
`WorkerTrace`    a worker, after those steps        `Coordinator`                     a pause when all have told
`FitReport`      the worker that delivers           `run.fit`                         the result and ``model.keras``
`PassReport`     the worker that delivers           `run_pass`                        metrics
`ReplayReport`   the worker of a replay             `replay`                          ``replay.json``
===============  =================================  ================================  ================================

Besides these a worker tells events of the run (`events`), and that a checkpoint or the final state is written
(`checkpoints.manifest.CheckpointWritten`, `FinalStateWritten`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from heliostat.cluster.instruments import Span
from heliostat.cluster.tree import Node
from heliostat.cluster.vectors import BucketOp, Vector
from heliostat.data import Dataset

from .config import FitConfig, PassConfig
from .environment import ReplayWanted, TraceWanted
from .events import Lines
from .shipping import Shipped
from .trainer_config import TrainerConfig

if TYPE_CHECKING:
    from heliostat.cluster.disk.disk import Disk  # which loads Ray


MODEL_FILE = "model.keras"
WEIGHTS_FILE = "trained.weights.h5"  # in its place, of a model that Keras cannot write
_MOST_NAMED = 5  # rows, in a warning
CALLBACKS_MODEL_FILE = "model.callbacks.keras"  # what callbacks have written as MODEL_FILE
# All that a run keeps in its folder, by path ("*" stands for anything), and what it is; all else in there is of the
# user's callbacks. Of checkpoints the names are those of `checkpoints.manifest`.
RUN_FOLDER: Mapping[str, str] = {
    "run.json": "configuration, plan, versions, data fingerprints, state of the run and, at its end, its hashes",
    "model.json": "the settings of the model: what it is compiled with, its layers, names and shapes of its state",
    "metrics.jsonl": "one line per epoch: global metrics, rows, seconds by worker and part of a step",
    "events.jsonl": "one line per event: workers lost and joined, checkpoints, pauses, gradients that were not finite",
    "logs/worker-*": "what each worker's process printed",
    "checkpoints/final": "the state in which the run ended; beside it the last checkpoints",
    MODEL_FILE: "the trained model, for plain Keras",
    WEIGHTS_FILE: "in its place, where Keras cannot write the model: its weights",
    "data/train*": "arrays and streams that were passed to fit, as a dataset",
    "data/valid*": "those to validate on",
    "replay.json": "the step that `heliostat replay` computed again last",
    "trace.json": "what `heliostat trace` recorded",
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


# The buckets of a pass without training: an empty one for gradients; metric changes; maxima.
BUCKET_OPS: tuple[BucketOp, ...] = ("sum", "sum", "max")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """The state that a model is to be in: new from `build_model`, or as a fit has left it.

    Attributes:
        key: names the state among those of all trainers, so that a worker whose model is in it need not load it; empty
            for a new model's.
        location: where it is kept, a store of checkpoints; empty if it is not kept: then only workers that hold it can
            tell it to others.
        name: of the checkpoint there.
        prepared: the user's functions that have changed the model since `build_model` made it, in their order.
    """

    key: str = ""
    location: str = ""
    name: str = ""
    prepared: tuple[Shipped, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """Where a run begins: at the state in which the fit before it has left the model, or at a new model.

    Attributes:
        state: of the model.
        epochs: how many it was trained for, over all fits since it was new; `steps` likewise.
        sha256: hashes of its weights and optimizer state; None for a new model's.
        run_dir: the folder of the fit before.
    """

    state: ModelState = ModelState()
    epochs: int = 0
    steps: int = 0
    sha256: Mapping[str, str] | None = None
    run_dir: str = ""

    def identity(self) -> dict[str, object] | None:
        """What must be equal to go on with the run; None for a new model."""
        return None if self.sha256 is None else {"epochs": self.epochs, "steps": self.steps, **self.sha256}


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbering:
    """The numbers that row orders and random seeds come from: they count on over the fits of a trainer.

    Attributes:
        first_epoch: number of the run's first epoch, as callbacks and files have it.
        first_pass: the pass that this epoch is, or begins.
        first_step: the number of its first step.
        epochs_per_pass: the epochs that a pass over the data is cut into (`BatchPlan`).
    """

    first_epoch: int = 0
    first_pass: int = 0
    first_step: int = 0
    epochs_per_pass: int = 1

    def pass_of(self, epoch: int) -> int:
        """Which pass over the data an epoch is, or is a part of."""
        return self.first_pass + (epoch - self.first_epoch) // self.epochs_per_pass

    def part_of(self, epoch: int) -> int:
        """Which part of that pass it is."""
        return (epoch - self.first_epoch) % self.epochs_per_pass

    def seed_step(self, epoch: int, step: int, num_steps: int) -> int:
        """The step that random seeds come from: step `step` of an epoch that has `num_steps`."""
        return self.first_step + (epoch - self.first_epoch) * num_steps + step


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
        disk: as in `PassJob`.
    """

    settings: TrainerConfig
    wanted: FitConfig
    data: Dataset
    validation_data: Dataset | None
    run_dir: str
    begins: Beginning = Beginning()
    first_generation: int = 0
    key: str = ""
    final_dir: str | None = None
    replay: ReplayWanted | None = None
    trace: TraceWanted | None = None
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
class ClockAsked:
    """A worker asks for the driver's performance counter, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReading:
    """What a worker's clock showed when the driver's was read.

    Attributes:
        own_s: the worker's performance counter, in seconds.
        offset_s: what must be added to it to get the driver's.
        bound_s: how wrong that may be, either way.
    """

    own_s: float
    offset_s: float
    bound_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerTrace:
    """What a worker did in the steps asked for.

    Attributes:
        host: name of its machine.
        spans: by this worker's performance counter, in the order in which they ended.
        dropped: how many found no room.
        readings: its clock beside the driver's, before the first of these steps and after the last.
        clock: which clock it is (`clock_identity`).
    """

    host: str
    spans: tuple[Span, ...]
    dropped: int
    readings: tuple[ClockReading, ...]
    clock: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MicrobatchReplay:
    """One microbatch, computed again.

    Attributes:
        number: its number in the step.
        row_ids: its rows.
        logs: loss and metrics over these rows alone.
        norms: L2 norm of its contribution to each variable's gradient (or moving average), by the variable's path,
            behind which the phase is named where a step has several.
        nonfinite: the variables for which that is not finite.
    """

    number: int
    row_ids: tuple[int, ...]
    logs: dict[str, Any]
    norms: dict[str, float]
    nonfinite: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """One step, computed again.

    Attributes:
        epoch: its epoch; `step` is its number there.
        present: the microbatches of the step that have rows.
        microbatches: those that were computed.
        pass_number: which pass over the data the epoch is: rows that are drawn or changed at random depend on it.
    """

    epoch: int
    step: int
    present: tuple[int, ...]
    microbatches: tuple[MicrobatchReplay, ...]
    pass_number: int


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
class PassStart:
    """A worker asks for a shard of a pass without training, which has so many microbatches."""

    num_microbatches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The driver's answer: compute the microbatches [lo, hi) of a pass."""

    lo: int
    hi: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NonfiniteRows:
    """Rows of a pass whose metrics are not finite: how many, and the ids of the first of them."""

    num_rows: int = 0
    first: tuple[int, ...] = ()

    def plus(self, ids: Sequence[int], num_rows: int) -> NonfiniteRows:
        """These, and more rows: `ids` are the first of them."""
        return NonfiniteRows(num_rows=self.num_rows + num_rows, first=tuple(sorted((*self.first, *ids))[:_MOST_NAMED]))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardResult:
    """What a worker has computed of a pass: of an evaluation tree nodes and rows, of a prediction its outputs."""

    shard: Shard
    nodes: dict[Node, Vector] = field(default_factory=dict)
    rows: int = 0
    outputs: Any = None
    nonfinite: NonfiniteRows = NonfiniteRows()


@dataclass(frozen=True, slots=True, kw_only=True)
class PassSum:
    """The driver's answer once a pass is complete: all of it in one vector (empty for a prediction)."""

    vector: Vector = ()
    rows: int = 0
    nonfinite: NonfiniteRows = NonfiniteRows()


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """What one worker returns at the end of a pass: metrics (empty for a prediction)."""

    logs: dict[str, Any]
    nonfinite: NonfiniteRows = NonfiniteRows()
