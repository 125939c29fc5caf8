"""What the chief tells of its callbacks' states: only what may have changed, and of that only what did."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from heliostat.trainer.checkpoints.manifest import CheckpointManifest, manifest_from_bytes, manifest_to_bytes
from heliostat.trainer.checkpoints.store import CheckpointStore
from heliostat.trainer.checkpoints.values import decode, encode, unpack
from heliostat.trainer.worker import carried_states
from heliostat.trainer.worker.callback_state import callback_state, restore_callback
from heliostat.trainer.worker.carried_states import CarriedStates
from keras import callbacks

from ..conftest import dense_data
from ..faults import events_of
from ..models import linear

pytestmark = pytest.mark.engine


class Average(callbacks.Callback):
    """Counts steps, and changes an array in place between them."""

    def __init__(self):
        super().__init__()
        self.steps, self.average, self.large = 0, np.zeros(3, np.float32), np.zeros(1 << 12, np.float32)

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        self.average += 0.5

    def get_state(self):
        return {"steps": self.steps, "average": self.average, "large": self.large}

    def set_state(self, state):
        self.steps, self.average, self.large = state["steps"], state["average"], state["large"]


@pytest.fixture
def asked(monkeypatch):
    """The callbacks whose states are asked for, as they are asked."""
    found = []

    def encoded_state(source, where=""):
        found.append(type(source).__name__)
        return original(source, where)

    original = carried_states.encoded_state
    monkeypatch.setattr(carried_states, "encoded_state", encoded_state)
    return found


def stopping():
    one = callbacks.EarlyStopping(restore_best_weights=True)
    one.best_weights = [np.arange(6, dtype=np.float32), np.ones((2, 2), np.float64)]
    return one


def pair():
    """The chief's copies, the states that both workers have, and a function that tells the other worker."""
    chief_callbacks = [stopping(), Average()]
    chief, other = CarriedStates(chief_callbacks), CarriedStates([stopping(), Average()])

    def tell(generation=0, between_steps=True):
        message = chief.changes(generation, between_steps=between_steps)
        for each in (chief, other):
            each.agree(generation, message)
        return message

    chief.all_ran()
    return chief_callbacks, chief, other, tell


def test_between_steps_only_callbacks_are_asked_whose_hooks_ran_and_only_what_changed_is_told(asked):
    (early, average), chief, other, tell = pair()
    first = tell()
    assert asked == ["EarlyStopping", "Average"]
    asked.clear()
    assert tell() is None
    assert asked == []
    average.on_train_batch_end(0)
    chief.hook_ran("on_train_batch_end")
    message = tell()
    assert asked == ["Average"]
    assert average.large.nbytes < len(first)
    assert len(message) < 1000, "the array that is as before travels again"
    assert str(other.agreed()) == str([callback_state(each) for each in (early, average)])


def test_between_epochs_all_are_asked(asked):
    (early, _), _, other, tell = pair()
    tell()
    asked.clear()
    early.best_weights = [each + 1 for each in early.best_weights]  # in a hook that is not its own
    assert tell(between_steps=False) is not None
    assert asked == ["EarlyStopping", "Average"]
    np.testing.assert_array_equal(other.agreed()[0]["best_weights"][0], np.arange(6) + 1)


def test_after_a_change_of_the_group_everything_is_told():
    (early, average), _, _, tell = pair()
    tell()
    newcomer = CarriedStates([stopping(), Average()])
    average.large[0] = 7
    newcomer.restore([callback_state(early), callback_state(average)])  # in the middle of the chief's hooks
    average.large[0] = 0  # as all others have it
    newcomer.agree(1, tell(generation=1))
    assert newcomer.agreed()[1]["large"][0] == 0


@pytest.mark.parametrize("change", [0, 0.0, -0.0, None, False, np.float32(0)])
def test_another_kind_of_the_same_number_is_a_change(change):
    (early, _), _, other, tell = pair()
    for before in (0, 0.0, -0.0, None, False, np.float32(0)):
        early.best = before
        tell(between_steps=False)
        early.best = change
        tell(between_steps=False)
        found = other.agreed()[0]["best"]
        assert (type(found), str(found)) == (type(change), str(change))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32(math.nan), np.float64(math.inf)], ids=str)
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (callbacks.EarlyStopping, "best"),
        (callbacks.ReduceLROnPlateau, "best"),
        (lambda: callbacks.ModelCheckpoint("a.keras"), "best"),
        (callbacks.TensorBoard, "_epoch_start_time"),
        (Average, "steps"),
    ],
    ids=["EarlyStopping", "ReduceLROnPlateau", "ModelCheckpoint", "TensorBoard", "get_state"],
)
def test_states_with_numbers_that_are_not_finite_get_to_workers_and_through_checkpoints(make, name, value):
    one, another, third = make(), make(), make()
    setattr(one, name, value)
    if name == "best":
        one.monitor_op = keras.ops.less
    chief, other = CarriedStates([one]), CarriedStates([another])
    chief.all_ran()
    other.agree(0, chief.changes(0, between_steps=True))
    restore_callback(another, other.agreed()[0])

    arrays = {}
    extra = {"callbacks": encode([callback_state(one)], arrays, "callbacks")}
    manifest = CheckpointManifest(
        generation=0, epoch=1, step=0, begun=False, identity={}, history=(), extra=extra, tensors=()
    )
    back = manifest_from_bytes(manifest_to_bytes(manifest), "manifest.json")
    restore_callback(third, decode(back.extra["callbacks"], arrays)[0])
    for each in (another, third):
        found = getattr(each, name)
        assert (type(found), repr(found)) == (type(value), repr(value))


class OneNaN(callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            logs["val_loss"] = math.nan


def test_a_run_goes_on_after_one_nan_in_validation(train):
    kept = [
        OneNaN(),
        callbacks.EarlyStopping("val_loss", patience=9),
        callbacks.ReduceLROnPlateau("val_loss", patience=9),
        callbacks.ModelCheckpoint("best.keras", "val_loss", save_best_only=True),
    ]
    data = dense_data(37)
    result = train(linear(), data, workers=2, epochs=3, validation_data=data, callbacks=kept, keep=9)
    assert math.isnan(result.history["val_loss"][0])
    store = CheckpointStore(str(result.run_dir / "checkpoints"))
    assert [store.manifest(name).epoch for name in store.names()][-1] == 3
    assert not events_of(result.run_dir, "checkpoint_failed")
    assert math.isnan(store.manifest(store.names()[-1]).history[0]["logs"]["val_loss"])


def test_a_message_holds_no_more_than_the_arrays_that_are_new():
    (_, average), chief, _, tell = pair()
    tell()
    average.on_train_batch_end(0)
    chief.hook_ran("on_train_batch_end")
    (told,) = unpack(tell())
    assert (told["callback"], list(told["arrays"]), told["kept"]) == (1, ["0"], ["1"])


def test_states_of_a_snapshot_go_to_callbacks_of_their_class():
    found = CarriedStates([Average(), stopping(), callbacks.ReduceLROnPlateau(), Average()])
    states = [{"wait": 3}, {"steps": 5}, {"keys": None}]
    found.restore(states, ["EarlyStopping", "Average", "CSVLogger"])
    assert found.agreed() == [{"steps": 5}, {"wait": 3}, {}, {}]
    found = CarriedStates([Average(), stopping()])
    found.restore([{"steps": 5}, {"wait": 3}])
    assert found.agreed() == [{"steps": 5}, {"wait": 3}]
