"""What a member tells the driver when its group changes: a real listener, and answers that were written beforehand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from heliostat.cluster.allreduce.listener import Listener
from heliostat.cluster.errors import Dismissed
from heliostat.cluster.group import member as member_module
from heliostat.cluster.group.mailbox import Mailbox
from heliostat.cluster.group.member import Member
from heliostat.cluster.group.messages import JoinRequest, Leave, Membership, TaskEnded, TaskEvent, TaskRequest
from heliostat.cluster.spec import GroupSpec

DONE = Leave("the test is over")


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener("127.0.0.1") as made:
        yield made


def told(listener: Listener, is_aborted: bool) -> list[JoinRequest]:
    """What worker 0 asks for: it is given a place beside a worker that never comes, then it is let go."""
    with Listener("127.0.0.1") as silent:
        place = Membership(
            generation=0,
            members=(0, 1),
            call=0,
            first_call=0,
            donor=0,
            addresses=(listener.address, silent.address),
            secret=bytes(32),
        )
        answers: list[object] = [place, DONE]
        requests: list[JoinRequest] = []

        def put(message: TaskEvent | TaskEnded) -> None:
            assert isinstance(message, TaskRequest)
            assert isinstance(message.content, JoinRequest)
            requests.append(message.content)
            mailbox.answer(message.number, answers.pop(0))

        mailbox = Mailbox(0, put)
        member = Member(0, mailbox, listener, GroupSpec(num_workers=2))
        if is_aborted:
            member.abort(0, "the others have given up")
        with pytest.raises(Dismissed):
            member.regroup(JoinRequest(waiting_at="step"))
    return requests


def test_who_comes_when_the_others_have_given_up_was_late_and_is_not_cut_off(listener):
    _, after = told(listener, is_aborted=True)
    assert "the others have given up" in after.reason
    assert not after.in_call


def test_who_has_waited_for_a_peer_that_does_not_come_blames_it(listener, monkeypatch):
    monkeypatch.setattr(member_module, "CONNECT_LIMIT_S", 0.1)
    _, after = told(listener, is_aborted=False)
    assert (after.in_call, after.blames) == (True, (1,))
