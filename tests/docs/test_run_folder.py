"""The page on the run folder names every file of a run, and every field and event in it."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import keras
import numpy as np
import pytest
from heliostat.trainer import Trainer
from heliostat.trainer.driver.run_folder import RunFolder
from heliostat.trainer.engine.times import PARTS
from heliostat.trainer.events import EVENTS, EpochRecord
from heliostat.trainer.jobs import RUN_FOLDER
from heliostat.trainer.samples import Sample, WorkerSample

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "run-folder.md").read_text()
# While a fit runs; the page says how they begin and end.
PASSING = {"driver.lease*", ".driver.lease*", ".heliostat-*", ".callbacks", ".model.g*", ".*.writing"}


def section(title: str) -> str:
    """The text below a heading, up to the next."""
    (found,) = (each for each in re.split(r"^## ", PAGE, flags=re.M) if each.startswith(f"{title}\n"))
    return found


def rows(title: str) -> list[list[str]]:
    """The rows of the tables of a section, by cell."""
    lines = [line for line in section(title).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def patterns() -> list[str]:
    """The files that the page names, with "*" for what stands in capital letters."""
    return [re.sub(r"[A-Z]+", "*", name) for row in rows("Files") for name in re.findall("`(.*?)`", row[0])]


def test_what_the_code_lists_is_on_the_page():
    for path in RUN_FOLDER.keys() - PASSING:
        assert [each for each in patterns() if fnmatchcase(each, f"{path}*")], path
    assert RUN_FOLDER.keys() >= PASSING


def test_every_event_is_there_with_its_fields():
    said = {event.strip("`"): set(re.findall("`(.*?)`", names)) for event, _, names in rows("`events.jsonl`")[1:]}
    assert said == {name: {each.name for each in fields(kind)} - {"time"} for name, kind in EVENTS.items()}


def test_every_field_of_an_epoch_is_there():
    said = set(re.findall("`(.*?)`", section("`metrics.jsonl`")))
    of_line = {each.name for each in fields(EpochRecord)} - {"row_ids"}  # which only the result has
    assert of_line | {f"{part}_s" for part in PARTS} <= said


def test_every_field_of_a_sample_is_there():
    said = set(re.findall("`(.*?)`", section("`samples.jsonl`")))
    assert {each.name for kind in (Sample, WorkerSample) for each in fields(kind)} <= said


@pytest.mark.engine
@pytest.mark.slow
def test_a_run_writes_nothing_that_the_page_does_not_name(tmp_path, monkeypatch):
    monkeypatch.delenv("HELIOSTAT_REPORT")

    def build_model():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile(optimizer="sgd", loss="mse")
        return model

    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    with Trainer(build_model, workers=2, in_process=True, run_dir=tmp_path / "run") as trainer:
        run_dir = trainer.fit(x, x.sum(1), batch_size=8, epochs=2, validation_split=0.25, verbose=0).run_dir
    files = [path.relative_to(run_dir).as_posix() for path in run_dir.rglob("*") if path.is_file()]
    named = [f"/{each}" for each in patterns()]
    assert [each for each in files if not any(PurePosixPath(f"/{each}").match(name) for name in named)] == []
    record, said = json.loads((run_dir / "run.json").read_text()), set(re.findall("`(.*?)`", section("`run.json`")))
    assert record.keys() - said == set()
    of_parts = {name for part in ("plan", "command", "probe", "start_s", "sha256") for name in record[part]}
    assert of_parts | record["data"].keys() | record["data"]["train"].keys() | record["workers"][0].keys() <= said
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert {name for line in lines for name in line} == {each.name for each in fields(EpochRecord)} - {"row_ids"}
    summary, said = json.loads((run_dir / "summary.json").read_text()), section("`summary.json`")
    names = {*summary, *summary["verdict"], *summary["workers"][0]} - {"settings", "gains"}
    assert names <= set(re.findall("`(.*?)`", said))
    assert RunFolder(run_dir, resume=True).record["state"] == "finished"
