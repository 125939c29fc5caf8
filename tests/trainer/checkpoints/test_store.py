"""Checkpoints: what was written comes back bit for bit, and what was altered, cut short or half written never does."""

from __future__ import annotations

import errno
import json
import math
import os
import pickle
import stat
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
import safetensors
import xxhash
from heliostat.trainer.checkpoints.manifest import (
    CheckpointManifest,
    checkpoint_name,
    manifest_from_bytes,
    manifest_to_bytes,
    parse_checkpoint_name,
)
from heliostat.trainer.checkpoints.store import CheckpointStore
from heliostat.trainer.checkpoints.tensors import DTYPE_CODES, TensorEntry, numpy_dtype, state_layout
from heliostat.trainer.errors import CheckpointError, ConfigurationError, DamagedCheckpointError
from hypothesis import given, settings
from hypothesis import strategies as st


def sample(seed=0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "kernel": rng.normal(size=(5, 3)).astype(np.float32),
        "half": rng.normal(size=(7,)).astype(ml_dtypes.bfloat16),
        "mask": np.array([True, False, True]),
        "iterations": np.array(2**40 + seed, np.int64),
        "nothing": np.empty((0, 4), np.float32),
        "odd bits": np.array([0x7FC00001, 0xFF800000, 0x7F800000, 0x80000000], np.uint32).view(np.float32),
        "turned": np.asfortranarray(rng.normal(size=(4, 6)))[::2],
        "größe/日本": np.array([seed % 256], np.uint8),
    }


def save(store, epoch, step=0, generation=1, tensors=None, **fields) -> str:
    tensors = sample(epoch) if tensors is None else tensors
    name = checkpoint_name(epoch, step, generation)
    entries = store.write(name, tensors)
    store.commit(name, manifest_of(entries, epoch=epoch, step=step, generation=generation, **fields))
    return name


def manifest_of(entries=(), **fields) -> CheckpointManifest:
    given = {
        "generation": 1,
        "epoch": 0,
        "step": 0,
        "begun": False,
        "identity": {"seed": 7},
        "history": (),
        "extra": {},
    }
    return CheckpointManifest(**given | fields, tensors=entries)


def assert_same_bits(found, expected) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype), name
        assert found[name].tobytes() == array.tobytes(), name


def last(store):
    manifest, skipped = store.latest()
    assert skipped == []
    return manifest.name


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "checkpoints")


@pytest.fixture(params=["path", "text", "file", "mock"])
def any_store(request, tmp_path):
    folder = tmp_path / "with space"
    return CheckpointStore(
        {"path": folder, "text": str(folder), "file": folder.as_uri(), "mock": "mock:///bucket/run"}[request.param]
    )


# --- round trips


def test_every_bit_comes_back(any_store):
    assert any_store.names() == []
    assert any_store.latest() == (None, [])
    name = save(any_store, 3, 120, 7, begun=True)
    manifest, tensors = any_store.load(name)
    assert_same_bits(tensors, sample(3))
    assert (manifest.epoch, manifest.step, manifest.generation, manifest.begun) == (3, 120, 7, True)
    assert any_store.manifest(name) == manifest
    assert any_store.latest() == (manifest, [])
    assert [entry.name for entry in manifest.tensors] == list(sample())


def test_loaded_tensors_can_be_written_to(store):
    _, tensors = store.load(save(store, 0))
    tensors["kernel"][0, 0] = 5
    tensors["iterations"] += 1


def test_plain_safetensors_reads_the_file(store, tmp_path):
    name = save(store, 0)
    raw = (tmp_path / "checkpoints" / name / "state.safetensors").read_bytes()
    found = dict(safetensors.deserialize(raw))
    assert sorted(found) == sorted(sample())
    for tensor_name, array in sample().items():
        read = found[tensor_name]
        assert (tuple(read["shape"]), read["dtype"]) == (array.shape, DTYPE_CODES[array.dtype.name])
        assert bytes(read["data"]) == array.tobytes()


def test_a_checkpoint_without_tensors(store):
    assert store.load(save(store, 0, tensors={}))[1] == {}


@settings(deadline=None, derandomize=True, max_examples=80)
@given(data=st.data())
def test_any_shape_and_dtype_comes_back(data):
    tensors = {}
    for i in range(data.draw(st.integers(0, 6))):
        dtype = numpy_dtype(data.draw(st.sampled_from(sorted(DTYPE_CODES))))
        shape = tuple(data.draw(st.lists(st.integers(0, 4), max_size=4)))
        size = dtype.itemsize * math.prod(shape)
        raw = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), np.uint8)
        tensors[f"{data.draw(st.text(st.characters(codec='utf-8'), max_size=5))}-{i}"] = raw.view(dtype).reshape(shape)
    store = CheckpointStore("mock:///run")
    assert_same_bits(store.load(save(store, 0, tensors=tensors))[1], tensors)


def test_json_parts_come_back_and_are_standard_json(store, tmp_path):
    history = ({"loss": math.nan, "accuracy": 0.1}, {"loss": math.inf, "accuracy": -math.inf})
    extra = {"z": [1, None, True, "NaN"], "a": {"deep": [1.5, -0.0]}, "text": "é\ud800"}
    identity = {"data": "ab", "seed": 2**60, "best": np.float64(0.25), "$float": "NaN"}
    name = save(store, 0, history=history, extra=extra, identity=identity)

    def refuse(constant):
        pytest.fail(f"{constant} is not JSON")

    json.loads((tmp_path / "checkpoints" / name / "manifest.json").read_text(), parse_constant=refuse)
    found = store.manifest(name)
    assert math.isnan(found.history[0]["loss"])
    assert list(found.history[0]) == ["loss", "accuracy"]
    assert found.history[1] == history[1]
    assert found.extra == extra
    assert math.copysign(1, found.extra["a"]["deep"][1]) == -1
    assert list(found.extra) == list(extra)
    assert found.identity == identity
    assert type(found.identity["best"]) is float


def test_neither_side_holds_a_second_copy(store):
    tensors = {f"w{i}": np.full(2**20, i, np.float32) for i in range(8)}
    state_bytes = sum(array.nbytes for array in tensors.values())
    tracemalloc.start()
    try:
        name = save(store, 0, tensors=tensors)
        written = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        store.latest()
        verified = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        _, loaded = store.load(name)
        read = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert_same_bits(loaded, tensors)
    assert written < state_bytes / 4
    assert verified < state_bytes / 2
    assert state_bytes <= read < state_bytes * 1.25


def test_a_store_pickles(store):
    name = save(store, 0)
    assert pickle.loads(pickle.dumps(store)).names() == [name]


def test_importing_it_loads_neither_tensorflow_nor_keras():
    code = (
        "import sys, heliostat.trainer.checkpoints.store\n"
        "print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- names and order


def test_names_sort_by_position_then_generation(store):
    made = [save(store, *place) for place in [(10, 0, 1), (2, 5, 3), (2, 5, 12), (1_000_000, 0, 0), (2, 30, 1)]]
    assert store.names() == [made[i] for i in (1, 2, 4, 0, 3)]
    assert made[1] == "000002-00000005.g3"
    assert store.next_generation() == 13


def test_next_generation_counts_uncommitted_folders(store):
    assert store.next_generation() == 0
    save(store, 0, generation=2)
    store.write(checkpoint_name(0, 5, 4), sample())
    assert store.next_generation() == 5


@pytest.mark.parametrize(
    "name", ["", "..", "../000001-00000000.g1", "1-2.g3", "0000001-00000000.g1", "000001-00000000.g1/"]
)
def test_other_names_are_refused(store, name):
    assert parse_checkpoint_name(name) is None
    for use in (lambda: store.load(name), lambda: store.write(name, {}), lambda: store.manifest(name)):
        with pytest.raises(CheckpointError, match="not the name of a checkpoint"):
            use()


def test_other_files_in_the_location_do_no_harm(store, tmp_path):
    name = save(store, 0)
    (tmp_path / "checkpoints" / "notes").mkdir()
    (tmp_path / "checkpoints" / "000009-00000000.g1").write_text("a file")
    store.prune(1)
    assert store.names() == [name]
    assert (tmp_path / "checkpoints" / "notes").exists()


# --- what is committed, and what is not


def test_an_uncommitted_folder_is_no_checkpoint(any_store):
    name = save(any_store, 1)
    late = checkpoint_name(2, 0, 1)
    any_store.write(late, sample(2))
    assert any_store.names() == [name]
    assert last(any_store) == name
    with pytest.raises(DamagedCheckpointError, match=rf"{late}/manifest.json"):
        any_store.load(late)


def test_a_second_attempt_replaces_the_first(store):
    store.write(checkpoint_name(0, 0, 1), {"w": np.zeros(1000)})
    assert_same_bits(store.load(save(store, 0))[1], sample(0))


def test_a_committed_checkpoint_is_not_overwritten(store):
    name = save(store, 0)
    with pytest.raises(CheckpointError, match="will not be overwritten"):
        store.write(name, {"w": np.zeros(3)})
    assert_same_bits(store.load(name)[1], sample(0))


def test_generations_write_apart(store):
    fenced, current = checkpoint_name(1, 0, 1), checkpoint_name(1, 0, 2)
    save(store, 1, generation=2, tensors=sample(5))
    store.write(fenced, sample(6))
    assert last(store) == current
    assert_same_bits(store.load(current)[1], sample(5))


def test_commit_refuses_what_does_not_fit(store, tmp_path):
    name = checkpoint_name(0, 0, 1)
    entries = store.write(name, sample())
    with pytest.raises(CheckpointError, match="does not belong"):
        store.commit(name, manifest_of(entries, step=1))
    with pytest.raises(CheckpointError, match=r"state\.safetensors has"):
        store.commit(name, manifest_of(entries[1:]))
    (tmp_path / "checkpoints" / name / "state.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        store.commit(name, manifest_of(entries))
    assert store.names() == []


# --- damage


def damage(path, change) -> None:
    raw = bytearray(path.read_bytes())
    changed = change(raw)
    path.write_bytes(raw if changed is None else changed)


def flip(at, bit=0):
    def change(raw):
        raw[at] ^= 1 << bit

    return change


STATE, MANIFEST = "state.safetensors", "manifest.json"
DAMAGE = {
    "manifest flipped": (MANIFEST, flip(-40)),
    "manifest cut": (MANIFEST, lambda raw: raw[:-2]),
    "manifest halved": (MANIFEST, lambda raw: raw[: len(raw) // 2]),
    "manifest empty": (MANIFEST, lambda raw: b""),
    "manifest zeroed": (MANIFEST, lambda raw: bytearray(len(raw))),
    "length flipped": (STATE, flip(0)),
    "length made huge": (STATE, flip(7, 7)),
    "header flipped": (STATE, flip(20)),
    "data flipped": (STATE, flip(-1, 7)),
    "first data flipped": (STATE, lambda raw: flip(8 + int.from_bytes(raw[:8], "little"))(raw)),
    "state cut by a byte": (STATE, lambda raw: raw[:-1]),
    "state cut in the header": (STATE, lambda raw: raw[:50]),
    "state cut in the length": (STATE, lambda raw: raw[:5]),
    "state empty": (STATE, lambda raw: b""),
    "state longer": (STATE, lambda raw: raw + b"\0"),
    "state zeroed": (STATE, lambda raw: bytearray(len(raw))),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_latest_names_a_damaged_one_and_falls_back(store, tmp_path, kind):
    good, bad = save(store, 1), save(store, 2)
    file, change = DAMAGE[kind]
    path = tmp_path / "checkpoints" / bad / file
    before = path.read_bytes()
    damage(path, change)
    assert path.read_bytes() != before
    with pytest.raises(DamagedCheckpointError, match=file):
        store.load(bad)
    manifest, said = store.latest()
    assert manifest.name == good
    assert len(said) == 1
    assert bad in said[0]
    assert file in said[0]


def forge_shape(folder, shape) -> None:
    """Give a tensor of a committed checkpoint another shape, with a hash that fits."""
    content = json.loads((folder / MANIFEST).read_text())
    content["body"]["tensors"][0]["shape"] = shape
    raw = json.dumps(content["body"], separators=(",", ":")).encode()
    content["xxh3_128"] = xxhash.xxh3_128_hexdigest(raw)
    (folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n")
    if isinstance(shape, list) and 0 in shape:  # then the tensors' file can be made to fit
        entry = SimpleNamespace(name="w", dtype="float32", shape=tuple(shape), num_bytes=0)
        (folder / STATE).write_bytes(state_layout([entry])[0])


@pytest.mark.parametrize(
    "shape", [[2**64, 0], [2**40, 2**40, 0], [0] * 65, [2**62], [10**30], [-1], [3.0], [True], [[3]], "33", None]
)
def test_a_forged_shape_is_damage_and_older_checkpoints_are_tried(store, tmp_path, shape):
    good, bad = save(store, 1), save(store, 2, tensors={"w": np.empty((0, 4), np.float32)})
    forge_shape(tmp_path / "checkpoints" / bad, shape)
    with pytest.raises(DamagedCheckpointError, match=rf"{bad}/"):
        store.load(bad)
    manifest, said = store.latest()
    assert (manifest.name, len(said)) == (good, 1)
    assert bad in said[0]


def test_a_tensor_larger_than_memory_is_damage(store, tmp_path):
    """Its file is as long as it says: a file of holes takes no room."""
    if Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "1":
        pytest.skip("this system grants more memory than there is")
    good, bad = save(store, 1), save(store, 2, tensors={"w": np.zeros(4, np.uint8)})
    folder, size = tmp_path / "checkpoints" / bad, 2**43
    forge_shape(folder, [size])
    (entry,) = store.manifest(bad).tensors
    with open(folder / STATE, "wb") as file:
        header, _ = state_layout([entry])
        file.write(header)
        try:
            file.truncate(len(header) + size)
        except OSError as error:
            pytest.skip(f"the file system has no files of that length: {error}")
    with pytest.raises(DamagedCheckpointError, match=f"'w'.*{STATE} is said to have {size} bytes"):
        store.load(bad)
    assert store.latest()[0].name == good


def test_a_file_system_that_cannot_flush_folders_will_do(store, tmp_path, monkeypatch):
    fsync, num_refused = os.fsync, 0

    def refuses_folders(descriptor):
        nonlocal num_refused
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            num_refused += 1
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuses_folders)
    name = save(store, 1)
    assert num_refused > 0
    assert store.latest()[0].name == name


def test_a_damaged_tensor_is_named_with_both_hashes(store, tmp_path):
    name = save(store, 0)
    damage(tmp_path / "checkpoints" / name / STATE, flip(-1))
    expected = next(entry.xxh3 for entry in store.manifest(name).tensors if entry.name == "größe/日本")
    with pytest.raises(
        DamagedCheckpointError, match=rf"größe/日本.*{STATE}.*expected xxh3_128 {expected}, found \w{{32}}"
    ):
        store.load(name)


def test_every_flipped_bit_of_the_manifest_is_found(store):
    raw = manifest_to_bytes(manifest_of(store.write(checkpoint_name(0, 0, 1), sample()), extra={"é": 1e22, "m": [""]}))
    assert manifest_from_bytes(raw, "whole").extra == {"é": 1e22, "m": [""]}
    for at in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[at] ^= 1 << bit
            with pytest.raises(DamagedCheckpointError):
                manifest_from_bytes(bytes(changed), "changed")


def test_a_flip_in_every_byte_of_the_state_is_found(store, tmp_path):
    name = save(store, 0)
    path = tmp_path / "checkpoints" / name / STATE
    raw = path.read_bytes()
    for at in range(len(raw)):
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([raw[at] ^ (1 << at % 8)]))
            file.flush()
            with pytest.raises(DamagedCheckpointError):
                store.load(name)
            file.seek(at)
            file.write(raw[at : at + 1])
    assert_same_bits(store.load(name)[1], sample(0))


def test_a_truncation_at_every_length_is_found(store, tmp_path):
    name = save(store, 0)
    path = tmp_path / "checkpoints" / name / STATE
    for length in reversed(range(path.stat().st_size)):
        os.truncate(path, length)
        with pytest.raises(DamagedCheckpointError, match="cut short"):
            store.load(name)


@pytest.mark.parametrize("file", [STATE, MANIFEST])
def test_a_missing_file_is_named(store, tmp_path, file):
    name = save(store, 0)
    (tmp_path / "checkpoints" / name / file).unlink()
    with pytest.raises(DamagedCheckpointError, match=f"{name}/{file}"):
        store.load(name)


def test_a_renamed_folder_is_no_other_checkpoint(store, tmp_path):
    good = save(store, 0)
    moved = checkpoint_name(9, 0, 1)
    (tmp_path / "checkpoints" / save(store, 1)).rename(tmp_path / "checkpoints" / moved)
    with pytest.raises(DamagedCheckpointError, match="renamed"):
        store.load(moved)
    assert store.latest()[0].name == good


def test_a_newer_format_version_is_refused(store, tmp_path):
    name = save(store, 0)
    path = tmp_path / "checkpoints" / name / MANIFEST
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 3'))
    with pytest.raises(CheckpointError, match="format version 3; this Heliostat reads 1 and 2"):
        store.manifest(name)


def test_none_is_good(store, tmp_path):
    for epoch in range(2):
        damage(tmp_path / "checkpoints" / save(store, epoch) / STATE, flip(-1))
    found, said = store.latest()
    assert found is None
    assert len(said) == 2


# --- prune


def test_prune_keeps_the_newest_and_what_may_be_being_written(any_store):
    made = [save(any_store, epoch) for epoch in range(5)]
    unfinished = [
        checkpoint_name(*place) for place in [(1, 7, 1), (3, 9, 9), (4, 0, 0), (4, 0, 2), (4, 1, 0), (5, 0, 1)]
    ]
    entries = {name: any_store.write(name, sample()) for name in unfinished}
    any_store.prune(7)
    assert any_store.names() == made
    any_store.prune(2)
    assert any_store.names() == made[3:]
    for epoch, name in ((3, made[3]), (4, made[4])):
        assert_same_bits(any_store.load(name)[1], sample(epoch))
    any_store.prune(1)
    assert any_store.names() == made[4:]
    for name in (*made[:4], *unfinished):
        epoch, step, generation = parse_checkpoint_name(name)
        manifest = manifest_of(entries.get(name, ()), epoch=epoch, step=step, generation=generation)
        if name in unfinished[2:]:
            any_store.commit(name, manifest)
            assert_same_bits(any_store.load(name)[1], sample())
        else:
            with pytest.raises(DamagedCheckpointError, match="is missing"):
                any_store.commit(name, manifest)


def test_prune_deletes_nothing_where_nothing_is_committed(store, tmp_path):
    store.prune(1)
    store.write(checkpoint_name(0, 0, 1), sample())
    store.prune(1)
    assert os.listdir(tmp_path / "checkpoints") == [checkpoint_name(0, 0, 1)]
    with pytest.raises(ConfigurationError, match="keep is 0"):
        store.prune(0)


# --- storage that does not take it

FILE_SIZE_LIMIT = """
import resource, sys
import numpy as np
from heliostat.trainer.checkpoints.manifest import CheckpointManifest, checkpoint_name
from heliostat.trainer.checkpoints.store import CheckpointStore
from heliostat.trainer.errors import CheckpointError

store = CheckpointStore(sys.argv[1])
def manifest(epoch, entries, extra):
    return CheckpointManifest(generation=1, epoch=epoch, step=0, begun=False, identity={}, history=(), extra=extra,
                              tensors=entries)
def attempt(what, *arguments):
    try:
        what(*arguments)
    except CheckpointError as error:
        print(error)
names = [checkpoint_name(epoch, 0, 1) for epoch in range(3)]
small = {"w": np.arange(100.0)}
store.commit(names[0], manifest(0, store.write(names[0], small), {}))
entries = store.write(names[1], small)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
attempt(store.commit, names[1], manifest(1, entries, {"long": "x" * 60_000}))
attempt(store.write, names[2], {"w": np.arange(100_000.0)})
"""


def test_a_full_storage_is_named_and_leaves_older_checkpoints_alone(tmp_path):
    root = tmp_path / "checkpoints"
    done = subprocess.run([sys.executable, "-c", FILE_SIZE_LIMIT, root], capture_output=True, text=True, check=True)
    commit, write = done.stdout.splitlines()
    assert f"{checkpoint_name(1, 0, 1)}/{MANIFEST}: File too large" in commit
    assert f"{checkpoint_name(2, 0, 1)}/{STATE}: File too large" in write
    assert "make room" in write
    store = CheckpointStore(root)
    assert last(store) == checkpoint_name(0, 0, 1)
    assert os.listdir(root / checkpoint_name(1, 0, 1)) == [STATE]
    assert not (root / checkpoint_name(2, 0, 1)).exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device without room")
def test_no_space_left_is_named(store, tmp_path):
    old, new = save(store, 0), checkpoint_name(1, 0, 1)
    folder = tmp_path / "checkpoints" / new
    folder.mkdir()
    (folder / STATE).symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match=rf"{new}/{STATE}: No space left on device \(errno 28\)"):
        store.write(new, sample())
    assert not folder.exists()
    assert_same_bits(store.load(old)[1], sample(0))


def test_a_location_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="it is a file"):
        CheckpointStore(tmp_path / "file")
    with pytest.raises(CheckpointError, match="nosuch") as caught:
        CheckpointStore("nosuch://user:secret@host/run")
    assert "secret" not in str(caught.value)
    with pytest.raises(CheckpointError, match="bucket/run") as caught:
        CheckpointStore("s3://id:hidden%2Fword@bucket/run?region=x&sas_token=tick&nosuch=option")
    assert not any(word in str(caught.value) for word in ("hidden", "tick"))
    assert caught.value.__cause__ is None, "its text has the URI"
    with pytest.raises(CheckpointError, match=STATE):
        save(CheckpointStore(tmp_path / "file" / "inside"), 0)


# --- what a checkpoint cannot hold


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array(["text"]), "dtype str"),
        (np.array([{}], object), "dtype object"),
        (np.zeros(3, np.complex128), "dtype complex128"),
        (np.zeros(3, ">f4"), "native byte order"),
        ([1.0, 2.0], "is a list"),
    ],
)
def test_unsuitable_tensors_are_refused(store, tmp_path, array, message):
    with pytest.raises(CheckpointError, match=f"'w'.*{message}"):
        store.write(checkpoint_name(0, 0, 1), {"w": array})
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("name", ["", "__metadata__", "\ud800"])
def test_unsuitable_tensor_names_are_refused(store, name):
    with pytest.raises(CheckpointError, match="is named"):
        store.write(checkpoint_name(0, 0, 1), {name: np.zeros(1)})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"identity": {"a": {"b": [0, np.ones(1)]}}}, r"identity\['a'\]\['b'\]\[1\] is a ndarray of float64"),
        ({"identity": {1: 2}}, "identity is a dict whose keys are not all str"),
        ({"history": ({"loss": {3}},)}, r"history\[0\]\['loss'\] is a set"),
        ({"history": (3,)}, r"history\[0\].*must be a dict"),
        ({"epoch": -1}, "epoch is -1"),
        ({"step": True}, "step is True"),
        ({"begun": 1}, "begun is 1"),
    ],
)
def test_unsuitable_manifests_are_refused(fields, message):
    with pytest.raises(CheckpointError, match=message):
        manifest_to_bytes(manifest_of(**fields))


def test_a_tensor_listed_twice_is_refused():
    entry = TensorEntry(name="w", shape=(), dtype="float32", xxh3="0" * 32)
    with pytest.raises(CheckpointError, match="listed twice"):
        manifest_of((entry, entry))


def test_a_mapping_that_contains_itself_is_refused():
    identity: dict = {}
    identity["again"] = identity
    with pytest.raises(CheckpointError, match="holds itself"):
        manifest_to_bytes(manifest_of(identity=identity))
