"""Rows of a stream are written ahead of the steps, deleted behind them, and read by whoever waits for them."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.fs as fs
import pytest
from heliostat.cluster.group.messages import InitialStateChanged, TaskEvent
from heliostat.data import ShardError, open_dataset
from heliostat.data.order.parts import Parts
from heliostat.data.remote.filesystem import open_with
from heliostat.data.views.arriving import ArrivingDataset
from heliostat.trainer import ConfigurationError
from heliostat.trainer.columns import Columns
from heliostat.trainer.config import FitConfig, PassConfig
from heliostat.trainer.driver import stream_files
from heliostat.trainer.driver import supply as supply_module
from heliostat.trainer.driver.inputs import noted_columns, open_input
from heliostat.trainer.driver.stream_files import Taken, taken_by_pass
from heliostat.trainer.driver.supply import Supply
from heliostat.trainer.jobs import FitJob, RowsWanted
from heliostat.trainer.trainer_config import TrainerConfig

ROWS = 4  # of a batch
WAIT_S = 30.0


class Numbers:
    """Batches of the numbers 0, 1, 2 ..., without an end or so many of them."""

    def __init__(self, most: int | None = None, rows: int = ROWS) -> None:
        self.count, self.most, self.rows = 0, most, rows

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        number = 0
        while self.most is None or number < self.most:
            self.count += 1
            x = np.arange(number * self.rows, (number + 1) * self.rows, dtype=np.float64)
            yield x[:, None], -x
            number += 1


def begun(source: Numbers, folder: Path, steps: int, epochs: int, *, began: bool = False, **wanted):
    """A run's data and what supplies them, as a driver has them."""
    stream, inputs, targets = noted_columns(source.batches, None, None)
    columns = Columns(inputs=inputs, targets=targets)
    taken = Taken(num_batches=steps * epochs, batch_rows=ROWS, arrives=True)
    data = open_input(stream, "train", columns, folder, taken=taken, began=began)
    config = FitConfig(global_batch_size=ROWS, steps_per_epoch=steps, epochs=epochs, columns=columns, **wanted)
    job = FitJob(settings=TrainerConfig(), wanted=config, data=data, validation_data=None, run_dir=str(folder))
    said: list[str] = []
    return data, (Supply(stream, job, data, said.append) if isinstance(data, ArrivingDataset) else None), said


def want(supply: Supply, part: int) -> None:
    supply.take(TaskEvent(worker=0, content=RowsWanted(part=part)))


def parts_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "train").iterdir() if path.name.startswith("part-"))


def eventually(holds) -> None:
    end_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def read_all(data: ArrivingDataset, supply: Supply, steps: int) -> list[float]:
    found = []
    with data.reader(["x"]) as reader:
        for step in range(steps):
            want(supply, data.parts.part_of(step))
            found += reader.gather(np.arange(step * ROWS, (step + 1) * ROWS))["x"][:, 0].tolist()
    return found


@pytest.mark.parametrize("rows", [1, 3, 4, 9])
def test_exactly_the_rows_of_the_run_are_read_in_their_order(tmp_path, rows):
    source = Numbers(rows=rows)
    data, supply, _ = begun(source, tmp_path, 25, 4)
    supply.start(0)
    assert read_all(data, supply, 100) == list(range(400))
    supply.close(400)
    assert source.count == -(-400 // rows)
    assert len(data) == 400


def test_the_source_is_read_a_bounded_way_ahead(tmp_path):
    source = Numbers()
    data, supply, _ = begun(source, tmp_path, 1000, 1)
    supply.start(0)
    want(supply, 6)
    last = data.part_path(6 + supply_module.PARTS_AHEAD)
    eventually(lambda: Path(last).is_dir())
    supply.close()
    assert source.count == data.parts.batches(6 + supply_module.PARTS_AHEAD)[1]


def test_what_lies_before_the_oldest_checkpoint_is_deleted_but_for_the_first_part(tmp_path):
    data, supply, _ = begun(Numbers(), tmp_path, 20, 10, keep=2)
    supply.start(0)
    read_all(data, supply, 200)
    for epoch in (1, 2, 3):
        supply.take(InitialStateChanged(initial_state=None, position=(epoch, 0)))
    eventually(lambda: parts_in(tmp_path)[1] == "part-000000031-000000063")  # checkpoints at 40 and 60 are kept
    assert parts_in(tmp_path)[0] == "part-000000000-000000001"
    with data.reader() as reader, pytest.raises(ShardError, match=r"rows 4 to 11 of .* were deleted"):
        reader.gather(np.arange(ROWS, 2 * ROWS))
    supply.close()


def test_a_run_goes_on_with_what_is_there_and_passes_over_what_it_has_had(tmp_path):
    data, supply, _ = begun(Numbers(), tmp_path, 10, 3)
    supply.start(0)
    read_all(data, supply, 8)
    supply.close()
    there = parts_in(tmp_path)
    again = Numbers()
    more, supply, said = begun(again, tmp_path, 10, 5, began=True)
    assert more.fingerprint == data.fingerprint
    supply.start(5)
    with more.reader() as reader:
        for step in range(5, 50):
            want(supply, more.parts.part_of(step))
            assert reader.gather(np.arange(step * ROWS, step * ROWS + 1))["y"].tolist() == [-step * ROWS]
    supply.close(200)
    assert set(there) <= set(parts_in(tmp_path))
    assert again.count == 50
    assert "passed over" in said[0]


def test_a_source_that_ends_too_early_is_begun_anew(tmp_path):
    source = Numbers(most=70)
    data, supply, said = begun(source, tmp_path, 100, 1)
    supply.start(0)
    assert read_all(data, supply, 100) == [*range(280), *range(120)]
    supply.close(400)
    assert "begun anew" in said[0]


def test_a_short_source_is_written_whole(tmp_path):
    source = Numbers(most=5)
    data, supply, _ = begun(source, tmp_path, 3, 100)
    assert supply is None
    assert len(data) == 20
    assert source.count == 5


def test_what_was_read_ahead_is_not_kept_when_the_run_is_over(tmp_path):
    data, supply, _ = begun(Numbers(), tmp_path, 100, 1)
    supply.start(0)
    read_all(data, supply, 5)
    supply.close(5 * ROWS)
    assert parts_in(tmp_path) == [
        "part-000000000-000000001",
        "part-000000001-000000003",
        "part-000000003-000000005",
    ]
    assert len(open_dataset(tmp_path / "train" / "part-000000003-000000005")) == 2 * ROWS


def test_whoever_waits_hears_that_the_source_has_failed(tmp_path):
    def fails():
        for number in range(70):
            yield np.full((ROWS, 1), number), np.zeros(ROWS)
        raise KeyError("the camera")

    source = Numbers()
    source.batches = fails
    data, supply, _ = begun(source, tmp_path, 200, 1)
    supply.start(0)
    with pytest.raises(ShardError, match=r"raised KeyError: .*the camera"):
        read_all(data, supply, 200)
    assert isinstance(supply.error, KeyError)
    supply.close()


def test_whoever_waits_hears_that_nothing_comes_any_more(tmp_path):
    goes_on = threading.Event()

    def stands_still():
        for number in range(70):
            yield np.full((ROWS, 1), number), np.zeros(ROWS)
        goes_on.wait(WAIT_S)

    source = Numbers()
    source.batches = stands_still
    data, supply, _ = begun(source, tmp_path, 200, 1)
    supply.start(0)
    threading.Timer(0.1, supply.close).start()
    with pytest.raises(ShardError, match="the run is over"):
        read_all(data, supply, 200)
    goes_on.set()


def test_parts_are_read_from_a_machine_without_this_disk(tmp_path):
    open_with("elsewhere", fs.LocalFileSystem)
    data, supply, _ = begun(Numbers(), tmp_path / "driver", 100, 1)
    same = data.reached(lambda path: f"elsewhere://{path}")
    assert same is data  # this machine has that disk
    moved = copy.copy(data)
    moved.folder = f"elsewhere://{data.folder}"
    supply.start(0)
    assert read_all(moved, supply, 100) == list(range(400))
    supply.close(400)
    moved.parts = Parts(num_batches=1000)
    with pytest.raises(ShardError, match="the run is over"):
        moved.opened(9)


def test_a_stream_whose_end_nobody_knows_does_not_fill_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(stream_files, "LEAST_FREE_BYTES", 1 << 62)
    stream, inputs, targets = noted_columns(Numbers().batches, None, None)
    with pytest.raises(ConfigurationError, match="without an end needs steps_per_epoch="):
        open_input(stream, "train", Columns(inputs=inputs, targets=targets), tmp_path)
    assert not (tmp_path / "train").exists()


def test_passes_take_the_first_batches(tmp_path):
    source = Numbers()
    stream, inputs, targets = noted_columns(source.batches, None, None)
    columns = Columns(inputs=inputs, targets=targets)
    wanted = PassConfig(columns=columns, global_batch_size=3, steps=5)
    data = open_input(stream, "rows", columns, tmp_path, taken=taken_by_pass(wanted))
    assert len(data) == 15
    assert source.count == 4


def test_an_empty_source_and_batches_that_do_not_fit_are_refused(tmp_path):
    nothing, *_ = noted_columns(Numbers(most=0).batches, None, None)
    with pytest.raises(ConfigurationError, match="gave no batch"):
        open_input(nothing, "train", Columns(), tmp_path)

    def changes():
        yield np.zeros((4, 1)), np.zeros(4)
        yield {"a": np.zeros((4, 1))}, np.zeros(4)

    stream, inputs, targets = noted_columns(changes, None, None)
    with pytest.raises(ConfigurationError, match=r"x is a dict of \['a'\]"):
        open_input(stream, "train", Columns(inputs=inputs, targets=targets), tmp_path)
