"""What the driver asks of workers, and what they report: plain values that travel between processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import xxhash
from heliostat.cluster.instruments import Span
from heliostat.cluster.tree import BucketOp, Node, Vector
from heliostat.data import Dataset, Shuffle

from .columns import Columns
from .environment import ReplayWanted, TraceWanted
from .shipping import Shipped

LoopName = Literal["fit", "train_on_batch", "custom"]
OnNonfinite = Literal["raise", "skip"]
GradientDtype = Literal["bfloat16"]
# The buckets of a pass without training: an empty one for gradients; metric changes; maxima.
BUCKET_OPS: tuple[BucketOp, ...] = ("sum", "sum", "max")


@dataclass(frozen=True, slots=True)
class EverySteps:
    """Make a checkpoint after every so many steps."""

    num: int


@dataclass(frozen=True, slots=True)
class EverySeconds:
    """Make a checkpoint every so many seconds."""

    seconds: float


CheckpointEvery = Literal["epoch"] | EverySteps | EverySeconds | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """How a worker sets up its process.

    Attributes:
        replicas: replicas of its strategy; None means all its GPUs, or one CPU device.
        threads: TensorFlow's intra-op threads.
        deterministic: ask TensorFlow for deterministic kernels.
        devices_per_worker: logical CPU devices to leave to each lower rank (several workers in one process).
        num_devices: logical CPU devices that the process needs in all.
        owns_process: it is a process of this worker alone, which keeps to its share of the cores.
    """

    replicas: int | None
    threads: int
    deterministic: bool
    devices_per_worker: int = 0
    num_devices: int = 1
    owns_process: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelJob:
    """The model of a job.

    Attributes:
        build_model: the user's function, shipped (`shipping.Shipped`).
        seed: seed of the run.
        num_microbatches: V.
        initial_weights: arrays for ``model.set_weights``, or None.
    """

    build_model: Shipped
    seed: int
    num_microbatches: int
    initial_weights: tuple[Any, ...] | None = None

    @property
    def weights_digest(self) -> str | None:
        """Hash of the initial weights, None without."""
        if self.initial_weights is None:
            return None
        digest = xxhash.xxh3_128()
        for weight in self.initial_weights:
            digest.update(weight.tobytes())
        return str(digest.hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class PassJob:
    """A pass over a dataset without training: evaluate or predict."""

    model: ModelJob
    data: Dataset
    columns: Columns
    global_batch_size: int
    fresh: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FitJob:
    """A whole run.

    Attributes:
        user_code: ``(train_step, valid_step, callbacks)``; shipped.
        has_callbacks: whether there are callbacks of the user's.
        record_rows: report the row ids of every step (for proofs).
        run_dir: absolute path of the run folder.
        checkpoints: where checkpoints go, a path or URI; None for nowhere.
        checkpoint_every: when they are made; `first_generation` is added to the generation in their names.
        on_nonfinite: what to do about a gradient that is not finite.
        gradient_dtype: how gradients are rounded before they are summed, so that they travel in fewer bytes.
        replay: compute this step only, and report on it.
        trace: record what happens in these steps.
    """

    model: ModelJob
    loop: LoopName
    data: Dataset
    validation_data: Dataset | None
    columns: Columns
    epochs: int
    initial_epoch: int
    global_batch_size: int
    steps_per_epoch: int | None
    shuffle: Shuffle
    user_code: Shipped
    has_callbacks: bool
    run_dir: str
    record_rows: bool = False
    checkpoints: str | None = None
    checkpoint_every: CheckpointEvery = None
    first_generation: int = 0
    on_nonfinite: OnNonfinite = "raise"
    gradient_dtype: GradientDtype | None = None
    replay: ReplayWanted | None = None
    trace: TraceWanted | None = None


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
        norms: L2 norm of its contribution to each variable's gradient (or moving average), by the variable's path.
        nonfinite: the variables for which that is not finite.
    """

    number: int
    row_ids: tuple[int, ...]
    logs: dict[str, Any]
    norms: dict[str, float]
    nonfinite: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """One step, computed again: its epoch, its number there, the microbatches that have rows, and those computed."""

    epoch: int
    step: int
    present: tuple[int, ...]
    microbatches: tuple[MicrobatchReplay, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A worker has built the model.

    Attributes:
        shapes: hash of the shapes and types of its state.
        num_weights: trainable numbers.
        platform: what its bits depend on besides the run's arguments: device type, versions, processor.
        model: what identifies the model, by part (layers, optimizer, loss ...): hashes.
        notes: what the user should know of how it is trained.
    """

    shapes: str
    num_weights: int
    platform: dict[str, str]
    model: dict[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstStep:
    """A worker has done its first step of a run; where the time went until then (`StartTimes`)."""

    seconds: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The chief's view of a running epoch, several times a second at most."""

    epoch: int
    step: int
    steps: int
    rows: int
    logs: dict[str, Any]
    num_workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochPart:
    """A worker's view of an epoch's training.

    Attributes:
        epoch: its number.
        logs: the global training metrics as this worker has them.
        digest: its training state.
        rows: rows trained on, over all workers; `rows_by_worker` how many each has computed.
        times: this worker's time split, in seconds.
        num_leaves: microbatches of the validation pass, 0 without.
        row_ids: per step the row ids that each worker computed, in order of rank, if the job asks for them.
    """

    epoch: int
    logs: dict[str, Any]
    digest: str
    rows: int
    rows_by_worker: dict[int, int]
    times: dict[str, float]
    num_leaves: int
    row_ids: tuple[tuple[tuple[int, ...], ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PassStart:
    """A worker asks for its share of a pass without training, which is cut into so many leaves."""

    num_leaves: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The driver's answer: compute the leaves [lo, hi) of a pass."""

    lo: int
    hi: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SharePart:
    """What a worker has computed of a pass: of an evaluation tree nodes and rows, of a prediction its outputs."""

    share: Share
    nodes: dict[Node, Vector] = field(default_factory=dict)
    rows: int = 0
    outputs: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PassSum:
    """The driver's answer once a pass is complete: all of it in one vector (empty for a prediction)."""

    vector: Vector = ()
    rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochLogs:
    """The chief's numbers of an epoch, after its callbacks have seen (and perhaps extended) them."""

    epoch: int
    logs: dict[str, Any]
    stopped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointWritten:
    """The chief has written a checkpoint's tensors; the driver commits it.

    Attributes:
        name: of the checkpoint.
        epoch, step, begun, generation: see `CheckpointManifest`.
        extra: what the session needs besides tensors, as JSON values.
        tensors: what was written.
        seconds: how long the steps waited for the copy; `write_s` how long the writing took beside them.
    """

    name: str
    epoch: int
    step: int
    begun: bool
    generation: int
    extra: dict[str, Any]
    tensors: tuple[Any, ...]
    seconds: float
    write_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFailed:
    """A checkpoint could not be written; training goes on."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Nonfinite:
    """A step's gradient was not finite.

    Attributes:
        epoch, step: of the epoch.
        microbatch: the first microbatch it came from; None if only the sum over them is not finite.
        variables: names of the variables concerned.
        skipped: whether the step was left out; otherwise the run stops.
    """

    epoch: int
    step: int
    microbatch: int | None
    variables: tuple[str, ...]
    skipped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """A worker is at the end of the run: hashes of its weights and optimizer state."""

    sha256: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """What one worker returns at the end of a run, for all.

    Attributes:
        sha256: hashes of weights and optimizer state.
        model_file: bytes of ``model.keras``.
    """

    sha256: dict[str, str]
    model_file: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseReport:
    """What one worker returns when the run is paused: the checkpoint it has written, None without checkpoints."""

    checkpoint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """What one worker returns at the end of a pass: metrics (empty for a prediction)."""

    logs: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialCheckpoint:
    """A checkpoint to begin from: where checkpoints are, and its name."""

    location: str
    name: str
