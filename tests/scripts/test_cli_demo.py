"""The demo, small: the very code of the command, on few texts and for few epochs."""

from __future__ import annotations

import json
from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console


@pytest.mark.ray
def test_the_demo_trains_all_ways_on_the_same_workers_and_compares_them(tmp_path):
    from heliostat.scripts.demo.demo import LOOP_NAMES, DemoSettings, run_demo

    settings = DemoSettings(
        workers=2,
        replicas=1,
        loops=LOOP_NAMES,
        epochs=1,
        run_dir=tmp_path / "demo",
        num_texts=300,
        num_classes=4,
    )
    screen = StringIO()
    results = run_demo(settings, Console(file=screen, width=100))
    assert list(results) == list(LOOP_NAMES)
    weights = {result.sha256["weights"] for result in results.values()}
    assert len(weights) == 1  # one epoch: the learning rate is not halved yet
    said = screen.getvalue()
    assert "same weights, bit for bit: fit, train_on_batch, custom" in said
    assert said.count(weights.pop()[:8]) == 3
    records = [json.loads((result.run_dir / "run.json").read_text()) for result in results.values()]
    assert [record["state"] for record in records] == ["finished"] * 3
    pids = {tuple(worker["pid"] for worker in record["workers"]) for record in records}
    assert len(pids) == 1  # the workers stayed
    assert len(set(pids.pop())) == 2


@pytest.mark.engine
def test_the_fifth_epoch_halves_the_learning_rate_and_no_other():
    from heliostat.scripts.demo.demo import halved_at_epoch_5

    rates = [1.0]
    for epoch in range(8):
        rates.append(halved_at_epoch_5(epoch, rates[-1]))
    assert rates[1:] == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5]


@pytest.mark.engine
def test_ways_must_agree_while_their_learning_rates_do():
    from heliostat.scripts.demo.demo import LOOP_NAMES, verdict
    from heliostat.scripts.errors import ScriptError

    halved = dict(zip(LOOP_NAMES, ["a", "b", "a"], strict=True))
    assert "fit, custom (train_on_batch halves" in verdict(halved, epochs=5)
    with pytest.raises(ScriptError, match="train_on_batch: b"):
        verdict(halved, epochs=4)
    with pytest.raises(ScriptError, match="custom: c"):
        verdict({"fit": "a", "custom": "c"}, epochs=9)
    assert verdict({"fit": "a"}, epochs=1) == ""


@pytest.mark.engine
def test_samples_per_second_are_the_slowest_workers_in_the_median_epoch():
    from heliostat.scripts.demo.demo import samples_per_s

    seconds = [(8.0, 10.0), (2.0, 1.0), (4.0, 1.0)]  # the first epoch holds the tracing
    epochs = [
        SimpleNamespace(
            rows=100, seconds_by_worker=dict(enumerate({"compute_s": each / 2, "apply_s": each / 2} for each in pair))
        )
        for pair in seconds
    ]
    assert samples_per_s(SimpleNamespace(epochs=epochs)) == 25


@pytest.mark.engine
@pytest.mark.parametrize(("workers", "replicas", "expected"), [(0, 1, 4), (1, 1, 4), (2, 2, 4), (3, 2, None)])
def test_few_workers_share_one_number_of_microbatches(workers, replicas, expected):
    from heliostat.scripts.demo.demo import DemoSettings

    settings = DemoSettings(workers=workers, replicas=replicas, loops=("fit",), epochs=1)
    assert settings.num_microbatches == expected


@pytest.mark.engine
@pytest.mark.parametrize("wrong", [{"loops": ()}, {"loops": ("both",)}, {"num_classes": 47}, {"num_classes": 1}])
def test_settings_without_sense_are_refused(wrong):
    from heliostat.scripts.demo.demo import DemoSettings
    from heliostat.scripts.errors import ScriptError

    with pytest.raises(ScriptError):
        DemoSettings(**{"workers": 1, "replicas": 1, "loops": ("fit",), "epochs": 1} | wrong)
