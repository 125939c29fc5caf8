"""A task on a machine that does not share the driver's run folder: what of it is opened in place all the same."""

from __future__ import annotations

import shutil

import pytest
from heliostat.cluster.disk.reach import Reach
from heliostat.cluster.disk.served import SCHEME
from heliostat.data.remote import filesystem
from heliostat.trainer.beginning import ModelState
from heliostat.trainer.checkpoints.store import MANIFEST_FILE, STATE_FILE, CheckpointStore
from heliostat.trainer.worker.places import _state_here
from pyarrow import fs

from ..checkpoints.test_store import sample, save


class NotSeen(Reach):
    """No token is found beside the state."""

    def sees(self, path):
        return False


@pytest.fixture
def state(tmp_path, monkeypatch):
    """The end of an earlier fit, here; the driver's disk has a copy of it below `driver`."""
    store = CheckpointStore(tmp_path / "run/checkpoints/final")
    name = save(store, 3)
    shutil.copytree(tmp_path / "run", f"{tmp_path}/driver{tmp_path}/run")
    driver = fs.SubTreeFileSystem(str(tmp_path / "driver"), fs.LocalFileSystem())
    monkeypatch.setitem(filesystem._OPENERS, SCHEME, lambda: driver)
    return ModelState(key="a", location=store.location, name=name)


def test_the_state_of_an_earlier_fit_is_opened_in_place_where_this_machine_has_it(state):
    assert _state_here(state, NotSeen(None)).location == state.location


@pytest.mark.parametrize("here", ["nothing", "no manifest", "no tensors", "another", "a file"])
def test_any_other_state_comes_from_the_driver(state, tmp_path, here):
    final = tmp_path / "run/checkpoints/final"
    if here in ("no manifest", "no tensors"):
        (final / state.name / (MANIFEST_FILE if here == "no manifest" else STATE_FILE)).unlink()
    else:
        shutil.rmtree(final)
    if here == "another":
        assert save(CheckpointStore(final), 3, tensors=sample(1)) == state.name
    elif here == "a file":
        final.touch()
    assert _state_here(state, NotSeen(None)).location == f"{SCHEME}://{state.location}"
    assert CheckpointStore(f"{SCHEME}://{state.location}").load(state.name)


def test_what_is_seen_or_is_no_state_stays_what_it_is(state):
    none = ModelState()
    assert _state_here(state, Reach(None)) is state
    assert _state_here(none, NotSeen(None)) is none
