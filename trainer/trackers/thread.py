"""A tracker's thread: whoever tells it something never waits, and what the tracker raises stays here.

**A server may be slow, down, or wrong, for a second or for a week, and a run is worth more than its curves.** So what
is told becomes a piece in a queue, and one thread gives the pieces to the tracker in order. Three things can go wrong,
and each has one answer. The tracker raises an OSError: the piece is tried again, after one second, two, four, up to a
minute, and what comes meanwhile waits behind it. It raises anything else: that piece is left out (of `begin`: all of
the run is, as there is nothing to add to). It does not return: there is nobody to interrupt, but whoever looks at the
thread notices. The queue is bounded; of samples only the newest waits, as each says all that those before it said.

**Nothing is called back.** What the user should know is put aside, and taken by whoever told the tracker something
(`take_words`). Of a run one warning is given however much fails, and at its end one line that counts what is lacking:
`finish` waits for what is left, for a bounded time, and forgets the rest.

What was not done: a process for each tracker (one could kill it, but a second Python costs more than all that is sent),
a file of what was not sent (the run folder is that file), and `StorageThread`: what it was given it handles once, and
what waits in it cannot be counted.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..driver.shown_text import masked
from ..driver.watcher import Watcher
from ..driver.words import count
from ..events import EpochRecord, Event
from ..samples import Sample
from ..storage_thread import Newest
from .tracker import Tracker

PATIENCE_S = 10.0  # after the end of a run: how long it is waited for what trackers have not taken
SLOW_S = 10.0  # who does not return for so long is named
CLOSE_S = 5.0
_FIRST_PAUSE_S, _LAST_PAUSE_S, _HURRIED_PAUSE_S = 1.0, 60.0, 0.5
_MAX_WAITING = 10_000
_BEGIN, _END, _EPOCH, _EVENT, _SAMPLE = "beginning", "end", "epoch", "event", "sample"


@dataclass(frozen=True, slots=True)
class _Piece:
    """Something to be told: `kind` counts it, `tell` tells it; `run` is the number of its run."""

    kind: str
    run: int
    tell: Callable[[Tracker], None]


class TrackerThread(Watcher):
    """Tells a tracker what it is told, by a thread that begins with the first run.

    Args:
        tracker: it; nobody else calls its methods.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._changed = threading.Condition()  # of all below
        self._waiting: deque[_Piece] = deque()  # the first one is in hand
        self._since_s: float | None = None  # when that was given to the tracker (monotonic clock)
        self._words: list[str] = []
        self._lacking: Counter[str] = Counter()
        self._run, self._is_on = 0, False  # which run, and whether pieces of it are taken
        self._warned = self._hurries = self._closed = False
        self._thread: threading.Thread | None = None
        # Of whoever tells alone:
        self._in_run, self._early = False, list[Event]()  # what happened before the run's beginning
        self._sampled_s = float("-inf")
        self._last: Sample | None = None  # not told yet
        self._sample: Newest[Sample] = Newest()

    # -- what is told: never waits ------------------------------------------------------------------------------------

    def begin(self, path: Path, record: Mapping[str, Any]) -> None:
        """Have the beginning told, and after it the events that came before."""
        with self._changed:
            self._run, self._is_on, self._warned, self._lacking = self._run + 1, True, False, Counter()
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._work, name="heliostat-tracker", daemon=True)
                self._thread.start()
        self._in_run, self._sampled_s, self._last = True, float("-inf"), None
        told = dict(record)  # the folder adds to it meanwhile
        self._put(_BEGIN, lambda tracker: tracker.begin(path, told))
        early, self._early = self._early, []
        for event in early:
            self.event(event)

    def epoch(self, record: EpochRecord, epochs: int, seconds: float) -> None:
        """Have the epoch told."""
        self._put(_EPOCH, lambda tracker: tracker.epoch(record, epochs, seconds))

    def event(self, event: Event) -> None:
        """Have the event told."""
        if self._in_run:
            self._put(_EVENT, lambda tracker: tracker.event(event))
        else:
            self._early.append(event)

    def sample(self, sample: Sample) -> None:
        """Have it told, if it is time for another one; the last one is told in any case."""
        self._last, now_s = sample, time.monotonic()
        if now_s - self._sampled_s >= self._tracker.sample_every_s:
            self._sampled_s = now_s
            self._tell_sample()

    def end(self, record: Mapping[str, Any]) -> None:
        """Have the end told."""
        self._tell_sample()
        self._put(_END, lambda tracker: tracker.end(record))

    def _tell_sample(self) -> None:
        sample, self._last = self._last, None
        if sample is not None and self._sample.put(sample):
            self._put(_SAMPLE, partial(_tell_newest, self._sample))

    def _put(self, kind: str, tell: Callable[[Tracker], None]) -> None:
        with self._changed:
            if not self._is_on:
                return
            if len(self._waiting) >= _MAX_WAITING and kind not in (_BEGIN, _END):
                self._lacking[kind] += 1
                return
            self._waiting.append(_Piece(kind, self._run, tell))
            self._changed.notify_all()

    # -- what is to be known of it ------------------------------------------------------------------------------------

    def take_words(self) -> list[str]:
        """What the user should be told now; each is given once."""
        with self._changed:
            since_s = self._since_s
            if since_s is not None and (waited_s := time.monotonic() - since_s) > SLOW_S:
                self._warn(f"has not answered for {waited_s:.0f} s. Training goes on; what waits is sent when it does")
            words, self._words = self._words, []
        return words

    def finish(self, until_s: float) -> None:
        """Wait until everything that was told is given to the tracker; what is not by then is counted, and forgotten.

        Args:
            until_s: how long, by the monotonic clock.
        """
        with self._changed:
            self._hurries = True
            self._changed.notify_all()
            try:
                self._changed.wait_for(lambda: not self._waiting, max(0.0, until_s - time.monotonic()))
            finally:
                self._hurries = self._is_on = self._in_run = False
                lacking = self._lacking + Counter(piece.kind for piece in self._waiting)
                self._waiting.clear()
                self._lacking, self._early = Counter(), []
        if lacking:
            self._words.append(f"warning: {self._name} lacks {_counted(lacking)} of this run; the run folder has all")

    def close(self) -> None:
        """Let the tracker go, once it has done what it is at; one that does not return is left alone."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is None:
            self._let_go()
        else:
            self._thread.join(CLOSE_S)

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (piece := self._next()) is not None:
            self._give(piece)
        self._let_go()

    def _next(self) -> _Piece | None:
        """The piece to give now; None when there are no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return self._waiting[0] if self._waiting else None

    def _give(self, piece: _Piece) -> None:
        """Give a piece to the tracker until it takes it, or it is left out or forgotten."""
        pause_s = _FIRST_PAUSE_S
        while self._is_first(piece):
            try:
                with self._timed():
                    piece.tell(self._tracker)
                if piece.kind == _BEGIN:
                    self._say(self._tracker.note)
                break
            except OSError as error:
                with self._changed:
                    self._warn(f"does not answer: {_said(error)}. Training goes on; what waits is sent when it does")
                    if self._closed:
                        break
                    self._changed.wait_for(lambda: self._hurries or self._closed, pause_s)
                    if self._hurries:
                        self._changed.wait_for(lambda: self._closed, _HURRIED_PAUSE_S)
                pause_s = min(2 * pause_s, _LAST_PAUSE_S)
            except Exception as error:  # a defect of a tracker, or a wrong address: none of the run's
                self._leave_out(piece, error)
                break
        with self._changed:
            if self._waiting and self._waiting[0] is piece:
                self._waiting.popleft()
            self._changed.notify_all()

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        self._since_s = time.monotonic()
        try:
            yield
        finally:
            self._since_s = None

    def _is_first(self, piece: _Piece) -> bool:
        with self._changed:
            return bool(self._waiting) and self._waiting[0] is piece

    def _leave_out(self, piece: _Piece, error: Exception) -> None:
        with self._changed:
            if piece.kind != _BEGIN:
                self._warn(f"has not taken {_A[piece.kind]}: {_said(error)}. Training goes on")
                self._lacking[piece.kind] += 1
            elif piece.run == self._run:
                self._warn(f"has not taken the run: {_said(error)}. Training goes on without it")
                self._is_on = False
                self._waiting.clear()

    def _let_go(self) -> None:
        with contextlib.suppress(Exception):  # nothing comes any more that could tell
            self._tracker.close()

    def _say(self, note: str) -> None:
        if note:
            with self._changed:
                self._words.append(masked(note))

    def _warn(self, text: str) -> None:
        """Put a warning aside, unless there was one in this run; the lock is held."""
        if not self._warned:
            self._warned = True
            self._words.append(f"warning: {self._name} {text}")

    @property
    def _name(self) -> str:
        return masked(self._tracker.name)


_A = {_EPOCH: "an epoch", _EVENT: "an event", _SAMPLE: "a sample", _END: "the end of the run"}


def _tell_newest(held: Newest[Sample], tracker: Tracker) -> None:
    if (sample := held.take()) is not None:
        tracker.sample(sample)


def _counted(lacking: Counter[str]) -> str:
    parts = [f"the {kind}" for kind in (_BEGIN, _END) if lacking[kind]]
    parts += [count(lacking[kind], kind) for kind in (_EPOCH, _EVENT, _SAMPLE) if lacking[kind]]
    return ", ".join(parts)


def _said(error: Exception) -> str:
    """An error in one line, without secrets."""
    text = " ".join(str(error).split())
    return masked(f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__).rstrip(".")
