"""A worker group: the workers of a trainer, which run tasks together one after another and are replaced when lost."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ..allreduce.listener import shown
from ..errors import ClusterError, PlacementError, PreflightError, UnreachableError
from ..links import LinksJob, PairBandwidth, Unreached
from ..spec import CONNECT_LIMIT_S, GroupSpec, WorkerInfo
from .liveness import Life, back_off_s, must_be_named, reason_to_end
from .messages import Address, Failure, Message, TaskEnded, Wish, WorkerAlive, WorkerUp
from .pool import WorkerPool

TICK_S = 0.25
SAY_EVERY_S = 8.0
STACKS_S = 1.0
STALLED_S = 2.0  # a driver that did not look for so long was held up itself: it knows nothing of anybody's silence
LINKS_S = 600.0  # all links are measured within this, or not at all
NUM_CONNECT_TRIES = 2  # so often two workers must miss each other, to be called cut off
HEAR_OUT_S = 3.0  # so long after one machine was found not to do, the others are heard
ANSWER_S = 20.0  # to say what became of it, a worker that has tried its connections may take this much longer


@dataclass(slots=True)
class KnownWorker:
    """What the driver knows about a worker that is up: where it is, what it was heard to do, whether it has a task."""

    info: WorkerInfo
    address: Address
    life: Life = field(default_factory=Life)
    has_task: bool = False

    def begin(self) -> None:
        """It was given a task."""
        self.life, self.has_task = Life(), True
        self.life.begin(time.monotonic())


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerNotStarted:
    """A worker was lost before it had a place; another is started after `again_s`. `said`: the screen has it."""

    failure: Failure
    again_s: float
    said: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStatistics:
    """Numbers of the workers that are on their way, that are up, and that have a task, given up or not."""

    launched: frozenset[int]
    up: frozenset[int]
    with_task: frozenset[int]


class WorkerGroup:
    """The workers of one trainer.

    Attributes:
        pool: where they live.
        spec: how many, and how long to wait.
        target: how many there shall be; may be changed at any time, from any thread.
        up: those that are up, by number.
        launched: those that are on their way, by number.
        not_started: those that were lost on their way before there was a task.
        seen: where all workers run or ran, by number, those that are gone included.
        secret: what they know each other by.
    """

    def __init__(self, pool: WorkerPool, spec: GroupSpec) -> None:
        self.pool, self.spec = pool, spec
        self.target = spec.most_workers
        self.up: dict[int, KnownWorker] = {}
        self.launched: dict[int, Life] = {}
        self.not_started: list[WorkerNotStarted] = []
        self._num_failed, self._launch_after_s, self._looked_s = 0, 0.0, 0.0
        self.seen: dict[int, WorkerInfo] = {}
        self.secret = secrets.token_bytes(32)

    @property
    def infos(self) -> dict[int, WorkerInfo]:
        """Where the workers that are up run, by number."""
        return {worker: known.info for worker, known in sorted(self.up.items())}

    @property
    def num_to_begin(self) -> int:
        """So many workers can begin a task."""
        return min(self.spec.num_to_begin, self.target)

    def launch(self) -> None:
        """Begin to start workers; `start` waits for them."""
        if not self.up and not self.launched:
            self.launch_missing(min(self.spec.num_workers, self.target))

    def launch_missing(self, num: int) -> None:
        """Begin to start up to so many workers: none for a while after starts have failed, or where there is no room.

        Args:
            num: how many are missing.
        """
        for _ in range(num if time.monotonic() >= self._launch_after_s else 0):
            worker = self.pool.launch()
            if worker is None:
                return
            self.launched[worker] = Life(launched_s=time.monotonic())

    def back_off(self, num_failed: int) -> float:
        """Start nobody for a while, after so many failures in a row; returns for how many seconds."""
        wait_s = back_off_s(num_failed)
        self._launch_after_s = max(self._launch_after_s, time.monotonic() + wait_s)
        return wait_s

    def start_failed(self, failure: Failure) -> WorkerNotStarted:
        """A worker was lost before it had a place: the next one is started after a while."""
        self.launched.pop(failure.worker, None)
        self._num_failed += 1
        return WorkerNotStarted(failure=failure, again_s=self.back_off(self._num_failed))

    def started_well(self) -> None:
        """A worker has got as far as to work in its place: a row of failures is over."""
        self._num_failed = 0

    def start(self) -> Iterator[str]:
        """Start workers; ends when enough of them are up. Others are started for those that are lost on their way.

        Yields:
            Every few seconds a line that says what is waited for; one for every worker that is lost, or stands still.

        Raises:
            PreflightError: their machines do not have what it takes; it tells of all that have answered.
            PlacementError: there was no room for enough of them until the time was over, or they died.
            Exception: what a worker's own set-up raised.
        """
        self.launch()
        began_s = said_s = time.monotonic()
        named: set[int] = set()
        refused: list[PreflightError] = []
        refused_s = began_s
        while len(self.up) < self.num_to_begin or refused:
            message = self.pool.receive(TICK_S)
            self.take(message)
            now_s = time.monotonic()
            self.look(now_s)
            if isinstance(message, TaskEnded) and (error := _refusal(message)) is not None:
                refused_s = refused_s if refused else now_s
                refused.append(error)
            if refused:
                if now_s - refused_s > HEAR_OUT_S or not self.launched:
                    raise PreflightError.of_all(refused)
                continue
            if isinstance(message, TaskEnded) and message.failure is not None and message.failure.kind != "died":
                raise _raised_in_set_up(message.failure)  # the next one would raise as well
            if late := self.to_be_named(now_s, named):
                yield from map(_line_of, self.pool.stacks(late, STACKS_S).items())
            self.end_stuck(now_s)
            yield from self._new_losses()
            self.launch_missing(min(self.spec.num_workers, self.target) - len(self.up) - len(self.launched))
            waiting = f"{len(self.launched)} of {self.spec.num_workers} workers"
            if now_s - began_s > self.spec.start_timeout_s:
                raise PlacementError(
                    f"{waiting} did not start within {self.spec.start_timeout_s:g} s. {self._last_not_started()}"
                    f"{self.pool.room()} Ask for fewer workers, give min_workers to begin with those there are, or add "
                    "machines to the cluster."
                )
            if now_s - said_s > SAY_EVERY_S:
                said_s = now_s
                yield f"waiting for {waiting} to start. {self.pool.room()}"
        self.try_connections()

    def try_connections(self) -> None:
        """Let all workers that are up connect with each other; between two tasks.

        Who dies meanwhile is not up any more, and who does not answer is ended: both are told at the task's beginning,
        which does without them or replaces them. Workers that miss each other try once more: where there is much more
        work than cores, two may have begun too far apart.

        Raises:
            UnreachableError: two that live cannot reach each other.
        """
        for attempt in range(NUM_CONNECT_TRIES):
            pairs, detail = self._try_connections_once(attempt) if len(self.up) > 1 else ([], "")
            if not pairs:
                return
        places = {worker: f"{known.info.host}, {shown(known.address)}" for worker, known in self.up.items()}
        raise UnreachableError(pairs, places, detail)

    def _try_connections_once(self, attempt: int) -> tuple[list[tuple[int, int]], str]:
        """The pairs that have not reached each other, and what the first of them has tried."""
        ended = self._together("unreached", CONNECT_LIMIT_S + ANSWER_S, attempt)
        lost = [each.failure for each in ended.values() if each.failure is not None]
        for worker in [worker for worker, known in self.up.items() if known.has_task]:
            lost.append(Failure(worker=worker, kind="died", reason="it did not say which of its peers it can reach"))
        for failure in lost:
            self.end(failure.worker)  # one that could not try may still have its place
        self.not_started += [self.start_failed(failure) for failure in lost]
        tried: dict[int, Unreached] = {
            worker: each.result for worker, each in ended.items() if worker in self.up and each.result is not None
        }
        # Both must say so: who gave up because a third one had died has not waited for the others.
        pairs = sorted(
            (worker, other)
            for worker, unreached in tried.items()
            for other in unreached.workers
            if worker < other and other in tried and worker in tried[other].workers
        )
        return pairs, tried[pairs[0][1]].detail if pairs else ""  # the later one has dialled

    def _new_losses(self) -> Iterator[str]:
        """Lines about workers that were lost on their way and have not been said."""
        for number, lost in enumerate(self.not_started):
            if not lost.said:
                self.not_started[number] = replace(lost, said=True)
                worker, reason = lost.failure.worker, lost.failure.reason
                host = self.seen[worker].host if worker in self.seen else "an unknown host"
                again = f"the next one is started in {lost.again_s:g} s"
                yield f"worker {worker} on {host} could not start: {reason}; {again}"

    def _last_not_started(self) -> str:
        return f"The last one that was lost: {self.not_started[-1].failure.reason}. " if self.not_started else ""

    def look(self, now_s: float) -> bool:
        """The driver looks at its workers; what they did not say while it could not look is not held against them.

        Returns:
            whether it could not look, for longer than a moment.
        """
        stalled = now_s - self._looked_s > STALLED_S
        for life in self.lives().values() if stalled else ():
            life.forgive(now_s)
        self._looked_s = now_s
        return stalled

    def end_stuck(self, now_s: float) -> None:
        """End those on their way that are silent, or stand still, for too long."""
        deadline_s = self.spec.deadline_of(0.0)
        for worker, life in list(self.launched.items()):
            if reason := reason_to_end(life, deadline_s, self.spec.start_timeout_s, now_s):
                self.end(worker)
                self._lost(Failure(worker=worker, kind="died", reason=reason))

    def _lost(self, failure: Failure) -> None:
        """A worker was lost on its way while there is no task: the next task tells of it."""
        self.not_started.append(self.start_failed(failure))

    def to_be_named(self, now_s: float, named: set[int]) -> list[int]:
        """Those on their way that are silent, or stand still, and were not `named` before; they are then."""
        deadline_s = self.spec.deadline_of(0.0)
        lives = ((worker, life) for worker, life in self.launched.items() if worker not in named)
        late = [worker for worker, life in lives if must_be_named(life, deadline_s, now_s)]
        named.update(late)
        return late

    def measure_links(self) -> tuple[PairBandwidth, ...]:
        """How fast every two of the workers that are up talk; between two tasks. Takes some seconds.

        Raises:
            ClusterError: a worker was lost meanwhile, or does not answer; the group can only be closed then.
        """
        answers = self._together("links", LINKS_S)
        if silent := [str(worker) for worker, known in sorted(self.up.items()) if known.has_task]:
            raise ClusterError(
                f"The links between workers could not be measured within {LINKS_S:g} s: nothing was heard of "
                f"workers {', '.join(silent)}. They are stopped, or their machines cannot be reached."
            )
        for worker, ended in answers.items():
            if (failure := ended.failure) is not None:
                raise ClusterError(
                    f"The links between workers could not be measured: worker {worker} "
                    f"{failure.kind.replace('_', ' ')}: {failure.reason}"
                )
            table: tuple[PairBandwidth, ...] = ended.result
        return table

    def _together(self, method: str, limit_s: float, attempt: int = 0) -> dict[int, TaskEnded]:
        """Let all workers that are up do something of `links.py` together.

        Args:
            method: what.
            limit_s: how long to wait for it, in seconds.
            attempt: how often they have tried it before.

        Returns:
            How it ended, on every worker that has answered.
        """
        self.hear()
        addresses = {worker: known.address for worker, known in self.up.items()}
        job = LinksJob(addresses=addresses, secret=self.secret, attempt=attempt)
        for worker in job.addresses:
            self.up[worker].begin()
            self.pool.begin(worker, method, job, None)
        ended: dict[int, TaskEnded] = {}
        until_s = time.monotonic() + limit_s
        while len(ended) < len(job.addresses) and time.monotonic() < until_s:
            message = self.pool.receive(TICK_S)
            self.take(message)
            if isinstance(message, TaskEnded) and message.worker in job.addresses:
                ended[message.worker] = message
        return ended

    def resize(self, num_workers: int) -> None:
        """Change how many workers there shall be, now or between the steps of a running task; from any thread."""
        self.target = num_workers

    def statistics(self) -> GroupStatistics:
        """Return who is where."""
        with_task = frozenset(worker for worker, known in self.up.items() if known.has_task)
        return GroupStatistics(launched=frozenset(self.launched), up=frozenset(self.up), with_task=with_task)

    def close(self) -> None:
        """End the workers and free what they hold."""
        self.pool.close()
        self.up.clear()

    def hear(self) -> None:
        """Between two tasks: hear what has happened since the last: workers that are up, and workers that have died."""
        while (message := self.pool.receive(0.0)) is not None:
            self.take(message)

    def take(self, message: Message | Wish | None) -> None:
        """Note who lives, who is up, and who is not any more; during a task the task's loop hears of ends.

        That somebody is up may wait in the queue while that one is ended: it is passed over.
        """
        if isinstance(message, WorkerAlive):
            if (life := self.life_of(message.worker)) is not None:
                life.beat(message.heartbeat, time.monotonic())
                if message.info is not None:
                    self.seen[message.worker] = message.info
        elif isinstance(message, WorkerUp) and message.worker in self.launched:
            self.launched.pop(message.worker)
            self.up[message.worker] = KnownWorker(info=message.info, address=message.address)
            self.seen[message.worker] = message.info
        elif isinstance(message, TaskEnded) and message.failure is not None:
            if message.worker in self.launched:
                self._lost(message.failure)
            self.up.pop(message.worker, None)
        elif isinstance(message, TaskEnded) and message.worker in self.up:
            self.up[message.worker].has_task = False

    def life_of(self, worker: int) -> Life | None:
        """What was heard of a worker that is up, or on its way; None for others."""
        known = self.up.get(worker)
        return self.launched.get(worker) if known is None else known.life

    def lives(self) -> dict[int, Life]:
        """What was heard of all that are up, or on their way, by number."""
        return self.launched | {worker: known.life for worker, known in self.up.items()}

    def end(self, worker: int) -> None:
        """End a worker; it is not heard of again."""
        self.pool.kill(worker)
        self.up.pop(worker, None)
        self.launched.pop(worker, None)


def _line_of(stacks: tuple[int, str]) -> str:
    return f"waiting for worker {stacks[0]}, which stands still while it loads, or takes long:\n{stacks[1]}".rstrip()


def _refusal(ended: TaskEnded) -> PreflightError | None:
    """Why a worker's machine will not do, if that is how it ended."""
    error = None if ended.failure is None else ended.failure.error
    return error if isinstance(error, PreflightError) else None


def _raised_in_set_up(failure: Failure) -> Exception:
    """The error of a worker's own that ends the start; an exit of the user's code is none that may end the driver."""
    error = failure.error
    if isinstance(error, Exception):
        error.add_note(f"(while worker {failure.worker} was being set up)")
        return error
    raised = PlacementError(f"Worker {failure.worker} could not be set up: {failure.reason}")
    raised.__cause__ = error
    return raised
