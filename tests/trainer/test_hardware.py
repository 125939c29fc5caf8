"""What tells kinds of hardware apart, read from what the system and TensorFlow say."""

from __future__ import annotations

import json

import pytest
from heliostat.trainer import ConfigurationError
from heliostat.trainer.environment import Command, ReplayWanted, hides_gpus, kernel_settings
from heliostat.trainer.hardware import gpu_names, gpus_of_machine, processor_of
from heliostat.trainer.trainer_config import TrainerConfig, WorkerShare

from .conftest import dense_data
from .helpers import local_trainer
from .models import linear

X86 = "processor\t: 0\nmodel name\t: A Processor 9\nflags\t: fpu avx2 avx512f avx512_vnni amx_tile\n\nprocessor\t: 1\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp sve bf16\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (X86, ("A Processor 9", "avx2 avx512f avx512_vnni amx_tile")),
        (ARM, ("0x41 0xd40", "asimddp sve bf16")),
        ("", ("", "")),
    ],
)
def test_a_processor_is_known_by_the_instructions_that_select_kernels(tmp_path, content, expected):
    (tmp_path / "cpuinfo").write_text(content)
    assert processor_of(tmp_path / "cpuinfo") == expected


def test_a_system_that_tells_nothing_has_no_name(tmp_path):
    assert processor_of(tmp_path / "none") == ("", "")
    assert gpus_of_machine(tmp_path / "none") == 0


def test_gpus_are_known_by_name_and_capability(tmp_path):
    large = {"device_name": "Large", "compute_capability": (9, 0)}
    assert gpu_names([large, large]) == "Large (9.0)"
    assert gpu_names([large, {"device_name": "Small", "compute_capability": (8, 6)}]) == "Large (9.0) and Small (8.6)"
    assert gpu_names([{}]) == "a GPU without a name ()"
    for number in range(2):
        (tmp_path / f"0000:0{number}:00.0").mkdir()
    assert gpus_of_machine(tmp_path) == 2


def test_variables_that_select_kernels_are_told(monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert kernel_settings() == "TF_ENABLE_ONEDNN_OPTS=0 ONEDNN_MAX_CPU_ISA=AVX2"


@pytest.mark.parametrize(("value", "hidden"), [("", True), ("-1", True), ("0", False), (None, False)])
def test_a_process_may_be_told_to_see_no_gpu(monkeypatch, value, hidden):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if value is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert hides_gpus() == hidden


def test_threads_are_no_condition_of_equal_bits_on_gpus():
    settings = TrainerConfig(workers=2)
    assert settings.for_run(WorkerShare(threads=3)).for_equal_bits == {"num_microbatches": 2, "threads_per_worker": 3}
    assert settings.for_run(WorkerShare(threads=3, device="gpu")).for_equal_bits == {"num_microbatches": 2}


@pytest.mark.parametrize("argument", ["device", "mixed_hardware"])
def test_other_words_for_hardware_are_refused(argument):
    with pytest.raises(ConfigurationError, match=f"^{argument}='tpu'; it takes "):
        TrainerConfig(**{argument: "tpu"})


@pytest.mark.engine
def test_a_run_goes_on_where_the_same_kernels_are_selected_or_says_what_bits_depend_on(tmp_path, capfd):
    def train(epochs, **arguments):
        with local_trainer(linear(), tmp_path, **arguments) as trainer:
            trainer.fit(dense_data(), epochs=epochs, global_batch_size=16, verbose=2)
        return capfd.readouterr().out

    def record():
        return json.loads((tmp_path / "run" / "run.json").read_text())

    def began_on(**platform):
        changed = record() | {"platform": {name: each for name, each in platform.items() if each is not None}}
        (tmp_path / "run" / "run.json").write_text(json.dumps(changed))

    train(1)
    here = record()["platform"]
    began_on(**here | {"instructions": "avx of old", "processor": "another"})
    with pytest.raises(ConfigurationError, match=r"instructions: 'avx of old' where the run began, '.*' here"):
        train(2)
    printed = train(2, mixed_hardware="allow")
    assert printed.count("bits depend on which worker computes which microbatch") == 1
    assert [each["instructions"] for each in record()["mixed_hardware"]] == [here["instructions"]]
    assert record()["platform"]["instructions"] == "avx of old"
    began_on(**here | {"instructions": None, "settings": None})
    assert train(3).count("does not tell its instructions, settings: not compared") == 1
    assert record()["platform"] == here


@pytest.mark.engine
def test_a_second_fit_and_a_replay_are_computed_where_the_same_kernels_are_selected(tmp_path, monkeypatch):
    with local_trainer(linear(), tmp_path) as trainer:
        first = trainer.fit(dense_data(), global_batch_size=16, verbose=0)
        record = json.loads((first.run_dir / "run.json").read_text())
        record["platform"]["instructions"] = "avx of old"
        (first.run_dir / "run.json").write_text(json.dumps(record))
        with pytest.raises(ConfigurationError, match=r"instructions: 'avx of old' in the fit before, '.*' here"):
            trainer.fit(dense_data(), global_batch_size=16, verbose=0)
    command = Command(run_dir=first.run_dir, fit=1, replay=ReplayWanted(step=0))
    monkeypatch.setattr("heliostat.trainer.driver.runs.begin_fit", lambda: (1, command))
    with local_trainer(linear(), tmp_path) as trainer:
        with pytest.raises(ConfigurationError, match=r"instructions: 'avx of old' where the run began, '.*' here"):
            trainer.fit(dense_data(), global_batch_size=16, verbose=0)
    assert not (first.run_dir / "replay.json").exists()
