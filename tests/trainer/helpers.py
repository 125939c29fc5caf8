"""Short ways to a trainer in this process."""

from __future__ import annotations

from heliostat.trainer import Trainer


def local_trainer(build_model, tmp_path, *, workers=0, replicas=1, num_microbatches=4, **arguments):
    """A trainer whose workers are threads of this process (none for 0)."""
    return Trainer(
        build_model,
        workers=workers,
        in_process=workers > 0,
        replicas_per_worker=replicas,
        num_microbatches=num_microbatches,
        run_dir=tmp_path / "run",
        deadline_s=60,
        **{"seed": 7} | arguments,
    )
