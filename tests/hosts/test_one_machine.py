"""The laptop alone, and what it is told when it names a cluster that it cannot join."""

from __future__ import annotations

import pytest

from .conftest import outcome
from .machines import HEAD, LAPTOP, RAY_PORT, address

pytestmark = [pytest.mark.reach, pytest.mark.slow]


def test_an_address_left_in_the_environment_does_not_hinder_a_run_on_this_machine(machines, undisturbed, told):
    dead = f"{address(HEAD)}:{RAY_PORT}"
    command = ["train.py", "--workers=2", "--run-dir=/tmp/alone", "--epochs=3"]
    text = told(machines.python(LAPTOP, *command, RAY_ADDRESS=dead))
    assert f"RAY_ADDRESS={dead} is not followed" in text
    assert outcome(text)["stored"]["sha256"] == undisturbed[0]["sha256"]


REFUSED = {
    "auto": "none runs here",
    f"{address(HEAD)}:{RAY_PORT}": "does not answer|no answer",
    f"ray://{address(HEAD)}:10001": "heliostat submit",
    f"http://{address(HEAD)}:8265": "heliostat submit|does not answer",
    "10.0.0.1": "host, colon, port",
}


@pytest.mark.parametrize("given", REFUSED)
def test_an_address_that_leads_nowhere_is_refused(machines, told, given):
    before = set((machines.disk(LAPTOP) / "work").iterdir())
    text = told(machines.python(LAPTOP, "train.py", f"--address={given}"))
    assert any(words in text for words in REFUSED[given].split("|")), text
    assert given.split("://")[-1] in text
    assert set((machines.disk(LAPTOP) / "work").iterdir()) == before, "a start that failed left a run folder"
