"""One error of every class, or several where a class says several things, with real values: `EXAMPLES`.

Errors whose class makes the text are constructed as the code constructs them; of the others (`ConfigurationError`,
`ShardError` ...), whose text stands where they are raised, something is called that raises one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from heliostat.cluster import errors as cluster
from heliostat.cluster.errors import (
    Call,
    Complaint,
    DiskError,
    PeerError,
    PlacementError,
    PreflightError,
    ProtocolError,
)
from heliostat.cluster.group.messages import Failure
from heliostat.cluster.head import own_package
from heliostat.cluster.spec import GroupSpec
from heliostat.data import open_dataset, write_dataset
from heliostat.data.conversion.convert import convert
from heliostat.data.order.plan import BatchPlan
from heliostat.data.remote.filesystem import connect
from heliostat.scripts.commands.chaos import interval_s
from heliostat.scripts.demo.corpus import build_corpus
from heliostat.trainer import errors as trainer
from heliostat.trainer.checkpoints.store import CheckpointStore
from heliostat.trainer.checkpoints.values import pack, unpack
from heliostat.trainer.columns import Columns
from heliostat.trainer.config import FitConfig
from heliostat.trainer.driver.coordinator import _disagreement
from heliostat.trainer.driver.run_folder import read_json, read_record
from heliostat.trainer.keras_arguments import refuses_unknown
from heliostat.trainer.remote.in_job import PackageGoneError
from heliostat.trainer.remote.packing import DamagedPackageError, DataTooLargeError, FolderTooLargeError
from heliostat.trainer.source import SourceTooLargeError

# (class, what of it, how it comes about): called in an empty folder, it returns the error or raises it.
Made = Callable[[], BaseException | object]
EXAMPLES: list[tuple[str, str, Made]] = []
WITH_TENSORFLOW: list[tuple[str, str, Made]] = []


def example(kind: str, what: str, made: Made | None = None, *, tensorflow: bool = False):
    """Add one; as a decorator of the function that makes it, or with the function behind."""

    def add(function: Made) -> Made:
        (WITH_TENSORFLOW if tensorflow else EXAMPLES).append((kind, what, function))
        return function

    return add if made is None else add(made)


@contextlib.contextmanager
def empty_folder(here: Path) -> Iterator[None]:
    """Stand in an empty folder below `here`."""
    before, place = Path.cwd(), here / "here"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    os.chdir(place)
    try:
        yield
    finally:
        os.chdir(before)


def text_of(made: Made, here: Path) -> tuple[str, str]:
    """The name of the error's class, and its whole text; the folder that it was made in is HERE."""
    with empty_folder(here):
        try:
            found = made()
        except BaseException as error:
            found = error
    assert isinstance(found, BaseException), found
    return type(found).__name__, str(found).replace(str(here / "here"), "HERE")


# -- cluster ----------------------------------------------------------------------------------------------------------

CALL, HEAD, JOBS = Call(rank=0, generation=3, sequence=17), "10.0.0.1:6379", "http://10.0.0.1:8265"
SUBMISSION = "heliostat-train-20260101-120000-3f9a"


example("ClusterError", "Heliostat cannot be sent", lambda: list(own_package._files("nothing")))
example("SpecError", "fewer workers than the least", lambda: GroupSpec(num_workers=2, min_workers=3))
example("DiskError", "another user", lambda: DiskError.not_seen("/home/a/runs", "it is not there"))
example("DiskError", "silent", lambda: DiskError.silent(30))
example("DiskError", "gone", lambda: DiskError.gone("the connection was closed"))
example("PlacementError", "no answer", lambda: PlacementError.no_answer(HEAD, "address=", "connection refused"))
example("PlacementError", "no node here", lambda: PlacementError.no_node_here(HEAD, "address=", "no raylet is found"))
example("PlacementError", "no cluster here", lambda: PlacementError.no_cluster_here("address="))
example("PlacementError", "no address of jobs", lambda: PlacementError.no_address_of_jobs("ftp://10.0.0.1"))
example("PlacementError", "no job server", lambda: PlacementError.no_job_server(JOBS, "it does not speak HTTP"))
example("PlacementError", "token", lambda: PlacementError.token(HEAD, "this machine has none"))
example(
    "PlacementError",
    "other versions",
    lambda: PlacementError.other_versions(HEAD, ("2.59.0", "3.12.1"), ("2.60.0", "3.11.7")),
)
example(
    "PlacementError", "runtime_env", lambda: PlacementError.bad_runtime_env(["pip"], ValueError("no such package: x."))
)
example(
    "PlacementError",
    "runtime_env with secrets",
    lambda: PlacementError.bad_runtime_env(["env_vars"], ValueError("{'TOKEN': 'secret'}")),
)
example("PlacementError", "runtime_env too late", lambda: PlacementError.connected_without(["pip"]))
example("PlacementError", "its Ray is gone", lambda: PlacementError.ray_is_gone("gcs_server (signal 9)"))
example("NoAnswerError", "", lambda: cluster.NoAnswerError(JOBS, "connection refused"))
example(
    "PreflightError",
    "one thing",
    lambda: PreflightError([Complaint(host="b", what="/tmp has 1.2 GB left", remedy="Free some room there")]),
)
example(
    "PreflightError",
    "several",
    lambda: PreflightError(
        [
            Complaint(host="b", what="Python 3.12.1, and 3.11.7 here", remedy="Install the same version"),
            Complaint(host="c", what="Python 3.12.1, and 3.11.7 here", remedy="Install the same version"),
            Complaint(host="c", what="/tmp has 1.2 GB left", remedy="Free some room there"),
        ]
    ),
)
example(
    "UnreachableError",
    "",
    lambda: cluster.UnreachableError(
        [(0, 1)], {0: "a, 10.0.0.1:4000", 1: "b, 10.0.0.2:4001"}, "10.0.0.2:4001 gave no answer within 5 s."
    ),
)
example(
    "JobServerError",
    "refused",
    lambda: cluster.JobServerError.refused(JOBS, "POST /api/jobs/", 500, "Traceback\n ...\nOSError: no space.\n"),
)
example("JobServerError", "too large", lambda: cluster.JobServerError.too_large(JOBS, 120_000_000, 100_000_000))
example("NoSuchJobError", "", lambda: cluster.NoSuchJobError(JOBS, SUBMISSION))
example("TaskFailed", "", lambda: cluster.TaskFailed(Failure(worker=1, kind="lost_peer", reason="rank 0 is silent")))
example("Dismissed", "", lambda: cluster.Dismissed("worker 0 delivers the result"))
example("PeerError", "lost", lambda: PeerError.lost(CALL, 1, "connection reset by peer", also=(2,)))
example("PeerError", "silent", lambda: PeerError.silent(CALL, (1, 2), 5.0, "waiting for its partial sums"))
example("PeerError", "unreachable", lambda: PeerError.unreachable(CALL, (1,), 10, "10.0.0.2:4001 gave no answer"))
example("PeerError", "a stranger", lambda: PeerError.stranger(CALL, 1, "it does not know the secret"))
example("PeerError", "of an older group", lambda: PeerError.of_generation(CALL, 1, 2))
example("PeerError", "of a younger group", lambda: PeerError.of_generation(CALL, 1, 4))
example("Aborted", "", lambda: cluster.Aborted(CALL, "the driver has ended the generation"))
example("ProtocolError", "a frame", lambda: ProtocolError.frame(CALL, 1, "it has 12 bytes, and 16 are due"))
example(
    "ProtocolError",
    "out of step",
    lambda: ProtocolError.out_of_step(CALL, 1, "call 17 (all-reduce)", "call 18 (barrier)"),
)

# -- data -------------------------------------------------------------------------------------------------------------


def _dataset(**columns: object):
    return write_dataset("set", columns or {"x": np.arange(8), "y": np.arange(8) % 2})


@example("DatasetNotFoundError", "no such folder")
def _misspelt():
    _dataset()
    return open_dataset("sett")


@example("DatasetNotFoundError", "a folder of pictures")
def _pictures():
    Path("photos/cat").mkdir(parents=True)
    Path("photos/cat/1.jpg").write_bytes(b"")
    return open_dataset("photos")


example("DatasetExistsError", "", lambda: (_dataset(), _dataset()))


@example("ManifestError", "cut short")
def _cut_manifest():
    _dataset()
    Path("set/manifest.json").write_text("cut")
    return open_dataset("set")


@example("ShardError", "a file is missing")
def _no_shard():
    _dataset()
    (shard,) = Path("set").glob("*.arrow")
    shard.unlink()
    return open_dataset("set").head(1)


example("BadColumnError", "lengths", lambda: _dataset(x=np.arange(3), y=np.arange(4)))
example("BadColumnError", "missing values", lambda: _dataset(x=[1.0, None, 2.0]))
example("UnknownColumnError", "", lambda: _dataset().select_columns("z"))
example("RowError", "", lambda: _dataset().reader().gather(np.array([9])))


@example("SourceError", "a CSV file without a header")
def _csv():
    Path("a.csv").write_text("")
    return convert("a.csv", "set")


@example("SourceError", "a file that cannot be converted")
def _other_kind():
    Path("a.docx").write_text("")
    return convert("a.docx", "set")


example(
    "PlanError",
    "",
    lambda: BatchPlan(num_rows=8, global_batch_size=4, num_microbatches=2).step_rows(2),
)
example("SelectionError", "", lambda: _dataset().filter(lambda rows: rows["x"] > 9))


@example("TransformError", "a map that raises")
def _map():
    def scaled(rows):
        return {"z": rows["w"] / 2}

    return _dataset().map(scaled, version="1")


example("RemoteError", "", lambda: connect("nothing://bucket/folder"))


@example("CacheError", "")
def _cache():
    _dataset()
    Path("taken").write_text("")
    dataset = open_dataset(f"file://{Path('set').absolute()}", cache_dir="taken/cache")
    return dataset.head(1)


# -- trainer ----------------------------------------------------------------------------------------------------------

RUN, CHECKPOINT = Path("/home/a/runs/news"), "000003-00000000.g0"
X = np.zeros((8, 4), "float32")
HOLDER = {"host": "a", "pid": 4711, "since": time.mktime((2026, 1, 1, 12, 0, 0, 0, 1, -1))}


@refuses_unknown("fit")
def fit(x: object, epochs: int = 1, batch_size: int | None = None) -> None:
    """As `Trainer.fit` answers."""


def _json(path: str, text: str) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    return Path(path)


example("TrainerError", "a file of a run folder", lambda: read_json(_json("run/plan.json", "[]")))
example("ConfigurationError", "a name that is near", lambda: fit(1, epocs=2))
example("ConfigurationError", "a name of other libraries", lambda: fit(1, num_gpus=2))
example("ConfigurationError", "a choice", lambda: FitConfig(epochs=1, global_batch_size=32, on_nonfinite="stop"))
example("ConfigurationError", "no run folder", lambda: read_record(Path("runs")))
example("ConfigurationError", "a run of another version", lambda: read_record(_json("run/run.json", "{}").parent))
example(
    "EnvironmentVariableError", "", lambda: trainer.EnvironmentVariableError("HELIOSTAT_WORKERS", "two", "a number")
)
example(
    "DamagedRecordError",
    "with checkpoints",
    lambda: trainer.DamagedRecordError(RUN / "run.json", "it is no JSON", can_go_on=True),
)
example("DamagedRecordError", "without", lambda: read_record(_json("run/run.json", "cut").parent))
example("HandleError", "", lambda: trainer.HandleError(RUN, "it holds none"))
example("LeaseHeldError", "that lives", lambda: trainer.LeaseHeldError(RUN, HOLDER, 3, 300))
example("LeaseHeldError", "that is silent", lambda: trainer.LeaseHeldError(RUN, HOLDER, 3600, 300))
example("LeaseHeldError", "that is being written", lambda: trainer.LeaseHeldError(RUN, None, 0, 300))
example("LeaseLostError", "", lambda: trainer.LeaseLostError(RUN, HOLDER))
example("OtherBeginningError", "began anew", lambda: trainer.OtherBeginningError(RUN, None, 3, "runs/first"))
example(
    "OtherBeginningError",
    "would begin anew",
    lambda: trainer.OtherBeginningError(RUN, {"epochs": 3}, None, "runs/first"),
)
example("OtherBeginningError", "longer", lambda: trainer.OtherBeginningError(RUN, {"epochs": 3}, 5, "runs/first"))
example("OtherBeginningError", "shorter", lambda: trainer.OtherBeginningError(RUN, {"epochs": 3}, 2, "runs/first"))
example(
    "OtherBeginningError", "other weights", lambda: trainer.OtherBeginningError(RUN, {"epochs": 3}, 3, "runs/first")
)
example("ValueNotCarriedError", "", lambda: pack({"best": [1, (2, 3)]}))
example("UnsupportedModelAttributeError", "", lambda: trainer.UnsupportedModelAttributeError("model.share", "Lock"))
example(
    "UnsupportedModelVariableError",
    "",
    lambda: trainer.UnsupportedModelVariableError("share", "a global of train.py, share"),
)
example("UnsupportedModelChangeError", "", lambda: trainer.UnsupportedModelChangeError("Unfreeze", "on_epoch_begin"))
example(
    "UnsupportedStepInCallbackError",
    "",
    lambda: trainer.UnsupportedStepInCallbackError("model.train_on_batch", "Replay", "on_epoch_end"),
)
example("DamagedStateError", "", lambda: unpack(b"nothing like it"))
example(
    "CallbackFilesError",
    "",
    lambda: trainer.CallbackFilesError(str(RUN), "/tmp/heliostat/news", "No space left on device"),
)
example("CheckpointError", "a place that is a file", lambda: CheckpointStore(_json("checkpoints", "")))
example("CheckpointError", "no name of one", lambda: CheckpointStore("checkpoints").write("third", {}))
example("DamagedCheckpointError", "missing", lambda: CheckpointStore("checkpoints").manifest(CHECKPOINT))
example(
    "DamagedCheckpointError",
    "cut short",
    lambda: CheckpointStore(_json(f"checkpoints/{CHECKPOINT}/manifest.json", "cut").parents[1]).manifest(CHECKPOINT),
)
example("StateNotKeptError", "", lambda: trainer.StateNotKeptError("it was not kept"))
for _number in (errno.ENOSPC, errno.EACCES, errno.ENOENT, errno.ENOTDIR, errno.EIO):
    _error = OSError(_number, os.strerror(_number))
    example(
        "StorageError", errno.errorcode[_number], lambda error=_error: trainer.StorageError(RUN / "run.json", error)
    )
example("SessionError", "arrays", lambda: trainer.SessionError.no_step("train_on_batch", np.zeros(3)))
example(
    "SessionError",
    "an epoch too early",
    lambda: trainer.SessionError.out_of_turn("s.steps(2)", "before step 3 of the 40 of epoch 1"),
)
example("SessionError", "a step left out", lambda: trainer.SessionError.not_done("train_on_batch", 3, 1))
example("SessionError", "over", lambda: trainer.SessionError.over(20, 20))
example("SessionError", "finished", lambda: trainer.SessionError.over(20, 20, Path("runs/news")))
example("SessionError", "no validation data", lambda: trainer.SessionError.no_validation())
example("SessionError", "metrics", lambda: trainer.SessionError.in_an_epoch(3, 1))
example("SessionError", "rate", lambda: trainer.SessionError.rate(0.001, "a schedule decides it"))
example("SessionError", "outside", lambda: trainer.SessionError.not_open("s.steps"))
example("SessionError", "unfinished", lambda: trainer.SessionError.unfinished("it is before epoch 3"))
example("SessionError", "busy", lambda: trainer.SessionError.busy("evaluate"))
example("SessionError", "elsewhere", lambda: trainer.SessionError.elsewhere("http://head:8265"))
example("FetchError", "no folder", lambda: trainer.FetchError.no_folder(SUBMISSION))
example("FetchError", "not there", lambda: trainer.FetchError.not_there(["/root/heliostat/train/runs/news"]))
example("FetchError", "a job for it", lambda: trainer.FetchError.small_job("list", "its driver was killed"))
example("FetchError", "cut short", lambda: trainer.FetchError.changed("runs/news/model.keras", 4096, 1024))
example("FetchError", "altered", lambda: trainer.FetchError.changed("runs/news/model.keras", 4096, 4096))
example("FetchError", "a bad name", lambda: trainer.FetchError.bad_name("../.ssh/authorized_keys"))
PARTS = {"weights": 4_000_000, "gradients": 4_000_000, "what layers give out": 9_100_000_000}
example("MemoryExhaustedError", "", lambda: trainer.MemoryExhaustedError(4, 64, "OOM when allocating", PARTS))
example("MemoryExhaustedError", "one row", lambda: trainer.MemoryExhaustedError(256, 1, "OOM when allocating"))


def _in_run(error: trainer.NonfiniteGradientError) -> trainer.NonfiniteGradientError:
    error.run_dir = RUN
    return error


example(
    "NonfiniteGradientError",
    "a microbatch",
    lambda: trainer.NonfiniteGradientError(
        epoch=1, step=7, num_steps=40, microbatch=3, variables=[f"dense_{n}/kernel" for n in range(7)]
    ),
)
example(
    "NonfiniteGradientError",
    "a value of its rows",
    lambda: _in_run(
        trainer.NonfiniteGradientError(
            epoch=0, step=7, num_steps=40, microbatch=3, variables=["dense/kernel"], value="column 'x' of row 12 is nan"
        )
    ),
)
example(
    "NonfiniteGradientError",
    "the sum",
    lambda: trainer.NonfiniteGradientError(epoch=1, step=7, num_steps=40, microbatch=None),
)
example("RunPausedError", "", lambda: trainer.RunPausedError("it was asked to by Ctrl-C", RUN, CHECKPOINT))
example("RunPausedError", "too early", lambda: trainer.RunPausedError("max_time_s=60 is over", RUN, None))
example("WorkersDisagreeError", "", lambda: trainer.WorkersDisagreeError(_disagreement("weights", {0: "3f", 1: "9a"})))
LOG = str(RUN / "logs" / "worker-1.log")
WHERE = 'File "/home/a/train.py", line 12, in on_epoch_end'


def _failed(kind: str, cause: str, **known: object) -> trainer.TrainingFailedError:
    return trainer.TrainingFailedError(kind, cause, worker=1, host="b", run_dir=RUN, log_path=LOG, **known)


example("TrainingFailedError", "in code", lambda: _failed("raised", "KeyError: 'accuracy'", where=WHERE, step=80))
example("TrainingFailedError", "in a library", lambda: _failed("raised", "InternalError: no algorithm"))
example("TrainingFailedError", "died", lambda: _failed("died", "its process was killed (signal 9)", step=80))
example("TrainingFailedError", "no memory", lambda: _failed("died", "killed", evidence="out of memory", step=0))
example("TrainingFailedError", "a crash", lambda: _failed("died", "killed by SIGSEGV", evidence="crash", step=80))
example("TrainingFailedError", "an exit", lambda: _failed("died", "it ended itself", evidence="exit", step=80))
example("TrainingFailedError", "lost a peer", lambda: _failed("lost_peer", str(ProtocolError.frame(CALL, 0, "odd"))))


@example("CallError", "")
def _call():
    error = trainer.CallError("KeyError: 'units'", JOBS, "train")
    error.frames = ('  File "train.py", line 12, in build_model\n    Dense(sizes["units"])',)
    return error


example(
    "OtherEnvironmentError",
    "",
    lambda: trainer.OtherEnvironmentError(
        "b", "/usr/bin/python3.12", {"Python": ("3.12.1", "3.11.7"), "the module helpers": ("none", "helpers.py")}
    ),
)
example(
    "CallDetachedError", "", lambda: trainer.CallDetachedError(["The run goes on.", "  heliostat attach runs/news"])
)
example("PackageGoneError", "", lambda: PackageGoneError("gcs://_ray_pkg_12.zip"))
SIZES = {"photos/all.bin": 700_000_000, "model.h5": 90_000_000, "train.py": 2_000}
example("FolderTooLargeError", "", lambda: FolderTooLargeError(Path("/home/a/news"), SIZES))
example("DataTooLargeError", "", lambda: DataTooLargeError(SIZES))
example("DamagedPackageError", "", lambda: DamagedPackageError("File is not a zip file"))
example("SourceTooLargeError", "", lambda: SourceTooLargeError(Path("/home/a/news"), SIZES))


# -- trainer, with TensorFlow -----------------------------------------------------------------------------------------


def model(**options: object):
    """A small model."""
    import keras

    made = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="classifier")
    made.compile(**({"optimizer": "sgd", "loss": "mse"} | options))
    return made


@example("ModelError", "no model", tensorflow=True)
def _no_model():
    from heliostat.trainer.engine.build_model import called

    return called(lambda: 3)


@example("NotCompiledError", "", tensorflow=True)
def _not_compiled():
    import keras
    from heliostat.trainer.engine.build_model import check_compiled

    return check_compiled(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="classifier"))


@example("UnsupportedModelError", "run_eagerly", tensorflow=True)
def _eager():
    from heliostat.trainer.engine.model import _refuse_unsupported

    return _refuse_unsupported(model(run_eagerly=True))


@example("UnsupportedModelError", "gradient accumulation", tensorflow=True)
def _accumulated():
    import keras
    from heliostat.trainer.engine.model import _refuse_unsupported

    return _refuse_unsupported(model(optimizer=keras.optimizers.SGD(gradient_accumulation_steps=4)))


@example("UnsupportedStepError", "a gradient through a sum over workers", tensorflow=True)
def _through_a_sum():
    import tensorflow as tf
    from heliostat.trainer import global_sum

    with tf.GradientTape() as tape:
        weight = tf.Variable(1.0)
        loss = global_sum(weight * 2.0)
    return tape.gradient(loss, weight)


@example("UnsupportedStepError", "what it returns", tensorflow=True)
def _returns_text():
    from heliostat.trainer.engine.logs import numbers_of

    return numbers_of({"loss": 1.0, "rows": ["a"]})


@example("DataError", "no such column")
def _no_column():
    return Columns(inputs="image", targets="y").check(_dataset())


@example("DataError", "labels beyond the classes", tensorflow=True)
def _labels():
    from heliostat.trainer.engine.labels import check_label_range

    columns = Columns(inputs="x", targets="y")
    return check_label_range(model(loss="sparse_categorical_crossentropy"), _dataset(x=X, y=np.arange(8)), columns)


@example("RuntimeSetupError", "too few GPUs", tensorflow=True)
def _gpus():
    from heliostat.trainer.engine.runtime import _missing_gpus

    return _missing_gpus(4, 2)


@example("CallbackStateError", "", tensorflow=True)
def _state():
    import keras
    from heliostat.trainer.worker.callback_state import restore_callback

    return restore_callback(keras.callbacks.EarlyStopping(), {"patience_left": 3})


# -- scripts ----------------------------------------------------------------------------------------------------------

example("ScriptError", "", lambda: interval_s("often"))
example(
    "CorpusError",
    "",
    lambda: build_corpus(num_texts=9, num_classes=2, vocabulary_size=9, sequence_length=9, roots=[Path("nowhere")]),
)
