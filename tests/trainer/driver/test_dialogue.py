"""What workers ask the caller of a session is told him once, and answered as often as it is asked."""

from __future__ import annotations

import pytest
from heliostat.cluster.group.controller_state import WorkerDeath
from heliostat.cluster.group.messages import Failure, Said, TaskEvent
from heliostat.trainer.caller_words import NOT_BEGUN, CallerAsked, CallerWants
from heliostat.trainer.driver.dialogue import Dialogue


class Loop:
    """The driver's loop, as far as a dialogue uses it: what is said comes up as an event."""

    def __init__(self, dialogue):
        self.dialogue, self.pauses = dialogue, []
        dialogue.open(self)

    def say(self, content):
        self.answers = self.dialogue.take(Said(content=content))

    def pause(self, reason):
        self.pauses.append(reason)


@pytest.fixture
def dialogue():
    return Dialogue()


@pytest.fixture
def loop(dialogue):
    return Loop(dialogue)


def asked(epoch, step):
    return CallerAsked(epoch=epoch, step=step, num_steps=5, num_validation_steps=0)


def told(dialogue):
    """The places of which the caller hears now."""
    found = []
    while not dialogue.news.empty():
        found.append(dialogue.news.get().place)
    return found


def ask(dialogue, worker, *place):
    return dialogue.take(TaskEvent(worker=worker, content=asked(*place)))


def test_all_workers_hear_the_same_whenever_they_ask(dialogue, loop):
    wants = CallerWants(place=(0, 0), learning_rate=0.5)
    assert ask(dialogue, 0, 0, 0) == {}
    assert ask(dialogue, 1, 0, 0) == {}
    assert told(dialogue) == [(0, 0)]
    dialogue.say(wants)
    assert loop.answers == {0: wants, 1: wants}
    assert ask(dialogue, 2, 0, 0) == {2: wants}  # it comes later
    assert ask(dialogue, 1, 0, 0) == {1: wants}  # the group has changed, and it asks again
    assert told(dialogue) == []


def test_who_is_lost_is_not_answered(dialogue, loop):
    ask(dialogue, 0, 0, 0)
    ask(dialogue, 1, 0, 0)
    dialogue.take(WorkerDeath(failure=Failure(worker=0, kind="died", reason="killed"), num_left=1))
    dialogue.say(CallerWants(place=(0, 0)))
    assert loop.answers == {1: CallerWants(place=(0, 0))}


def test_a_group_that_begins_again_comes_back_to_the_caller_by_itself(dialogue, loop):
    places = [(0, NOT_BEGUN), (0, 0), (0, 1), (0, 2)]
    rate = CallerWants(place=(0, 1), learning_rate=0.5)
    for place in places:
        ask(dialogue, 0, *place)
        dialogue.say(rate if place == rate.place else CallerWants(place=place))
    assert told(dialogue) == places
    ask(dialogue, 0, 0, 3)
    assert told(dialogue) == [(0, 3)]
    Loop(dialogue)  # another group, from the checkpoint before the epoch
    assert [ask(dialogue, 7, *place)[7] for place in places] == [
        rate if place == rate.place else CallerWants(place=place) for place in places
    ]
    assert ask(dialogue, 7, 0, 3) == {}
    assert told(dialogue) == []  # he has heard of it, and it is his turn


def test_a_pause_that_is_wanted_before_the_run_begins_is_not_lost(dialogue):
    dialogue.pause("the caller has left")
    loop = Loop(dialogue)
    assert loop.pauses == ["the caller has left"]
    dialogue.pause("again")
    assert loop.pauses == ["the caller has left", "again"]
