"""Real Ray actors: the same bits as in one process, in all three loops; what a run leaves behind."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from heliostat.data import write_dataset
from heliostat.trainer import ModelError, NotCompiledError

from .conftest import dense_data, fingerprint, text_data
from .helpers import local_trainer
from .models import chapter, linear, normalised

pytestmark = pytest.mark.ray


@pytest.mark.parametrize(("loop", "build", "make_data"), [
    ("fit", chapter, text_data),
    ("train_on_batch", normalised, dense_data),
    ("custom", chapter, text_data),
])  # fmt: skip
def test_actors_give_the_bits_of_one_process(train, warm_trainer, loop, build, make_data):
    data, valid = make_data(), make_data(rows=23, seed=1)
    arguments = {"validation_data": valid, "epochs": 2, "global_batch_size": 16, "loop": loop, "verbose": 0}
    reference = train(build, data, workers=0, **arguments)
    result = warm_trainer(build).fit(data, **arguments)
    assert fingerprint(result) == fingerprint(reference)
    assert sum(result.epochs[0].rows_by_worker.values()) == 71


def test_evaluate_and_predict_over_actors(warm_trainer, tmp_path):
    x, y = dense_data(rows=53)
    write_dataset(tmp_path / "rows", {"x": x, "y": y})
    trainer = warm_trainer(normalised)
    result = trainer.fit((x, y), epochs=1, global_batch_size=16, verbose=0)
    model = result.model()
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    assert trainer.evaluate(tmp_path / "rows") == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(trainer.predict(tmp_path / "rows"), model.predict(x, verbose=0), rtol=1e-4, atol=1e-6)


def test_a_second_fit_goes_on_over_actors(warm_trainer, tmp_path):
    def lower_rate(model):
        model.optimizer.learning_rate = 1e-3

    found = []
    with local_trainer(normalised, tmp_path / "local") as local:
        for trainer in (local, warm_trainer(normalised)):
            trainer.fit(dense_data(), global_batch_size=16, verbose=0)
            found.append(trainer.fit(dense_data(), global_batch_size=16, prepare=lower_rate, verbose=0))
    assert fingerprint(found[0]) == fingerprint(found[1])


def test_links_between_actors_are_measured_before_and_after_a_fit(warm_trainer):
    data = dense_data()
    trainer = warm_trainer(normalised)
    (before,) = trainer.measure_links()
    trainer.fit(data, epochs=1, global_batch_size=16, verbose=0)
    (after,) = trainer.measure_links()
    assert before.workers == after.workers == tuple(sorted(trainer.hosts))
    for link in (before, after):
        assert 0 < link.latency_s < (1 << 26) / link.bytes_per_s  # four bytes take less time than many


def test_the_run_folder_tells_what_the_run_was(warm_trainer, capfd, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))  # where callbacks' files are linked

    class Talk(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            print("said by a callback")

    data = dense_data()
    callbacks = [Talk(), keras.callbacks.CSVLogger("log.csv")]
    result = warm_trainer(linear()).fit(data, epochs=2, callbacks=callbacks, verbose=2)
    record = json.loads((result.run_dir / "run.json").read_text())
    assert record["state"] == "finished"
    assert record["sha256"] == result.sha256
    assert record["plan"]["workers"] == 2
    assert record["identity"]["num_microbatches"] == 4
    assert record["data"]["train"]["rows"] == 71
    assert set(record["versions"]) == {"heliostat", "tensorflow", "keras", "numpy", "ray", "pyarrow"}
    assert record["platform"]["device_type"] == "CPU"
    epochs = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [epoch["logs"]["loss"] for epoch in epochs] == result.history["loss"]
    assert "said by a callback" in (result.run_dir / "logs" / "worker-0.log").read_text()
    assert len((result.run_dir / "log.csv").read_text().splitlines()) == 3
    assert keras.models.load_model(result.run_dir / "model.keras").count_params() > 0
    printed = capfd.readouterr().out
    begins = "2 workers on CPU · batch 32 (16 each) in 4 microbatches of 8 · 3 steps per epoch · run folder "
    assert f"{begins}{result.run_dir}" in printed.splitlines()
    assert "first step after " in printed
    assert "epoch 2/2" in printed


def test_a_module_that_workers_lack_is_named(warm_trainer, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def build():\n    return None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here

    trainer = warm_trainer(only_here.build)
    with pytest.raises(ModelError, match="needs the module 'only_here'"):
        trainer.fit(dense_data(), verbose=0)


def test_a_mistake_in_the_model_is_raised_as_itself(warm_trainer):
    trainer = warm_trainer(lambda: keras.Sequential([keras.layers.Dense(2)]))
    with pytest.raises(NotCompiledError, match=r"compile\(\)"):
        trainer.fit(dense_data(), verbose=0)


class Talking(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        print(f"the user's words after epoch {epoch}")


def test_what_the_chiefs_callbacks_print_appears_once_before_the_epochs_line(warm_trainer, capsys):
    warm_trainer(linear()).fit(dense_data(), epochs=2, global_batch_size=16, callbacks=[Talking()], verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "user's words" in line] == [
        "the user's words after epoch 0",
        "the user's words after epoch 1",
    ]
    first_epoch = next(number for number, line in enumerate(lines) if line.startswith("epoch 1/2  loss"))
    assert lines.index("the user's words after epoch 0") < first_epoch
