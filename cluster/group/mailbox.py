"""How a running task talks to the driver: it sends events, and requests whose answers it waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from .messages import TaskEnded, TaskEvent, TaskRequest


class Interrupted(Exception):
    """A wait for an answer was ended."""


class MailboxClosed(Exception):
    """This worker is not needed any more: nobody answers."""


class Mailbox:
    """A worker's end of the channel to the driver.

    A task waits for one answer at a time. What is answered after the task has given up waiting is dropped.

    Args:
        worker: the worker's number.
        put: brings what is said to the driver; called by the threads that say it.
        park: puts a large value where another worker can fetch it; returns a small handle.
        fetch: gets a parked value by its handle.
    """

    def __init__(
        self,
        worker: int,
        put: Callable[[TaskEvent | TaskEnded], None],
        park: Callable[[Any], Any] = lambda value: value,
        fetch: Callable[[Any], Any] = lambda handle: handle,
    ) -> None:
        self.worker, self.put = worker, put
        self.park, self.fetch = park, fetch
        self._changed = threading.Condition()
        self._number = 0
        self._answers: dict[int, Any] = {}
        self._closed = ""

    def send(self, content: object) -> None:
        """Send an event; nobody answers."""
        self.put(TaskEvent(worker=self.worker, content=content))

    def request(self, content: object, interrupted: Callable[[], bool] = lambda: False) -> Any:  # Any: see below
        """Send a request and wait for the answer.

        Args:
            content: what is asked.
            interrupted: whether to wait no longer; looked at again at every `wake`.

        Returns:
            The answer, whatever the driver's half says.

        Raises:
            Interrupted: `interrupted()` has become true; an answer that comes later is dropped.
            MailboxClosed: the worker was closed.
        """
        with self._changed:
            self._number += 1
            number = self._number
        if self._closed:
            raise MailboxClosed(self._closed)
        if interrupted():
            raise Interrupted
        self.put(TaskRequest(worker=self.worker, content=content, number=number))
        with self._changed:
            self._changed.wait_for(lambda: number in self._answers or self._closed or interrupted())
            if number in self._answers:
                return self._answers.pop(number)
            self._number += 1  # what is answered now is too late
            raise MailboxClosed(self._closed) if self._closed else Interrupted

    def answer(self, number: int, reply: object) -> None:
        """Answer the request of this number; from any thread."""
        with self._changed:
            if number == self._number:
                self._answers[number] = reply
                self._changed.notify_all()

    def wake(self) -> None:
        """Let waiting requests look again whether they are interrupted; from any thread."""
        with self._changed:
            self._changed.notify_all()

    def close(self, reason: str) -> None:
        """End every wait, now and later."""
        with self._changed:
            self._closed = reason
            self._changed.notify_all()
