"""``heliostat bench``: what it makes of measurements, and a real run."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner
from heliostat.cluster.links import PairBandwidth
from heliostat.data import write_dataset
from heliostat.scripts.cli import main
from heliostat.scripts.commands.bench import PARTS, Bench, Measured, advice, as_object, links_table, measured
from rich.console import Console

from .child import heliostat

MODEL = """
def build_model():
    import keras

    model = keras.Sequential([keras.layers.Dense(5, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model

number = 7
"""


def found(workers=2, samples_per_s=100.0, **parts):
    split = dict.fromkeys(PARTS, 0.0) | parts
    return Measured(workers=workers, samples_per_s=samples_per_s, step_ms={"whole": 10.0, **split})


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"compute": 9.0}, "Compute-bound: 90%"),
        ({"compute": 5.0, "input": 4.0}, "Input-bound: getting rows takes 40%"),
        (
            {"compute": 5.0, "all_reduce": 2.0, "local_sum": 1.0},
            "Communication-bound: moving and adding gradients takes 30%",
        ),
        ({"compute": 5.0, "wait": 3.0}, "Waiting-bound"),
        ({"compute": 5.0, "apply": 3.0}, "Update-bound"),
        ({"compute": 5.0, "control": 1.0, "rest": 2.0}, r"Bound by what happens between steps (30%)"),
    ],
)
def test_advice_names_what_takes_most_beside_the_gradient(parts, says):
    assert advice([found(workers=1, samples_per_s=60.0), found(**parts)]).startswith(says)


def link(one, other, bytes_per_s, latency_s=0.001):
    return PairBandwidth(workers=(one, other), latency_s=latency_s, bytes_per_s=bytes_per_s)


def test_waits_that_the_link_explains_are_communication():
    result = found(compute=5.0, wait=4.0, all_reduce=0.5)
    slow = [link(0, 1, 1e8)]  # 4 bytes each of 100,000 weights take 4 ms, and the latency 1
    weighty = dataclasses.replace(result, num_weights=100_000)
    assert weighty.transfer_ms(slow) == pytest.approx(5.0)
    text = advice([weighty], slow)
    assert text.startswith("Communication-bound: moving and adding gradients takes 45%")
    assert "The slowest link moves 0.1 GB/s each way." in text
    assert advice([dataclasses.replace(weighty, num_weights=100)], [link(0, 1, 1e9, 1e-5)]).startswith("Waiting-bound")


def test_a_link_that_is_far_slower_than_the_others_is_named():
    links = [link(0, 1, 2e9), link(0, 2, 5e7), link(1, 2, 2.2e9)]
    text = advice([found(workers=3, compute=4.0, wait=5.0)], links, {0: "host-a", 1: "host-b", 2: "host-c"})
    assert "between worker 0 (host-a) and worker 2 (host-c) moves 50 MB/s, half of all links move 2 GB/s" in text


def test_links_are_shown_as_a_matrix():
    bench = Bench(measured=[found()], links=[link(0, 3, 2e9)], hosts={0: "a", 3: "b"})
    console = Console(width=120)
    with console.capture() as capture:
        console.print(links_table(bench))
    assert capture.get().count("2 GB/s, 1 ms") == 2
    assert "3 (b)" in capture.get()
    assert as_object(bench)["links"] == [{"workers": (0, 3), "latency_s": 0.001, "bytes_per_s": 2e9}]


def test_workers_that_take_each_others_cores_are_told():
    text = advice([found(workers=1), found(compute=9.0)])
    assert text.startswith("Compute-bound, at an efficiency of 50%")


def test_efficiency_is_that_of_a_worker_against_the_smallest_group():
    assert found(workers=4, samples_per_s=300.0).efficiency(found(workers=1)) == 0.75


def test_the_first_epoch_only_begins_the_clock():
    times = {f"{part}_s": 0.5 for part in PARTS}
    lines = [
        {"time": 10.0 + 2 * epoch, "rows": 100, "seconds_by_worker": {"0": times, "1": times}} for epoch in range(3)
    ]
    result = measured(2, lines, global_batch_size=32)  # 4 steps in 2 s
    assert result.samples_per_s == 50.0
    assert result.step_ms["whole"] == 500.0
    assert result.step_ms["compute"] == 125.0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--workers", "some"], "not a valid integer"),
        (["--model", "m:f"], "belong together"),
        (["--model", "no_such_module:f", "--data", "d"], "no_such_module"),
        (["--model", "mine:nothing", "--data", "d"], "nothing"),
        (["--model", "mine:number", "--data", "d"], "no function"),
    ],
)
def test_mistakes_are_said_before_anything_starts(tmp_path, arguments, says):
    (tmp_path / "mine.py").write_text(MODEL)
    done = heliostat("bench", *arguments, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.engine
@pytest.mark.slow
def test_a_users_model_is_timed_and_its_split_adds_up(tmp_path):
    (tmp_path / "mine.py").write_text(MODEL)
    rng = np.random.default_rng(0)
    write_dataset(tmp_path / "set", {"x": rng.normal(size=(200, 4)).astype(np.float32), "y": rng.integers(0, 5, 200)})
    done = heliostat(
        *("bench", "--workers", 0, "--model", "mine:build_model", "--data", "set"),
        *("--global-batch-size", 16, "--json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (one,) = json.loads(done.stdout)["measured"]
    assert one["samples_per_s"] > 0
    assert 0 < sum(one["step_ms"][part] for part in PARTS) <= one["step_ms"]["whole"]
    assert one["step_ms"]["compute"] > 0


@pytest.mark.ray
@pytest.mark.slow
def test_the_built_in_model_on_real_workers():
    result = CliRunner().invoke(main, ["bench", "--epochs", "1"])
    assert result.exit_code == 0, result.output
    assert "bound" in result.stdout
    assert "between two workers" in result.stdout
    assert "samples/s" in result.stdout
