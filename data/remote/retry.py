"""Trying again: which failures of a remote file system may pass, and how long to wait before the next attempt.

The libraries below try again as well, each with rules of its own, and none of them stops when a dataset is closed. So
theirs are switched off where that can be (`filesystem`), and there is one rule for all: an error of the system may pass
unless it says that something is not there or not allowed.
"""

from __future__ import annotations

import random
import re
import threading
from dataclasses import dataclass

import tenacity

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


def may_pass(error: BaseException) -> bool:
    """Whether another attempt makes sense: broken connections and time-outs, not missing files or refused access."""
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return False
    return isinstance(error, OSError) and not _PERMANENT.search(str(error))


def retrying(policy: RetryPolicy, stop: threading.Event | None = None) -> tenacity.Retrying:
    """What calls a function, and calls it again after failures that may pass.

    It raises tenacity.RetryError after the last attempt, or when `stop` is set; any other failure at once.
    """
    is_stopped = threading.Event() if stop is None else stop
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(may_pass),
        stop=tenacity.stop_after_attempt(policy.attempts) | tenacity.stop_when_event_set(is_stopped),
        wait=lambda state: policy.wait_s(state.attempt_number, random.random()),
        sleep=tenacity.sleep_using_event(is_stopped),
    )
