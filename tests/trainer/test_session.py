"""A loop of the caller's trains step by step, in this process: the bits of `fit`, and where it goes on."""

from __future__ import annotations

import itertools
import json
import os
import signal

import keras
import pytest
from heliostat.trainer import ConfigurationError, EverySteps, RunPausedError, SessionError, Trainer, TrainingFailedError

from .conftest import dense_data, fingerprint
from .faults import events_of
from .helpers import die, local_trainer
from .models import linear, normalised

pytestmark = pytest.mark.engine

ROWS, EPOCHS, HALVED_AT = 71, 3, 1
TRAIN, VALID = dense_data(ROWS), dense_data(23, seed=1)
JOB = {"batch_size": 16, "verbose": 0, "probe": False}


class Halve(keras.callbacks.Callback):
    """What the loop of `trained` does, as a callback."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == HALVED_AT:
            self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate) / 2

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 3:
            self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate) * 0.9


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """What `fit` makes of the same, undisturbed."""
    with local_trainer(normalised, tmp_path_factory.mktemp("plain")) as trainer:
        arguments = {"validation_data": VALID, "loop": "train_on_batch", "callbacks": [Halve()]}
        return trainer.fit(TRAIN, epochs=EPOCHS, **arguments, **JOB)


def epochs_by_hand(s, epochs=range(EPOCHS), then=lambda epoch, step: None):
    """The tutorial's loop; yields the metrics of each epoch that it has trained, and calls `then` before each step."""
    for epoch in epochs:
        s.reset_metrics()
        if epoch == HALVED_AT:
            s.learning_rate = s.learning_rate / 2
        logs, valid_logs = {}, {}
        for step in s.steps(epoch):
            if step == 3:
                s.learning_rate = s.learning_rate * 0.9
            then(epoch, step)
            logs = s.train_on_batch(step)
        s.reset_metrics()
        for step in s.validation_steps(epoch):
            valid_logs = s.test_on_batch(step)
        if logs:
            yield epoch, logs, valid_logs


def session(trainer, **arguments):
    return trainer.session(TRAIN, VALID, **JOB | arguments)


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_steps_have_the_bits_of_fit(plain, tmp_path, workers):
    with local_trainer(normalised, tmp_path, workers=workers) as trainer:
        with session(trainer) as s:
            told = list(epochs_by_hand(s))
        assert fingerprint(s.result) == fingerprint(plain)
        for epoch, logs, valid_logs in told:
            both = logs | {f"val_{name}": value for name, value in valid_logs.items()}
            assert both == {name: values[epoch] for name, values in s.result.history.items()}
        assert len(told) == EPOCHS
        assert trainer.evaluate(VALID)["loss"] == pytest.approx(plain.history["val_loss"][-1], rel=1e-5)
        with session(trainer) as again:  # a fit that follows goes on
            list(epochs_by_hand(again, range(1)))
        assert again.result.run_dir != s.result.run_dir
        assert again.result.sha256 != s.result.sha256


DEATHS = list(itertools.product(["compute", "reduce", "summed", "applied", "validation"], [0, 1]))


@pytest.mark.parametrize(
    ("point", "worker"),
    [pytest.param(*each, marks=[] if each == ("summed", 0) else pytest.mark.slow) for each in DEATHS],
)
def test_a_worker_dies_under_it(plain, tmp_path, at, point, worker):
    at(point, None if point == "validation" else 7, die, worker)
    with local_trainer(normalised, tmp_path, workers=2) as trainer, session(trainer) as s:
        list(epochs_by_hand(s))
    assert fingerprint(s.result) == fingerprint(plain)
    assert len(events_of(s.result.run_dir, "lost")) == 1


@pytest.mark.slow
def test_all_workers_die_and_come_back_to_where_the_loop_is(plain, tmp_path, at):
    """From a checkpoint that is some steps and settings behind."""
    for worker in (0, 1):
        at("reduce", 9, die, worker)
    with local_trainer(normalised, tmp_path, workers=2) as trainer:
        with session(trainer, checkpoint_every=EverySteps(4)) as s:
            steps = []
            list(epochs_by_hand(s, then=lambda epoch, step: steps.append((epoch, step))))
    assert fingerprint(s.result) == fingerprint(plain)
    assert steps == [(epoch, step) for epoch in range(EPOCHS) for step in range(5)]  # the loop has noticed nothing
    assert [each["restarted"] for each in events_of(s.result.run_dir, "formed")].count(True) == 1


class Left(Exception):
    pass


def leave_at(*place):
    def look(epoch, step):
        if (epoch, step) == place:
            raise Left

    return look


LEFT_AT = [(0, 0), (1, 0), (1, 3), (1, 4), (2, 0)]


@pytest.mark.parametrize(
    "place", [pytest.param(each, marks=[] if each == (1, 3) else pytest.mark.slow) for each in LEFT_AT]
)
def test_a_loop_that_is_left_goes_on_where_it_was(plain, tmp_path, place):
    """What it has set for what is done does not count again, and what it had not said yet counts once."""
    with local_trainer(normalised, tmp_path) as trainer:
        with pytest.raises(Left) as left, session(trainer) as s:
            list(epochs_by_hand(s, then=leave_at(*place)))
        assert "heliostat resume" in "\n".join(left.value.__notes__)
        with pytest.raises(RunPausedError):
            _ = s.result
    with local_trainer(normalised, tmp_path) as trainer:
        steps = []
        with session(trainer) as s:
            list(epochs_by_hand(s, then=lambda epoch, step: steps.append((epoch, step))))
    assert fingerprint(s.result) == fingerprint(plain)
    assert steps == [each for each in itertools.product(range(EPOCHS), range(5)) if each >= place]


@pytest.mark.slow
def test_a_pause_after_the_loop_has_spoken_does_not_count_it_twice(plain, tmp_path, at):
    """The rate was set for step 3, whose sum was never made: it is in the checkpoint."""
    with local_trainer(normalised, tmp_path, workers=2) as trainer:
        s = session(trainer)
        at("compute", 8, lambda: s._dialogue.pause("a test"), 0)
        with pytest.raises(RunPausedError), s:
            list(epochs_by_hand(s))
    with local_trainer(normalised, tmp_path) as trainer, session(trainer) as s:
        steps = []
        list(epochs_by_hand(s, then=lambda epoch, step: steps.append((epoch, step))))
    assert steps[0] == (1, 3)
    assert fingerprint(s.result) == fingerprint(plain)


@pytest.mark.slow
def test_a_finished_session_hands_its_result_out_again(plain, tmp_path):
    for _ in range(2):
        with local_trainer(normalised, tmp_path) as trainer, session(trainer) as s:
            list(epochs_by_hand(s))
            assert s.epoch == EPOCHS
        assert fingerprint(s.result) == fingerprint(plain)
    with (
        local_trainer(normalised, tmp_path) as trainer,
        pytest.raises(SessionError, match="epochs=4"),
        session(trainer) as s,
    ):
        s.steps(EPOCHS)
    with local_trainer(normalised, tmp_path) as trainer, session(trainer, epochs=EPOCHS + 1) as s:
        assert [epoch for epoch, *_ in epochs_by_hand(s, range(EPOCHS + 1))] == [EPOCHS]
    assert len(s.result.history["loss"]) == EPOCHS + 1


def test_the_loop_ends_the_run_where_it_likes(tmp_path):
    """Before all epochs that were announced; a second look takes the result, as after early stopping."""
    for trained in (2, 0):
        with local_trainer(linear(), tmp_path) as trainer, session(trainer, epochs=5) as s:
            assert len(list(epochs_by_hand(s, range(2)))) == trained
        assert len(s.result.history["val_loss"]) == 2
    assert json.loads((s.result.run_dir / "run.json").read_text())["stopped_early"]


def test_callbacks_work_as_in_fit_and_may_end_the_run(tmp_path, train):
    """And validation is the loop's to leave out."""
    made = [keras.callbacks.EarlyStopping("loss", patience=0, min_delta=100), keras.callbacks.CSVLogger("log.csv")]
    with local_trainer(linear(), tmp_path, workers=2) as trainer, session(trainer, callbacks=made) as s:
        trained = []
        for epoch in range(9):
            for step in s.steps(epoch):
                trained.append((epoch, step))
                s.train_on_batch(step)
    assert {epoch for epoch, _ in trained} == {0, 1}
    same = train(linear(), TRAIN, workers=0, epochs=2, loop="train_on_batch")
    assert fingerprint(s.result) == fingerprint(same)
    assert len((s.result.run_dir / "log.csv").read_text().splitlines()) == 3


@pytest.mark.slow
def test_epochs_that_are_parts_of_a_pass(tmp_path, train):
    """The last one of a pass is shorter."""
    with local_trainer(linear(), tmp_path, workers=2) as trainer:
        with trainer.session(TRAIN, steps_per_epoch=2, **JOB) as s:
            counts = [sum(1 for step in s.steps(epoch) if s.train_on_batch(step)) for epoch in range(4)]
    assert counts == [2, 2, 1, 2]
    same = train(linear(), TRAIN, workers=0, epochs=4, steps_per_epoch=2, loop="train_on_batch")
    assert fingerprint(s.result) == fingerprint(same)


@pytest.mark.slow
def test_a_break_pauses_and_says_how_to_go_on(tmp_path, capfd):
    with local_trainer(linear(), tmp_path) as trainer:
        with session(trainer, verbose=2) as s:
            for step in s.steps(0):
                s.train_on_batch(step)
                break
        assert not trainer.hosts  # its workers are gone
        with pytest.raises(RunPausedError, match="before step 1 of the 5 of epoch 0"):
            _ = s.result
    assert "heliostat resume" in capfd.readouterr().out
    assert events_of(tmp_path / "run", "paused")


def ended_by_a_signal(s):
    for step in s.steps(0):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        s.train_on_batch(step)


def test_sigterm_pauses_at_the_next_call(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with local_trainer(linear(), tmp_path) as trainer:
        with pytest.raises(RunPausedError, match="SIGTERM") as paused, session(trainer) as s:
            ended_by_a_signal(s)
    assert paused.value.checkpoint is not None
    assert signal.getsignal(signal.SIGTERM) is before


class Broken(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise ZeroDivisionError("of the callback")


@pytest.mark.slow
def test_an_error_of_a_worker_comes_up_in_the_loop(tmp_path):
    with local_trainer(linear(), tmp_path) as trainer:
        with pytest.raises(TrainingFailedError, match="of the callback") as raised:
            with session(trainer, callbacks=[Broken()]) as s:
                list(epochs_by_hand(s))
        assert not getattr(raised.value, "__notes__", [])
        with pytest.raises(TrainingFailedError, match="of the callback"):
            s.steps(1)


def test_what_is_out_of_turn_is_refused_and_changes_nothing(tmp_path, train):
    with local_trainer(linear(), tmp_path) as trainer, trainer.session(TRAIN, VALID, epochs=1, **JOB) as s:
        with pytest.raises(SessionError, match=r"There is no epoch 1 .*epochs=1"):
            s.steps(1)
        with pytest.raises(SessionError, match="Step 0 of epoch 0"):
            list(s.steps(0))
        for step in s.steps(0):
            with pytest.raises(SessionError, match=f"does not come now: the run is before step {step} of the 5"):
                s.train_on_batch(step + 1)
            with pytest.raises(SessionError, match="does not come now"):
                s.validation_steps(0)
            s.train_on_batch(step)
            if step == 2:
                with pytest.raises(SessionError, match="after 3 steps of epoch 0"):
                    s.reset_metrics()
        with pytest.raises(SessionError, match="was given a ndarray"):
            s.test_on_batch(VALID[0])
        with pytest.raises(SessionError, match="learning_rate = nan"):
            s.learning_rate = float("nan")
        with pytest.raises(SessionError, match=r"trainer\.evaluate\(\) while this trainer trains"):
            trainer.evaluate(VALID)
        with pytest.raises(SessionError, match="not finished: it is after all 5 steps"):
            _ = s.result
        for step in s.validation_steps(0):
            s.test_on_batch(step)
    same = train(linear(), TRAIN, workers=0, epochs=1, validation_data=VALID)
    assert fingerprint(s.result) == fingerprint(same)
    with pytest.raises(SessionError, match="does not come now: the run is over"):
        s.train_on_batch(0)


def test_a_schedule_decides_the_rate(tmp_path):
    scheduled = linear(lambda: keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.5)))
    with local_trainer(scheduled, tmp_path) as trainer, trainer.session(TRAIN, **JOB) as s:
        rates = [s.learning_rate]
        for step in s.steps(0):
            s.train_on_batch(step)
            rates.append(s.learning_rate)
        with pytest.raises(SessionError, match="a schedule decides it"):
            s.learning_rate = 0.1
        with pytest.raises(SessionError, match="no validation data"):
            s.validation_steps(0)
    assert rates == pytest.approx([0.1 * 0.5 ** (step / 5) for step in range(6)], rel=1e-5)


def test_what_is_refused_before_the_block(tmp_path):
    trainer = local_trainer(linear(), tmp_path)
    with pytest.raises(ConfigurationError, match="resum="):
        trainer.session(TRAIN, resum=False)
    with pytest.raises(SessionError, match="outside of the session's block"):
        session(trainer).steps(0)


def test_on_a_job_server_it_is_refused(tmp_path):
    trainer = Trainer(linear(), workers=1, address="http://head.example:8265", run_dir=tmp_path / "run")
    with pytest.raises(SessionError, match="heliostat submit"):
        trainer.session("train")
