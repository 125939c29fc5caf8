"""How long a worker may be silent, and how long it may stand still: by what it does, from its launch to its end.

Two things are watched. A worker is **silent** when its process does not answer: it is stopped, its machine is gone, or
something holds Python's lock. It **stands still** when it answers, but goes on with nothing: it waits for a network
disk, or for a lock that nobody lets go. The driver first names such a worker with its stacks, and ends it later.

What decides is what the worker does, since some of it may rightly take long:

- *Loading*: TensorFlow's libraries are opened with Python's lock held. From a cold network disk, or on a machine with
  ten times more work than cores, that takes tens of seconds (`LOADING_SILENCE_S`).
- *Setting up*: the user's modules are loaded (large libraries, lock held), the model is built, traced, compiled.
  Tracing and compiling let go of the lock, and nobody can know how long they take (minutes, for large models). So a
  worker whose process computes does not stand still (`BUSY_SHARE`), and one that answers late is given
  `SETUP_SILENCE_S`. Since any thread of the user's may be what computes, it is named after `LONG_S` all the same. A
  child process that ended counts as its own computing; one that still runs does not, so a worker that waits for a
  long download of one's is ended like one that stands still.
- *Reading rows*: shared storage may stall. As long as a reader's call is open the worker is not ended for ten minutes.
  If it stalls for all, or for the only one, nobody waits in a call for another: so whoever works by itself is looked at
  in a running group, too, and is named at the deadline and ended after those ten minutes (`stillness_limit_s`).
- *Callbacks and saving* take as long as they like: they are named when others wait, and never cut short.
- Everything else has the deadline for silence. A member that the others wait for, to regroup, is ended after
  `LATE_AFTER_DEADLINES` of it, and after `FIRST_DEADLINE_S` while nobody knows how long a step takes.

No clock is read here: `overdue.py` holds the workers of a task against these limits, `start.py` those that have
no task yet, and `driver_loop.py` looks and acts. A worker whose process has *ended* is not found by them: its pool
hears that at once (`pools/ray_pool.py`, `ray_death.py`), and its peers see a closed connection
(`allreduce/exchange.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..pace import Pace
from ..spec import FIRST_DEADLINE_S

LATE_AFTER_DEADLINES = 10
LOADING_SILENCE_S = 60.0
SETUP_SILENCE_S = 30.0
READING_S = 600.0
LONG_S = 300.0  # who loads, or sets itself up, for so long is named even if it computes
BUSY_SHARE = 0.05  # of one core: a process that waits needs less, for heartbeats and for what runs beside it
COPIES = 3  # so many times longer than the last copy of the state may the next one take
MAX_BACK_OFF_S = 60.0


class Activity(Enum):
    """What a worker does; the value is how screens, traces and events call it."""

    LOAD = "loading"
    SET_UP = "setting up"
    AWAIT_TRACES = "waiting for others to trace the step"
    JOIN = "waiting for a place in the group"
    COMPUTE = "compute"
    READ = "reading"
    ALL_REDUCE = "all-reduce"
    REGROUP = "regrouping"
    CALLBACKS = "the chief's callbacks"
    AWAIT_CALLBACKS = "waiting for the chief's callbacks"
    AWAIT_DRIVER = "waiting for the driver"
    AWAIT_CALLER = "waiting for the caller's next step"
    MEET = "waiting for the others at the end of the epoch"
    VALIDATE = "validation"
    AWAIT_VALIDATION = "waiting for others to validate"
    EVALUATE = "evaluation"
    PREDICT = "prediction"
    COPY = "copying the state"
    COMPARE_CLOCKS = "comparing clocks"
    SAVE = "saving"
    END = "waiting for the end"


_PATIENT = frozenset({Activity.CALLBACKS, Activity.COPY, Activity.SAVE})
_BY_ITSELF = frozenset({Activity.READ, Activity.COMPUTE, Activity.VALIDATE, Activity.EVALUATE, Activity.PREDICT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """A sign of life.

    Attributes:
        activity: what the worker does.
        activity_s: for how long.
        step: step of the run.
        step_s: median duration of its last steps; 0.0 while unknown.
        generation: the one it is in.
        processor_s: what its process, and its children that have ended, have computed so far, in seconds of one core.
        pace: how fast it was in this generation's last steps; None while unknown.
    """

    activity: Activity
    activity_s: float = 0.0
    step: int | None = None
    step_s: float = 0.0
    generation: int = -1
    processor_s: float = 0.0
    pace: Pace | None = None


@dataclass(slots=True)
class Life:
    """What the driver has heard of a worker; times are those of one clock, in seconds.

    Attributes:
        launched_s: when it was launched; None where nobody waits for its first word.
        heard_s: when it was heard of last; None before the first time (Ray may not have found a place for it).
        heartbeat: what it did then; None while it has not said.
        copy_s: how long its last copy of the state took.
    """

    launched_s: float | None = None
    heard_s: float | None = None
    heartbeat: Heartbeat | None = None
    copy_s: float = 0.0
    _beat_s: float = 0.0
    _moved_s: float = 0.0

    def begin(self, now_s: float) -> None:
        """It is given something to do."""
        self.heard_s = self._moved_s = now_s

    def hear(self, now_s: float) -> None:
        """It has said something."""
        self.heard_s = now_s

    def beat(self, heartbeat: Heartbeat, now_s: float) -> None:
        """It has said what it does."""
        before = self.heartbeat
        self._moved_s = max(self._moved_s, now_s - heartbeat.activity_s)
        if before is not None and heartbeat.processor_s - before.processor_s > BUSY_SHARE * (now_s - self._beat_s):
            self._moved_s = now_s
        self.heard_s = self._beat_s = now_s
        self.heartbeat = heartbeat

    def forgive(self, now_s: float) -> None:
        """Nobody has listened, or it had to wait, until now: what it did not say or do before does not count."""
        if self.heard_s is not None:
            self.heard_s, self._moved_s = now_s, now_s
        elif self.launched_s is not None:
            self.launched_s = now_s

    def silent_s(self, now_s: float) -> float:
        """For how long it has not been heard of; 0.0 before the first time."""
        return 0.0 if self.heard_s is None else now_s - self.heard_s

    def unheard_s(self, now_s: float) -> float:
        """How long its first word is waited for; 0.0 from then on."""
        return 0.0 if self.launched_s is None or self.heard_s is not None else now_s - self.launched_s

    def still_s(self, now_s: float) -> float:
        """For how long it has been at one thing without computing; 0.0 while it has not said what it does."""
        return 0.0 if self.heartbeat is None else now_s - self._moved_s

    @property
    def told_still_s(self) -> float:
        """For how long it stood still when it last said what it does: a silent one may go on unheard."""
        return self.still_s(self._beat_s)


def silence_limit_s(life: Life, deadline_s: float) -> float:
    """After how many seconds of silence a worker is taken for lost; `deadline_s` holds where nothing else does."""
    limits = {None: SETUP_SILENCE_S, Activity.LOAD: LOADING_SILENCE_S, Activity.SET_UP: SETUP_SILENCE_S}
    least_s = limits.get(None if life.heartbeat is None else life.heartbeat.activity, 0.0)
    return max(deadline_s, least_s) + COPIES * life.copy_s


def lateness_limit_s(heartbeat: Heartbeat, deadline_s: float) -> float:
    """For how many seconds the others wait for a worker that answers; infinite where nothing is cut short."""
    if heartbeat.activity in _PATIENT:
        return float("inf")
    if heartbeat.activity is Activity.READ:
        return max(READING_S, deadline_s)
    if heartbeat.step_s:
        return LATE_AFTER_DEADLINES * deadline_s
    return max(FIRST_DEADLINE_S, deadline_s)


def stillness_limit_s(heartbeat: Heartbeat, deadline_s: float) -> float:
    """For how many seconds a member may stand still while nobody is known to wait for it; infinite where it waits."""
    if heartbeat.activity not in _BY_ITSELF:
        return float("inf")
    return max(READING_S, lateness_limit_s(heartbeat, deadline_s))


def must_be_named(life: Life, deadline_s: float, now_s: float) -> bool:
    """Whether a worker without a place is silent, stands still or takes long enough for the user to hear of it."""
    beat = life.heartbeat
    loads = beat is not None and beat.activity is Activity.LOAD
    if beat is not None and (loads or beat.activity is Activity.SET_UP) and beat.activity_s > max(deadline_s, LONG_S):
        return True
    limit_s = max(deadline_s, LOADING_SILENCE_S / 2) if loads else deadline_s
    return max(life.silent_s(now_s), life.still_s(now_s)) > limit_s


def reason_to_end(life: Life, deadline_s: float, start_timeout_s: float, now_s: float) -> str:
    """Why a worker that has no place yet is taken for lost; empty if it is not.

    Args:
        life: what was heard of it.
        deadline_s: of silence, where nothing else holds.
        start_timeout_s: how long its first word is waited for: it may have no room yet, or hang as it is started.
        now_s: the time.
    """
    if (unheard_s := life.unheard_s(now_s)) > start_timeout_s:
        return f"nothing was heard of it for {unheard_s:.0f} s: there was no room for it, or it hung as it was started"
    if silent := reason_of_silence(life, deadline_s, now_s):
        return silent
    still_s = life.still_s(now_s)
    if life.heartbeat is not None and still_s > lateness_limit_s(life.heartbeat, deadline_s):
        return reason_of_stillness(life.heartbeat, still_s)
    return ""


def reason_of_silence(life: Life, deadline_s: float, now_s: float) -> str:
    """Why a worker that does not answer is taken for lost; empty if it is not."""
    silent_s = life.silent_s(now_s)
    is_lost = silent_s > silence_limit_s(life, deadline_s)
    return f"it did not answer for {silent_s:.1f} s: it is stopped, or cut off" if is_lost else ""


def reason_of_stillness(heartbeat: Heartbeat, seconds: float) -> str:
    """Why a worker that goes on with nothing is taken for lost."""
    return f"it stood still at '{heartbeat.activity.value}' for {seconds:.0f} s"


def back_off_s(num_failed: int) -> float:
    """How long to wait after so many failures in a row before the next try, in seconds; none: no time."""
    return min(MAX_BACK_OFF_S, 2.0 ** min(num_failed, 16)) if num_failed else 0.0
