"""What happens in a run, as values: an epoch that is done (``metrics.jsonl``), and any other event (``events.jsonl``).

Each has one JSON form, by its fields: `to_json` writes them under their names, `from_json` reads them back. Screens,
other programs and the commands read runs by these classes. An event's line begins with ``time`` (seconds since 1970)
and ``event``, which names its class. The version of these forms is ``format_version`` in ``run.json``; lines of the
version before are read, too (`_OLD_FIELDS`, `_epoch_of_version_2`): a run of then that goes on today has both in one
file.

Some events a worker tells itself (`FirstStepDone`, `ProbeSlow`, `StepProbed`, `GradientNotFinite`,
`CheckpointNotMade`, `LogLeftOut`, `FilesLeftOut`); their time is that at which the driver hears of them, since clocks
of machines differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any, Self, get_args, get_origin, get_type_hints

RowIds = tuple[tuple[tuple[int, ...], ...], ...]
Reader = Callable[[object], object]


class Lines:
    """A dataclass with a JSON form: fields by name; tuples are lists, dicts with int keys have them as text.

    A field, or the values of a dict, may be such dataclasses themselves.
    """

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Self:
        """The opposite of `to_json`; names that are no fields are left out.

        Raises:
            ValueError: a field is missing.
        """
        found = {}
        for name, (read, is_needed) in _readers(cls).items():  # type: ignore[arg-type]  # mypy takes type[Self] for not hashable
            if name in line:
                found[name] = read(line[name])
            elif is_needed:
                raise ValueError(f"it lacks {name!r}")
        return cls(**found)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord(Lines):
    """A finished epoch, as the driver publishes it.

    Attributes:
        epoch: its number, from 0.
        logs: global training and validation metrics.
        rows: rows trained on, over all workers.
        rows_by_worker: the same by worker, those that were lost meanwhile included.
        seconds_by_worker: seconds by part of a step, by worker.
        row_ids: per step the rows of each worker, in order of rank, if recorded.
        stopped: whether callbacks ended the run with it.
        time: when the driver recorded it, seconds since 1970.
    """

    epoch: int
    logs: dict[str, Any]
    rows: int
    rows_by_worker: dict[int, int]
    seconds_by_worker: dict[int, dict[str, float]]
    row_ids: RowIds = ()
    stopped: bool = False
    time: float = field(default_factory=time.time, compare=False)

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Self:
        """The epoch of a line of this version or the one before; raises ValueError."""
        return super(EpochRecord, cls).from_json(line if "logs" in line else _epoch_of_version_2(line))


def _epoch_of_version_2(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line in which metrics stood among the other fields."""
    others = {each.name for each in fields(EpochRecord)}
    found = {name: value for name, value in line.items() if name in others}
    return {**found, "logs": {name: value for name, value in line.items() if name not in others}}


def history_of(epochs: list[EpochRecord]) -> dict[str, list[Any]]:
    """Metric name -> its values in the epochs that have it, as Keras's `History` keeps them."""
    names = dict.fromkeys(name for record in epochs for name in record.logs)
    return {name: [record.logs[name] for record in epochs if name in record.logs] for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Lines):
    """Something that happened to a run; `time` is seconds since 1970."""

    time: float = field(default_factory=time.time)

    @property
    def event(self) -> str:
        """Its name."""
        return _NAMES[type(self)]

    def to_json(self) -> dict[str, Any]:
        """The event as JSON values: its time, its name, its other fields."""
        found = Lines.to_json(self)
        return {"time": found.pop("time"), "event": self.event, **found}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Event):
    """The run goes on from a checkpoint, before `step` of `epoch`."""

    checkpoint: str
    epoch: int
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFormed(Event):
    """A generation of workers begins to work.

    Attributes:
        generation: its number.
        workers: their numbers, by rank.
        joined: those of them that are new; `hosts` has the machine of each of these.
        restarted: whether nobody was left who held the state.
        checkpoint: name of the checkpoint that a group without the state begins from; None for the beginning.
    """

    generation: int
    workers: tuple[int, ...]
    joined: tuple[int, ...]
    restarted: bool
    hosts: dict[int, str] = field(default_factory=dict)
    checkpoint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLost(Event):
    """A worker was lost at a step of the run (None if unknown); `left` go on."""

    worker: int
    host: str
    step: int | None
    reason: str
    left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerNotStarted(Event):
    """A worker was lost before it had a place in the group; another is started after `again_s`."""

    worker: int
    host: str
    reason: str
    again_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerKilled(Event):
    """``heliostat chaos`` has killed a worker; its loss follows."""

    worker: int
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLate(Event):
    """The others wait for a worker: what it does since when, and the stacks of its threads."""

    worker: int
    host: str
    step: int | None
    activity: str
    activity_s: float = 0.0
    stacks: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebalanced(Event):
    """Workers that are slower than others have fewer microbatches from now on.

    Attributes:
        before: how many microbatches of a step each worker had, by its number, or would have, if workers joined or were
            lost at the same moment; `after` are those that it has now.
        hosts: the machine of each.
        compute_s: how long each computes one microbatch on each of its replicas.
        step_s: how long a step took before; `expected_s` is how long it should take now.
    """

    before: dict[int, int]
    after: dict[int, int]
    hosts: dict[int, str]
    compute_s: dict[int, float]
    step_s: float
    expected_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceMeasured(Event):
    """What came of it: steps took `before_s`, should have taken `expected_s`, and take `step_s`.

    `step_s` is None if workers joined or were lost before it was measured.
    """

    before_s: float
    expected_s: float
    step_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstStepDone(Event):
    """A worker has done its first step, `after_s` after the run began; `seconds` by part of its own start."""

    worker: int
    seconds: dict[str, float]
    after_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSlow(Event):
    """The probe of the step takes long; `line` says how long, why, and how to leave it out."""

    line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProbed(Event):
    """The step was looked at before the run began: it took `seconds`; `notes` are what the user should know."""

    seconds: float
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointCommitted(Event):
    """A checkpoint of the state before `step` of `epoch` counts.

    `seconds` is how long the steps waited for the copy, `write_s` how long writing it took beside them, `commit_s` how
    long the driver took to make it count.
    """

    name: str
    epoch: int
    step: int
    seconds: float
    write_s: float
    commit_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointNotMade(Event):
    """A checkpoint could not be written or committed; training goes on.

    `is_final`: it is not one to go on from, but the state in which the run ended.
    """

    name: str
    reason: str
    is_final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientNotFinite(Event):
    """A gradient was not finite, at a step of an epoch; `skipped` if the step was left out, otherwise the run stops.

    `microbatch` is the first that it came from, None if only the sum is not finite; `variables` are those concerned.
    """

    worker: int
    host: str
    epoch: int
    step: int
    microbatch: int | None
    variables: tuple[str, ...]
    skipped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationNotFinite(Event):
    """Metrics of `num_rows` rows of a validation pass were not finite; `first_rows` are the ids of the first."""

    epoch: int
    dataset: str
    num_rows: int
    first_rows: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLeftOut(Event):
    """A callback put something into an epoch's logs that history cannot hold: under `key`, `what` says what it is."""

    key: str
    callback: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTooLate(Event):
    """Callbacks have set Python attributes after the first step, so that the traced steps do not see them."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesLeftOut(Event):
    """Of what callbacks wrote on `host`, `what` (a path, or words) could not be brought to the run folder."""

    host: str
    what: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused(Event):
    """The run was paused; `checkpoint` holds its state, None if nothing was saved."""

    reason: str
    checkpoint: str | None


EVENTS: Mapping[str, type[Event]] = {
    "resumed": Resumed,
    "formed": GroupFormed,
    "lost": WorkerLost,
    "not_started": WorkerNotStarted,
    "killed": WorkerKilled,
    "late": WorkerLate,
    "rebalanced": Rebalanced,
    "balance_measured": BalanceMeasured,
    "probe_slow": ProbeSlow,
    "probed": StepProbed,
    "first_step": FirstStepDone,
    "checkpoint": CheckpointCommitted,
    "checkpoint_failed": CheckpointNotMade,
    "nonfinite": GradientNotFinite,
    "validation_not_finite": ValidationNotFinite,
    "log_left_out": LogLeftOut,
    "set_too_late": SetTooLate,
    "files_left_out": FilesLeftOut,
    "paused": Paused,
}
_NAMES = {kind: name for name, kind in EVENTS.items()}
# Of the version before: event -> old name of a field -> its name.
_OLD_FIELDS: Mapping[str, Mapping[str, str]] = {"late": {"phase": "activity"}}


def event_of(line: Mapping[str, Any]) -> Event:
    """The event of a line of ``events.jsonl``.

    Raises:
        ValueError: there is no such event, or a field is missing.
    """
    name = line.get("event")
    kind = EVENTS.get(str(name))
    if kind is None:
        raise ValueError(f"there is no event {name!r}")
    renamed = _OLD_FIELDS.get(str(name), {})
    return kind.from_json({renamed.get(field, field): value for field, value in line.items()})


def _plain(value: object) -> object:
    if isinstance(value, Lines):
        return value.to_json()
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    return value


@cache
def _readers(kind: type[Lines]) -> dict[str, tuple[Reader, bool]]:
    """By field of such a dataclass, what reads its JSON value, and whether a line must have it."""
    hints = get_type_hints(kind)
    return {
        each.name: (_reader(hints[each.name]), each.default is MISSING and each.default_factory is MISSING)
        for each in fields(kind)  # type: ignore[arg-type]
    }


@cache
def _reader(kind: object) -> Reader:
    """What makes a JSON value one of this annotation; once for each, since looking at annotations takes long."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        read = _reader(arguments[0])
        return lambda value: tuple(map(read, value)) if isinstance(value, list) else value
    if origin is dict and not (arguments[0] is str and _reader(arguments[1]) is _unchanged):
        name, read = arguments[0], _reader(arguments[1])
        return lambda value: {name(k): read(v) for k, v in value.items()} if isinstance(value, dict) else value
    if isinstance(kind, type) and issubclass(kind, Lines):
        return lambda value: kind.from_json(value) if isinstance(value, dict) else value
    return _unchanged


def _unchanged(value: object) -> object:
    return value
