"""One chief's callbacks act on all workers.

**The idea.** Users write callbacks for one process: they set a learning rate, put weights back, stop the run, write
files. Every worker builds its own copies of them, and only the chief's run (the worker of rank 0). After the chief's
hooks it broadcasts what they changed, so that the next step begins alike everywhere:

- before every step, if any callback acts between steps: the stop flag, and the variables that hooks have changed
  (learning rate, weights, whatever it is: `followed_state`);
- after the hooks around epochs and validation: the same. That is how a rate that `LearningRateScheduler` sets, the
  weights that `EarlyStopping` puts back or those that `SwapEMAWeights` validates reach the others; a run whose
  callbacks only look sends a few bytes per epoch;
- with either of them the states of the callbacks themselves, where they have changed.

To the hooks the model is one device's (`hook_model`).

**When the chief dies**, rank 0 is somebody else, in the middle of whatever the last one did. So a worker that is not
the chief remembers each hook that it would have run, until it hears what the chief made of them. If it becomes the
chief before that, it sets up its own copies, restores their states as of when all agreed, runs the hooks that it
remembers, and broadcasts. Some hooks then run twice in the life of a run, the first time on a machine that is gone;
files that callbacks append to are cut back to where they were (`callback_state`). Where the chief's machine does not
see the run folder, files travel as states do, and are all as of when workers agreed (`callback_files`).

**What was not done.** Running callbacks everywhere: each would write the same files, and what they read (a clock, a
random number, a file) may differ between machines, so workers would drift apart. Keras has no counterpart: under
`tf.distribute` one process runs the callbacks for all replicas, and Ray Train's or Horovod's callbacks are written for
many workers by their users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from heliostat.cluster import instruments
from heliostat.cluster.group.calls import Told, broadcast
from heliostat.cluster.group.member import Member
from keras.callbacks import Callback

from ..checkpoints.values import copied, pack, unpack
from ..engine.model import BuiltModel
from ..engine.step import Step
from ..engine.times import TimeSplit
from ..engine.waiting import waiting
from ..events import LogLeftOut, SetTooLate
from ..jobs import EpochLogs, FitJob
from .attributes import Attributes
from .callback_files import CallbackFiles
from .callback_hooks import has_batch_hooks, hooks_of
from .callback_state import State, callback_state, prepare_take_over, restore_callback
from .carried_states import CarriedStates
from .chiefs_message import ChiefsMessage
from .epoch_logs import Logs, plain_logs
from .followed_state import FollowedState
from .hooks_here import HooksHere
from .position import Position

# The chief's callbacks may take long (a checkpoint, a plot): its peers wait for it, its death still ends the wait.
DEADLINE_S = 24 * 3600.0
MAX_MESSAGE_BYTES = 1 << 40
_AROUND_BATCHES = {"on_train_batch_begin", "on_train_batch_end", "on_test_batch_begin", "on_test_batch_end"}


class CallbackRelay:
    """The user's callbacks on one worker: on the chief they run, elsewhere their effects arrive.

    Args:
        callbacks: the user's, this worker's copies.
        built: the model.
        attributes: the Python values that a trace reads.
        member: this worker's membership in the group.
        job: what is trained.
        position: where this worker is in the run.
        files: where callbacks work.
        times: where this worker's time goes.

    Attributes:
        batch_hooks: whether callbacks act between steps; then a control message precedes every step.
        followed: what callbacks change of the training state.
        engine: computes steps; None until they are traced.
        set_attributes: the Python values that callbacks have set so far, as `Attributes.apply` takes them.
    """

    def __init__(
        self,
        callbacks: Sequence[Callback],
        built: BuiltModel,
        attributes: Attributes,
        member: Member,
        job: FitJob,
        position: Position,
        files: CallbackFiles,
        times: TimeSplit,
    ) -> None:
        self._callbacks, self._built, self._member = tuple(callbacks), built, member
        self.engine: Step | None = None
        self._job, self._position, self._files, self._times = job, position, files, times
        self.batch_hooks = has_batch_hooks(callbacks)
        self._hooks = set().union(*map(hooks_of, self._callbacks))  # before they run: the same on all workers
        if self._callbacks:
            self._hooks.add("on_train_begin")  # gives them their model, before their state is asked for
        self._remembered: list[tuple[str, tuple[object, ...]]] = []
        self._here = HooksHere(self._callbacks, built, member, job, position, times)
        self._carried = (*self._callbacks, self._here.drawn) if self._callbacks else ()
        self._states = CarriedStates(self._carried)
        self.followed = FollowedState(built)
        self._attributes = attributes
        self.set_attributes: dict[str, Any] = {}  # Any: plain values
        self._said_late = False
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
            with self._times.part("control", in_traces=False):
                self._call(hook, *args)
        else:
            self._remembered.append((hook, args))

    def run_and_agree(self, hook: str, *args: object, epoch_logs: Logs | None = None) -> None:
        """Run a hook around an epoch, a validation or the run, and let all workers take over what it changed.

        Args:
            hook: its name.
            args: what it is called with.
            epoch_logs: the epoch's numbers, which the chief reports to the driver after the hook; None for none.
        """
        if hook in self._hooks or epoch_logs is not None:
            self.run(hook, *args)
            self._follow(epoch_logs=epoch_logs)
            self._member.is_between_hooks = hook == "on_test_begin"  # weights may be swapped until on_test_end

    def _call(self, hook: str, *args: object) -> None:
        """Call a hook of all callbacks with the same logs, to which each may add for those after it."""
        self._sync()
        self.followed.note()
        if self.engine is None or hook not in _AROUND_BATCHES:
            self._attributes.note()
            self._here.model.add(self._attributes.variables)
        if not self._here.is_set_up:
            self._set_up()
        self._here.call(hook, args)
        self._states.hook_ran(hook)

    def _set_up(self) -> None:
        """Give the callbacks their model; make them go on where another chief's stopped, if there was one."""
        self._files.enter(self._generation)
        self._here.set_up()
        self._states.all_ran()
        if not self._states.has_agreed:
            return
        states = [copied(state, "state") for state in self._states.agreed()]  # arrays may be changed in place
        carried = [(callback, state) for callback, state in zip(self._carried, states, strict=True) if state]
        for callback, _ in carried:
            prepare_take_over(callback)
        self._here.begin_again()
        self.followed.undo()  # what on_train_begin did to the model, it did when the run began
        self._attributes.apply(self.set_attributes)
        self._attributes.forget()
        self._attributes.note()
        for callback, state in carried:
            restore_callback(callback, state)

    def _run_remembered(self) -> bool:
        """On a new chief: run what the last one may not have finished; returns whether that ends the epoch."""
        remembered, self._remembered = self._remembered, []
        for hook, args in remembered:
            ends_step = hook == "on_train_batch_end"
            if ends_step:
                self._sync()
                args = (args[0], {} if self.engine is None else self.engine.metrics.logs())
            self._call(hook, *args)
            if ends_step and self._built.model.stop_training:
                return True
        return False

    # -- what all workers take over -------------------------------------------------------------------------------

    def before_step(self) -> None:
        """Take over from the chief what its hooks changed; `position.steps_over` says if no step follows."""
        if self.batch_hooks:
            self._follow_step(ends_steps=False)

    def after_steps(self) -> None:
        """The same after an epoch's last step; where callbacks ended the epoch, that has been said already."""
        if self.batch_hooks and not self._position.steps_over:
            self._follow_step(ends_steps=True)

    def _follow_step(self, *, ends_steps: bool) -> None:
        self._position.steps_over = self._follow(between_steps=True, ends_steps=ends_steps).steps_over

    def _follow(
        self, *, between_steps: bool = False, ends_steps: bool = False, epoch_logs: Logs | None = None
    ) -> ChiefsMessage:
        """Let all workers hear what the chief's hooks have made.

        Args:
            between_steps: of an epoch; only callbacks whose hooks have run are asked for their states.
            ends_steps: it was the epoch's last step.
            epoch_logs: see `run_and_agree`.
        """
        model = self._built.model

        def produce() -> memoryview:
            over = self._run_remembered() or ends_steps
            if epoch_logs is not None:
                self._report(epoch_logs)
            return ChiefsMessage(
                stops=bool(model.stop_training),
                steps_over=over,
                files_version=self.files_version(),
                changed=self.followed.changes(),
                attributes=self._set_by_callbacks(),
                states=self._changed_states(between_steps=between_steps),
            ).packed()

        with waiting(self._times, self._member, "control", asleep="control" if self._member.is_chief else "hooks"):
            told = broadcast(self._member, produce, MAX_MESSAGE_BYTES, DEADLINE_S)
        with self._times.part("control", in_traces=False):
            return self._heard(told)

    def _heard(self, told: Told) -> ChiefsMessage:
        """Take over what the chief has told."""
        model, message = self._built.model, ChiefsMessage.of(told.payload)
        model.stop_training = message.stops
        if not told.is_own:
            self.followed.undo()
            self._attributes.apply(message.attributes)
        if message.changed:
            self._sync()
            self.followed.take(message.changed)
        self.set_attributes |= message.attributes
        self.followed.forget()
        self._attributes.forget()
        self._agree(message)
        return message

    def follow_beside(self, beside: Sequence[tf.Variable]) -> None:
        """The steps are traced: follow what they read beside the state, beginning with the chief's values of it."""
        self.followed.add(beside)
        if beside:
            produce = lambda: pack({str(place): value for place, value in self.followed.beside().items()})  # noqa: E731
            told = broadcast(self._member, produce, MAX_MESSAGE_BYTES, DEADLINE_S)
            self.followed.take({int(place): value for place, value in unpack(told.payload).items()})

    def _set_by_callbacks(self) -> dict[str, Any]:  # Any: plain values
        """On the chief: the Python values that hooks have set; said once where no trace will see them."""
        if self.engine is None:
            self._attributes.refuse_what_cannot_travel()
        changes = self._attributes.changes()
        shown = sorted(each.replace("\n", ".") for each in changes if not each.partition("\n")[2].startswith("_"))
        if shown and self.engine is not None and not self._said_late:
            self._said_late = True
            self._member.send(SetTooLate(names=tuple(shown)))
        return changes

    def _sync(self) -> None:
        """Bring up to date what hooks look at."""
        if self.engine is not None:
            self.engine.sync_variables()

    def _report(self, logs: Logs) -> None:
        """Tell the driver the epoch's numbers, once the chief's callbacks have run."""
        kept, left_out = plain_logs(logs)
        for name, what in left_out.items():
            callback = self._here.authors.get(name, "unknown")
            if (name, callback) not in self._said_left_out:
                self._said_left_out.add((name, callback))
                self._member.send(LogLeftOut(key=name, callback=callback, what=what))
        stopped = bool(self._built.model.stop_training)
        with self._times.part("epoch_end", in_traces=False):
            self._member.mailbox.request(EpochLogs(epoch=self._position.epoch, logs=kept, stopped=stopped))

    # -- states of the callbacks ----------------------------------------------------------------------------------

    def states(self) -> list[State]:
        """The callbacks' states: on the chief as they are, elsewhere as they were when the workers last agreed."""
        if self._here.is_set_up and self._member.is_chief:
            return [callback_state(callback) for callback in self._carried]
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

    def restore_attributes(self, attributes: dict[str, Any], beside: Mapping[str, np.ndarray]) -> None:
        """Go on from a snapshot's Python values, and its values of what the steps read beside the state."""
        self.set_attributes = dict(attributes)
        self._attributes.apply(attributes)
        if len(beside) == len(self.followed.beside()):
            self.followed.take({int(place): value for place, value in beside.items()})

    @property
    def _generation(self) -> int:
        """The group's, counted on over all runs in the run folder."""
        return self._job.first_generation + self._member.generation

    def _changed_states(self, *, between_steps: bool) -> memoryview | None:
        """What the others have to hear of the states of the chief's callbacks."""
        if not self._here.is_set_up or self._member.num_workers == 1:
            return None
        return self._states.changes(self._member.generation, between_steps=between_steps)

    def _agree(self, message: ChiefsMessage) -> None:
        """All workers have heard the same: hooks are done, and this is what changed of the callbacks' states."""
        self._states.agree(self._member.generation, message.states)
        self._files.agree(message.files_version)
        self._remembered = []
