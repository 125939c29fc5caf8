"""A task's channel to the driver: answers that come too late, waits that are ended."""

from __future__ import annotations

import queue
from concurrent.futures import ThreadPoolExecutor

import pytest
from heliostat.cluster.group.mailbox import Interrupted, Mailbox, MailboxClosed
from heliostat.cluster.group.messages import TaskEvent


@pytest.fixture
def said():
    return queue.SimpleQueue()


@pytest.fixture
def mailbox(said):
    return Mailbox(5, said.put)


@pytest.fixture
def asking(mailbox, said):
    """asking(content, interrupted) -> (what becomes of a request, its number)."""
    with ThreadPoolExecutor(1) as executor:

        def ask(content, interrupted=lambda: False):
            future = executor.submit(mailbox.request, content, interrupted)
            return future, said.get(timeout=30).number

        yield ask


def test_events_wait_for_nothing(mailbox, said):
    mailbox.send("hello")
    assert said.get(timeout=30) == TaskEvent(worker=5, content="hello")


def test_an_answer_to_an_earlier_request_is_dropped(mailbox, asking):
    first, number = asking("first")
    mailbox.answer(number, 1)
    assert first.result(30) == 1
    second, later = asking("second")
    mailbox.answer(number, "too late")
    assert not second.done()
    mailbox.answer(later, 2)
    assert second.result(30) == 2


def test_a_wait_ends_when_it_is_interrupted_and_its_answer_is_dropped(mailbox, asking):
    interrupted = []
    future, number = asking("first", lambda: bool(interrupted))
    interrupted.append(True)
    mailbox.wake()
    with pytest.raises(Interrupted):
        future.result(30)
    mailbox.answer(number, "too late")
    again, number = asking("again")
    mailbox.answer(number, "in time")
    assert again.result(30) == "in time"


def test_a_closed_mailbox_ends_waits_now_and_later(mailbox, asking):
    future, _ = asking("first")
    mailbox.close("this worker has been replaced")
    with pytest.raises(MailboxClosed, match="has been replaced"):
        future.result(30)
    with pytest.raises(MailboxClosed, match="has been replaced"):
        mailbox.request("second")
