"""Errors in the user's model, steps and data."""

from __future__ import annotations

from .base import TrainerError


class ModelError(TrainerError):
    """``build_model`` failed, or what it returned is no model that can be trained.

    Raised on the workers, before the first step. Correct `build_model`; the message says what is wrong with what it
    returned.
    """


class NotCompiledError(ModelError):
    """The model was returned without a call of ``compile()``.

    Call ``model.compile(optimizer=..., loss=...)`` in `build_model`, also for custom steps.
    """


class UnsupportedModelError(ModelError):
    """The model asks for something that Heliostat refuses rather than computes wrongly.

    Raised before the first step. The message says what to write instead.
    """


class UnsupportedModelAttributeError(UnsupportedModelError):
    """A callback sets something that a traced step may read, and that cannot be brought to other workers.

    Other workers would compute with another value than the chief. Set it in `build_model`, or keep it on the callback.

    Args:
        place: what it sets, such as ``model.share``.
        kind: the type of the value.
    """

    def __init__(self, place: str, kind: str) -> None:
        super().__init__(place, kind)
        self.place, self.kind = place, kind

    def __str__(self) -> str:
        return (
            f"A callback sets {self.place} to a {self.kind} before the first step. The step is traced after that, on "
            "every worker, and other workers cannot have it: what travels are None, numbers, text, arrays, and tuples, "
            "lists and dicts of them. Set it in build_model instead; if the step does not read it, keep it on the "
            "callback itself (self.x)."
        )


class UnsupportedModelVariableError(UnsupportedModelError):
    """A callback reaches another copy of a variable than the step reads.

    What the callback assigns would have no effect. Put the variable on the model, and reach it there.

    Args:
        name: of the variable.
        path: by which the callback reaches its copy.
    """

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name, path)
        self.name, self.path = name, path

    def __str__(self) -> str:
        return (
            f"The step reads a variable {self.name!r} beside the model, and a callback reaches another one of "
            f"this name ({self.path}): build_model makes it on every worker, and a global or a closure holds the last "
            "one. What the callback assigns would have no effect. Put the variable on the model or on its loss "
            "(self.share = keras.Variable(...)) and let the callback reach it there (self.model.share), or make it "
            "once, outside of build_model."
        )


class UnsupportedModelChangeError(UnsupportedModelError):
    """A callback compiles the model, or has its step made anew, in the middle of a run.

    The step of a run is traced once. Train in two fits, the second with ``prepare=``.

    Args:
        callback: its class.
        hook: in which it does.
    """

    def __init__(self, callback: str, hook: str) -> None:
        super().__init__(callback, hook)
        self.callback, self.hook = callback, hook

    def __str__(self) -> str:
        return (
            f"The callback {self.callback} compiles the model, or makes its train_function anew, in {self.hook}. The "
            "step of a run is traced once, so that would have no effect here (Keras's own fit fails after compile(): "
            "'NoneType' object is not callable). Train in two fits: trainer.fit(..., epochs=5), then trainer.fit(..., "
            "prepare=function), which goes on with the same weights; function(model) unfreezes layers and calls "
            "model.compile()."
        )


class UnsupportedStepError(TrainerError):
    """The training step does something whose result would depend on where it is computed.

    Raised while the step is traced or looked at, before the first step. The message names what it does, and what to
    do instead.
    """


class UnsupportedStepInCallbackError(UnsupportedStepError):
    """A callback trains the model.

    It would do so on the chief alone. Make the update in the step, or in another fit.

    Args:
        what: it calls, such as ``model.train_on_batch``.
        callback: its class.
        hook: in which it does.
    """

    def __init__(self, what: str, callback: str, hook: str) -> None:
        super().__init__(what, callback, hook)
        self.what, self.callback, self.hook = what, callback, hook

    def __str__(self) -> str:
        return (
            f"The callback {self.callback} calls {self.what}() in {self.hook}: it trains the model. Only the chief "
            "would, outside of the run's steps, and no checkpoint would know of it. Add these rows to the data, make "
            "the update in the model's train_step (or in fit(loop='custom', train_step=...)), or end this fit and call "
            "trainer.fit() with these rows: it goes on with the same model. Another model may be trained in a callback."
        )


class DataError(TrainerError):
    """The data does not fit the model, or the columns that were asked for.

    Raised before the first step where that can be known, such as for labels beyond the classes; the message has the
    column, and what the model wants.
    """


class RuntimeSetupError(TrainerError):
    """TensorFlow in this process cannot be set up as the run needs it.

    It already runs with other threads or devices, lacks GPUs, or is another version. Call `fit` before other work with
    TensorFlow, or use ``workers=1``, which starts a process of its own.
    """
