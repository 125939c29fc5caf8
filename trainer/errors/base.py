"""The root of the trainer's errors."""

from __future__ import annotations


class TrainerError(Exception):
    """Base class of everything the trainer raises by itself; keeps its fields when pickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (type(self), self.args, dict(self.__dict__))


def _restore(cls: type[TrainerError], args: tuple[object, ...], fields: dict[str, object]) -> TrainerError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(fields)
    return error
