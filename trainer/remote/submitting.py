"""Making a job: what goes to the cluster, in which order, so that nothing is there of which nobody here knows.

Packages are put first, which Ray deletes again where no job names them. Then the handle is written (`handle`), and only
then is the job made: whoever dies in between leaves a handle of a job that never was, which is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from heliostat.cluster.head.api import Head
from heliostat.cluster.head.entrypoint import entrypoint
from heliostat.cluster.head.own_package import heliostat_package

from ..storage_thread import telling
from .handle import Handle

STOP_WAIT_S = 600  # after SIGTERM, for a step to finish and a checkpoint to be written; then Ray kills
_STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    """What a job consists of.

    Attributes:
        module: what is run in the job, as ``python -m module``.
        argument: makes its one argument from the URIs of `data`.
        code: a zip that becomes the job's working directory; empty without.
        data: further packages, whatever they hold.
        variables: of the job's environment.
    """

    module: str
    argument: Callable[[tuple[str, ...]], str]
    code: bytes = b""
    data: tuple[bytes, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


def submit_shipment(
    head: Head, handle: Handle, shipment: Shipment, folder: Path | None, say: Callable[[str], None]
) -> None:
    """Put what a job consists of, write its handle, and make the job.

    Args:
        head: the cluster.
        handle: of the job.
        shipment: what it consists of.
        folder: where the handle is written; None for a job that nobody looks for afterwards.
        say: takes lines about what takes time.

    Raises:
        StorageError: the handle cannot be written.
        ClusterError: the cluster does not answer, or refuses. Where there is a handle, it is not known whether the job
            was made, which is a note of the error.
    """
    own = heliostat_package()
    sent = (own, shipment.code, *shipment.data)
    what = f"{sum(map(len, sent)) / 1e6:,.1f} MB to {head.address}"
    with telling(lambda seconds: say(f"sending {what}, for {seconds:.0f} s")):
        data = head.put_all(shipment.data)
        code = head.put(shipment.code) if shipment.code else ""
        own_uri = head.put(own)
    runtime_env = {
        **({"working_dir": code} if code else {}),
        "py_modules": [own_uri],
        "env_vars": {_STOP_WAIT: str(STOP_WAIT_S), **shipment.variables},
    }
    if folder is not None:
        handle.write(folder)
    try:
        with telling(lambda seconds: say(f"waiting for {head.address} to take the job, for {seconds:.0f} s")):
            head.submit(
                submission_id=handle.submission_id,
                entrypoint=entrypoint(shipment.module, shipment.argument(data)),
                runtime_env=runtime_env,
                metadata={"heliostat": handle.what, "name": Path(handle.script).name},
            )
    except Exception as error:
        if folder is not None:
            error.add_note(f"Whether the job was made is not known: heliostat status {folder} asks for it.")
        raise
