"""The controller against a model of workers: whatever fails, every step happens once and the task comes to its end."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from heliostat.cluster.assignment import reassign
from heliostat.cluster.group.controller import decide
from heliostat.cluster.group.controller_state import (
    AbortGeneration,
    Expired,
    Finished,
    Formed,
    InitialStateChanged,
    JoinRequested,
    Kill,
    LeaveWanted,
    Order,
    PaceChanged,
    Reply,
    Signal,
    Started,
    StartFailed,
    Stop,
    TaskState,
)
from heliostat.cluster.group.messages import Failure, Finish, JoinRequest, Leave, Membership, PauseWanted, SendState
from heliostat.cluster.pace import Dealing
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

NUM_CALLS = 8
MAX_MOVES = 1000


def kind(position):
    """What the workers' common program does at a position: a step of one all-reduce, one of two, a broadcast ..."""
    return "end" if position == NUM_CALLS else ("step", "step", "phase", "call")[position % 4]


def is_reduced(position):
    return kind(position) in ("step", "phase")


@dataclass(eq=False)
class Worker:
    """A worker as `member.py` makes it: `doing` is where its thread is."""

    number: int
    digest: str  # of the state it begins with, which is the first entry of its history
    fresh: bool
    doing: str = "setup"
    alive: bool = True
    placed: bool = False
    history: tuple[Any, ...] = ()
    call: int = -1
    results: set[int] = field(default_factory=set)
    held: list[Any] = field(default_factory=list)
    place: Membership | None = None
    aborted: int = -1
    resume: str = "join"
    state: Any = None
    inbox: deque[Any] = field(default_factory=deque)
    outbox: deque[Any] = field(default_factory=deque)

    @property
    def generation(self):
        return -1 if self.place is None else self.place.generation

    @property
    def is_aborted(self):
        return self.aborted >= self.generation >= 0

    @property
    def rank(self):
        return self.place.members.index(self.number)

    @property
    def first_lacking(self):
        number = max(self.call, 0)
        while number in self.results:
            number += 1
        return number

    @property
    def position(self):
        return len(self.history) - 1


class Model:
    """The workers, and what went between them by generation (and call)."""

    def __init__(self, num_to_begin, num_to_go_on, num_microbatches, initial_state):
        self.num_to_begin, self.num_microbatches, self.workers = num_to_begin, num_microbatches, {}
        self.state = TaskState(
            num_to_begin=num_to_begin,
            num_to_go_on=num_to_go_on,
            initial_state=initial_state,
            dealing=Dealing(num_microbatches=num_microbatches),
        )
        self.asked, self.told_dead, self.cut = set(), set(), set()
        self.arrived, self.entered, self.delivered = {}, {}, []
        self.ended = self.settling = False
        self.generation = -1
        self.initial_state = initial_state

    # -- the driver ---------------------------------------------------------------------------------------------------

    def feed(self, event):
        if isinstance(event, JoinRequested):
            self.asked.add(event.worker)
        if isinstance(event, Failure):
            self.told_dead.add(event.worker)
        was_over = self.state.over
        self.state, actions = decide(self.state, event)
        assert not (was_over and actions)
        places = {each.worker: each.answer for each in actions if isinstance(each, Reply)}
        for action in actions:
            self.act(action, places)
        assert self.state.over or not set(self.state.members) & self.told_dead

    def act(self, action, answers):
        if isinstance(action, Reply):
            assert action.worker in self.asked, "nobody asked"
            assert action.worker not in self.told_dead
            self.asked.discard(action.worker)
            self.workers[action.worker].inbox.append(action.answer)
        elif isinstance(action, AbortGeneration):
            for number in action.workers:
                self.workers[number].inbox.append(action)
        elif isinstance(action, Kill):
            self.told_dead.add(action.worker)
            self.die(self.workers[action.worker])
        elif isinstance(action, Formed):
            self.formed(action, answers)
        elif isinstance(action, StartFailed):
            worker = self.workers[action.failure.worker]
            assert not worker.placed
            assert action.failure.worker not in self.state.starting, "it would be waited for"
        elif action is Order.COLLECT_ERRORS:
            self.settling = True
        elif action is Order.COMPLETE or isinstance(action, Stop):
            assert not self.ended
            self.ended = True

    def formed(self, formed, answers):
        assert formed.generation > self.generation
        self.generation = formed.generation
        assert len(set(formed.members)) == len(formed.members) > 0
        assert not set(formed.members) & self.told_dead
        places = [answers[number] for number in formed.members]
        assert all(replace(each, initial_state=None) == replace(places[0], initial_state=None) for each in places)
        assert (places[0].generation, places[0].members) == (formed.generation, formed.members)
        assert places[0].ranges == formed.ranges
        self.assert_covers([(own,) for own in formed.ranges])
        if places[0].held:
            self.assert_covers(reassign(self.num_microbatches, places[0].held))
        began_alike = formed.generation == 0 or formed.restarted
        for number in formed.joined:
            origin = places[formed.members.index(number)].initial_state
            assert began_alike or kind(len(origin) - 1) == "step", "what lies between the calls of a step it lacks"

    def assert_covers(self, ranges_by_rank):
        pieces = sorted(piece for ranges in ranges_by_rank for piece in ranges if piece[0] < piece[1])
        assert [n for lo, hi in pieces for n in range(lo, hi)] == list(range(self.num_microbatches))

    # -- what befalls workers -----------------------------------------------------------------------------------------

    def launch(self, digest, fresh):
        number = len(self.workers)
        self.workers[number] = Worker(number=number, digest=digest, fresh=fresh, history=(digest,))
        self.feed(Started(worker=number))

    def die(self, worker, evidence="", *, keeps_said=True):
        worker.alive = False
        worker.inbox.clear()
        if not keeps_said:
            worker.outbox.clear()
        failure = Failure(worker=worker.number, kind="died", reason="gone", evidence=evidence)
        worker.outbox.append(failure)

    def fence(self, worker):
        """The driver ends it; what it said before may still come."""
        self.die(worker)
        self.feed(worker.outbox.pop())

    def alive(self):
        return [
            worker for worker in self.workers.values() if worker.alive and worker.doing not in ("done", "delivering")
        ]

    # -- what a worker can do -----------------------------------------------------------------------------------------

    def moves(self, worker):
        """Names of what can happen to a worker next; what keeps the group going comes first."""
        found = ["send"] * bool(worker.outbox)
        if not worker.alive:
            return found
        found += ["receive"] * bool(worker.inbox)
        doing = worker.doing
        if doing == "entering":
            ready = set(worker.place.members) <= self.arrived[worker.generation] and not self.blames(worker)
            found += ["enter"] * (ready and not worker.is_aborted)
            found += ["fail_to_enter"] * self.can_fail(worker)
            found += ["fail_after_handover"] * (ready and self.can_fail(worker))
        elif doing == "in_call":
            found += ["complete"] * self.can_complete(worker) + ["fail"] * self.can_fail(worker)
        elif doing == "idle":
            between_steps = kind(worker.position) not in ("phase", "end")
            found += ["go_on"] + ["poll"] * (worker.is_aborted and between_steps)
        elif doing in ("setup", "step", "phase", "call", "computed", "summed", "delivering"):
            found.append(doing)
        return found

    def move(self, worker, name):
        getattr(self, "do_" + name)(worker)

    def blames(self, worker):
        others = set(worker.place.members) - {worker.number}
        return tuple(sorted(other for other in others if frozenset((worker.number, other)) in self.cut))

    def can_fail(self, worker):
        """Somebody is not there any more, or cannot be heard."""
        left = {
            other
            for other in map(self.workers.get, worker.place.members)
            if not other.alive
            or (other.number in self.arrived[worker.generation] and other.doing in ("asking", "done", "delivering"))
            or other.generation > worker.generation
        }
        return bool(left or worker.is_aborted or self.blames(worker))

    def can_complete(self, worker):
        entered = self.entered[worker.generation, worker.call]
        if self.blames(worker):
            return False
        if kind(worker.position) == "call":
            return worker.place.members[0] in entered
        return set(entered) == set(worker.place.members)

    # -- what it does: `member.py` in short -----------------------------------------------------------------------

    def ask(self, worker, at, *, blames=(), in_call=False):
        first_lacking = worker.first_lacking
        was_handed = at != "join" and first_lacking > worker.call
        if was_handed:
            at = "call"  # it has a result that it has not applied: its state is not that of that call
        request = JoinRequest(
            generation=worker.generation,
            next_call=worker.call if at == "join" else first_lacking,
            waiting_at=at,
            held=tuple(worker.held) if at in ("step", "phase") else (),
            blames=blames,
            in_call=in_call,
            clean=at in ("step", "wait"),
            step=worker.position,
            digest=worker.digest,
            fresh=worker.fresh,
            state=worker.state,
        )
        worker.doing = "asking"
        worker.outbox.append(JoinRequested(worker=worker.number, request=request))

    def ask_again(self, worker, **details):
        at = {"idle": "wait"}.get(worker.resume, worker.resume)
        self.ask(worker, "end" if worker.placed and worker.position == NUM_CALLS else at, **details)

    def do_setup(self, worker):
        self.ask(worker, "join")

    def do_send(self, worker):
        self.feed(worker.outbox.popleft())

    def do_receive(self, worker):
        message = worker.inbox.popleft()
        if isinstance(message, AbortGeneration):
            if message.generation >= worker.generation:
                worker.aborted = max(worker.aborted, message.generation)
        elif isinstance(message, SendState):
            worker.state = worker.history
            self.ask_again(worker)
        elif isinstance(message, Finish):
            worker.doing = "delivering"
        elif isinstance(message, Leave):
            worker.doing = "done"
            worker.outbox.append(Finished(worker=worker.number))
        else:
            worker.place, worker.doing = message, "entering"
            self.arrived.setdefault(message.generation, set()).add(worker.number)

    def do_enter(self, worker):
        place = worker.place
        self.take_handed(worker)
        if worker.resume == "join":
            worker.history = worker.history if place.initial_state is None else place.initial_state
            worker.placed = True
        worker.doing, worker.state = ("idle" if worker.resume == "join" else worker.resume), None

    def take_handed(self, worker):
        place = worker.place
        if worker.resume == "join":
            worker.call, worker.results = place.call, set()
        donor = self.workers[place.members[place.donor]]
        handed = set(range(place.first_call, place.call))
        assert not donor.alive or handed <= donor.results, "the donor has not got what it is to hand over"
        assert place.first_call <= worker.first_lacking <= place.call
        worker.results |= handed

    def do_fail_to_enter(self, worker):
        self.ask_again(worker, blames=self.blames(worker), in_call=True)

    def do_fail_after_handover(self, worker):
        self.take_handed(worker)
        self.do_fail_to_enter(worker)

    def do_poll(self, worker):
        worker.resume = "idle"
        self.ask(worker, "wait")

    def do_go_on(self, worker):
        worker.held, worker.resume = [], "idle"
        if worker.position == NUM_CALLS:
            self.ask(worker, "end")
        else:
            worker.doing = worker.resume = kind(worker.position)

    def do_step(self, worker):
        if worker.call in worker.results:
            worker.doing = "summed"
            return
        place, num_microbatches = worker.place, self.num_microbatches
        ranges = (place.ranges[worker.rank],)
        if place.held and place.call == worker.call:
            ranges = reassign(num_microbatches, place.held)[worker.rank]
        assert set(worker.held) <= set(ranges), "what it has computed is another's now"
        worker.held = [piece for piece in ranges if piece[0] < piece[1]]
        worker.doing = "computed"

    def do_phase(self, worker):
        self.do_step(worker)

    def do_call(self, worker):
        self.do_computed(worker) if worker.call not in worker.results else setattr(worker, "doing", "summed")

    def do_computed(self, worker):
        if worker.is_aborted or (worker.resume == "step" and worker.place.stop_at_step):
            self.ask(worker, worker.resume)
            return
        worker.doing = "in_call"
        self.entered.setdefault((worker.generation, worker.call), {})[worker.number] = tuple(worker.held)

    def do_complete(self, worker):
        if is_reduced(worker.position):
            self.assert_covers(self.entered[worker.generation, worker.call].values())
            worker.results.clear()  # all have entered it: nobody needs the results before it
        worker.results.add(worker.call)
        worker.doing = "summed"

    def do_fail(self, worker):
        blames = self.blames(worker)
        self.ask(worker, worker.resume, blames=blames, in_call=bool(blames) or not worker.is_aborted)

    def do_summed(self, worker):
        worker.history = (*worker.history, worker.position)
        worker.call += 1
        worker.doing = worker.resume = "idle"

    def do_delivering(self, worker):
        assert kind(worker.position) != "phase", "what lies between the calls of a step is no state to save"
        self.delivered.append(worker.history)
        worker.doing = "done"
        worker.outbox.append(Finished(worker=worker.number))

    # -- what must hold -----------------------------------------------------------------------------------------------

    def check(self):
        members = [self.workers[number] for number in self.state.members]
        histories = sorted((each.history for each in members if each.placed and each.alive), key=len)
        for history in histories:
            assert history[1:] == tuple(range(len(history) - 1)), "a call was skipped or made twice"
        for shorter, longer in pairwise(histories):
            assert longer[: len(shorter)] == shorter
        if histories:
            extra = range(len(histories[0]) - 1, len(histories[-1]) - 1)
            assert sum(map(is_reduced, extra)) <= 1

    def run_to_the_end(self):
        """Let everything happen that can, without further failures; replace who is missing."""
        for _ in range(MAX_MOVES):
            if self.state.over:
                return
            if len([each for each in self.alive() if each.number not in self.told_dead]) < self.num_to_begin:
                self.launch("a", True)
            possible = [(worker, moves) for worker in self.workers.values() if (moves := self.moves(worker))]
            if possible:
                # Messages first: they are what others wait for.
                worker, moves = min(possible, key=lambda each: each[1][0] not in ("send", "receive"))
                self.move(worker, moves[0])
            elif self.settling:
                self.feed(Signal.ERRORS_COLLECTED)
            else:
                raise AssertionError(f"nothing can happen any more: {self.state}")
            self.check()
        raise AssertionError(f"no end after {MAX_MOVES} moves: {self.state}")


class ControllerMachine(RuleBasedStateMachine):
    model: Any = None

    @initialize(
        needed=st.integers(1, 3),
        fewest=st.integers(1, 3),
        num_microbatches=st.sampled_from([1, 3, 4, 7]),
        initial_state=st.sampled_from([None, ("o", 0, 1)]),
        digests=st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), min_size=3, max_size=3),
    )
    def begin(self, needed, fewest, num_microbatches, initial_state, digests):
        self.model, self.num_moves = Model(needed, min(needed, fewest), num_microbatches, initial_state), 0
        for digest, fresh in digests[: needed + 1]:
            self.model.launch(digest, fresh)

    @rule(rng=st.randoms(use_true_random=True), times=st.integers(1, 40))
    def work(self, rng, times):
        for _ in range(times):
            possible = [(each, name) for each in self.model.workers.values() for name in self.model.moves(each)]
            if possible and not self.model.state.over:
                self.model.move(*rng.choice(possible))
                self.num_moves += 1

    def choose(self, data):
        return data.draw(st.sampled_from(self.model.alive()))

    @precondition(lambda self: self.model and self.model.alive())
    @rule(
        data=st.data(),
        evidence=st.sampled_from(["", "", "", "crash", "exit", "out of memory"]),
        keeps_said=st.booleans(),
    )
    def die(self, data, evidence, keeps_said):
        self.model.die(self.choose(data), evidence, keeps_said=keeps_said)

    @precondition(lambda self: self.model and self.model.alive())
    @rule(data=st.data())
    def fence(self, data):
        self.model.fence(self.choose(data))

    @precondition(lambda self: self.model and len(self.model.alive()) < 5)
    @rule(digest=st.sampled_from("ab"))
    def launch(self, digest):
        self.model.launch(digest, True)

    @precondition(lambda self: self.model and len(self.model.alive()) > 1)
    @rule(data=st.data())
    def leave(self, data):
        self.model.feed(LeaveWanted(workers=frozenset({self.choose(data).number})))

    @precondition(lambda self: self.model and len(self.model.alive()) > 1)
    @rule(data=st.data())
    def cut(self, data):
        pair = frozenset((self.choose(data).number, self.choose(data).number))
        if len(pair) == 2:
            self.model.cut.add(pair)

    @precondition(lambda self: self.model and self.model.state.members)
    @rule(data=st.data())
    def change_pace(self, data):
        paces_s = {number: data.draw(st.sampled_from([0.1, 0.1, 0.4])) for number in self.model.state.members}
        self.model.feed(PaceChanged(times_s=paces_s))

    @rule()
    def nudge(self):
        self.model.feed(Signal.REGROUP_IF_WANTED)

    @precondition(lambda self: self.model and any(worker.placed for worker in self.model.alive()))
    @rule(data=st.data())
    def checkpoint(self, data):
        placed = [worker for worker in self.model.alive() if worker.placed]
        history = data.draw(st.sampled_from(placed)).history
        before = self.model.state
        self.model.feed(InitialStateChanged(initial_state=history, position=(0, len(history) - 1)))
        after = self.model.state
        assert after.num_restarts == (before.num_restarts if after.position == before.position else 0)

    @precondition(lambda self: self.model and self.num_moves > 100 and self.model.state.too_few)
    @rule()
    def expire(self):
        """Nobody came for too long, and nobody is on the way."""
        self.model.feed(Expired(reason="too few workers"))
        assert self.model.state.over or self.model.state.donor is not None

    @precondition(lambda self: self.model and self.num_moves > 60)
    @rule()
    def pause(self):
        self.model.feed(PauseWanted(reason="enough for today"))

    @precondition(lambda self: self.model and self.num_moves > 120 and self.model.alive())
    @rule(data=st.data())
    def raise_error(self, data):
        worker = self.choose(data)
        failure = Failure(worker=worker.number, kind="raised", reason="ValueError")
        worker.doing = "done"
        worker.inbox.clear()
        worker.outbox.append(failure)

    @invariant()
    def histories_agree(self):
        if self.model:
            self.model.check()

    def teardown(self):
        if self.model:
            self.model.run_to_the_end()
            delivered = self.model.delivered
            if delivered and not self.model.state.pause:
                assert len(delivered[-1]) == NUM_CALLS + 1


ControllerMachine.TestCase.settings = settings(
    derandomize=True, deadline=None, max_examples=300, stateful_step_count=25
)
TestController = ControllerMachine.TestCase
