"""Scripts whose trainer has the address of a job server: real processes here, real jobs of a real head there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from heliostat.cluster.head.api import Head
from heliostat.trainer.remote.handle import Handle

from ...slow import SLOW

pytestmark = [pytest.mark.ray, pytest.mark.slow]

LIMIT_S = 300 * SLOW
SCRIPT = """
import argparse, json, os, shutil, sys, time
import numpy as np
import keras
import beside
from heliostat.trainer import CallError, EverySteps, Trainer

given = argparse.ArgumentParser()
given.add_argument("--address")
given.add_argument("--run-dir")
given.add_argument("--pace", type=float, default=0)
given.add_argument("--epochs", type=int, default=2)
given.add_argument("--parts", default="fit")
given = given.parse_args()


class Says(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        print("the user says", epoch)
        with open("said.txt", "a") as file:
            file.write(f"{epoch}\\n")
        if "raise" in given.parts:
            raise beside.Odd("trouble")

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(given.pace)


def build():
    layers = [keras.layers.Dense(4, activation="relu"), keras.layers.Dropout(0.2), keras.layers.Dense(3)]
    model = keras.Sequential(layers)
    model.compile("adam", "mse", metrics=["mae"])
    return model


def needy():
    import onlyhere

    return build()


def lower(model):
    model.optimizer.learning_rate = 1e-4


rng = np.random.default_rng(0)
x, y = rng.normal(size=(64, 4)).astype("float32"), rng.normal(size=(64, 3)).astype("float32")
where = {"workers": 1, "address": given.address} if given.address else {"workers": 0}
found = {}
fixed = {"run_dir": given.run_dir, "num_microbatches": 4, "threads_per_worker": 1, "seed": 3}
with Trainer(needy if "needy" in given.parts else build, **fixed, **where) as trainer:
    arguments = {"checkpoint_every": EverySteps(2), "callbacks": [Says()]}
    result = trainer.fit((x, y), validation_data=(x[:9], y[:9]), epochs=given.epochs, **arguments)
    found["fit"] = [result.history, result.sha256, [each.rows for each in result.epochs]]
    found["weights"] = float(sum(abs(each).sum() for each in result.model().get_weights()))
    if "more" in given.parts:
        split = {"validation_split": 0.2, "validation_steps": 1, "validation_batch_size": 4}
        result = trainer.fit(beside.dataset(x, y), epochs=1, prepare=lower, verbose=2, **split)
        found["again"] = [result.history, result.sha256]
        found["evaluate"] = trainer.evaluate(beside.dataset(x, y), steps=1, return_dict=False)
        found["predict"] = trainer.predict((x,)).tobytes().hex()
        shutil.rmtree("predicted", ignore_errors=True)
        written = trainer.predict(x, output="predicted")
        found["written"] = [row["prediction"].tolist() for row in written.head(64)]
print("FOUND " + json.dumps(found))
"""
BESIDE = """
import tempfile, threading
from heliostat.data import write_dataset

LOCK = threading.Lock()


class Odd(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = LOCK  # it cannot be pickled


def doubled(rows):
    return rows["x"] * 2


def dataset(x, y):
    return write_dataset(tempfile.mkdtemp(dir=".") + "/stored", {"x": x, "y": y}).map(doubled, ["x"], "x").take(50)
"""


class Script:
    """The script in a folder of its own, run by Python."""

    def __init__(self, folder: Path, address: str = "") -> None:
        folder.mkdir()
        (folder / "train.py").write_text(SCRIPT)
        (folder / "beside.py").write_text(BESIDE)
        self.folder, self.address, self.started = folder, address, list[subprocess.Popen[str]]()

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        address = [f"--address={self.address}"] if self.address else []
        command = [sys.executable, "-u", "train.py", "--run-dir=run", *address, *arguments]
        environ = {k: v for k, v in os.environ.items() if k not in ("HELIOSTAT_ADDRESS", "RAY_ADDRESS")}
        environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", **env}
        log = (self.folder / f"out-{len(self.started)}.txt").open("w")
        with log:
            self.started.append(
                subprocess.Popen(command, cwd=self.folder, env=environ, stdout=log, stderr=subprocess.STDOUT, text=True)
            )
        return self.started[-1]

    def out(self) -> str:
        return (self.folder / f"out-{len(self.started) - 1}.txt").read_text()

    def run(self, *arguments: str, status: int = 0, **env: str) -> str:
        assert self.start(*arguments, **env).wait(LIMIT_S) == status, self.out()
        return self.out()

    def wait_for(self, text: str) -> None:
        until_s = time.monotonic() + LIMIT_S
        while text not in self.out():
            assert self.started[-1].poll() is None, self.out()
            assert time.monotonic() < until_s, self.out()
            time.sleep(0.1)

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"


@pytest.fixture
def script(tmp_path, head):
    made = Script(tmp_path / "laptop", head.address)
    yield made
    for process in made.started:
        process.kill()
        process.wait(10)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """What the script gives on this machine, in its own process."""
    made = Script(tmp_path_factory.mktemp("undisturbed") / "here")
    return found_in(made.run("--parts=more"))


def found_in(text: str) -> dict:
    return json.loads(text[text.index("FOUND ") + 6 :].splitlines()[0])


def calls_on(head) -> list[Path]:
    return list((head.folder / "heliostat" / "calls").glob("*/*"))


def test_calls_come_back_as_if_they_had_run_here(script, head, here):
    before, links = calls_on(head), set(head.logs.glob("heliostat-*"))
    text = script.run("--parts=more")
    assert found_in(text) == here
    assert text.count("callbacks run on the cluster: ") == 1
    assert [line for line in text.splitlines() if "the user says" in line] == ["the user says 0", "the user says 1"]
    assert (script.run_dir / "said.txt").read_text() == "0\n1\n"
    record = json.loads((script.run_dir / "run.json").read_text())
    assert (record["state"], record["command"]["directory"]) == ("finished", str(script.folder))
    assert record["command"]["argv"][:2] == ["train.py", "--run-dir=run"]
    assert json.loads((script.folder / "run-2" / "run.json").read_text())["command"]["fit"] == 2
    assert (script.run_dir / "model.keras").exists()
    assert (script.run_dir / "logs" / "worker-0.log").exists()
    assert calls_on(head) == before, "a trainer that was closed has left folders on the cluster"
    assert not [each for each in set(head.logs.glob("heliostat-*")) - links if each.resolve().is_dir()]

    handle = Handle.read(script.run_dir)
    again = script.run("--parts=more")  # both results are here; evaluate and predict have the model sent
    assert found_in(again) == here
    assert again.count("is finished; this is its result") == 2
    assert Handle.read(script.run_dir) == handle
    assert calls_on(head) == before

    more = script.run("--epochs=3")  # of a run that is gone from the cluster: it goes on with the copy from here
    assert found_in(more)["fit"][0]["loss"][:2] == here["fit"][0]["loss"]
    assert len(found_in(more)["fit"][0]["loss"]) == 3
    assert "epoch 1/3" not in more


def test_ctrl_c_leaves_the_run_alone_and_the_same_script_attaches(script, head, here):
    process = script.start("--pace=2")
    script.wait_for("epoch 1/2")
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT_S) == 130, script.out()
    for name in ("attach", "status", "logs", "stop", "fetch"):
        assert f"heliostat {name} run\n" in script.out()
    assert "Traceback" not in script.out()
    handle = Handle.read(script.run_dir)
    assert not Head(head.address).job(handle.submission_id).is_over

    (script.folder / "beside.py").write_text(BESIDE.replace("* 2", "* 3"))
    (script.folder / "train.py").write_text(SCRIPT.replace('"relu"', '"tanh"'))
    text = script.run("--pace=2")
    assert f"attaching to the job {handle.submission_id}" in text
    assert "warning: __main__.build have changed since" in text
    assert Handle.read(script.run_dir).submission_id == handle.submission_id
    assert found_in(text) == {name: here[name] for name in ("fit", "weights")}


def test_a_driver_that_is_killed_and_the_same_script_goes_on(script, head, here):
    process = script.start("--pace=2")
    script.wait_for("epoch 1/2")
    drivers = [each for each in head.drivers() if "heliostat.trainer.remote.called" in each.cmdline()]
    assert drivers
    for each in drivers:
        each.kill()
    assert process.wait(LIMIT_S) == 1
    assert "ended without a word" in script.out()
    text = script.run()
    assert "going on from checkpoint" in text
    assert found_in(text)["fit"][1] == here["fit"][1]
    assert found_in(text)["fit"][0] == here["fit"][0]


def test_an_exception_that_cannot_be_pickled_is_ours_with_its_frames(script, head):
    text = script.run("--parts=raise", status=1)
    assert "TrainingFailedError: Worker 0 on " in text
    assert "Odd: trouble" in text
    line = SCRIPT.splitlines().index('            raise beside.Odd("trouble")') + 1
    frame = rf'^  File ".*train\.py", line {line}, in on_epoch_end\n    raise beside\.Odd\("trouble"\)$'
    assert re.search(frame, text, re.MULTILINE), text[-3000:]
    assert f"(on the cluster at {head.address}, stage of the call: train)" in text
    assert json.loads((script.run_dir / "run.json").read_text())["state"] == "failed"


def test_a_module_that_the_cluster_lacks_is_named_before_anything_is_unpickled(script, tmp_path):
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "onlyhere.py").write_text("")
    text = script.run("--parts=needy", status=1, PYTHONPATH=str(tmp_path / "only"))
    assert "OtherEnvironmentError" in text
    assert "module onlyhere: not there there, in no package here" in text
    assert "stage of the call: start)" in text
    assert "starting 1 worker" not in text
