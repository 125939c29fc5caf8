"""The model as callbacks see it: one device's.

In a worker the model lies under a `tf.distribute` strategy, and callbacks are written for one device. Some of what they
do fails under a strategy (``float(optimizer.learning_rate)``, a `GradientTape` around the model), some of it computes
something else (`evaluate` cuts its batches among replicas), and the loops have put functions of their own where Keras
keeps its train and test function. So while a hook runs, every variable stands for its part on the first replica, an
ordinary variable of TensorFlow; models and optimizers know of no strategy; and Keras makes its own functions again.
What a hook has changed is brought to the other replicas afterwards (`followed_state`).

A hook may change anything, but it must not train the model: optimizers' other states, row orders and seeds would not
know of it. What would train it is refused by name, and so is what would make a step other than the one that is
computed: `compile` and ``make_train_function(force=True)``. (In Keras's own `fit` the first of these ends with
``'NoneType' object is not callable``.)

What was not done: conversions for variables under a strategy (``__float__`` and the like). That mends what is known,
and leaves tapes, `evaluate` on several replicas and whatever comes next.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import keras

from ..engine import private_api, private_hooks
from ..engine.model import BuiltModel
from ..errors import UnsupportedModelChangeError, UnsupportedStepInCallbackError

# What the loops put into a model, or Keras made for it: in hooks it has those that were made in hooks.
_FUNCTIONS = ("train_function", "test_function", "reset_metrics")
_TRAINING = ("fit", "train_on_batch")
_APPLYING = ("apply", "apply_gradients")


class HookModel:
    """A model that hooks look at, and change.

    Args:
        built: the model.
    """

    def __init__(self, built: BuiltModel) -> None:
        self._built = built
        self._models = private_hooks.models_in(built.model)
        self._parts: dict[int, tuple[keras.Variable, Any]] = {}  # Any: a variable of TensorFlow, which has no types
        self._functions: dict[str, object] = {"train_function": None, "test_function": None}
        self.add([*built.model.variables, *(metric.variable for metric in built.metrics), *built.state])
        self.add([generator.state for generator in built.generators])

    def add(self, variables: Sequence[keras.Variable]) -> None:
        """More variables that hooks may look at."""
        for variable in variables:
            if id(variable) not in self._parts and private_api.tf_variable(variable) is not None:
                self._parts[id(variable)] = variable, self._built.components(variable)[0]

    @contextlib.contextmanager
    def shown(self, callback: object, hook: str) -> Iterator[None]:
        """Inside the block, which calls a hook of a callback, the model is one device's.

        Args:
            callback: whose hook it is.
            hook: its name.

        Raises:
            UnsupportedStepInCallbackError: the hook trains the model.
            UnsupportedModelChangeError: it has compiled the model, or had the step made anew.
        """
        name, model = type(callback).__name__, self._built.model
        compiled = private_hooks.compiled_as(model)
        optimizers = self._optimizers()
        with contextlib.ExitStack() as stack:
            stack.enter_context(private_hooks.on_one_device(self._models, optimizers, list(self._parts.values())))
            stack.enter_context(self._own_functions())
            for owner, names, spoken in (*self._trainers(), *((each, _APPLYING, "optimizer") for each in optimizers)):
                stack.enter_context(_refusing(owner, {each: f"{spoken}.{each}" for each in names}, name, hook))
            yield
            made_anew = vars(model).get("train_function") is not None
        if hook != "on_train_end" and (made_anew or private_hooks.compiled_as(model) != compiled):
            raise UnsupportedModelChangeError(name, hook)

    def _optimizers(self) -> list[keras.optimizers.Optimizer]:
        """The compiled optimizer, those that the step applies, and those inside of them."""
        waiting, found = [self._built.optimizer, *self._built.optimizers], dict[int, keras.optimizers.Optimizer]()
        while waiting:
            each = waiting.pop(0)
            if isinstance(each, keras.optimizers.Optimizer) and id(each) not in found:
                found[id(each)] = each
                waiting += [private_api.inner_optimizer(each), *getattr(each, "optimizers", ())]
        return list(found.values())

    def _trainers(self) -> Iterator[tuple[object, tuple[str, ...], str]]:
        return ((model, _TRAINING, "model") for model in self._models)

    @contextlib.contextmanager
    def _own_functions(self) -> Iterator[None]:
        """Inside the block the model has the functions that Keras has made for it in hooks."""
        attributes = vars(self._built.model)
        ours = {name: attributes.pop(name) for name in _FUNCTIONS if name in attributes}
        attributes.update(self._functions)
        try:
            yield
        finally:
            self._functions = {"train_function": None, "test_function": attributes.get("test_function")}
            for name in _FUNCTIONS:
                attributes.pop(name, None)
            attributes.update(ours)


@contextlib.contextmanager
def _refusing(owner: object, methods: dict[str, str], callback: str, hook: str) -> Iterator[None]:
    """Inside the block, methods of an object are refused.

    Args:
        owner: the object.
        methods: what they are called in messages, by their names.
        callback: who would call them.
        hook: where.
    """

    def refusal(spoken: str) -> Callable[..., NoReturn]:
        def refused(*_args: object, **_named: object) -> NoReturn:
            raise UnsupportedStepInCallbackError(spoken, callback, hook)

        return refused

    attributes = vars(owner)
    attributes.update({name: refusal(spoken) for name, spoken in methods.items()})
    try:
        yield
    finally:
        for name in methods:
            attributes.pop(name, None)
