"""The root of the trainer's errors."""

from __future__ import annotations


class TrainerError(Exception):
    """Base class of everything that training raises by itself.

    Errors keep their fields when they are pickled. Catch it to catch all of them: wrong arguments, models and data as
    well as failures of a run.
    """

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (type(self), self.args, dict(self.__dict__))


def _restore(cls: type[TrainerError], args: tuple[object, ...], fields: dict[str, object]) -> TrainerError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(fields)
    return error
