"""What the driver asks of workers, and what they report: plain values that travel between processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from heliostat.cluster.tree import Node, SegmentOp, Vector
from heliostat.data import Shuffle

from .columns import Columns
from .shipping import Shipped

LoopName = Literal["fit", "train_on_batch", "custom"]
# A contribution's segments: gradients and moving averages; metric changes; extrema.
SEGMENT_OPS: tuple[SegmentOp, ...] = ("sum", "sum", "max")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """How a worker sets up its process.

    Attributes:
        replicas: replicas of its strategy; None means all its GPUs, or one CPU device.
        threads: TensorFlow's intra-op threads.
        deterministic: ask TensorFlow for deterministic kernels.
        devices_per_worker: logical CPU devices to leave to each lower rank (several workers in one process).
        num_devices: logical CPU devices that the process needs in all.
    """

    replicas: int | None
    threads: int
    deterministic: bool
    devices_per_worker: int = 0
    num_devices: int = 1


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PassJob:
    """A pass over a dataset without training: evaluate or predict."""

    model: ModelJob
    data: str
    columns: Columns
    global_batch_size: int
    fresh: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FitJob:
    """A whole run.

    Attributes:
        user_code: ``(train_step, valid_step, callbacks)``; shipped; callbacks for the chief only.
        has_callbacks: whether the chief has callbacks of the user's.
        record_rows: report the row ids of every step (for proofs).
        run_dir: absolute path of the run folder.
    """

    model: ModelJob
    loop: LoopName
    data: str
    validation_data: str | None
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A worker has built the model.

    Attributes:
        digest: its state after copying rank 0's.
        num_weights: trainable numbers.
        platform: what its bits depend on besides the run's arguments: device type, versions, processor.
    """

    digest: str
    num_weights: int
    platform: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The chief's view of a running epoch, several times a second at most."""

    epoch: int
    step: int
    steps: int
    rows: int
    logs: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationPart:
    """A worker's tree nodes of a pass without training, and the rows in them."""

    nodes: dict[Node, Vector]
    num_leaves: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochPart:
    """A worker's view of a finished epoch.

    Attributes:
        epoch: its number.
        logs: the global training metrics as this worker has them.
        digest: its training state.
        rows: rows it computed; `total_rows` those of the whole group.
        times: its time split, in seconds.
        validation: its share of the validation pass, None without validation data.
        row_ids: per step the row ids it computed, if the job asks for them.
    """

    epoch: int
    logs: dict[str, Any]
    digest: str
    rows: int
    total_rows: int
    times: dict[str, float]
    validation: ValidationPart | None
    row_ids: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationSum:
    """The driver's answer to `EpochPart`: the whole validation pass in one vector (empty without validation)."""

    vector: Vector
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochLogs:
    """The chief's numbers of an epoch, after its callbacks have seen (and perhaps extended) them."""

    epoch: int
    logs: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """What a worker returns at the end of a run.

    Attributes:
        sha256: hashes of its weights and optimizer state.
        model_file: bytes of ``model.keras``, from the chief alone.
    """

    sha256: dict[str, str]
    model_file: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictPart:
    """Predictions of a contiguous range of rows, `start` first: a structure of arrays, None without rows."""

    start: int
    outputs: Any = field(default=None)
