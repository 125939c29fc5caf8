"""How the workers of a group are started: enough of them are waited for, and then all try whether they can connect.

Whoever is lost on the way is replaced. A machine that does not have what a worker needs ends the start, and so does an
error of a worker's own, for the next one would meet it as well; what other machines lack is heard before that is told.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from ..allreduce.listener import shown
from ..errors import PlacementError, PreflightError, UnreachableError
from ..links import Unreached
from ..spec import CONNECT_LIMIT_S
from .liveness import must_be_named, reason_to_end
from .messages import Failure, TaskEnded
from .worker_group import STACKS_S, TICK_S, WorkerGroup

SAY_EVERY_S = 8.0
NUM_CONNECT_TRIES = 2  # so often two workers must miss each other, to be called cut off
HEAR_OUT_S = 3.0  # so long after one machine was found not to do, the others are heard
ANSWER_S = 20.0  # to say what became of it, a worker that has tried its connections may take this much longer


def start_workers(group: WorkerGroup) -> Iterator[str]:
    """Start workers; ends when enough of them are up. Others are started for those that are lost on their way.

    Yields:
        Every few seconds a line that says what is waited for; one for every worker that is lost, or stands still.

    Raises:
        PreflightError: their machines do not have what it takes; it tells of all that have answered.
        PlacementError: there was no room for enough of them until the time was over, or they died.
        Exception: what a worker's own set-up raised.
    """
    group.launch()
    began_s = said_s = time.monotonic()
    named: set[int] = set()
    refused: list[PreflightError] = []
    refused_s = began_s
    while len(group.up) < group.num_to_begin or refused:
        message = group.pool.receive(TICK_S)
        group.take(message)
        now_s = time.monotonic()
        group.look(now_s)
        if isinstance(message, TaskEnded) and (error := _refusal(message)) is not None:
            refused_s = refused_s if refused else now_s
            refused.append(error)
        if refused:
            if now_s - refused_s > HEAR_OUT_S or not group.launched:
                raise PreflightError.of_all(refused)
            continue
        if isinstance(message, TaskEnded) and message.failure is not None and message.failure.kind != "died":
            raise _raised_in_set_up(message.failure)  # the next one would raise as well
        if late := _to_be_named(group, now_s, named):
            yield from map(_line_of, group.pool.stacks(late, STACKS_S).items())
        _end_stuck(group, now_s)
        yield from _new_losses(group)
        group.launch_missing(min(group.spec.num_workers, group.target) - len(group.up) - len(group.launched))
        waiting = f"{len(group.launched)} of {group.spec.num_workers} workers"
        if now_s - began_s > group.spec.start_timeout_s:
            raise PlacementError(
                f"{waiting} did not start within {group.spec.start_timeout_s:g} s. {_last_not_started(group)}"
                f"{group.pool.room()} Ask for fewer workers, give min_workers to begin with those there are, or add "
                "machines to the cluster."
            )
        if now_s - said_s > SAY_EVERY_S:
            said_s = now_s
            yield f"waiting for {waiting} to start. {group.pool.room()}"
    try_connections(group)


def try_connections(group: WorkerGroup) -> None:
    """Let all workers that are up connect with each other; between two tasks.

    Who dies meanwhile is not up any more, and who does not answer is ended: both are told at the task's beginning,
    which does without them or replaces them. Workers that miss each other try once more: where there is much more
    work than cores, two may have begun too far apart.

    Raises:
        UnreachableError: two that live cannot reach each other.
    """
    for attempt in range(NUM_CONNECT_TRIES):
        pairs, detail = _try_connections_once(group, attempt) if len(group.up) > 1 else ([], "")
        if not pairs:
            return
    places = {worker: f"{known.info.host}, {shown(known.address)}" for worker, known in group.up.items()}
    raise UnreachableError(pairs, places, detail)


def _try_connections_once(group: WorkerGroup, attempt: int) -> tuple[list[tuple[int, int]], str]:
    """The pairs that have not reached each other, and what the first of them has tried."""
    ended = group.together("unreached", CONNECT_LIMIT_S + ANSWER_S, attempt)
    lost = [each.failure for each in ended.values() if each.failure is not None]
    for worker in [worker for worker, known in group.up.items() if known.has_task]:
        lost.append(Failure(worker=worker, kind="died", reason="it did not say which of its peers it can reach"))
    for failure in lost:
        group.end(failure.worker)  # one that could not try may still have its place
    group.not_started += [group.start_failed(failure) for failure in lost]
    tried: dict[int, Unreached] = {
        worker: each.result for worker, each in ended.items() if worker in group.up and each.result is not None
    }
    # Both must say so: who gave up because a third one had died has not waited for the others.
    pairs = sorted(
        (worker, other)
        for worker, unreached in tried.items()
        for other in unreached.workers
        if worker < other and other in tried and worker in tried[other].workers
    )
    return pairs, tried[pairs[0][1]].detail if pairs else ""  # the later one has dialled


def _new_losses(group: WorkerGroup) -> Iterator[str]:
    """Lines about workers that were lost on their way and have not been said."""
    for number, lost in enumerate(group.not_started):
        if not lost.said:
            group.not_started[number] = replace(lost, said=True)
            worker, reason = lost.failure.worker, lost.failure.reason
            host = group.seen[worker].host if worker in group.seen else "an unknown host"
            again = f"the next one is started in {lost.again_s:g} s"
            yield f"worker {worker} on {host} could not start: {reason}; {again}"


def _last_not_started(group: WorkerGroup) -> str:
    return f"The last one that was lost: {group.not_started[-1].failure.reason}. " if group.not_started else ""


def _to_be_named(group: WorkerGroup, now_s: float, named: set[int]) -> list[int]:
    """Those on their way that are silent, or stand still, and were not `named` before; they are then."""
    deadline_s = group.spec.deadline_of(0.0)
    lives = ((worker, life) for worker, life in group.launched.items() if worker not in named)
    late = [worker for worker, life in lives if must_be_named(life, deadline_s, now_s)]
    named.update(late)
    return late


def _end_stuck(group: WorkerGroup, now_s: float) -> None:
    """End those on their way that are silent, or stand still, for too long."""
    deadline_s = group.spec.deadline_of(0.0)
    for worker, life in list(group.launched.items()):
        if reason := reason_to_end(life, deadline_s, group.spec.start_timeout_s, now_s):
            group.end(worker)
            group.lost_on_its_way(Failure(worker=worker, kind="died", reason=reason))


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
