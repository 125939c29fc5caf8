"""The hardware that a worker computes on, as values, and how that of two workers is compared.

Libraries choose a kernel by what the hardware can do: oneDNN and XLA by the processor's instructions, cuDNN by the GPU.
Other kernels add up in another order. So a run keeps to hardware of one kind, unless `mixed_hardware="allow"` says that
bits may depend on who computes what. A processor's name is written down, and decides nothing by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from .quiet_load import load_tensorflow

Platform = Mapping[str, str]
"""What the bits of a run depend on besides its arguments, by name: of the hardware, and versions of what runs on it."""

# What selects kernels. A record may lack some: each device type has its own, and older records have few.
HARDWARE = ("device_type", "machine", "instructions", "settings", "gpu", "cudnn")
DESCRIPTIONS = ("processor",)  # recorded for people
# Instructions that libraries ask for before they choose a kernel, as the kernel of Linux calls them: x86, then ARM.
_INSTRUCTIONS = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8"),
    *("asimddp", "asimdhp", "sve", "sve2", "bf16", "i8mm"),
)


def processor_of(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, str]:
    """The processor's name, and those of its instructions that select kernels; empty where the system does not tell."""
    try:
        lines = cpuinfo.read_text().split("\n\n", 1)[0].splitlines()
    except OSError:  # no Linux
        return "", ""
    found = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    known = (found.get("flags") or found.get("Features", "")).split()
    name = found.get("model name") or " ".join(found.get(f"CPU {key}", "") for key in ("implementer", "part")).strip()
    return name, " ".join(each for each in _INSTRUCTIONS if each in known)


def gpu_names(details: Iterable[Mapping[str, object]]) -> str:
    """Names and capabilities of GPUs, from what TensorFlow tells of each: ``NVIDIA H100 (9.0)``."""
    found = set()
    for each in details:
        capability = each.get("compute_capability", ())
        version = ".".join(map(str, capability)) if isinstance(capability, tuple) else "unknown"
        found.add(f"{each.get('device_name', 'a GPU without a name')} ({version})")
    return " and ".join(sorted(found))


def gpus_of_machine(driver: Path = Path("/proc/driver/nvidia/gpus")) -> int:
    """How many GPUs NVIDIA's driver has on this machine, whoever may use them; 0 without it."""
    try:
        return sum(1 for _ in driver.iterdir())
    except OSError:
        return 0


def leave_gpus() -> bool:
    """Keep TensorFlow off the GPUs in this process: they are the workers'. False where it runs already as it is."""
    load_tensorflow()
    import tensorflow as tf  # most who ask what hardware there is have no use for it

    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError:
        return False
    return True


def differing(one: Platform, other: Platform, names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The parts of these names that both have, and that differ: what each has."""
    both = [name for name in names if name in one and name in other]
    return {name: (one[name], other[name]) for name in both if one[name] != other[name]}


def not_compared(before: Platform, now: Platform) -> tuple[str, ...]:
    """The hardware's parts that an older record lacks."""
    return tuple(name for name in HARDWARE if name in now and name not in before)


def told(differences: Mapping[str, tuple[str, str]], one: str, other: str) -> str:
    """What differs, in words; `one` and `other` say whose it is."""
    return "; ".join(f"{name}: {a!r} {one}, {b!r} {other}" for name, (a, b) in differences.items())


def refusal(differences: str) -> str:
    """Why hardware that differs in this is refused, and what to do."""
    return (
        f"The hardware differs ({differences}), so libraries would select other kernels, and other kernels have other "
        "bits. Compute on machines of one kind; or give mixed_hardware='allow': then the run goes on, and its bits "
        "depend on which worker computes which microbatch."
    )


def permission(differences: str) -> str:
    """What to say where hardware that differs in this is allowed."""
    return (
        f"warning: the hardware differs ({differences}), and mixed_hardware='allow': bits depend on which worker "
        "computes which microbatch"
    )
