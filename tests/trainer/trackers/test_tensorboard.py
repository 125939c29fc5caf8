"""Event files as TensorBoard reads them: curves by epoch, workers by step, and what a run that goes on takes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from heliostat.trainer.events import Resumed, WorkerLost
from heliostat.trainer.trackers.tensorboard import TensorBoardTracker
from heliostat.trainer.trackers.tracker import FOLDER

from .told import RECORD, epoch, sample, worker

pytestmark = pytest.mark.engine  # TensorBoard's reader loads TensorFlow


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "runs" / "news"
    path.mkdir(parents=True)
    return path


def read(folder: Path):
    """All that TensorBoard has of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(each.step, round(each.value, 4)) for each in read(folder).Scalars(tag)]


def text(folder: Path, tag: str) -> list[str]:
    return [each.tensor_proto.string_val[0].decode() for each in read(folder).Tensors(tag)]


def trained(tracker: TensorBoardTracker, run: Path, *epochs: int, resumed_at: int | None = None) -> None:
    tracker.begin(run, RECORD)
    if resumed_at is not None:
        tracker.event(Resumed(checkpoint="c", epoch=resumed_at, step=0))
    for each in epochs:
        tracker.epoch(epoch(each), 3, 2.0)
        tracker.sample(sample(10 * (each + 1), worker(0, 1.0 + each, 0.5 * each), rows=640 * each, at_s=each))
    tracker.end({"state": "finished"})


def test_a_run_is_curves_beside_each_other(run):
    (run / "run.json").write_text(json.dumps({"format_version": 3, "state": "finished"}))
    tracker = TensorBoardTracker(None)
    trained(tracker, run, 0, 1)
    tracker.close()
    folder = run / FOLDER / "tensorboard"
    assert curve(folder / "train", "epoch_loss") == [(0, 0.5), (1, 0.4)]
    assert curve(folder / "validation", "epoch_loss") == [(0, 0.75), (1, 0.75)]
    assert curve(folder / "train", "epoch_samples_per_s") == [(0, 500.0), (1, 500.0)]
    assert curve(folder / "workers", "workers/0/wait_share") == [(10, 0.0), (20, 0.3333)]
    assert curve(folder / "workers", "samples_per_s") == [(20, 640.0)]
    assert "| global_batch_size | 64 |" in text(folder / "train", "run")[0]
    (said,) = text(folder / "train", "end")
    assert said.startswith("The run is finished.\n\nunknown: 0 steps")


def test_a_run_that_goes_on_takes_back_what_was_behind_its_checkpoint(run):
    trained(TensorBoardTracker(None), run, 0, 1, 2)
    trained(TensorBoardTracker(None), run, 2, 3, resumed_at=2)
    folder = run / FOLDER / "tensorboard"
    assert [step for step, _ in curve(folder / "train", "epoch_loss")] == [0, 1, 2, 3]
    assert [step for step, _ in curve(folder / "workers", "workers/0/compute_share")] == [10, 20, 30, 40]
    assert len(list((folder / "train").iterdir())) == 2


def test_what_is_computed_again_is_written_once(run):
    trained(TensorBoardTracker(None), run, 0, 1, 0, 1, 2)
    assert [step for step, _ in curve(run / FOLDER / "tensorboard" / "train", "epoch_loss")] == [0, 1, 2]


def test_a_path_has_a_folder_for_each_run(run, tmp_path):
    tracker = TensorBoardTracker(tmp_path / "boards")
    trained(tracker, run, 0)
    trained(tracker, run.with_name("news-2"), 0)
    assert sorted(path.name for path in (tmp_path / "boards").iterdir()) == ["news", "news-2"]
    assert not (run / FOLDER).exists()


def test_events_are_texts(run):
    tracker = TensorBoardTracker(None)
    tracker.begin(run, RECORD)
    tracker.event(WorkerLost(worker=1, host="b", step=7, reason="killed", left=1))
    tracker.close()
    said = text(run / FOLDER / "tensorboard" / "train", "events/lost")
    assert said == ["lost worker 1 on b at step 7: killed; 1 left"]
