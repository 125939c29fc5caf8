"""``heliostat run --plan``: a script up to its first task, which is told and not done."""

from __future__ import annotations

import pytest

from .child import heliostat

SCRIPT = """
import sys
import keras, numpy as np
from heliostat.trainer import Trainer

def build():
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model

def train():
    x = np.zeros((40, 3), np.float32)
    with Trainer(build, workers=0, threads_per_worker=1) as trainer:
        trainer.fit((x, x[:, :1]), epochs=2, global_batch_size=8, verbose=0)

print("before", sys.argv[1:])
try:
    train()
finally:
    print("at the end")
print("behind")
"""


@pytest.mark.slow
def test_a_script_is_run_up_to_its_first_task(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    done = heliostat("run", "--plan", "train.py", "--plan", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "before ['--plan']"
    plan = "plan: this process, with 1 CPU replica and 1 thread; 2 epochs of 5 steps; global batch 8, in 1 microbatch"
    assert any(line.startswith(plan) for line in lines)
    assert lines[-1] == "at the end"
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


def test_who_asks_for_a_plan_behind_the_script_is_told_where_to_ask(tmp_path):
    (tmp_path / "nothing.py").write_text("print('done')\n")
    done = heliostat("run", "nothing.py", "--plan", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "for a plan: heliostat run --plan nothing.py" in done.stderr


def test_a_script_without_a_task_has_no_plan(tmp_path):
    (tmp_path / "nothing.py").write_text("print('done')\n")
    done = heliostat("run", "--plan", "nothing.py", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "done\n")
    assert "nothing.py ended and called no fit, evaluate or predict: there is nothing to plan." in done.stderr
