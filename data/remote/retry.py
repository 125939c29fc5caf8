"""Trying again: which failures of a remote file system may pass, and how long to wait before the next attempt."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

Result = TypeVar("Result")

_PERMANENT = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|NO_SUCH_KEY|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|PERMANENT_REDIRECT"
    r"|AccessDenied|NoSuchBucket|InvalidBucketName|PermissionDenied|HTTP (?:status|response code):? ?40[013459]"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often something is attempted, and the waits between: doubled each time up to a limit, shortened at random by
    up to a half so that many readers do not come back at once."""

    attempts: int = 6
    first_wait_s: float = 0.25
    longest_wait_s: float = 15.0

    def wait_s(self, num_failures: int, draw: float) -> float:
        """Seconds to wait after so many failures in a row; `draw` in [0, 1) is random."""
        longest = min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(num_failures - 1, 60))
        return longest * (1.0 - draw / 2)


class GaveUpError(Exception):
    """Every attempt failed; `attempts` says how many there were, the cause is the last failure."""

    def __init__(self, attempts: int, last: BaseException) -> None:
        super().__init__(f"{attempts} attempts failed, the last one with {type(last).__name__}: {last}")
        self.attempts, self.last = attempts, last


def may_pass(error: BaseException) -> bool:
    """Whether another attempt makes sense: broken connections and time-outs, not missing files or refused access."""
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return False
    return isinstance(error, OSError) and not _PERMANENT.search(str(error))


def with_retries(action: Callable[[], Result], policy: RetryPolicy, stop: threading.Event | None = None) -> Result:
    """What `action` returns, attempted again after failures that may pass.

    Raises GaveUpError after the last attempt, or when `stop` is set; any other failure at once.
    """
    is_stopped = threading.Event() if stop is None else stop
    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception(may_pass),
        stop=tenacity.stop_after_attempt(policy.attempts) | tenacity.stop_when_event_set(is_stopped),
        wait=lambda state: policy.wait_s(state.attempt_number, random.random()),
        sleep=tenacity.sleep_using_event(is_stopped),
    )
    try:
        return attempts(action)
    except tenacity.RetryError as error:
        last = error.last_attempt.exception() or error
        raise GaveUpError(error.last_attempt.attempt_number, last) from last
