"""A call comes out of its folder as it went in, with data that lie elsewhere by then."""

from __future__ import annotations

import shutil

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from heliostat.data import open_dataset, write_dataset
from heliostat.trainer.columns import Columns
from heliostat.trainer.config import EverySeconds, EverySteps, FitConfig, PassConfig
from heliostat.trainer.driver.plan import Program
from heliostat.trainer.errors import TrainerError
from heliostat.trainer.remote.call_folder import (
    BUILD_MODEL,
    CALL_FILE,
    CODE,
    DATA,
    PREPARE,
    VALIDATION,
    Call,
    CallFolder,
    plain_columns,
    plain_every,
    plain_settings,
    plain_wanted,
    prepared_name,
)
from heliostat.trainer.shipping import UserCode, pack, unship
from heliostat.trainer.trainer_config import TrainerConfig

PROGRAM = Program(argv=("train.py", "--epochs", "3"), directory="/home/me", fit=2)


def build():
    raise AssertionError("nobody builds this model")


def sent(folder, settings, wanted, pickles=None, weights=None, **fields):
    """The call of a fit, or of a pass, written and read."""
    every = {"checkpoint_every": plain_every(wanted.checkpoint_every)} if isinstance(wanted, FitConfig) else {}
    call = Call(
        **{"method": "fit", "run_dir": "run-1", "program": PROGRAM} | every | fields,
        settings=plain_settings(settings),
        wanted=plain_wanted(wanted),
        columns=plain_columns(wanted.columns),
    )
    written = CallFolder(folder)
    written.write(call, {BUILD_MODEL: pack(build), CODE: pack(UserCode())} | (pickles or {}), weights)
    return written, written.call()


@pytest.mark.parametrize("every", ["epoch", None, EverySteps(7), EverySeconds(0.5)])
def test_settings_and_arguments_come_out_as_they_went_in(tmp_path, every):
    code, prepare = pack(UserCode(train_step=len)), pack(print)
    settings = TrainerConfig(
        build_model=pack(build), workers=3, num_microbatches="auto", seed=7, address="http://head:8265", max_workers=4
    )
    weights = (np.arange(3, dtype=np.float32), np.array([1.5, -2.0], ml_dtypes.bfloat16))
    wanted = FitConfig(
        loop="custom",
        epochs=5,
        initial_epoch=2,
        shuffle="window:100",
        columns=Columns(inputs={"a": "left", "b": "right"}, targets=["y", "z"], sample_weight="w"),
        validation_sample_weight=["v", "w"],
        validation_freq=(2, 3),
        validation_steps=7,
        validation_batch_size=8,
        code=code,
        code_digests={"Say": "1"},
        prepare=prepare,
        initial_weights=weights,
        checkpoint_every=every,
        checkpoint_dir="s3://bucket/folder",
        max_time_s=2.5,
        on_nonfinite="skip",
    )
    pickles = {CODE: code, PREPARE: prepare, prepared_name(0): pack(len)}
    names = {"data": "/there/data", "validation_data": "s3://bucket/valid", "is_validated": True, "anew": True}
    folder, call = sent(tmp_path, settings, wanted, pickles, weights, **names, num_prepared=1, code={"build": "2"})

    there = folder.settings(call)
    assert there == TrainerConfig(**{**plain_settings(settings), "build_model": settings.build_model})
    assert (there.address, there.max_workers, there.num_microbatches) == (None, 4, "auto")
    got = folder.fit_call(call, tmp_path / "data")
    assert (got.data, got.validation_data, got.anew, got.code) == (
        "/there/data",
        "s3://bucket/valid",
        True,
        {"build": "2"},
    )
    for name in plain_wanted(wanted):
        assert getattr(got.wanted, name) == getattr(wanted, name), name
    assert (got.wanted.columns, got.wanted.checkpoint_every) == (wanted.columns, every)
    assert (got.wanted.code, got.wanted.prepare) == (code, prepare)
    assert got.wanted.initial_weights_digest == wanted.initial_weights_digest
    assert [unship(each, "it") for each in folder.prepared(call)] == [len]
    assert call.program == PROGRAM


def test_nothing_is_unpickled_to_read_what_is_asked(tmp_path):
    """Pickles that would end the process stay closed until the machine was compared with what the call needs."""
    settings, wanted = TrainerConfig(build_model=pack(build)), FitConfig(code=pack(UserCode()))
    folder, _ = sent(tmp_path, settings, wanted, data="/there")
    for path in tmp_path.glob("*.pickle"):
        path.write_bytes(b"no pickle at all")
    call = folder.call()
    assert folder.settings(call).build_model.payload == b"no pickle at all"
    assert folder.fit_call(call, tmp_path).wanted.code.payload == b"no pickle at all"


def test_a_call_that_was_cut_short_is_told(tmp_path):
    folder, _ = sent(tmp_path, TrainerConfig(build_model=pack(build)), FitConfig(), data="/there")
    content = (tmp_path / CALL_FILE).read_bytes()
    (tmp_path / CALL_FILE).write_bytes(content[:-10])
    with pytest.raises(TrainerError, match=r"call\.json|The call in"):
        folder.call()


def test_a_pass_comes_out_as_it_went_in(tmp_path):
    wanted = PassConfig(columns=Columns(inputs=["a", "b"], targets=None), global_batch_size=5, steps=3)
    settings = TrainerConfig(build_model=pack(build))
    fields = {"method": "predict", "data": "/there", "undecided": ("inputs",), "output": "s3://bucket/predictions"}
    folder, call = sent(tmp_path, settings, wanted, **fields)
    got = folder.pass_call(call, tmp_path)
    assert (got.wanted, got.data, got.undecided, got.output) == (wanted, "/there", ("inputs",), fields["output"])


def test_weights_of_classes_come_out_as_they_went_in(tmp_path):
    columns = Columns(class_weight=((0, 1.0), (-3, 2.5)))
    folder, call = sent(tmp_path, TrainerConfig(build_model=pack(build)), FitConfig(columns=columns), data="/there")
    assert folder.fit_call(call, tmp_path).wanted.columns == columns


def double(rows):
    return rows["x"] * 2


def stored(folder):
    write_dataset(folder / "shop", {"x": np.arange(12.0), "y": np.arange(12)}, rows_per_shard=5)
    return open_dataset(folder / "shop")


def one_shard(folder):
    write_dataset(folder / "one", {"x": np.arange(12.0), "y": np.arange(12)})
    return open_dataset(folder / "one")


def parquet(folder):
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({"x": np.arange(12.0), "y": np.arange(12)}), folder / "rows.parquet")
    return open_dataset(folder / "rows.parquet")


def parquet_folder(folder):
    for part in ("a", "b"):
        (folder / "many" / part).mkdir(parents=True)
        pq.write_table(pa.table({"x": np.arange(6.0), "y": np.arange(6)}), folder / "many" / part / "rows.parquet")
    return open_dataset(folder / "many")


def views(folder):
    return stored(folder).map(double, ["x"], "x").take(9).concatenate(parquet(folder).map(double, ["x"], "x"))


@pytest.mark.parametrize("make", [stored, one_shard, parquet, parquet_folder, views])
def test_a_dataset_is_the_same_where_its_files_were_unpacked(tmp_path, monkeypatch, make):
    from heliostat.trainer.remote.packing import pack_datasets, unpack

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    here, there = tmp_path / "here", tmp_path / "there"
    dataset = make(here)
    rows = dataset.to_arrow().to_pydict()
    settings = TrainerConfig(build_model=pack(build))
    pickles = {DATA: pack(dataset), VALIDATION: pack(dataset)}
    folder, call = sent(tmp_path / "call", settings, FitConfig(), pickles, is_validated=True)
    unpack(pack_datasets({f"data{path}": here / path for path in map(str, dataset.folders())}), there)
    shutil.rmtree(here)

    got = folder.fit_call(call, there / "data")
    for each in (got.data, got.validation_data):
        assert all(path.startswith(str(there)) for path in each.folders())
        assert each.fingerprint == dataset.fingerprint
        assert each.name == dataset.name
        each.check()
        assert each.to_arrow().to_pydict() == rows
