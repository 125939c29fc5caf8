"""What `heliostat run --quick` makes of run folders: parts that went well, failed, or were not reached."""

from __future__ import annotations

from heliostat.scripts.commands.quick_report import FitDone, parts_of, verdict
from heliostat.trainer.driver.quick import PassDone
from heliostat.trainer.events import CheckpointCommitted, CheckpointNotMade, EpochRecord, FirstStepDone, Resumed
from heliostat.trainer.samples import Sample, WorkerSample

ERROR = "TrainingFailedError: Worker 0 raised an error at step 2: ValueError: no room\nand more"


def first_step(after_s):
    return FirstStepDone(worker=0, seconds={}, after_s=after_s)


def checkpoint(epoch):
    return CheckpointCommitted(name=f"{epoch}", epoch=epoch, step=0, seconds=0.25, write_s=0.5, commit_s=0.25)


def epoch(number, **logs):
    return EpochRecord(epoch=number, logs={"loss": 1.0, **logs}, rows=4, rows_by_worker={}, seconds_by_worker={})


def sample(number, share=1.0):
    seconds = [
        {"input_s": 1.0, "compute_s": 2.0, "validate_s": 0.5},
        {"input_s": 3.5, "first_step_s": 0.5, "hooks_s": 0.5},
    ]
    workers = tuple(
        WorkerSample(
            worker=worker,
            host="a",
            step=1,
            rows=1,
            microbatches=1,
            seconds={name: share * each for name, each in of_worker.items()},
        )
        for worker, of_worker in enumerate(seconds)
    )
    return Sample(epoch=number, step=1, rows=1, logs={}, workers=workers)


RESUMED = Resumed(checkpoint="1", epoch=1, step=0)
WHOLE = FitDone(
    number=1,
    record={"state": "finished", "data": {"train": {}, "valid": {}}},
    epochs=[epoch(0, val_loss=1.0), epoch(1, val_loss=1.0)],
    events=[first_step(9.0), first_step(9.5), checkpoint(1), RESUMED, first_step(2.0), first_step(2.5), checkpoint(2)],
    samples=[sample(0, 0.1), sample(0), sample(1, 0.1), sample(1)],
    model_bytes=3_000_000,
)


def said(fit, passes=()):
    return {part.name: (part.seconds, part.said, part.failed) for part in parts_of([fit], passes)}


def test_each_part_has_its_seconds():
    found = said(WHOLE, [PassDone(what="evaluate", seconds=0.5)])
    assert {name: seconds for name, (seconds, _, _) in found.items()} == {
        "start": 9.0,
        "train": 8.0,  # of the slower worker in each epoch
        "callbacks": 1.0,
        "validate": 1.0,
        "checkpoint": 2.0,
        "resume": 2.0,
        "save": None,
        "evaluate": 0.5,
    }
    assert not any(failed for _, _, failed in found.values())
    assert found["save"][1] == "model.keras, 3.0 MB"
    assert verdict(parts_of([WHOLE], []), 0) == "Everything went well, on a few steps."
    assert "status 3" in verdict(parts_of([WHOLE], []), 3)


def test_the_first_part_that_is_missing_has_the_error():
    fit = FitDone(
        number=2,
        record={"state": "failed", "error": ERROR, "data": {"valid": {}}},
        epochs=[],
        events=[first_step(9.0)],
    )
    found = said(fit)
    assert found["start"][2] is False
    assert found["train"] == (None, ERROR.partition("\n")[0], True)
    assert {found[name] for name in ("validate", "checkpoint", "resume", "save")} == {(None, "not reached", True)}
    assert verdict(parts_of([fit], []), 1).startswith("FAILED: train of fit 2;")


def test_a_run_that_cannot_go_on_fails_there():
    fit = FitDone(
        number=1,
        record={"state": "failed", "error": "CheckpointError: no such state", "data": {}},
        epochs=[epoch(0)],
        events=[first_step(9.0), checkpoint(1)],
    )
    found = said(fit)
    assert "validate" not in found
    assert found["checkpoint"][2] is False
    assert found["resume"] == (None, "CheckpointError: no such state", True)


def test_what_the_script_does_not_want_is_no_failure():
    none = FitDone(number=1, record={"state": "finished"}, epochs=[epoch(0)], events=[first_step(9.0)])
    assert said(none)["checkpoint"] == (None, "the script makes none: no resuming", False)
    assert "resume" not in said(none)
    early = FitDone(
        number=1,
        record={"state": "finished", "stopped_early": True},
        epochs=[epoch(0)],
        events=[first_step(9.0), checkpoint(1)],
    )
    assert said(early)["resume"] == (None, "callbacks stopped the run before", False)


def test_what_the_storage_refuses_fails_although_the_run_ends():
    lost = CheckpointNotMade(name="1", reason="no space is left")
    fit = FitDone(number=1, record={"state": "finished"}, epochs=[epoch(0)], events=[first_step(9.0), lost])
    assert said(fit)["checkpoint"] == (None, "no space is left", True)


def test_a_pass_that_raises_is_to_blame():
    found = parts_of([WHOLE], [PassDone(what="predict", seconds=0.5, error="ValueError: x\ny")])
    assert (found[-1].said, found[-1].is_to_blame) == ("ValueError: x", True)
    assert verdict(found, 1).startswith("FAILED: predict of pass 1;")
