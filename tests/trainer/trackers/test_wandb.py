"""Weights & Biases without its server: the run lies in the run folder, as its client writes it."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pathlib import Path
from heliostat.trainer.trackers.wandb import WandbTracker
from tests.trainer.trackers.told import RECORD, epoch, sample, worker

tracker = WandbTracker("team/digits")
for epochs in ((0, 1), (2,)):
    tracker.begin(Path(sys.argv[1]), RECORD)
    print(tracker.note)
    for number in epochs:
        tracker.epoch(epoch(number), 3, 2.0)
    tracker.sample(sample(20, worker(0, 1.5, 0.5), rows=640))
    tracker.end({"state": "paused" if 0 in epochs else "finished"})
"""
_BLOCK, _HEADER, _MIDDLE = 32768, 7, (2, 3)  # of LevelDB's log, which such a file is behind its first seven bytes


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "runs" / "news"
    path.mkdir(parents=True)
    return path


def tracked(run: Path, **variables: str) -> list[str]:
    """Two runs of a tracker in a process of its own; what it prints. W&B's client leaves threads and a process."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    env |= {"HOME": str(run.parent), "WANDB_ERROR_REPORTING": "false", **variables}
    command = [sys.executable, "-c", SCRIPT, str(run)]
    done = subprocess.run(command, env=env, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def records(path: Path) -> Iterator[bytes]:
    """The records of a file of W&B's: each whole, or in pieces over several blocks."""
    content, at, whole = path.read_bytes(), _HEADER, b""
    while at + _HEADER <= len(content):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        whole += content[at + _HEADER : at + _HEADER + length]
        at += _HEADER + length
        if kind not in _MIDDLE:
            yield whole
            whole = b""


def written(run: Path) -> list[dict]:
    """By run of W&B's: its history, its configuration and its summary."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for path in sorted((run / "trackers" / "wandb").glob("offline-run-*/*.wandb")):
        history, config, summary, about = [], {}, {}, {}
        for content in records(path):
            record = Record.FromString(content)
            for items, into in ((record.config.update, config), (record.summary.update, summary)):
                into.update({each.key or "/".join(each.nested_key): json.loads(each.value_json) for each in items})
            if record.HasField("history"):
                items = record.history.item
                history.append({each.key or "/".join(each.nested_key): json.loads(each.value_json) for each in items})
            if record.HasField("run"):
                about = {"id": record.run.run_id, "project": record.run.project, "entity": record.run.entity}
                config |= {each.key: json.loads(each.value_json) for each in record.run.config.update}
        found.append({"history": history, "config": config, "summary": summary, **about})
    return found


@pytest.mark.parametrize("mode", ["offline", pytest.param("", marks=pytest.mark.slow)])
def test_a_run_without_a_server_lies_in_the_run_folder(run, mode):
    said = tracked(run, **({"WANDB_MODE": mode} if mode else {}))
    why = "as WANDB_MODE says" if mode else "no key is known here"
    assert all(line.startswith(f"W&B: offline ({why}): wandb sync {run}/trackers/wandb/offline-run-") for line in said)
    first, second = written(run)
    assert first["id"] == second["id"] == "news-1-0123abcd"
    assert (first["project"], first["entity"]) == ("digits", "team")
    assert first["config"]["global_batch_size"] == 64
    losses = [(each["epoch"], each["loss"]) for each in first["history"] if "loss" in each]
    assert losses == [(0, 0.5), (1, 0.4)]
    (of_workers,) = [each for each in first["history"] if "step" in each]
    assert (of_workers["step"], of_workers["workers/0/wait_share"]) == (20, 0.25)
    assert [each["epoch"] for each in second["history"] if "loss" in each] == [2]
