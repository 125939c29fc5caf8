"""Set up TensorFlow in a process before it computes anything: devices, threads, determinism.

Bits depend on TensorFlow's intra-op threads, so their number is fixed for a run, and recorded. Once TensorFlow has
started it cannot be changed: in a user's own process it may be there already. They do not depend on how many operations
run at a time: a worker's own process runs as many as it has threads, or replicas, lest workers of one machine
take each other's cores. Arithmetic optimisation of graphs is off: it turns (a+b)+(c+d) into AddN, a left fold with
other bits.
"""

from __future__ import annotations

import logging
import platform
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions

import keras
import tensorflow as tf
from heliostat.cluster.cores import affine_cores

from .. import environment
from ..errors import RuntimeSetupError
from ..hardware import gpu_names, processor_of
from ..trainer_config import Device

# Keras's global state is not thread-safe: building and tracing happen one at a time in a process.
BUILD_LOCK = threading.RLock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """What a worker computes on.

    Attributes:
        devices: device names, one per replica, such as ``"GPU:0"`` or ``"CPU:1"``.
        threads: intra-op threads of TensorFlow; part of a run's identity, since bits depend on it.
        device_type: ``"GPU"`` or ``"CPU"``.
        one_at_a_time: TensorFlow runs one operation at a time in this process.
        notes: what the user should know of how it is set up.
    """

    devices: tuple[str, ...]
    threads: int
    device_type: str
    one_at_a_time: bool = False
    notes: tuple[str, ...] = ()

    @property
    def on_one_cpu(self) -> bool:
        """Whether its only device is the processor, where eager operations run as well."""
        return self.devices == ("CPU:0",)

    @property
    def gpus(self) -> tuple[str, ...]:
        """The replicas' devices where they are GPUs, else none."""
        return self.devices if self.device_type == "GPU" else ()

    def strategy(self) -> tf.distribute.MirroredStrategy:
        """A `MirroredStrategy` over the devices; Heliostat sums over replicas itself, in the tree's order."""
        logger = tf.get_logger()
        before = logger.level
        logger.setLevel(max(before, logging.WARNING))  # in a notebook TensorFlow would name the devices in each fit
        try:
            reduction = tf.distribute.ReductionToOneDevice()
            return tf.distribute.MirroredStrategy(list(self.devices), cross_device_ops=reduction)
        finally:
            logger.setLevel(before)


def set_up(
    *,
    replicas: int | None,
    threads: int,
    device: Device = "auto",
    deterministic: bool = True,
    first_device: int = 0,
    num_devices: int = 1,
    owns_process: bool = False,
) -> Runtime:
    """Configure TensorFlow in this process and choose the replicas' devices.

    Args:
        replicas: number of replicas; None means all GPUs, or one CPU device where there is none.
        threads: intra-op threads per worker.
        device: what replicas are; "auto" takes GPUs where TensorFlow sees some.
        deterministic: ask TensorFlow for deterministic kernels.
        first_device: index of the first logical CPU device to use (several workers in one process).
        num_devices: logical CPU devices that the process needs in all.
        owns_process: the process is this worker's alone. Then it runs no more operations at a time than it has threads,
            or replicas: workers that each take all cores get into each other's way. Bits do not depend on it.

    Raises:
        RuntimeSetupError: TensorFlow is already running with other settings, or there are fewer devices than replicas.
    """
    with BUILD_LOCK:
        gpus = usable_gpus(device)
        count = replicas if replicas is not None else max(1, len(gpus))
        if gpus and first_device + count > len(gpus):
            raise _missing_gpus(first_device + count, len(gpus))
        fix_threads(threads, usual=threads)
        at_a_time = max(threads, count)
        if owns_process:
            tf.config.threading.set_inter_op_parallelism_threads(at_a_time)
        _keep_summation_order()
        if not gpus:
            _split_cpu(max(num_devices, first_device + count))
        if deterministic:
            tf.config.experimental.enable_op_determinism()
        device_type = "GPU" if gpus else "CPU"
        return Runtime(
            devices=tuple(f"{device_type}:{first_device + i}" for i in range(count)),
            threads=threads,
            device_type=device_type,
            one_at_a_time=owns_process and at_a_time == 1,
            notes=_grow_memory(gpus),
        )


def usable_gpus(device: Device) -> list[tf.config.PhysicalDevice]:
    """The GPUs that TensorFlow is to use in this process: those it sees, none with ``device="cpu"``.

    Raises:
        RuntimeSetupError: it sees none, and they are wanted; or they are not, and it uses them already.
    """
    gpus: list[tf.config.PhysicalDevice] = tf.config.get_visible_devices("GPU")
    if device == "gpu" and not gpus:
        raise _missing_gpus(1, 0)
    if device != "cpu" or not gpus:
        return gpus
    if not _try_configure(lambda: tf.config.set_visible_devices([], "GPU")):
        raise RuntimeSetupError(
            "device='cpu', and TensorFlow already runs in this process with its GPUs. Call fit before any other "
            "TensorFlow work, start Python with CUDA_VISIBLE_DEVICES=-1, or use workers=1, which starts a process of "
            "its own."
        )
    return []


def _missing_gpus(wanted: int, seen: int) -> RuntimeSetupError:
    if seen:
        return RuntimeSetupError(
            f"{wanted} GPU(s) are wanted on this machine, and TensorFlow sees {seen}. Ask for fewer with "
            "replicas_per_worker=, or for fewer workers."
        )
    return RuntimeSetupError(f"{wanted} GPU(s) are wanted on this machine, and {no_gpus_seen()}")


def no_gpus_seen() -> str:
    """Why TensorFlow sees no GPU of this machine, and what to do."""
    if tf.sysconfig.get_build_info().get("is_cuda_build"):
        why = "the driver or CUDA's libraries are missing or do not fit (nvidia-smi shows what the driver sees)"
    else:
        why = "it is built for processors alone"
    return (
        f"TensorFlow {tf.__version__} sees none: {why}. On every machine: pip install "
        f"'tensorflow[and-cuda]=={tf.__version__}', without tensorflow-cpu beside it. To compute on processors: "
        "device='cpu'."
    )


def _grow_memory(gpus: Sequence[tf.config.PhysicalDevice]) -> tuple[str, ...]:
    """Let TensorFlow take memory of GPUs as it needs it; returns what to say where it has taken all of it already."""

    def grows(gpu: tf.config.PhysicalDevice) -> bool:
        grow = lambda: tf.config.experimental.set_memory_growth(gpu, True)  # noqa: E731
        return _try_configure(grow) or bool(tf.config.experimental.get_memory_growth(gpu))

    if all(map(grows, gpus)):
        return ()
    return ("TensorFlow ran in this process before, and has taken the memory of its GPUs: others cannot use it",)


def fix_threads(wanted: int | None, *, usual: int) -> int:
    """Fix TensorFlow's intra-op threads in this process, unless they are fixed already; returns how many there are.

    Args:
        wanted: no other number will do; None takes what is there.
        usual: how many to take where nothing is fixed, and none are `wanted`.

    Raises:
        RuntimeSetupError: TensorFlow already runs with another number than the one that is wanted.
    """
    chosen = tf.config.threading.get_intra_op_parallelism_threads()
    if wanted is None and chosen:
        return chosen
    try:
        tf.config.threading.set_intra_op_parallelism_threads(wanted or usual)
        return wanted or usual
    except RuntimeError as error:  # TensorFlow has started
        running = chosen or environment.tensorflow_threads() or affine_cores()
        if wanted in (None, running):
            return running
        raise RuntimeSetupError(
            f"TensorFlow already runs in this process with {running} intra-op threads, and the run asks for {wanted}; "
            "the number cannot change once TensorFlow has started. Call fit before any other TensorFlow work, use "
            "workers=1, which starts a process of its own, or leave out threads_per_worker (a new run then takes the "
            "threads there are)."
        ) from error


def _keep_summation_order() -> None:
    # Grappler rewrites (a+b)+(c+d) into AddN, a left fold with other bits.
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})


def _split_cpu(count: int) -> None:
    """Make `count` logical CPU devices, the stand-ins for GPUs, before TensorFlow starts."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    configured = tf.config.get_logical_device_configuration(cpu)
    if configured is not None and len(configured) >= count:
        return
    if count == 1:
        return
    wanted = [tf.config.LogicalDeviceConfiguration()] * count
    if _try_configure(lambda: tf.config.set_logical_device_configuration(cpu, wanted)):
        return
    existing = len(tf.config.list_logical_devices("CPU"))
    if existing < count:
        raise RuntimeSetupError(
            f"{count} replicas need {count} logical CPU devices, and TensorFlow already runs in this process with "
            f"{existing}. Build the Trainer before any other TensorFlow work, or use workers=1 or more, which start "
            "processes of their own."
        )


def _try_configure(configure: Callable[[], None]) -> bool:
    try:
        configure()
    except (RuntimeError, ValueError):  # TensorFlow has started: the caller decides whether that matters
        return False
    return True


def platform_of(runtime: Runtime) -> dict[str, str]:
    """What the bits of a run depend on besides its arguments, for its record and for comparing workers."""
    build = tf.sysconfig.get_build_info()
    processor, instructions = processor_of()
    found = {
        "device_type": runtime.device_type,
        "tensorflow": tf.__version__,
        "tensorflow_build": f"cuda {build.get('cuda_version')}" if build.get("is_cuda_build") else "cpu",
        "keras": keras.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": processor,
        "settings": environment.kernel_settings(),
    }
    if not runtime.gpus:
        return found | {"instructions": instructions}
    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.get_visible_devices("GPU")]
    return found | {"gpu": gpu_names(details), "cudnn": f"{build.get('cudnn_version')}, {_cudnn_package()}"}


def _cudnn_package() -> str:
    """The installed package that brings cuDNN, which may be newer than the one TensorFlow was built with."""
    for distribution in distributions():
        if distribution.name.startswith("nvidia-cudnn-"):
            return f"{distribution.name} {distribution.version}"
    return "the system's"
