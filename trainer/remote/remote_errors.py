"""What went wrong in a call on a cluster, as an error of this side.

Only text and plain values travel, so no exception has to be one that can be pickled, and none of its classes has to be
here. An error of Heliostat's own is one of the same class here: who catches `RunPausedError` or `ConfigurationError` of
a run on this machine catches it of a run there. Its fields are those that are plain values; its text is the one that
was made there, for a constructor here would make another.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import heliostat.cluster.errors as cluster_errors
import heliostat.data.errors as data_errors

from .. import errors as trainer_errors
from ..errors import CallError
from .wire import Failed

_MODULES: Mapping[str, ModuleType] = {each.__name__: each for each in (cluster_errors, data_errors, trainer_errors)}
_PATHS = ("run_dir", "path")
_BASES = (trainer_errors.TrainerError, cluster_errors.ClusterError, data_errors.DatasetError)


def error_of(failed: Failed, address: str, here: Mapping[str, Path]) -> CallError:
    """The error to raise for a failure that a job has told.

    Args:
        failed: what it has told.
        address: of the cluster.
        here: the folders of this machine that have taken the place of some there, by their paths.
    """

    def moved(text: str) -> str:
        for there, folder in here.items():
            text = text.replace(there, str(folder))
        return text

    details = {name: moved(each) if isinstance(each, str) else each for name, each in failed.details.items()}
    details |= {name: Path(details[name]) for name in _PATHS if isinstance(details.get(name), str)}
    ours = _class_of(failed.kind)
    message = moved(failed.message) if ours is not None else f"{failed.kind}: {moved(failed.message)}"
    fields: dict[str, Any] = {
        "address": address,
        "stage": failed.stage,
        "class_there": failed.kind,
        "frames": tuple(failed.frames),
        "traceback": failed.traceback,
    }
    error = _made(ours, (message,), {**details, **fields})
    if of_worker := details.get("worker_traceback"):
        error.__cause__ = _made(None, (str(of_worker).rstrip(),), {**fields, "frames": ()})
    return error


def _class_of(kind: str) -> type[Exception] | None:
    """The class of Heliostat's errors with a module and name; None for another."""
    module, _, name = kind.rpartition(".")
    exporting = next((each for each in _MODULES if module == each or module.startswith(f"{each}.")), "")
    found = getattr(_MODULES.get(exporting), name, None)
    return found if isinstance(found, type) and issubclass(found, _BASES) and found.__module__ == module else None


def _told(ours: type[Exception] | None) -> type[CallError]:
    """`CallError`, and a class of ours in one; the same each time."""
    if ours not in _made_classes:
        bases = (_Told,) if ours is None else (_Told, ours)
        shown = CallError if ours is None else ours
        _made_classes[ours] = type(shown.__name__, bases, {"ours": ours, "__module__": shown.__module__})
    return _made_classes[ours]


_made_classes: dict[type[Exception] | None, type[CallError]] = {}


class _Told(CallError):
    """An error that was told, and not raised here."""

    ours: type[Exception] | None

    def __reduce__(self) -> tuple[object, ...]:
        return _made, (type(self).ours, self.args, dict(self.__dict__))


def _made(ours: type[Exception] | None, args: tuple[str, ...], fields: Mapping[str, Any]) -> CallError:
    kind = _told(ours)
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(fields)
    return error
