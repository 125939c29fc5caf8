"""``python -m heliostat.trainer.doctor.gpus``: prints a line, the GPUs that TensorFlow sees in a process of its own."""

from __future__ import annotations

from ..environment import quiet_tensorflow


def main() -> None:
    """Look, and print it as JSON."""
    quiet_tensorflow()
    import msgspec
    import tensorflow as tf

    from ..engine.runtime import no_gpus_seen
    from ..hardware import gpu_names
    from .machine import Gpus

    seen = tf.config.list_physical_devices("GPU")
    names = gpu_names(map(tf.config.experimental.get_device_details, seen))
    print(msgspec.json.encode(Gpus(seen=len(seen), names=names, why="" if seen else no_gpus_seen())).decode())


if __name__ == "__main__":
    main()
