"""The pure failure controller: events in, actions out."""

from __future__ import annotations

from heliostat.cluster.controller import (
    AbortGeneration,
    Complete,
    Failed,
    Failure,
    Finished,
    Settled,
    StartSettling,
    Stop,
    begin,
    decide,
)
from hypothesis import given, settings
from hypothesis import strategies as st


def failure(rank, kind="raised", step=None):
    return Failure(rank=rank, kind=kind, reason=f"{kind} {rank}", step=step)


def play(num_workers, *events):
    state, actions = begin(4, num_workers), []
    for event in events:
        state, more = decide(state, event)
        actions += more
    return state, actions


def test_a_task_that_all_workers_finish_is_complete():
    state, actions = play(2, Finished(rank=1), Finished(rank=0))
    assert actions == [Complete()]
    assert state.over


def test_the_first_failure_aborts_those_who_still_run():
    _, actions = play(3, Finished(rank=0), Failed(failure=failure(1, "died")))
    assert actions == [
        AbortGeneration(generation=4, reason="worker 1 died: died 1", ranks=frozenset({2})),
        StartSettling(),
    ]


def test_a_death_is_blamed_before_the_peers_that_lost_it():
    # The peer's closed socket is heard of before Ray has noticed the death.
    lost = failure(0, "lost_peer", step=7)
    state, actions = play(
        3, Failed(failure=lost), Failed(failure=failure(1, "died")), Failed(failure=failure(2, "lost_peer", 8))
    )
    stop = actions[-1]
    assert isinstance(stop, Stop)
    assert stop.cause.rank == 1
    assert stop.cause.step == 7, "the dead cannot say where it was; the survivors can"
    assert {each.rank for each in stop.others} == {0, 2}
    assert state.over


def test_user_code_that_raises_is_blamed_before_the_peers_that_lost_it():
    _, actions = play(2, Failed(failure=failure(0, "lost_peer", 3)), Failed(failure=failure(1, "raised", 3)))
    assert actions[-1].cause == failure(1, "raised", 3)


def test_who_lost_a_peer_and_then_died_is_known_as_dead():
    _, actions = play(3, Failed(failure=failure(0, "lost_peer")), Failed(failure=failure(0, "died")), Settled())
    assert actions[-1].cause.kind == "died"


def test_settling_ends_the_wait_for_a_worker_that_never_reports():
    state, actions = play(2, Failed(failure=failure(0)), Settled())
    assert isinstance(actions[-1], Stop)
    assert state.over


def test_settled_without_a_failure_means_nothing():
    _, actions = play(2, Settled())
    assert actions == []


def test_after_the_end_nothing_happens():
    state, _ = play(1, Finished(rank=0))
    assert decide(state, Failed(failure=failure(0))) == (state, ())


EVENTS = st.one_of(
    st.builds(Finished, rank=st.integers(0, 3)),
    st.builds(
        lambda rank, kind: Failed(failure=failure(rank, kind)),
        st.integers(0, 3),
        st.sampled_from(["died", "raised", "lost_peer"]),
    ),
    st.just(Settled()),
)


@settings(deadline=None, derandomize=True)
@given(st.lists(EVENTS, max_size=12))
def test_whatever_happens_a_task_ends_once_and_aborts_once(events):
    state, actions = play(4, *events)
    ends = [action for action in actions if isinstance(action, (Complete, Stop))]
    assert len(ends) == int(state.over)
    assert sum(isinstance(action, AbortGeneration) for action in actions) <= 1
    if ends and isinstance(ends[0], Complete):
        assert not any(isinstance(event, Failed) for event in events[: _end(events)])


def _end(events):
    state = begin(4, 4)
    for number, event in enumerate(events):
        state, _ = decide(state, event)
        if state.over:
            return number + 1
    return len(events)
