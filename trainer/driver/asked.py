"""Which Ray a user asks for, and what it is to set up for workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heliostat.cluster.pools.ray_address import ARGUMENT, AUTO, LOCAL, Asked, reason_against

from .. import environment
from ..errors import ConfigurationError
from ..trainer_config import TrainerConfig


def checked_runtime_env(given: object, settings: TrainerConfig) -> Mapping[str, Any] | None:
    """A `runtime_env` as a user gives it; Ray checks what is in it. Raises ConfigurationError."""
    if given is None:
        return None
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise ConfigurationError(
            f"runtime_env is of type {type(given).__name__}; it takes a dict such as {{'pip': ['scipy']}}, as ray.init "
            "takes it."
        )
    if settings.local:
        raise ConfigurationError(
            "workers=0 and in_process=True compute in this process, so runtime_env has no use. Leave it out, or give "
            "workers=1 or more."
        )
    return given


def asked_address(settings: TrainerConfig) -> Asked | None:
    """The Ray cluster that a user asks for, by the argument or for all scripts; None if he does not.

    Raises:
        ConfigurationError: that is no address of a cluster; within a job it does not count, and may be anything.
    """
    asked = _asked(settings)
    if asked is None or asked.address in (AUTO, LOCAL) or environment.is_job():
        return asked
    if wrong := reason_against(asked.address):
        raise ConfigurationError(f"{asked.address!r} (from {asked.origin}) {wrong}")
    return asked


def job_server(settings: TrainerConfig) -> str | None:
    """The job server that a trainer's calls are to go to; None if its runs are this process's."""
    asked = _asked(settings)
    if asked is None or environment.is_job() or not asked.address.lower().startswith(("http://", "https://")):
        return None
    return asked.address


def _asked(settings: TrainerConfig) -> Asked | None:
    """What a user gives as address, whatever it is."""
    if settings.local:
        return None
    if settings.address is not None:
        return Asked(address=settings.address, origin=ARGUMENT)
    named = environment.named_address()
    return None if named is None else Asked(address=named, origin=f"the environment variable {environment.ADDRESS}")
