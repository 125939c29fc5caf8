"""How a running task talks to the driver: it tells, and it asks and waits for the answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Interrupted(Exception):
    """A wait for an answer was ended."""


class MailboxClosed(Exception):
    """This worker is not needed any more: nobody answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a worker told (`question` is None) or asked."""

    question: int | None
    event: Any


class Mailbox:
    """A worker's end of the channel to the driver.

    Args:
        send: brings something said to the driver.
        park: puts a large value where another worker can fetch it; returns a small handle.
        fetch: gets a parked value by its handle.
    """

    def __init__(
        self,
        send: Callable[[Said], None],
        park: Callable[[Any], Any] = lambda value: value,
        fetch: Callable[[Any], Any] = lambda handle: handle,
    ) -> None:
        self._send, self.park, self.fetch = send, park, fetch
        self._changed = threading.Condition()
        self._question = 0
        self._answers: dict[int, Any] = {}
        self._closed = ""

    def tell(self, event: Any) -> None:
        """Send an event; nobody answers."""
        self._send(Said(question=None, event=event))

    def ask(self, event: Any, interrupted: Callable[[], bool] = lambda: False) -> Any:
        """Send an event and wait for the answer.

        Raises:
            Interrupted: `interrupted()` has become true (see `wake`); an answer that comes later is dropped.
            MailboxClosed: the worker was closed.
        """
        with self._changed:
            self._question += 1
            question = self._question
        if self._closed:
            raise MailboxClosed(self._closed)
        if interrupted():
            raise Interrupted
        self._send(Said(question=question, event=event))
        with self._changed:
            self._changed.wait_for(lambda: question in self._answers or self._closed or interrupted())
            if question in self._answers:
                return self._answers.pop(question)
            self._question += 1  # what is answered now is too late
            raise MailboxClosed(self._closed) if self._closed else Interrupted

    def answer(self, question: int, reply: Any) -> None:
        """Answer a question; from any thread."""
        with self._changed:
            if question == self._question:
                self._answers[question] = reply
                self._changed.notify_all()

    def wake(self) -> None:
        """Let waiting questions look again whether they are interrupted; from any thread."""
        with self._changed:
            self._changed.notify_all()

    def close(self, reason: str) -> None:
        """End every wait, now and later."""
        with self._changed:
            self._closed = reason
            self._changed.notify_all()
