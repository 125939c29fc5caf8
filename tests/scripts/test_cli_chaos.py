"""`heliostat chaos`: real workers killed under a real script; and what it makes of what it sees."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from heliostat.scripts.commands.chaos import interval_s
from heliostat.scripts.commands.chaos_report import Fit, Kill, Outcome, differences, kills_of, verdict
from heliostat.scripts.errors import ScriptError
from heliostat.trainer.driver.kills import Killer
from heliostat.trainer.environment import KillSchedule
from heliostat.trainer.events import GroupFormed, Paused, WorkerKilled, WorkerLost

from .child import heliostat

SCRIPT = """
import json, sys, time
import keras, numpy as np
from heliostat.trainer import Trainer

def build():
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    return model

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    seed = time.time_ns() % 2**32 if given.pop("careless", False) else 7
    fits, epochs = given.pop("fits", 1), given.pop("epochs", 1)
    given = {"num_microbatches": 4, "threads_per_worker": 1, "seed": seed, "run_dir": "own", **given}
    with Trainer(build, **given) as trainer:
        for _ in range(fits):
            trainer.fit((x, 2 * x[:, :1]), validation_data=(x, x[:, :1]), epochs=epochs, global_batch_size=8, verbose=0)
"""


@pytest.fixture
def chaos(tmp_path):
    """chaos(options, **arguments of the Trainer) -> what the command did with the script."""
    (tmp_path / "train.py").write_text(SCRIPT)

    def run(*options: str, **given: object) -> subprocess.CompletedProcess[str]:
        done = heliostat("chaos", "train.py", json.dumps(given), *options, "--run-dir", "out", cwd=tmp_path)
        assert "commands/chaos.py" not in done.stderr, "a traceback of the command"
        return done

    return run


def workers_of(event: str, folder: Path) -> list[int]:
    """The workers that events of a kind are about."""
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [each["worker"] for each in map(json.loads, lines) if each["event"] == event]


@pytest.mark.faults
@pytest.mark.slow
def test_killed_ray_workers_do_not_change_the_result(chaos, tmp_path):
    result = chaos("--kill-every", "200ms", workers=3, epochs=20)
    assert result.returncode == 0, result.stderr
    killed, noticed = (workers_of(event, tmp_path / "out/disturbed") for event in ("killed", "lost"))
    assert len(noticed) >= 2
    assert set(noticed) <= set(killed)
    assert workers_of("lost", tmp_path / "out/undisturbed") == []
    assert f"{len(noticed)} kills, and the same weights, optimizer state and history, bit for bit." in result.stdout


@pytest.mark.engine
@pytest.mark.slow
def test_workers_in_the_scripts_process_are_killed_over_all_of_its_fits(chaos, tmp_path):
    result = chaos("--kill-every", "200ms", workers=3, in_process=True, epochs=6, fits=2)
    assert result.returncode == 0, result.stderr
    assert {each.name for each in (tmp_path / "out").iterdir()} == {
        "undisturbed",
        "undisturbed-2",
        "disturbed",
        "disturbed-2",
    }
    assert workers_of("lost", tmp_path / "out/disturbed")
    assert not (tmp_path / "own").exists(), "it wrote the script's own run folder"


@pytest.mark.engine
@pytest.mark.slow
def test_without_a_kill_nothing_is_proved(chaos):
    result = chaos("--kill-every", "1h", workers=2, in_process=True)
    assert result.returncode == 1
    assert "nothing was proved: raise the run's length or lower --kill-every" in result.stdout


@pytest.mark.engine
@pytest.mark.slow
def test_a_script_whose_result_depends_on_the_clock_is_found_out(chaos):
    result = chaos("--kill-every", "1h", workers=2, in_process=True, careless=True)
    assert result.returncode == 1
    assert "NOT THE SAME after 0 kills" in result.stdout
    assert "fit 1: weights: sha256" in result.stdout
    assert "fit 1: epoch 1, loss:" in result.stdout


@pytest.mark.engine
@pytest.mark.slow
def test_a_script_without_workers_is_refused(chaos):
    result = chaos(workers=0)
    assert result.returncode == 1
    assert "undisturbed run ended with status 1" in result.stderr
    assert "workers=0" in result.stderr


def test_a_script_that_trains_nothing_is_refused(chaos, tmp_path):
    (tmp_path / "train.py").write_text("print('nothing')")
    result = chaos()
    assert result.returncode == 1
    assert "without a call of Trainer.fit" in result.stderr


def test_a_script_that_fails_undisturbed_is_not_disturbed(chaos, tmp_path):
    (tmp_path / "train.py").write_text("raise SystemExit(7)")
    assert "undisturbed run ended with status 7" in chaos().stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_runs_is_refused(chaos, tmp_path):
    (tmp_path / "out" / "disturbed").mkdir(parents=True)
    result = chaos()
    assert result.returncode == 1
    assert "exists already" in result.stderr


def test_options_behind_two_dashes_are_the_scripts(chaos, tmp_path):
    (tmp_path / "train.py").write_text("import sys; open('seen', 'w').write(repr(sys.argv[1:]))")
    chaos("--lr", "3", "--seed", "4", "--", "--seed", "5", "-h")
    # The fixture puts --run-dir last, which is behind the dashes here.
    assert (tmp_path / "seen").read_text() == repr(["{}", "--lr", "3", "--seed", "5", "-h", "--run-dir", "out"])


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30.0), ("500ms", 0.5), ("2m", 120.0), ("1.5 h", 5400.0)])
def test_intervals(text, seconds):
    assert interval_s(text) == seconds


@pytest.mark.parametrize("text", ["30", "", "s", "-1s", "0s", "0.0ms", "nans", "1d", "30s 5"])
def test_what_is_no_interval_is_named(text):
    with pytest.raises(ScriptError, match="is no interval"):
        interval_s(text)


# -- whom to kill -----------------------------------------------------------------------------------------------------


def killer_every(every_s: float, seed: int = 0) -> Killer:
    return Killer(KillSchedule(every_s=every_s, seed=seed))


def test_the_first_kill_comes_an_interval_after_the_first_steps_begin():
    killer = killer_every(10.0)
    assert killer.victim("gathering", (), 3, 0.0) is None
    assert killer.victim("running", (0, 1, 2), 3, 5.0) is None
    assert killer.victim("running", (0, 1, 2), 3, 14.9) is None
    first = killer.victim("running", (0, 1, 2), 3, 15.0)
    assert first in (0, 1, 2)
    assert killer.victim("running", (0, 1, 2), 3, 24.9) is None
    assert killer.victim("regrouping", (0, 1, 2), 3, 25.0) in {0, 1, 2} - {first}


def test_the_last_of_several_is_spared_until_others_have_come():
    killer = killer_every(1.0)
    killer.victim("running", (0, 1), 2, 0.0)
    assert killer.victim("running", (1,), 2, 50.0) is None
    assert killer.victim("running", (1, 2), 2, 51.0) in (1, 2)


def test_a_death_that_the_group_has_not_heard_of_counts_when_the_last_is_spared():
    killer = killer_every(1.0)
    killer.victim("running", (0, 1), 2, 0.0)
    first = killer.victim("running", (0, 1), 2, 2.0)
    assert first is not None
    assert killer.victim("running", (0, 1), 2, 4.0) is None
    assert killer.victim("running", (0, 1, 2), 2, 6.0) in {0, 1, 2} - {first}


def test_the_only_worker_of_a_run_is_not_spared():
    killer = killer_every(1.0)
    killer.victim("running", (3,), 1, 0.0)
    assert killer.victim("running", (), 1, 2.0) is None
    assert killer.victim("running", (3,), 1, 4.0) == 3


def test_nobody_is_killed_outside_of_steps():
    killer = killer_every(1.0)
    killer.victim("running", (0, 1), 2, 0.0)
    for status in ("gathering", "closing", "ending", "collecting errors", "over"):
        assert killer.victim(status, (0, 1), 2, 10.0) is None


def test_the_seed_decides_who_is_killed():
    def victims(seed: int) -> list[int | None]:
        killer = killer_every(1.0, seed)
        return [killer.victim("running", tuple(range(40)), 40, 2.0 * now) for now in range(20)]

    assert victims(1) == victims(1)
    assert victims(1) != victims(2)
    assert len(set(victims(1))) == 20


# -- what came out ----------------------------------------------------------------------------------------------------


def fit(**fields) -> Fit:
    given = {
        "number": 1,
        "state": "finished",
        "sha256": {"weights": "aa", "optimizer": "bb"},
        "epochs": [{"loss": 1.0}],
    }
    return Fit(**(given | fields))


def kill(worker: int, at_s: float) -> WorkerKilled:
    return WorkerKilled(time=at_s, worker=worker, host="a")


def lost(worker: int, at_s: float, step: int | None = 7) -> WorkerLost:
    return WorkerLost(time=at_s, worker=worker, host="a", step=step, reason="killed", left=1)


def formed(at_s: float, *joined: int, restarted: bool = False) -> GroupFormed:
    return GroupFormed(time=at_s, generation=1, workers=(0, 1), joined=joined, restarted=restarted)


def test_a_kill_is_followed_from_the_loss_to_the_next_group_and_the_next_worker():
    events = [
        formed(0.0, 0, 1),
        lost(1, 10.2),
        Paused(time=10.3, reason="another event", checkpoint=None),
        formed(10.5),
        formed(14.0, 2),
    ]
    (found,) = kills_of(fit(events=[kill(1, 10.0), *events]))
    assert (found.worker, found.step, found.stall_s, found.joined_s, found.restarted) == (1, 7, 0.5, 4.0, False)


def test_a_group_of_new_workers_alone_is_a_restart_and_no_replacement():
    events = [lost(0, 1.0, step=None), formed(2.0, 1, restarted=True)]
    (found,) = kills_of(fit(events=[kill(0, 1.0), *events]))
    assert (found.stall_s, found.joined_s, found.restarted) == (1.0, None, True)


def test_a_kill_after_the_last_step_proves_nothing():
    assert kills_of(fit(events=[lost(1, 0.5), kill(0, 1.0)])) == []


def test_equal_fits_differ_in_nothing_also_if_a_metric_is_nan():
    nan = [{"loss": float("nan")}]
    assert differences(fit(epochs=nan), fit(epochs=list(nan))) == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sha256": {"weights": "aa", "optimizer": "cc"}}, "optimizer: sha256 bb, disturbed cc"),
        ({"sha256": {"weights": "aa"}}, "optimizer: sha256 bb, disturbed none"),
        ({"state": "failed"}, "state: finished, disturbed failed"),
        ({"epochs": [{"loss": 1.0 + 2**-52}]}, "epoch 1, loss: 1.0, disturbed 1.0000000000000002"),
        ({"epochs": [{"loss": 1.0, "mae": 0.0}]}, "epoch 1, mae: None, disturbed 0.0"),
        ({"epochs": []}, "epochs: 1, disturbed 0"),
    ],
)
def test_what_differs_is_named(fields, said):
    assert differences(fit(), fit(**fields)) == [said]


def test_a_fit_of_one_run_alone_is_a_difference():
    assert differences(fit(), None) == ["it was made in the undisturbed run only"]
    assert differences(None, fit()) == ["it was made in the disturbed run only"]


@pytest.mark.parametrize(
    ("fields", "proved", "said"),
    [
        ({}, True, "1 kill, and the same weights"),
        ({"kills": []}, False, "nothing was proved"),
        ({"failure": "the disturbed run ended with status 1"}, False, "NOT THE SAME after 1 kill: the disturbed run"),
        ({"disturbed": [fit(epochs=[])]}, False, "NOT THE SAME after 1 kill: the result"),
        ({"disturbed": []}, False, "NOT THE SAME"),
    ],
)
def test_the_verdict(fields, proved, said):
    one = Kill(fit=1, worker=0, host="a", step=1, stall_s=1.0, joined_s=None)
    outcome = Outcome(**({"plain": [fit()], "disturbed": [fit()], "kills": [one]} | fields))
    assert outcome.proved is proved
    assert said in verdict(outcome)
