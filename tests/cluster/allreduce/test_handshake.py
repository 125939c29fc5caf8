from __future__ import annotations

import pytest
from heliostat.cluster.allreduce.handshake import Peers, Refused, answer, dial

SECRET = b"a secret of some length"


def peers(rank, secret=SECRET):
    return Peers(rank=rank, addresses=[("10.0.0.1", 1), ("10.0.0.2", 1)], generation=1, secret=secret)


def converse(dialer, listener, tamper=lambda data: data):
    """Pass the messages of two handshakes to each other; return what each side ends with."""
    outcome = {}

    def step(name, steps, data):
        try:
            return steps.send(data)
        except StopIteration as finished:
            outcome[name] = finished.value
        except Refused as error:
            outcome[name] = error
        return b"", 0

    message, wanted = next(dialer)
    next(listener)
    for _ in range(3):
        message, _ = step("listener", listener, tamper(message)) if "listener" not in outcome else (b"", 0)
        if "dialer" in outcome or not message:
            break
        assert len(message) == wanted
        message, wanted = step("dialer", dialer, message)
    if "listener" not in outcome:
        step("listener", listener, message)
    return outcome


def test_both_sides_learn_who_the_other_one_is():
    outcome = converse(dial(peers(1), 0), answer(peers(0)))
    assert (outcome["dialer"].sender, outcome["listener"].sender) == (0, 1)


def test_another_secret_is_noticed_by_the_dialer_before_it_proves_anything():
    steps = dial(peers(1), 0)
    first, _ = next(steps)
    other = answer(peers(0, b"another secret entirely"))
    next(other)
    reply, _ = other.send(first)
    with pytest.raises(Refused, match="does not know this run's secret"):
        steps.send(reply)


def test_a_listener_refuses_a_wrong_proof_and_its_own_proof_sent_back():
    listener = answer(peers(0))
    next(listener)
    reply, wanted = listener.send(peers(1).hello(0).pack())
    with pytest.raises(Refused, match="secret"):
        listener.send(reply[-wanted:])


@pytest.mark.parametrize("byte", range(0, 60, 5))
def test_a_hello_changed_on_the_way_is_refused(byte):
    def tamper(data):
        return data if len(data) < 40 else bytes([*data[:byte], data[byte] ^ 1, *data[byte + 1 :]])

    outcome = converse(dial(peers(1), 0), answer(peers(0)), tamper)
    assert isinstance(outcome.get("dialer", outcome["listener"]), Refused)
