"""One chief's callbacks act on all workers.

**The idea.** Users write callbacks for one process: they set a learning rate, put weights back, stop the run, write
files. Every worker builds its own copies of them, and only the chief's run (the worker of rank 0). After the chief's
hooks it broadcasts what they changed, so that the next step begins alike everywhere:

- before every step, if any callback acts between steps: the learning rate and the stop flag, a few bytes (`_CONTROL`);
- after the hooks around epochs: the stop flag, and the whole training state if its digest is another than before them
  (`_CHANGES`). That is how a rate that `LearningRateScheduler` sets, or the weights that `EarlyStopping` puts back,
  reach the others; a run whose callbacks only look sends a few bytes per epoch;
- with either of them the states of the callbacks themselves, where they have changed.

**When the chief dies**, rank 0 is somebody else, in the middle of whatever the last one did. So a worker that is not
the chief remembers each hook that it would have run, until it hears what the chief made of them. If it becomes the
chief before that, it sets up its own copies, restores their states as of when all agreed, runs the hooks that it
remembers, and broadcasts. Some hooks then run twice in the life of a run, the first time on a machine that is gone;
files that callbacks append to are cut back to where they were (`callback_state`). Where the chief's machine does not
see the run folder, files travel as states do, and are all as of when workers agreed (`callback_files`).

**What was not done.** Running callbacks everywhere: each would write the same files, and what they read (a clock, a
random number, a file) may differ between machines, so workers would drift apart. Comparing weights after every step:
a callback that changes weights between two steps is not followed; only the rate and the stop flag are. Keras has no
counterpart: under `tf.distribute` one process runs the callbacks for all replicas, and Ray Train's or Horovod's
callbacks are written for many workers by their users.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from heliostat.cluster import instruments
from heliostat.cluster.group.calls import broadcast
from heliostat.cluster.group.member import Member
from heliostat.cluster.vectors import joined
from keras.callbacks import Callback

from ..checkpoints.values import copied
from ..engine import private_api
from ..engine.model import BuiltModel
from ..engine.state import assign_state, state_bytes, state_digest, state_pieces
from ..engine.step import Step
from ..events import LogLeftOut
from ..jobs import EpochLogs, FitJob
from .callback_files import CallbackFiles
from .callback_hooks import has_batch_hooks, hooks_of
from .callback_state import State, callback_state, prepare_take_over, restore_callback
from .carried_states import CarriedStates
from .epoch_logs import Logs, plain_logs
from .position import Position
from .printed import ChiefsWords

# The chief's callbacks may take long (a checkpoint, a plot): its peers wait for it, its death still ends the wait.
DEADLINE_S = 24 * 3600.0
MAX_MESSAGE_BYTES = 1 << 40
# Learning rate, stop after this step, no step follows, callbacks' states follow, version of callbacks' files.
_CONTROL = struct.Struct("<d???5xQ")
# Stop, callbacks' states follow, version of callbacks' files, bytes of training state, which lies aligned.
_CHANGES = struct.Struct("<??6xQQ40x")


class CallbackRelay:
    """The user's callbacks on one worker: on the chief they run, elsewhere their effects arrive.

    Args:
        callbacks: the user's, this worker's copies.
        engine: computes steps.
        member: this worker's membership in the group.
        job: what is trained.
        position: where this worker is in the run.
        files: where callbacks work.

    Attributes:
        batch_hooks: whether callbacks act between steps; then a control message precedes every step.
    """

    def __init__(
        self,
        callbacks: Sequence[Callback],
        engine: Step,
        member: Member,
        job: FitJob,
        position: Position,
        files: CallbackFiles,
    ) -> None:
        self._callbacks, self._engine, self._member = tuple(callbacks), engine, member
        self._job, self._position, self._files = job, position, files
        self.batch_hooks = has_batch_hooks(callbacks)
        self._hooks = set().union(*map(hooks_of, self._callbacks))  # before they run: the same on all workers
        if self._callbacks:
            self._hooks.add("on_train_begin")  # gives them their model, before their state is asked for
        self._is_set_up = False
        self._remembered: list[tuple[str, tuple[object, ...]]] = []
        self._states = CarriedStates(self._callbacks)
        self._words: ChiefsWords | None = None  # on a chief in a process of its own
        self._digest = ""  # of the training state before hooks ran; empty where none did
        self._authors: dict[str, str] = {}  # of what is in the epoch's logs: names of callbacks' classes
        self._said_left_out: set[tuple[str, str]] = set()

    @property
    def remembered(self) -> tuple[str, ...]:
        """Hooks since the workers last agreed, which a new chief has to run; none on the chief."""
        return tuple(hook for hook, _ in self._remembered)

    # -- hooks ----------------------------------------------------------------------------------------------------

    def run(self, hook: str, *args: object) -> None:
        """Run a hook of the user's callbacks, if one has it, here if this is the chief; otherwise remember it.

        Args:
            hook: its name, such as ``"on_test_begin"``.
            args: what it is called with.
        """
        if hook not in self._hooks:
            return
        if self._member.is_chief and not self._remembered:
            self._call(hook, *args)
        else:
            self._remembered.append((hook, args))

    def run_between_epochs(self, hook: str, *args: object, epoch_logs: Logs | None = None) -> None:
        """Run a hook around an epoch or the run, and let all workers take over what it changed.

        Args:
            hook: its name.
            args: what it is called with.
            epoch_logs: the epoch's numbers, which the chief reports to the driver after the hook; None for none.
        """
        if hook not in self._hooks and epoch_logs is None:
            return
        if hook in self._hooks and self._member.is_chief:
            self.note_state()
        self.run(hook, *args)
        self._follow_changes(epoch_logs)

    def _call(self, hook: str, *args: Any) -> None:  # Any: what Keras gives to hooks
        """Call a hook of all callbacks with the same logs, to which each may add for those after it."""
        if not self._is_set_up:
            self._is_set_up = True
            self._set_up()
        began = time.perf_counter()
        logs: Logs = args[-1] if hook == "on_epoch_end" else {}
        step, epoch = self._position.of_run, self._position.epoch
        heard = contextlib.nullcontext() if self._words is None else self._words.heard(hook, step, epoch)
        try:
            with heard:
                self._call_all(hook, args, logs)
            self._states.hook_ran(hook)
        except BaseException:  # sys.exit(), too
            self._member.step = self._position.of_run
            raise
        instruments.note(hook, began)

    def _call_all(self, hook: str, args: tuple[Any, ...], logs: Logs) -> None:
        for callback in self._callbacks:
            before = dict(logs)
            getattr(callback, hook)(*args)
            self._note_authors(callback, before, logs)

    def _note_authors(self, callback: Callback, before: Logs, logs: Logs) -> None:
        """Note which of an epoch's numbers are of this callback; `before` is what the logs were before its hook."""
        new = (name for name, value in logs.items() if name not in before or value is not before[name])
        self._authors |= dict.fromkeys(map(str, new), type(callback).__name__)

    def _set_up(self) -> None:
        """Give the callbacks their model; make them go on where another chief's stopped, if there was one."""
        if not self._job.settings.local:
            self._words = ChiefsWords(self._member.worker, self._member.send)
        self._files.enter(self._generation)
        keras.callbacks.CallbackList(
            list(self._callbacks),
            model=self._engine.built.model,
            epochs=self._job.wanted.epochs,
            steps=self._engine.steps_per_epoch,
            verbose=0,
        )
        self._states.all_ran()
        if not self._states.has_agreed:
            return
        states = [copied(state, "state") for state in self._states.agreed()]  # arrays may be changed in place
        carried = [(callback, state) for callback, state in zip(self._callbacks, states, strict=True) if state]
        for callback, _ in carried:
            prepare_take_over(callback)
        with self._state_kept():  # what on_train_begin did to the model, it did when the run began
            for callback in self._callbacks:
                callback.on_train_begin({})
        for callback, state in carried:
            restore_callback(callback, state)

    @contextlib.contextmanager
    def _state_kept(self) -> Iterator[None]:
        """Put the training state back as it was before the block."""
        built = self._engine.built
        self._engine.sync_variables()
        kept, stop = state_bytes(built), built.model.stop_training
        yield
        self._engine.sync_variables()
        assign_state(built, kept)
        built.model.stop_training = stop

    def _run_remembered(self) -> bool:
        """On a new chief: run what the last one may not have finished; returns whether that ends the epoch."""
        remembered, self._remembered = self._remembered, []
        for hook, args in remembered:
            ends_step = hook == "on_train_batch_end"
            if ends_step:
                self._engine.sync_variables()
                args = (args[0], self._engine.metrics.logs())
            self._call(hook, *args)
            if ends_step and self._engine.built.model.stop_training:
                return True
        return False

    # -- what all workers take over -------------------------------------------------------------------------------

    def note_state(self, digest: str = "") -> None:
        """Note the training state before hooks of the user's run, unless that was done since the workers agreed.

        Args:
            digest: its digest, if it is known and new.
        """
        if self._callbacks:
            self._digest = digest or self._digest or state_digest(self._engine.built)

    def before_step(self) -> None:
        """Take over learning rate and stop flag from the chief; `position.steps_over` says if no step follows."""
        if self.batch_hooks:
            self._follow_control(ends_steps=False)

    def after_steps(self) -> None:
        """The same after an epoch's last step; where callbacks ended the epoch, that has been said already."""
        if self.batch_hooks and not self._position.steps_over:
            self._follow_control(ends_steps=True)

    def _follow_control(self, *, ends_steps: bool) -> None:
        built = self._engine.built

        def produce() -> memoryview:
            over = self._run_remembered() or ends_steps
            states = self._changed_states(between_steps=True)
            stop = bool(built.model.stop_training)
            control = _CONTROL.pack(_learning_rate(built), stop, over, states is not None, self.files_version())
            return joined([control, np.frombuffer(states, np.uint8)]) if states is not None else memoryview(control)

        message, is_own = broadcast(self._member, produce, MAX_MESSAGE_BYTES, DEADLINE_S)
        rate, built.model.stop_training, self._position.steps_over, with_states, files = _CONTROL.unpack_from(message)
        if not is_own:
            _set_learning_rate(built, rate)
        self._agree(message[_CONTROL.size :] if with_states else None, files)

    def _follow_changes(self, epoch_logs: Logs | None) -> None:
        built = self._engine.built

        def produce() -> memoryview:
            if self._remembered:  # this worker has become the chief in the middle of its callbacks
                self.note_state()
            self._run_remembered()
            if epoch_logs is not None:
                self._report(epoch_logs)
            changed = self._digest and state_digest(built) != self._digest
            state = state_pieces(built) if changed else []
            states = self._changed_states(between_steps=False)
            stop, num_bytes = bool(built.model.stop_training), sum(piece.size for piece in state)
            last = [] if states is None else [np.frombuffer(states, np.uint8)]
            return joined([_CHANGES.pack(stop, states is not None, self.files_version(), num_bytes), *state, *last])

        message, is_own = broadcast(self._member, produce, MAX_MESSAGE_BYTES, DEADLINE_S)
        self._digest = ""
        built.model.stop_training, with_states, files, num_bytes = _CHANGES.unpack_from(message)
        if not is_own and num_bytes:
            assign_state(built, message[_CHANGES.size : _CHANGES.size + num_bytes])
        self._agree(message[_CHANGES.size + num_bytes :] if with_states else None, files)

    def _report(self, logs: Logs) -> None:
        """Tell the driver the epoch's numbers, once the chief's callbacks have run."""
        kept, left_out = plain_logs(logs)
        for name, what in left_out.items():
            callback = self._authors.get(name, "unknown")
            if (name, callback) not in self._said_left_out:
                self._said_left_out.add((name, callback))
                self._member.send(LogLeftOut(key=name, callback=callback, what=what))
        stopped = bool(self._engine.built.model.stop_training)
        self._member.mailbox.request(EpochLogs(epoch=self._position.epoch, logs=kept, stopped=stopped))

    # -- states of the callbacks ----------------------------------------------------------------------------------

    def states(self) -> list[State]:
        """The callbacks' states: on the chief as they are, elsewhere as they were when the workers last agreed."""
        if self._is_set_up and self._member.is_chief:
            return [callback_state(callback) for callback in self._callbacks]
        return self._states.agreed()

    @property
    def names(self) -> list[str]:
        """The callbacks' classes, in the order of `states`."""
        return self._states.names

    def files_version(self) -> int:
        """The version of the callbacks' files that belongs to `states`; on the chief they are brought to the driver."""
        version = self._files.ship(self._generation)
        instruments.fault_point("shipped", self._member.step)
        return version

    def restore_states(self, states: list[State], names: list[str] | None, files_version: int) -> None:
        """Go on from the states of a snapshot, see `CarriedStates.restore`, and from a version of the files."""
        self._states.restore(states, names)
        self._files.agree(files_version)

    @property
    def _generation(self) -> int:
        """The group's, counted on over all runs in the run folder."""
        return self._job.first_generation + self._member.generation

    def _changed_states(self, *, between_steps: bool) -> memoryview | None:
        """What the others have to hear of the states of the chief's callbacks."""
        if not self._is_set_up or self._member.num_workers == 1:
            return None
        return self._states.changes(self._member.generation, between_steps=between_steps)

    def _agree(self, message: memoryview | None, files_version: int) -> None:
        """All workers have heard the same: hooks are done, and this is what changed of the callbacks' states."""
        self._states.agree(self._member.generation, message)
        self._files.agree(files_version)
        self._remembered = []


def _rate_variable(built: BuiltModel) -> keras.Variable | None:
    """Where the optimizer keeps its learning rate; None where a schedule or a function says it."""
    optimizer = built.optimizer
    rate = private_api.learning_rate(private_api.inner_optimizer(optimizer) or optimizer)
    return rate if isinstance(rate, keras.Variable) else None


def _learning_rate(built: BuiltModel) -> float:
    variable = _rate_variable(built)
    return 0.0 if variable is None else float(built.components(variable)[0].numpy())


def _set_learning_rate(built: BuiltModel, rate: float) -> None:
    variable = _rate_variable(built)
    if variable is not None and _learning_rate(built) != rate:
        for part in built.components(variable):
            part.assign(rate)
