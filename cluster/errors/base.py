"""The root of the errors between workers, and what belongs to no other file."""

from __future__ import annotations

from typing import Any


def _restore(cls: type[ClusterError], args: tuple[Any, ...], fields: dict[str, Any]) -> ClusterError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(fields)
    return error


class ClusterError(Exception):
    """Anything that goes wrong between workers, hosts, and the connections between them.

    Base class of what `heliostat.cluster` raises; it keeps its fields when pickled.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, dict(self.__dict__))


class SpecError(ClusterError):
    """A worker group is asked for that cannot be.

    The numbers of workers do not fit each other, or a limit is not positive.
    """
