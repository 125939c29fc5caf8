"""The goodput benchmark's figures, on made-up kills, events and steps: when it kills, and what counts as lost."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "scripts" / "benchmarks"


@pytest.fixture
def goodput(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script, no module of the package."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import goodput

    return goodput


def formed(time: float, workers: Sequence[int], joined: Sequence[int] = (), **more: Any) -> dict[str, Any]:
    return {"event": "formed", "time": time, "workers": [*workers], "joined": [*joined], "restarted": False} | more


def restarted(time: float, workers: Sequence[int], checkpoint: str | None = None) -> dict[str, Any]:
    return formed(time, workers, workers, restarted=True, checkpoint=checkpoint)


def lost(*workers: int) -> list[dict[str, Any]]:
    return [{"event": "lost", "worker": worker} for worker in workers]


def steps(*spans: tuple[int, int]) -> list[tuple[float, int]]:
    """One step a second, in each span of whole seconds, its ends included."""
    times = [float(at) for begin, end in spans for at in range(begin, end + 1)]
    return [(at, step) for step, at in enumerate(times)]


def test_the_first_kill_is_due_after_half_of_the_interval(goodput: ModuleType) -> None:
    assert goodput.next_kill(goodput.Found(began=100.0), 15.0, 2) == 107.5


def test_the_next_kill_is_due_an_interval_after_the_group_stands_however_long_its_restart_took(
    goodput: ModuleType,
) -> None:
    found = goodput.Found(kills=[goodput.Kill(10.0, (0, 1))], events=[formed(0.0, [0, 1], [0, 1])], began=2.0)
    assert goodput.next_kill(found, 15.0, 2) == math.inf
    found.events.append(restarted(30.0, [2]))
    assert goodput.next_kill(found, 15.0, 2) == math.inf  # one is missing
    found.events.append(formed(32.0, [2, 3], [3]))
    assert goodput.next_kill(found, 15.0, 2) == 47.0
    found.events.append(formed(40.0, [2, 3, 4], [4]))
    assert goodput.next_kill(found, 15.0, 2) == 47.0


def test_a_group_with_the_victim_is_one_from_before_its_loss_was_noticed(goodput: ModuleType) -> None:
    events = [formed(11.0, [0, 1, 2], [2]), formed(12.0, [0, 2])]
    found = goodput.Found(kills=[goodput.Kill(10.0, (1,))], events=events)
    assert goodput.next_kill(found, 15.0, 2) == 27.0


def test_each_kill_and_each_join_costs_what_is_beyond_a_step(goodput: ModuleType) -> None:
    found = goodput.Found(
        kills=[goodput.Kill(10.0, (1,))],
        events=[formed(-1.0, [0, 1], [0, 1]), *lost(1), formed(12.0, [0]), formed(22.0, [0, 2], [2])],
        applied=steps((0, 10), (15, 20), (24, 40)),
        began=0.0,
        ended=40.0,
    )
    figures = goodput.report(found)
    assert figures["kill_ms"] == [4000.0]
    assert figures["join_ms"] == [3000.0]
    assert figures["goodput"] == pytest.approx(1 - (4 + 3) / 40)


def test_a_join_within_a_kills_wait_is_no_second_step(goodput: ModuleType) -> None:
    found = goodput.Found(
        kills=[goodput.Kill(10.0, (1,))],
        events=[formed(-1.0, [0, 1], [0, 1]), *lost(1), formed(12.0, [0, 2], [2])],
        applied=steps((0, 10), (15, 40)),
        began=0.0,
        ended=40.0,
    )
    assert goodput.report(found)["goodput"] == pytest.approx(1 - 4 / 40)


def test_overlapping_intervals_are_one_and_touching_ones_are_two(goodput: ModuleType) -> None:
    assert goodput.merged([(3.0, 5.0), (0.0, 2.0), (1.0, 3.0), (6.0, 9.0), (7.0, 8.0)]) == [
        (0.0, 3.0),
        (3.0, 5.0),
        (6.0, 9.0),
    ]


def test_steps_that_are_made_again_commit_nothing(goodput: ModuleType) -> None:
    """All are killed at step 10; the last checkpoint is of step 5."""
    again = [(20.0 + num, 5 + num) for num in range(21)]
    found = goodput.Found(
        kills=[goodput.Kill(10.0, (0, 1))],
        events=[formed(-1.0, [0, 1], [0, 1]), *lost(0, 1), restarted(19.0, [2, 3], "step 5")],
        applied=steps((0, 10)) + again,
        began=0.0,
    )
    assert found.followed() == [(10.0, 26.0)]
    found.ended = 40.0
    figures = goodput.report(found)
    assert figures["goodput"] == pytest.approx(1 - 15 / 40)
    assert figures["backed_off"] == 0


def test_a_kill_is_not_followed_until_a_new_step_is_committed(goodput: ModuleType) -> None:
    found = goodput.Found(
        kills=[goodput.Kill(10.0, (0, 1))],
        events=[restarted(19.0, [2, 3])],
        applied=[*steps((0, 10)), (20.0, 9), (21.0, 10)],
    )
    assert found.followed() == []
    found.applied.append((22.0, 11))
    assert found.followed() == [(10.0, 22.0)]


def test_restarts_from_the_same_checkpoint_as_the_one_before_are_counted(goodput: ModuleType) -> None:
    names = [None, "a", "a", "b", "b", "b"]
    events = [restarted(float(at), [at], name) for at, name in enumerate(names)]
    assert goodput.backed_off([*events, formed(9.0, [5, 6], [6], checkpoint="b")]) == 3


def test_a_worker_that_was_given_its_place_twice_has_joined_once(goodput: ModuleType) -> None:
    """Workers 2 and 3 begin again; 3 joins, cannot take its place before the group changes, and is given another."""
    found = goodput.Found(
        kills=[goodput.Kill(10.0, (0, 1))],
        events=[
            formed(-1.0, [0, 1], [0, 1]),
            *lost(0, 1),
            restarted(12.0, [2]),
            formed(13.0, [2, 3], [3]),
            formed(14.0, [2, 3], [3]),
            {"event": "not_started", "worker": 4},
        ],
        applied=steps((0, 10), (15, 40)),
        began=0.0,
        ended=40.0,
    )
    figures = goodput.report(found)
    assert (figures["joins"], figures["placed_again"], figures["not_started"]) == (2, 1, 1)
    assert (figures["lost_otherwise"], figures["not_lost"], figures["unfollowed"]) == (0, 0, 0)


def test_losses_that_were_no_kills_and_kills_without_an_effect_are_counted(goodput: ModuleType) -> None:
    found = goodput.Found(
        kills=[goodput.Kill(10.0, (1,))],
        events=[formed(-1.0, [0, 1, 2], [0, 1, 2]), *lost(2)],
        applied=steps((0, 40)),
        began=0.0,
        ended=40.0,
    )
    figures = goodput.report(found)
    assert (figures["lost_otherwise"], figures["not_lost"], figures["unfollowed"]) == (1, 1, 1)


def test_a_part_that_fails_is_reported_and_the_next_one_is_measured(
    goodput: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(model: str, *, every_s: float | None, everybody: bool = False, **_: Any) -> Any:
        if everybody:
            raise RuntimeError("not all workers were replaced")
        return goodput.Found(applied=steps((0, 40)), ended=40.0)

    monkeypatch.setattr(goodput, "killed", killed)
    saved = tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", ["goodput.py", "--every", "15", "--json", str(saved)])
    with pytest.raises(SystemExit, match="True"):
        goodput.main()
    *_, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = {row["run"]: row for row in last["rows"]}
    assert found["everybody restarts, every 15 s"]["error"] == "RuntimeError: not all workers were replaced"
    assert found["heliostat, every 15 s"]["of_undisturbed"] == 1.0
    kept = json.loads(saved.read_text())
    assert kept["rows"] == last["rows"]
    assert {"command", "commit", "day", "host", "versions"} <= set(kept["about"])


def test_a_run_that_was_given_up_has_no_figures(goodput: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="given up"):
        goodput.report(goodput.Found(applied=steps((0, 10))))
