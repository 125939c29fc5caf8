"""One look at a step: it is run eagerly on some rows, and nothing is assigned.

The engine's own trace is for the rows of a microbatch, draws as a run draws, and tells no gradients of single applies.
So the step runs here without a graph, in a scope that gives it the model's values as they are and keeps what it
assigns. Every `apply` of every optimizer is noted, and so is what tapes gave, since a step may change a gradient before
it applies it. Weights stay as they are while it runs: what a second apply of the step is given is judged at the
weights of the step's start. Functions that are decorated with `tf.function` run without a graph, too: they keep what
they have traced, and would keep values of this scope.

Only reading Keras's variables is looked after here. That a step assigns no others has been proved on its graph
(`capture.refuse_impure_ops`), which is traced before.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import keras
import ml_dtypes
import numpy as np
import tensorflow as tf

from ..global_sums import Reduction, reduced_by
from . import private_api, private_models
from .capturing import added
from .logs import StepLogs, numbers_of, state_sum
from .metric_rules import MetricVariable
from .model import BuiltModel
from .private_optimizers import optimizer_classes
from .probe_draws import rows_alike
from .probe_findings import Kind, Look, Place
from .python_draws import kept_draws
from .replaced import replaced_here

Step = Callable[[Mapping[str, tf.Tensor]], StepLogs]
"""Takes columns by name; does what a step does, and returns what it returns."""
LOSS_SCALE = 64.0  # that of an optimizer overflows in float16 before it has adapted; without one gradients vanish there
ROUNDINGS = 8  # so many units in the last place may a change of state be off


class LookScope(keras.StatelessScope):
    """Gives variables their own values, or those that the step has assigned.

    Attributes:
        assigned: the variables that it has assigned, by id.
        versions: of those that are trained what tapes see: the variable itself, then one for every assignment. A
            gradient for a variable is that through all reads of it, before and after an assignment.
    """

    def __init__(self, built: BuiltModel, start: Sequence[tuple[keras.Variable, tf.Tensor]]) -> None:
        super().__init__(start, collect_losses=True)
        self._built = built
        self.assigned: dict[int, keras.Variable] = {}
        self.versions: dict[int, list[tf.Variable]] = {}

    def add_update(self, update: tuple[keras.Variable, tf.Tensor]) -> None:
        """Keep an assignment."""
        variable, value = update
        self.assigned[id(variable)] = variable
        if variable.trainable:
            value = tf.Variable(value)
            self.versions.setdefault(id(variable), [self._built.components(variable)[0]]).append(value)
        super().add_update((variable, value))

    def get_current_value(self, variable: keras.Variable) -> tf.Tensor | tf.Variable | None:
        """What the step sees: of a variable that it has not assigned the variable itself, so that tapes see it."""
        value = super().get_current_value(variable)
        if value is None and private_api.tf_variable(variable) is not None:
            return self._built.components(variable)[0]
        return value


class Observer:
    """Looks at a step.

    Args:
        built: the model.
        step: trains or evaluates.
        trains: whether it applies gradients, and what it assigns counts.
        logged: names of the numbers that it returns and no metric holds.

    Attributes:
        asked: of the last look what each `global_sum` or `global_mean` was given, in order.
        sums: places of state that adds up over microbatches (`aggregation="sum"`).
    """

    def __init__(self, built: BuiltModel, step: Step, *, trains: bool, logged: Collection[str]) -> None:
        self._built, self._step, self._trains, self._logged = built, step, trains, logged
        self.asked: list[list[tf.Tensor]] = []
        self.sums: set[Place] = set()

    def look(
        self,
        rows: Mapping[str, np.ndarray],
        weights: np.ndarray,
        answers: Sequence[Sequence[tf.Tensor]] = (),
        scale: float = 1.0,
    ) -> Look:
        """Run the step on rows.

        Args:
            rows: by column.
            weights: those by which the run multiplies, see `layout.microbatch_weights`.
            answers: what calls of `global_sum` and `global_mean` give, in order: what they were given for the whole of
                which these rows are a part. Without them these rows are the whole.
            scale: so many times as large are gradients that tapes give.
        """
        self.asked = []
        built = self._built
        private_api.use_global_generator(built.generators[0])
        start = [(g.state, tf.identity(built.components(g.state)[0])) for g in built.generators]
        start += [(m.variable, tf.constant(m.initial)) for m in built.metrics]
        scope = LookScope(built, start)
        noted = _Noted(scope.versions, scale)
        with (
            tf.device(built.components(built.generators[0].state)[0].device),
            _without_graphs(),
            kept_draws(),  # what the step draws from these is drawn once here
            rows_alike(),
            noted.all_applies(),
            reduced_by(lambda reduction, values: self._reduced(noted, answers, reduction, values)),
            private_api.unscaled_losses(),
            private_models.kept_loss_ids(built.model),
            scope,
        ):
            returned = self._step({name: tf.constant(values) for name, values in rows.items()})
            values, noise = dict(noted.values), dict[Place, float]()
            for name, value in numbers_of(returned).items():
                if name in self._logged:
                    values[Place("number", name)] = _flat(value)
            if self._trains:
                self._note_state(scope, values, noise)
            metrics = [self._metric_state(m, scope, weights) for m in built.metrics]
        return Look(values, noise, metrics, frozenset(noted.changed))

    def _reduced(
        self,
        noted: _Noted,
        answers: Sequence[Sequence[tf.Tensor]],
        reduction: Reduction,
        values: list[tf.Tensor],
    ) -> list[tf.Tensor]:
        """Note what a sum or mean over the whole batch is asked of; give what the whole gave."""
        number = len(self.asked)
        self.asked.append(values)
        kind: Kind = "global_sum" if reduction == "sum" else "global_mean"
        noted.values[Place(kind, f"call {number + 1}")] = np.concatenate([_flat(value) for value in values])
        return list(answers[number] if number < len(answers) else map(tf.identity, values))

    def results(self, states: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """What metrics in these states tell, by name."""
        mapping = [
            (m.variable, tf.cast(tf.reshape(state, m.variable.shape), m.variable.dtype))
            for m, state in zip(self._built.metrics, states, strict=True)
        ]
        with keras.StatelessScope(mapping):
            return {name: _flat(value) for name, value in numbers_of(self._built.model.get_metrics_result()).items()}

    def merged(self, first: Look, second: Look) -> list[np.ndarray]:
        """State of metrics after two parts, put together as a run does."""
        merge = {"sum": np.add, "max": np.maximum, "min": np.minimum}
        states = zip(self._built.metrics, first.metrics, second.metrics, strict=True)
        return [np.asarray(merge[m.rule](one, other)) for m, one, other in states]

    def _note_state(self, scope: LookScope, values: dict[Place, np.ndarray], noise: dict[Place, float]) -> None:
        """Note how much state has changed."""
        apart = {id(g.state) for g in self._built.generators} | {id(m.variable) for m in self._built.metrics}
        for key, variable in scope.assigned.items():
            if key in apart or variable.aggregation == "only_first_replica":
                continue
            before = _flat(self._built.components(variable)[0])
            is_float = keras.backend.is_float_dtype(variable.dtype)
            place = Place("state" if is_float else "count", variable.path)
            values[place] = _flat(scope.get_current_value(variable)) - before
            if is_float:
                unit = float(ml_dtypes.finfo(variable.dtype).eps)  # type: ignore[no-untyped-call]
                noise[place] = ROUNDINGS * unit * float(np.linalg.norm(before))
            if variable.aggregation == "sum":
                self.sums.add(place)

    def _metric_state(self, metric: MetricVariable, scope: LookScope, weights: np.ndarray) -> np.ndarray:
        """What rows bring to a metric's state."""
        if metric.rule == "sum":
            return _flat(state_sum(self._built.model, metric, scope, weights))
        return _flat(scope.get_current_value(metric.variable))


class _Noted:
    """What optimizers were given, and what tapes gave, as they come.

    Args:
        versions: those of `LookScope`.
        scale: so many times as large are gradients that tapes give.

    Attributes:
        values: by place.
        changed: places of gradients that are not applied as tapes gave them.
    """

    def __init__(self, versions: Mapping[int, Sequence[tf.Variable]], scale: float) -> None:
        self._versions, self._scale = versions, scale
        self.changed: set[Place] = set()
        self._given: dict[int, object] = {}  # kept, lest another tensor gets the same id
        self.values: dict[Place, np.ndarray] = {}
        self._from_tapes: dict[int, np.ndarray] = {}
        self._times: Counter[str] = Counter()

    @contextlib.contextmanager
    def all_applies(self) -> Iterator[None]:
        """Inside the block optimizers apply nothing, and scale no losses but by a constant."""
        of_tape = tf.GradientTape.gradient

        def gradient(tape: tf.GradientTape, target: object, sources: object, *args: object, **named: object) -> object:
            flat = tf.nest.flatten(sources)
            versions = [list(self._versions.get(id(source), [source])) for source in flat]
            found = of_tape(tape, target, versions, *args, **named)
            gradients = list(map(added, found))
            for place, (source, each) in enumerate(zip(flat, gradients, strict=True)):
                if each is None:
                    continue
                if self._scale != 1.0 and isinstance(source, keras.Variable):
                    gradients[place] = each = tf.convert_to_tensor(each) * self._scale
                self._given[id(each)] = each
                self._from_tapes[id(source)] = self._from_tapes.get(id(source), 0.0) + _flat(each)
            return tf.nest.pack_sequence_as(sources, gradients)

        def apply(
            optimizer: keras.optimizers.Optimizer, grads: Sequence[object], variables: Sequence[object] | None = None
        ) -> None:
            self._apply(optimizer, list(grads), variables)

        stands_for = {"apply": apply, "scale_loss": lambda _, loss: loss * tf.cast(LOSS_SCALE, loss.dtype)}
        with contextlib.ExitStack() as stack:
            for kind in optimizer_classes():
                own = {name: function for name, function in stands_for.items() if name in vars(kind)}
                stack.enter_context(replaced_here(kind, **own))
            stack.enter_context(replaced_here(tf.GradientTape, gradient=gradient))
            yield

    def _apply(
        self, optimizer: keras.optimizers.Optimizer, grads: Sequence[object], variables: Sequence[object] | None
    ) -> None:
        self._times[optimizer.name] += 1
        times = self._times[optimizer.name]
        name = optimizer.name if times == 1 else f"{optimizer.name}, time {times}"
        if variables is None:
            variables = private_api.trainable_variables(optimizer)
        present = [(each, id(v)) for each, v in zip(grads, variables, strict=False) if each is not None]
        if not present:
            return
        place = Place("gradient", name)
        self.values[place] = np.concatenate([_flat(each) for each, _ in present])
        if not all(id(each) in self._given for each, _ in present):
            self.changed.add(place)
        if all(key in self._from_tapes for _, key in present):
            raw = np.concatenate([self._from_tapes[key] for _, key in present])
            self.values[Place("raw gradient", name)] = raw


@contextlib.contextmanager
def _without_graphs() -> Iterator[None]:
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def _flat(value: object) -> np.ndarray:
    """A tensor or variable as float64 ``[elements]``; a sparse gradient made dense."""
    return np.ravel(tf.cast(tf.convert_to_tensor(value), tf.float64))
