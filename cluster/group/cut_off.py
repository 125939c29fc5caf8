"""Which of several living workers must leave because some of them cannot hear each other: by what each has missed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .messages import JoinRequest


def cut_off(requests: Mapping[int, JoinRequest], by_rank: Iterable[int]) -> tuple[int, ...]:
    """Who must leave because two living workers cannot hear each other: at most one at a time.

    A worker that blames another for its silence is right only if the other was in a call as well, and in no earlier
    one: else that one was merely late, or held up by a third. Of the workers in such pairs the one in most pairs
    leaves; then the one blamed most; then the one of highest rank, so that the chief stays.
    """
    order = list(by_rank)
    blames = [
        (worker, other)
        for worker, request in requests.items()
        for other in request.blames
        if other != worker and other in requests and request.in_call and requests[other].in_call
        if requests[other].next_call >= request.failed_call
    ]
    pairs = {frozenset(each) for each in blames}
    if not pairs:
        return ()
    blamed = {worker: sum(worker == other for _, other in blames) for worker in order}
    in_pairs = {worker: sum(worker in pair for pair in pairs) for worker in order}
    return (max(order, key=lambda worker: (in_pairs[worker], blamed[worker], order.index(worker))),)
