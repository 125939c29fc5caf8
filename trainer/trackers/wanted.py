"""Which trackers a user asks for, checked when that is said; and what must be there for them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from .tracker import Tracker

_MAX_PORT = 65535
_PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow-skinny", "wandb": "wandb"}
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackersWanted:
    """The trackers of a trainer, as its arguments name them.

    Attributes:
        tensorboard: write event files, into the run folder (True) or below this path.
        mlflow: send to the server that `MLFLOW_TRACKING_URI` names (True), or to this URI.
        wandb: send to Weights & Biases, into the project that `WANDB_PROJECT` names (True), or into this one, as
            "project" or "team/project".
        metrics_port: offer metrics to Prometheus on this port of all interfaces, 0 for any; or on "host:port".
        trackers: the user's own.

    Raises:
        ConfigurationError: one of them is not of that form.
    """

    tensorboard: bool | str = False
    mlflow: bool | str = False
    wandb: bool | str = False
    metrics_port: int | str | None = None
    trackers: tuple[Tracker, ...] = ()

    def __post_init__(self) -> None:
        for name, what in (("tensorboard", "a path"), ("mlflow", "the URI of a server"), ("wandb", "a project")):
            value = getattr(self, name)
            if not isinstance(value, bool) and not (isinstance(value, str) and value):
                raise ConfigurationError(f"{name}={value!r}; it takes True, False or {what}.")
        if isinstance(self.tensorboard, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", self.tensorboard):
            raise ConfigurationError(
                f"tensorboard={self.tensorboard!r} is a URI; it takes a path of a disk, or True for the run folder."
            )
        if isinstance(self.mlflow, str) and not _URI.match(self.mlflow) and self.mlflow != "databricks":
            raise ConfigurationError(
                f"mlflow={self.mlflow!r} is no URI; it takes one such as 'http://10.0.0.1:5000', or True for the one "
                "in MLFLOW_TRACKING_URI. MLFLOW_EXPERIMENT_NAME names the experiment."
            )
        self.metrics_address()
        for each in self.trackers:
            if not isinstance(each, Tracker):
                raise ConfigurationError(
                    f"trackers= has one of type {type(each).__name__}; it takes objects of subclasses of "
                    "heliostat.trainer.Tracker."
                )

    def metrics_address(self) -> tuple[str, int] | None:
        """Interface and port of the metrics; None without. Raises ConfigurationError."""
        given = self.metrics_port
        if given is None:
            return None
        host, _, port = given.rpartition(":") if isinstance(given, str) else ("", "", str(given))
        is_known = not isinstance(given, bool) and isinstance(given, int | str)
        if not is_known or not port.isdecimal() or int(port) > _MAX_PORT or (isinstance(given, str) and not host):
            raise ConfigurationError(
                f"metrics_port={given!r}; it takes a port (0 to {_MAX_PORT}, 0 for any that is free), or 'host:port' "
                "for one interface, such as '127.0.0.1:9100'."
            )
        return host or "0.0.0.0", int(port)

    def check_packages(self) -> None:
        """Raise ConfigurationError if a package of these trackers is not installed here."""
        for name, package in _PACKAGES.items():
            if getattr(self, name) and find_spec(name) is None:
                raise ConfigurationError(
                    f"{name}={getattr(self, name)!r} needs the package {package}, which is not installed here: "
                    f"pip install 'heliostat[{name}]'."
                )

    def plain(self) -> dict[str, Any]:
        """The ones that a call takes to a cluster, as JSON has them.

        Raises:
            ConfigurationError: some are only of this process, or of a folder of this machine.
        """
        if self.trackers:
            raise ConfigurationError(
                "trackers= are objects of this process, and with the address of a job server a run's driver is a "
                "process of the cluster. Leave them out, or start the script there: heliostat submit."
            )
        if isinstance(self.tensorboard, str):
            raise ConfigurationError(
                f"tensorboard={self.tensorboard!r} names a folder here, and with the address of a job server a run's "
                "driver is on the cluster. tensorboard=True writes into the run folder, which comes back."
            )
        return {name: getattr(self, name) for name in (*_PACKAGES, "metrics_port")}


def wanted_of(
    tensorboard: bool | str | Path,
    mlflow: bool | str,
    wandb: bool | str,
    metrics_port: int | str | None,
    trackers: Sequence[Tracker],
) -> TrackersWanted:
    """The trackers that a user's arguments name; those of `Trainer`. Raises ConfigurationError."""
    if isinstance(trackers, Tracker | str | Mapping) or not isinstance(trackers, Sequence):
        raise ConfigurationError(f"trackers={trackers!r}; it takes a list of them.")
    return TrackersWanted(
        tensorboard=os.fspath(tensorboard) if isinstance(tensorboard, Path) else tensorboard,
        mlflow=mlflow,
        wandb=wandb,
        metrics_port=metrics_port,
        trackers=tuple(trackers),
    )
