"""A run on a disk that has no room: a small tmpfs that only the run's process sees."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ..scripts.child import environment

pytestmark = [pytest.mark.engine, pytest.mark.slow]

SCRIPT = """
import errno, json, sys
from pathlib import Path
import keras, numpy as np
from heliostat.trainer import Trainer, TrainerError

place, frees, out = Path(sys.argv[1]), sys.argv[2] == "frees", Path(sys.argv[3])

def fill():
    for size in (1 << 16, 1 << 10, 1):
        try:
            with (place / "filler").open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(size))
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
    return (place / "filler").stat().st_size

class Fills(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            found["filled"] = fill()
        if epoch == 4 and frees:
            (place / "filler").unlink()

def build():
    model = keras.Sequential([keras.layers.Input((64,)), keras.layers.Dense(64), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model

found = {}
x = np.random.default_rng(0).normal(size=(32, 64)).astype("float32")
with Trainer(build, workers=0, num_microbatches=2, run_dir=place / "run") as trainer:
    try:
        result = trainer.fit((x, x[:, :1]), epochs=6, global_batch_size=8, callbacks=[Fills()], keep=2, verbose=2)
        found["sha256"] = result.sha256["weights"]
    except TrainerError as error:
        found["error"] = [type(error).__name__, str(error)]
    found["loss"] = trainer.evaluate((x, x[:, :1]))["loss"] if frees else None
found["epochs"] = [json.loads(line)["epoch"] for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
found["state"] = json.loads((place / "run" / "run.json").read_text())["state"]
found["events"] = [json.loads(line)["event"] for line in (place / "run" / "events.jsonl").read_text().splitlines()]
out.write_text(json.dumps(found))
"""
MOUNTED = ["unshare", "--mount", "--user", "--map-root-user", "sh", "-c"]


def on_tmpfs(place: Path, command: str, **options) -> subprocess.CompletedProcess[str]:
    """Run a command of the shell with a tmpfs of 3 MiB at `place` that nobody else sees."""
    place.mkdir()
    mounted = f"mount -t tmpfs -o size=3m tmpfs {place} && {command}"
    return subprocess.run([*MOUNTED, mounted], capture_output=True, text=True, timeout=300, check=False, **options)


@pytest.fixture
def small_disk(tmp_path):
    try:
        done = on_tmpfs(tmp_path / "try", "true")
    except FileNotFoundError as error:
        pytest.skip(f"no unshare here: {error}")
    if done.returncode:
        pytest.skip(f"this system forbids mounting: {done.stderr.strip()}")
    return tmp_path / "disk"


@pytest.mark.parametrize("frees", ["frees", "stays full"])
def test_a_run_trains_on_while_its_disk_is_full(small_disk, tmp_path, frees):
    (tmp_path / "train.py").write_text(SCRIPT)
    command = f"exec {sys.executable} {tmp_path / 'train.py'} {small_disk} '{frees}' {tmp_path / 'found.json'}"
    done = on_tmpfs(small_disk, command, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["filled"] > 0
    assert "epoch 6/6" in done.stdout, "training went on"
    assert done.stdout.count("No space left on device") >= 1
    last_state = done.stdout.count("warning: the state in which the run ended is not kept: ")
    assert last_state <= 1
    assert done.stdout.count("warning: ") - last_state <= 1, "said once"
    if frees == "frees":
        assert (found["state"], found["epochs"]) == ("finished", [0, 1, 2, 3, 4, 5])
        assert found["events"].count("checkpoint") >= 2
        assert "sha256" in found
    else:
        assert found["error"][0] == "StorageError"
        assert "make room" in found["error"][1]
        assert found["epochs"][:2] == [0, 1], "what was written before is whole"
