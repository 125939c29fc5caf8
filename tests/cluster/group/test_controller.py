"""The pure controller of a group: events in, actions out, one transition at a time."""

from __future__ import annotations

import pytest
from heliostat.cluster.group.controller import MAX_START_ERRORS, decide
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
    WorkerDeath,
)
from heliostat.cluster.group.cut_off import cut_off
from heliostat.cluster.group.messages import Failure, Finish, JoinRequest, Leave, Membership, PauseWanted, SendState
from heliostat.cluster.group.regroup import DEATHS_AT_A_STEP, MAX_RESTARTS
from heliostat.cluster.pace import Dealing

JOINING = JoinRequest(generation=-1, next_call=-1, waiting_at="join")


class Play:
    """A task, event by event; `new` are the actions of the last one, `answers` the last answer to each worker."""

    def __init__(self, num_needed=1, min_workers=1, initial_state=None, dealing=None):
        self.state = TaskState(
            num_to_begin=num_needed, num_to_go_on=min_workers, initial_state=initial_state, dealing=dealing
        )
        self.new, self.answers = (), {}

    def feed(self, event):
        self.state, self.new = decide(self.state, event)
        self.answers |= {each.worker: each.answer for each in self.new if isinstance(each, Reply)}
        return self

    def new_of(self, kind):
        return [each for each in self.new if isinstance(each, kind)]

    def join(self, *workers, **details):
        for worker in workers:
            if worker not in self.state.starting:
                self.feed(Started(worker=worker))
            self.report(worker, at="join", next_call=-1, **details)
        return self

    def report(self, *workers, at="step", next_call=5, **details):
        details = {"clean": at in ("step", "wait"), "step": next_call} | details
        for worker in workers:
            self.feed(
                JoinRequested(
                    worker=worker, request=JoinRequest(generation=0, waiting_at=at, next_call=next_call, **details)
                )
            )
        return self

    def die(self, worker, **details):
        return self.feed(failure(worker, **details))


def failure(worker, kind="died", **details):
    return Failure(worker=worker, kind=kind, reason=f"{kind} {worker}", **details)


def running(*workers, **limits):
    play = Play(num_needed=len(workers), **limits).join(*workers, digest="same")
    assert play.state.status == "running"
    return play


def closing(*workers):
    play = running(*workers).report(*workers, at="end", next_call=9)
    assert play.state.status == "closing"
    return play


# -- the first generation ---------------------------------------------------------------------------------------------


def test_enough_workers_form_the_first_generation():
    play = Play(num_needed=2, min_workers=1).join(4, digest="same")
    assert play.new == (), "min_workers is for going on, not for the beginning"
    assert play.state.too_few
    play.join(2, digest="same")
    assert play.answers[2] == play.answers[4] == Membership(generation=0, members=(2, 4), call=0, first_call=0, donor=0)
    assert play.new[-1] == Formed(generation=0, members=(2, 4), joined=(2, 4), restarted=False)
    assert play.state.starting == frozenset()


def test_unequal_states_are_made_equal_by_the_trained_one_which_becomes_the_chief():
    play = Play(num_needed=3).join(0, 1, digest="new").join(2, digest="trained", fresh=False)
    assert play.new == (Reply(worker=2, answer=SendState()),)
    play.join(2, digest="trained", fresh=False, state="parked")
    assert play.answers[0].members == (2, 0, 1)
    assert [play.answers[worker].initial_state for worker in (2, 0, 1)] == [None, "parked", "parked"]


def test_the_group_waits_for_the_state_it_asked_for_even_if_others_would_be_enough():
    play = Play(num_needed=2).join(0, digest="trained", fresh=False).join(1, digest="new")
    assert play.answers == {0: SendState()}
    play.join(2, digest="new")
    assert play.answers == {0: SendState()}
    play.join(0, digest="trained", fresh=False, state="parked")
    assert play.answers[2].members == (0, 1, 2)


def test_who_dies_while_it_donates_is_not_waited_for():
    play = Play(num_needed=2).join(0, digest="a").join(1, 2, digest="b")
    assert play.answers == {0: SendState()}
    play.die(0)
    assert play.answers[1].members == (1, 2)
    assert not play.new_of(WorkerDeath)


def test_a_donor_that_is_not_wanted_any_more_is_not_waited_for():
    play = Play(num_needed=2).join(0, digest="a").join(1, 2, digest="b").feed(LeaveWanted(workers=frozenset({0})))
    assert play.new_of(Kill)[0].worker == 0
    assert play.answers[1].members == (1, 2)


def test_all_begin_from_the_checkpoint_if_there_is_one():
    play = Play(num_needed=2, initial_state="checkpoint").join(0, digest="a").join(1, digest="b")
    assert [play.answers[worker].initial_state for worker in (0, 1)] == ["checkpoint", "checkpoint"]


def test_who_could_not_take_its_first_place_asks_again_and_gets_the_origin_again():
    play = Play(num_needed=2, initial_state="checkpoint").join(0, 1).report(0, at="join", next_call=-1)
    assert play.new_of(AbortGeneration)[0].workers == frozenset({1})
    play.report(1, at="join", next_call=-1)
    assert play.answers[1] == Membership(
        generation=1, members=(0, 1), call=0, first_call=0, donor=0, initial_state="checkpoint"
    )
    assert play.state.num_restarts == 0, "nobody was lost"


def test_who_could_not_take_its_first_place_gets_the_state_of_one_that_could():
    play = (
        Play(num_needed=2, initial_state="checkpoint")
        .join(0, 1)
        .report(1, at="join", next_call=0)
        .report(0, next_call=0)
    )
    assert play.answers[0] == SendState()
    play.report(0, next_call=0, state="parked")
    assert play.answers[1].members == (0, 1)
    assert [play.answers[worker].initial_state for worker in (0, 1)] == [None, "parked"]


def test_a_death_while_the_first_generation_connects_begins_it_again_with_the_others():
    play = Play(num_needed=3, initial_state="checkpoint").join(0, 1, 2).die(0).report(1, 2, at="join", next_call=-1)
    assert play.answers[2].members == (1, 2)
    assert play.answers[2].initial_state == play.answers[1].initial_state == "checkpoint"
    assert play.new_of(Formed)[0].restarted


def test_an_error_in_the_set_up_of_the_first_workers_ends_the_start():
    play = Play(num_needed=2).feed(Started(worker=0)).feed(failure(0, "raised"))
    assert play.new_of(Stop)[0].cause == failure(0, "raised"), "the next one would raise as well"


def test_workers_that_die_before_they_join_are_made_good_until_the_time_is_over():
    play = Play(num_needed=2).join(0)
    for worker in range(1, 20):
        play.feed(Started(worker=worker))
        assert not play.state.too_few, "it may take as long as it likes"
        assert play.die(worker).new == (StartFailed(failure=failure(worker)),)
        assert play.state.too_few
    play.feed(Expired(reason="There were too few workers."))
    assert play.new_of(Stop)[0].cause.reason == "There were too few workers. died 19"


def test_workers_that_raise_while_nobody_works_are_given_up_after_some():
    play = running(0).die(0)
    for worker in range(1, MAX_START_ERRORS + 1):
        assert not play.state.over
        play.feed(Started(worker=worker)).feed(failure(worker, "raised"))
        assert play.new_of(Kill)[0].worker == worker, "its process lives"
    assert play.new_of(Stop)[0].cause == failure(MAX_START_ERRORS, "raised")


def test_a_worker_that_joins_ends_a_row_of_errors():
    play = running(0).die(0)
    for worker in range(1, 10):
        play.feed(Started(worker=worker)).feed(failure(worker, "raised")).join(100 + worker).die(100 + worker)
    assert not play.state.over


def test_who_sets_itself_up_is_there_and_who_was_lost_is_not():
    play = Play(num_needed=2).feed(Started(worker=0)).feed(Started(worker=1))
    assert not play.state.too_few
    assert play.die(1).state.too_few
    assert not running(0, 1).die(1).report(0).state.too_few
    assert running(0, 1, min_workers=2).die(1).report(0).state.too_few


# -- losing members ---------------------------------------------------------------------------------------------------


def test_a_death_wakes_the_others_and_its_microbatches_are_handed_out():
    play = running(0, 1).die(1)
    assert play.new == (
        WorkerDeath(failure=failure(1), num_left=1),
        AbortGeneration(generation=0, reason="worker 1 died: died 1", workers=frozenset({0})),
    )
    play.report(0, held=((0, 2),))
    assert play.answers[0] == Membership(generation=1, members=(0,), call=5, first_call=5, donor=0, held=(((0, 2),),))


def test_who_is_behind_is_handed_what_it_lacks_and_what_it_holds_of_an_old_step_does_not_count():
    play = (
        running(0, 1, 2).report(1, next_call=6, at="step", held=((1, 2),)).die(0).report(2, next_call=5, held=((3, 4),))
    )
    assert play.answers[2] == Membership(
        generation=1, members=(1, 2), call=6, first_call=5, donor=0, held=(((1, 2),), ())
    )


def test_what_is_held_counts_even_if_another_member_was_met_before_the_step():
    play = running(0, 1, 2).die(2).report(0, held=((1, 3),)).report(1, at="wait")
    assert play.answers[1].held == (((1, 3),), ())


def test_a_report_that_a_peer_is_lost_regroups_before_its_death_is_known():
    play = running(0, 1, 2).report(0)
    assert play.new_of(AbortGeneration)[0].workers == frozenset({1, 2})
    play.report(1)
    assert play.state.status == "regrouping"
    play.die(2)
    assert play.answers[0].members == (0, 1)


def test_two_deaths_in_one_regroup_and_one_after_its_report():
    play = running(0, 1, 2, 3).die(1).report(0).report(2).die(2).die(3)
    assert [each.num_left for each in play.new_of(WorkerDeath)] == [1]
    assert play.answers[0].members == (0,)


def test_when_the_only_one_with_the_newest_result_dies_the_step_is_pending_again():
    play = running(0, 1).report(0, next_call=6).die(0).report(1, next_call=5)
    assert play.answers[1].call == play.answers[1].first_call == 5


def test_fewer_than_min_workers_wait_for_help():
    play = running(0, 1, min_workers=2).die(1).report(0)
    assert play.new == ()
    assert play.state.too_few
    play.join(2).report(0, state="parked")
    assert play.answers[2].members == (0, 2)


def test_too_few_may_finish_a_call_but_stop_at_a_step():
    play = running(0, 1, min_workers=2).die(1).report(0, at="call")
    assert play.answers[0].members == (0,)
    play.feed(Signal.REGROUP_IF_WANTED)
    assert play.new_of(AbortGeneration)
    assert play.report(0).new == ()


def test_waiting_in_vain_stops_with_the_last_loss():
    play = running(0, 1, min_workers=2).die(1).report(0).feed(Expired(reason="No replacement came."))
    assert play.new_of(Stop)[0].cause.reason == "No replacement came. died 1"


@pytest.mark.parametrize("begin", [lambda: running(0, 1), lambda: closing(0, 1), lambda: running(0).join(1).report(0)])
def test_expiry_is_too_late_when_the_group_works_closes_or_grows(begin):
    assert begin().feed(Expired(reason="late")).new == ()


def test_all_are_lost_and_the_next_ones_begin_from_the_last_checkpoint():
    play = running(0, 1).feed(InitialStateChanged(initial_state="newer")).die(0).die(1)
    assert play.new == (WorkerDeath(failure=failure(1), num_left=0),)
    play.join(2)
    assert play.answers[2] == Membership(
        generation=1, members=(2,), call=0, first_call=0, donor=0, initial_state="newer"
    )
    assert play.new_of(Formed)[0].restarted


def test_restarts_without_progress_are_limited():
    play = running(0)
    for worker in range(MAX_RESTARTS):
        play.die(worker).join(worker + 1)
        assert play.state.status == "running"
    progress = decide(play.state, InitialStateChanged(initial_state="newer", position=(0, 4)))[0]
    assert play.die(MAX_RESTARTS).new_of(Stop)[0].cause.worker == MAX_RESTARTS
    assert not decide(progress, failure(MAX_RESTARTS))[0].over


@pytest.mark.parametrize(("position", "ends"), [((1, 2), True), ((1, 0), True), ((1, 3), False), ((2, 0), False)])
def test_a_checkpoint_that_is_written_again_is_no_progress(position, ends):
    play = running(0).feed(InitialStateChanged(initial_state="first", position=(1, 2)))
    for worker in range(MAX_RESTARTS + 1):
        assert not play.state.over
        play.die(worker).join(worker + 1)
        play.feed(InitialStateChanged(initial_state=f"of worker {worker}", position=position))
    assert play.state.over == ends


@pytest.mark.parametrize("evidence", ["out of memory", "crash", "exit", ""])
def test_deaths_at_the_same_step_again_and_again(evidence):
    play = running(0, 1, 2, 3)
    for worker in range(DEATHS_AT_A_STEP):
        assert not play.state.over
        play.die(worker, evidence=evidence, step=7).report(*range(worker + 1, 4), step=7)
    assert play.state.over == bool(evidence)


def test_the_last_death_of_too_many_is_told_and_is_the_cause():
    play = running(0, 1, 2, 3)
    for worker in range(DEATHS_AT_A_STEP - 1):
        play.die(worker, evidence="crash", step=7).report(*range(worker + 1, 4), step=7)
    play.die(2, evidence="crash", step=7)
    last = failure(2, evidence="crash", step=7)
    assert play.new[0] == WorkerDeath(failure=last, num_left=1)
    assert play.report(3, step=7).new == (Stop(cause=last),), "it is counted when the survivors have told their step"


def test_a_worker_alone_that_dies_at_the_same_step_again_and_again():
    play = running(0)
    for worker in range(DEATHS_AT_A_STEP - 1):
        play.die(worker, evidence="crash", step=7).join(worker + 1)
    assert play.die(2, evidence="crash", step=7).new_of(Stop)[0].cause.worker == 2


def test_what_survivors_report_tells_the_step_better_than_what_was_last_heard_of_the_dead():
    play = running(0, 1, 2, 3)
    for worker, heard in enumerate((5, None, 6)):
        play.die(worker, evidence="crash", step=heard).report(*range(worker + 1, 4), step=7)
    assert play.new_of(Stop)[0].cause.step == 7


def test_places_that_cannot_be_taken_are_no_restarts_even_if_somebody_was_lost_before():
    play = running(0, 1).die(0).report(1)
    for _ in range(MAX_RESTARTS + 2):
        play.report(1, at="join", next_call=-1)
    assert play.state.num_restarts == 0
    assert not play.state.over


def test_deaths_for_different_reasons_are_different():
    play = running(0)
    for worker, evidence in enumerate(["crash", "out of memory", "crash", "out of memory"]):
        play.die(worker, evidence=evidence, step=7).join(worker + 1)
    assert not play.state.over


def test_a_step_at_which_processes_end_or_crash_by_themselves_is_poison():
    play = running(0)
    for worker, evidence in enumerate(["exit", "crash"]):
        play.die(worker, evidence=evidence, step=7).join(worker + 1)
    assert play.die(2, evidence="exit", step=7).new_of(Stop)[0].cause == failure(2, evidence="exit", step=7)


def test_deaths_at_different_steps_are_different():
    play = running(0)
    for worker in range(5):
        play.die(worker, evidence="crash", step=worker).join(worker + 1)
    assert not play.state.over


# -- joining and leaving ----------------------------------------------------------------------------------------------


def test_who_joins_is_admitted_at_a_step_with_the_state_of_one_of_the_newest():
    play = running(0, 1).join(2)
    assert play.new_of(AbortGeneration)[0].reason == "a worker joins the group"
    play.report(0, next_call=5).report(1, next_call=6, held=((2, 4),))
    assert play.answers[1] == SendState()
    play.report(1, next_call=6, held=((2, 4),), state="parked")
    place = play.answers[2]
    assert (place.members, place.call, place.first_call, place.donor) == ((0, 1, 2), 6, 5, 1)
    assert place.initial_state == "parked"
    assert play.answers[0].initial_state is None
    assert place.held == ((), ((2, 4),), ())


@pytest.mark.parametrize("at", ["call", "wait", "end"])
def test_nobody_joins_elsewhere(at):
    play = running(0).join(1).report(0, at=at)
    assert play.state.members == (0,)
    if at == "end":
        assert play.answers[0] == Finish()
    else:
        assert play.answers[0].members == (0,)
        assert play.feed(Signal.REGROUP_IF_WANTED).report(0).answers[0] == SendState()


def test_inside_of_a_step_nobody_joins_or_leaves_and_all_ask_again_before_the_next():
    play = running(0, 1).join(2).feed(LeaveWanted(workers=frozenset({1})))
    play.report(0, at="phase", held=((0, 2),)).report(1, at="phase", held=((2, 4),))
    assert play.new_of(Formed)[0].members == (0, 1)
    assert play.answers[0].held == (((0, 2),), ((2, 4),))
    assert play.answers[0].stop_at_step
    play.report(0, 1, next_call=6).report(0, next_call=6, state="parked")
    assert (play.answers[1], play.answers[2].members) == (Leave("fewer workers are wanted"), (0, 2))
    assert not play.answers[2].stop_at_step


def test_who_is_inside_of_a_step_hands_over_to_who_stands_before_it():
    play = running(0, 1).join(2).report(0, next_call=6, at="phase", held=((0, 2),)).report(1, next_call=5)
    place = play.answers[1]
    assert (place.members, place.call, place.first_call, place.donor) == ((0, 1), 6, 5, 0)
    assert place.held == (((0, 2),), ())
    assert place.stop_at_step


def test_a_donor_or_a_joiner_that_dies_meanwhile():
    play = running(0, 1).join(2).report(0, 1)
    assert play.answers == {**play.answers, 0: SendState()}
    other = running(0, 1).join(2).report(0, 1).die(2).report(0, state="parked")
    assert other.answers[1].members == (0, 1)
    play.die(0)
    assert play.answers[1] == SendState()
    assert play.report(1, state="parked").answers[2].members == (1, 2)


def test_who_leaves_is_dismissed_and_donates_nothing():
    play = running(0, 1).feed(LeaveWanted(workers=frozenset({0}))).join(2).report(0, 1)
    assert play.answers[1] == SendState(), "what 0 parks may go away with it"
    play.report(1, state="parked")
    assert play.answers[0] == Leave("fewer workers are wanted")
    assert play.answers[2].members == (1, 2)
    play.feed(Finished(worker=0))
    assert (play.new, play.state.status) == ((), "running")


def test_who_leaves_stays_while_only_it_has_the_newest_result():
    play = running(0, 1).feed(LeaveWanted(workers=frozenset({0}))).report(0, next_call=6).report(1, next_call=5)
    assert play.answers[1].members == (0, 1)
    play.feed(Signal.REGROUP_IF_WANTED).report(0, 1, next_call=7)
    assert play.answers[1].members == (1,)


def test_who_leaves_stays_until_the_others_are_enough():
    play = running(0, 1, min_workers=2).feed(LeaveWanted(workers=frozenset({0})))
    assert play.new == ()
    play.join(2).report(0, 1).report(1, state="parked")
    assert play.answers[2].members == (1, 2)


def test_who_has_no_place_yet_is_ended_when_it_is_not_wanted():
    play = running(0).feed(Started(worker=1)).feed(LeaveWanted(workers=frozenset({1})))
    assert play.new == (Kill(worker=1, reason="fewer workers are wanted"),)
    assert play.join(2).state.candidates == (2,)
    assert play.feed(JoinRequested(worker=1, request=JOINING)).new == ()
    assert play.state.candidates == (2,), "what was on its way is not heard"


def test_a_nudge_changes_nothing_if_nobody_waits():
    assert running(0, 1).feed(Signal.REGROUP_IF_WANTED).new == ()


# -- the end ----------------------------------------------------------------------------------------------------------


def test_one_delivers_and_the_others_are_dismissed():
    play = closing(0, 1, 2)
    assert play.new == (Reply(worker=0, answer=Finish()),)
    play.feed(Started(worker=3)).feed(Finished(worker=0))
    dismissed = [Reply(worker=worker, answer=Leave("the task is over")) for worker in (1, 2)]
    assert play.new == (*dismissed, Kill(worker=3, reason="the task ended before it was ready"))
    assert play.feed(Started(worker=4)).new_of(Kill)[0].worker == 4
    assert play.feed(Finished(worker=2)).new == ()
    assert play.die(1).new == (WorkerDeath(failure=failure(1), num_left=0), Order.COMPLETE)


def test_a_candidate_is_dismissed_when_the_task_ends():
    assert closing(0).join(1).answers[1] == Leave("the task is over")
    assert running(0).join(1).report(0, at="end").feed(Finished(worker=0)).answers[1] == Leave("the task is over")


def test_the_next_one_delivers_if_the_first_one_dies_and_all_begin_again_if_all_die():
    play = closing(0, 1)
    assert play.die(0).new[-1] == Reply(worker=1, answer=Finish())
    play.die(1)
    assert play.state.status == "gathering"
    assert play.join(2).new_of(Formed)[0].restarted


def test_a_death_of_another_while_one_delivers_changes_nothing():
    play = closing(0, 1).die(1)
    assert play.new == (WorkerDeath(failure=failure(1), num_left=1),)
    assert play.feed(Finished(worker=0)).new == (Order.COMPLETE,)


def test_a_death_at_the_end_regroups_and_ends():
    play = running(0, 1).report(0, at="end").die(1)
    assert play.answers[0] == Finish()


def test_a_pause_at_a_clean_place_delivers_there():
    play = running(0, 1).feed(PauseWanted(reason="later"))
    assert play.new == (AbortGeneration(generation=0, reason="later", workers=frozenset({0, 1})),)
    play.report(0, at="call", next_call=6).report(1, at="wait", next_call=6)
    assert play.new == (Reply(worker=1, answer=Finish()),)
    assert play.feed(Finished(worker=1)).answers[0] == Leave("the task is over")


def test_a_pause_elsewhere_waits_for_the_next_step():
    play = running(0, 1).feed(PauseWanted(reason="later")).report(0, 1, at="call")
    assert play.answers[1].members == (0, 1)
    play.feed(Signal.REGROUP_IF_WANTED).report(0, 1)
    assert play.answers[0] == Finish()


def test_a_pause_inside_of_a_step_waits_for_the_next_one():
    play = running(0, 1).feed(PauseWanted(reason="later")).report(0, next_call=6, at="phase").report(1, next_call=5)
    assert play.answers[1].stop_at_step, "though worker 1 stood before the step"
    play.report(0, 1, next_call=7)
    assert play.answers[0] == Finish()


def test_if_who_delivers_at_a_pause_is_lost_one_behind_does_and_unclean_ones_go_on():
    play = running(0, 1, 2).feed(PauseWanted(reason="later")).report(0, next_call=6)
    play.report(1, at="call", next_call=6).report(2, next_call=5)
    assert play.die(0).new[-1] == Reply(worker=2, answer=Finish())
    assert play.die(2).answers[1].members == (1,)


def test_a_pause_without_a_group_is_done_at_once():
    assert running(0).die(0).feed(PauseWanted(reason="later")).new == (Order.COMPLETE,)


def test_who_waits_for_a_place_when_the_run_is_paused_is_let_go():
    play = Play(num_needed=2).join(0).feed(PauseWanted(reason="later"))
    assert play.new == (Reply(worker=0, answer=Leave("the run is paused")), Order.COMPLETE)


def test_who_could_not_take_its_place_because_of_a_pause_is_let_go():
    play = running(0).feed(PauseWanted(reason="later")).join(0)
    assert play.new == (Reply(worker=0, answer=Leave("the run is paused")), Order.COMPLETE)


def test_all_are_lost_while_a_pause_is_wanted():
    assert running(0).feed(PauseWanted(reason="later")).die(0).new[-1] == Order.COMPLETE


def test_a_pause_ends_the_wait_for_more_workers():
    play = running(0, 1, min_workers=2).die(1).report(0).feed(PauseWanted(reason="later"))
    assert play.new == (Reply(worker=0, answer=Finish()),)


# -- errors of workers' own -------------------------------------------------------------------------------------------


def raising(play, worker, kind="raised", **details):
    return play.feed(failure(worker, kind, **details))


def test_an_error_stops_the_task_when_the_others_were_heard():
    play = raising(running(0, 1, 2), 1, step=4)
    assert play.new == (
        AbortGeneration(generation=0, reason="worker 1 raised: raised 1", workers=frozenset({0, 2})),
        Order.COLLECT_ERRORS,
    )
    assert play.report(0).new == ()
    assert play.report(2).new == (Stop(cause=failure(1, "raised", step=4)),)


def test_who_is_silent_is_not_waited_for_for_ever():
    assert raising(running(0, 1), 1).feed(Signal.ERRORS_COLLECTED).new == (Stop(cause=failure(1, "raised")),)
    assert running(0, 1).feed(Signal.ERRORS_COLLECTED).new == ()


def test_blame_goes_to_deaths_then_to_errors_then_to_lost_peers():
    play = raising(running(0, 1, 2), 0, "lost_peer", step=7)
    raising(play, 1, "raised")
    assert play.die(2).new_of(Stop) == [
        Stop(cause=failure(2, step=7), others=(failure(1, "raised"), failure(0, "lost_peer", step=7)))
    ]


@pytest.mark.parametrize(("kind", "cause"), [("lost_peer", "died"), ("raised", "raised")])
def test_the_error_of_a_worker_explains_its_death(kind, cause):
    play = raising(running(0, 1), 0, kind).die(0).feed(Signal.ERRORS_COLLECTED)
    assert play.new_of(Stop)[0].cause.kind == cause


def test_an_error_of_a_replacement_does_not_stop_those_who_work():
    play = raising(running(0).feed(Started(worker=1)), 1)
    assert play.new == (
        StartFailed(failure=failure(1, "raised")),
        Kill(worker=1, reason="it could not be set up"),
    )
    assert play.state.status == "running"


# -- connections that are cut -----------------------------------------------------------------------------------------


def reports(**blames):
    """Reports of workers w0, w1, ...: whom they blame, or None if they were not in a call."""
    return {
        int(name[1:]): JoinRequest(
            generation=0, next_call=5, waiting_at="step", blames=tuple(others or ()), in_call=others is not None
        )
        for name, others in blames.items()
    }


@pytest.mark.parametrize(
    ("blames", "victims"),
    [
        (reports(w0=[1], w1=[0]), (1,)),
        (reports(w0=[1], w1=[]), (1,)),
        (reports(w0=[2], w1=[2], w2=[0, 1]), (2,)),
        (reports(w0=[1, 2], w1=[0], w2=[0]), (0,)),
        (reports(w0=[1], w1=None), ()),
        (reports(w0=[7], w1=[]), ()),
        (reports(w0=[0], w1=[]), ()),
        (reports(w0=[], w1=[]), ()),
    ],
    ids=["pair", "one-sided", "isolated", "isolated chief", "merely late", "dead", "itself", "nobody"],
)
def test_who_is_cut_off(blames, victims):
    assert cut_off(blames, sorted(blames)) == victims


@pytest.mark.parametrize(
    ("calls", "blames", "victim"),
    [((7, 8, 7), ((1,), (0, 2), (0,)), 0), ((9, 8, 8), ((1, 2), (2,), (1,)), 2)],
    ids=["the chief's links", "the others' link"],
)
def test_who_is_held_up_by_a_third_in_an_earlier_call_is_not_to_blame(calls, blames, victim):
    found = {
        worker: JoinRequest(
            generation=0, next_call=call, failed_call=call, waiting_at="step", blames=blamed, in_call=True
        )
        for worker, (call, blamed) in enumerate(zip(calls, blames, strict=True))
    }
    assert cut_off(found, (0, 1, 2)) == (victim,)


def test_who_is_cut_off_is_ended_and_the_others_go_on():
    play = running(0, 1, 2)
    for worker, blamed in ((0, 2), (1, 2), (2, 0)):
        play.report(worker, blames=(blamed,), in_call=True, reason=f"worker {blamed} does not answer at its port")
    assert play.new_of(Kill)[0].reason == (
        "its connection with another worker is cut (worker 2 does not answer at its port)"
    )
    assert play.new_of(Kill)[0].worker == play.new_of(WorkerDeath)[0].failure.worker == 2
    assert play.answers[1].members == (0, 1)


def test_a_replacement_that_the_others_cannot_reach_has_not_started_well():
    play = running(0, 1).join(2).report(0, 1).report(0, state="parked")
    assert play.answers[2].members == (0, 1, 2)
    play.report(0, 1, blames=(2,), in_call=True, reason="no connection with rank 2 within 10 s: 10.0.0.3:4711")
    play.report(2, at="join", next_call=-1, blames=(0, 1), in_call=True)
    (failed,), (death,) = play.new_of(StartFailed), play.new_of(WorkerDeath)
    assert failed.failure == death.failure
    assert (death.failure.worker, death.num_left) == (2, 2)
    assert "10.0.0.3:4711" in failed.failure.reason
    assert play.answers[1].members == (0, 1)


# -- what must change nothing -----------------------------------------------------------------------------------------


def test_stale_events_change_nothing():
    play = running(0, 1, 2).die(2).report(0, 1)
    before = play.state
    assert play.report(2).new == ()
    assert play.die(2).new == ()
    assert play.die(99).new == ()
    assert play.feed(JoinRequested(worker=99, request=JOINING)).new == ()
    assert play.state == before


def test_events_after_the_end_change_nothing():
    play = closing(0).feed(Finished(worker=0))
    assert play.state.over
    events = [
        failure(0),
        Started(worker=1),
        Signal.ERRORS_COLLECTED,
        Signal.REGROUP_IF_WANTED,
        Expired(reason=""),
    ]
    events += [PauseWanted(reason="later"), LeaveWanted(workers=frozenset({0})), InitialStateChanged(initial_state="x")]
    assert all(decide(play.state, event) == (play.state, ()) for event in events)


# -- microbatches by pace ---------------------------------------------------------------------------------------------

SLOW = PaceChanged(times_s={0: 0.1, 1: 0.3, 2: 0.1})


def test_microbatches_are_dealt_anew_by_a_generation_of_the_same_members():
    play = running(0, 1, dealing=Dealing(num_microbatches=8))
    assert play.answers[0].ranges == ((0, 4), (4, 8))
    play.feed(SLOW)
    assert play.new == (AbortGeneration(generation=0, reason="microbatches are dealt anew", workers=frozenset({0, 1})),)
    play.report(0, held=((0, 4),)).report(1, held=((4, 8),))
    assert play.answers[0].held == (((0, 4),), ((4, 8),)), "what is computed of the step stays"
    assert play.answers[0].ranges == play.answers[1].ranges == ((0, 6), (6, 8))
    assert play.new[-1] == Formed(generation=1, members=(0, 1), joined=(), restarted=False, ranges=((0, 6), (6, 8)))


def test_paces_outlive_deaths_and_joins():
    play = running(0, 1, 2, dealing=Dealing(num_microbatches=8)).feed(SLOW)
    play.report(0, 1, 2, held=())
    assert play.answers[0].ranges == ((0, 3), (3, 4), (4, 8))
    play.die(2).report(0, 1, next_call=6)
    assert play.answers[0].ranges == ((0, 6), (6, 8))
    play.join(3).report(0, state="parked", next_call=7).report(1, next_call=7)
    assert play.answers[3].members == (0, 1, 3)
    assert play.answers[3].ranges == ((0, 3), (3, 4), (4, 8))


def test_a_pace_that_comes_while_the_group_changes_or_is_not_asked_for_is_forgotten():
    play = running(0, 1, 2, dealing=Dealing(num_microbatches=8)).die(2)
    assert play.feed(SLOW).new == ()
    play.report(0, 1)
    assert play.answers[0].ranges == ((0, 4), (4, 8))
    assert running(0, 1).feed(SLOW).new == ()
