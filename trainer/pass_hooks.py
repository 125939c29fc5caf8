"""Callbacks of `evaluate` and `predict`: hooks of this process, called around a pass that workers make.

In Keras a callback of a pass sees the model, the numbers at the end, and each batch. The model and the numbers it gets
here, and of a prediction each batch, once it is there: in the order of the rows, as in Keras. It lives in the process
that has made the call, so what it notes in itself is there afterwards. Its model is a copy of the workers'. So what
Keras would allow a callback to do to the weights is refused, and so are hooks around the batches of an evaluation:
workers compute these in no order, and the numbers after each are nowhere.

Not done: hooks on the chief, as in `fit`. There callbacks act on training; here they only look, and whoever has made
the call wants to see what they have seen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from .config import weights_digest
from .driver.arrays import Arrays
from .errors import ConfigurationError

if TYPE_CHECKING:
    import keras

PassKind = Literal["test", "predict"]


class PassHooks:
    """The hooks of one pass.

    Args:
        callbacks: the caller's; without any nothing happens, and Keras is not loaded.
        kind: "test" for `evaluate`, "predict" for `predict`.
        model: gives the model, as callbacks are to see it.
        num_steps: batches of the pass; None where that is not known.

    Raises:
        ConfigurationError: a callback has hooks that are not called here.
    """

    def __init__(
        self,
        callbacks: Sequence[keras.callbacks.Callback],
        kind: PassKind,
        model: Callable[[], keras.Model],
        num_steps: int | None,
    ) -> None:
        self._kind, self._has_batch_hooks = kind, False
        self._list: keras.callbacks.CallbackList | None = None
        if not callbacks:
            return
        import keras

        self._has_batch_hooks = _has_batch_hooks(callbacks, kind)
        self._model = model()
        self._list = keras.callbacks.CallbackList(
            list(callbacks), model=self._model, epochs=1, steps=num_steps, verbose=0
        )

    def begin(self) -> None:
        """Before the pass."""
        self._call("begin")

    def batches(self, outputs: Arrays, rows_at_once: int) -> None:
        """The batches of a prediction, once all are there.

        Args:
            outputs: arrays ``[rows, ...]``, or the model's structure of them.
            rows_at_once: of a batch.
        """
        if self._list is None or not self._has_batch_hooks:
            return
        import keras

        num_rows = len(keras.tree.flatten(outputs)[0])
        for number, start in enumerate(range(0, num_rows, rows_at_once)):
            self._list.on_predict_batch_begin(number)
            stop = start + rows_at_once
            batch = keras.tree.map_structure(lambda rows, a=start, b=stop: rows[a:b], outputs)
            self._list.on_predict_batch_end(number, {"outputs": batch})

    def end(self, logs: dict[str, Any] | None = None) -> None:
        """After the pass; `logs` are its numbers."""
        self._call("end", *(() if logs is None else (dict(logs),)))

    def _call(self, when: Literal["begin", "end"], *logs: dict[str, Any]) -> None:
        if self._list is None:
            return
        hook = f"on_{self._kind}_{when}"
        with _weights_kept(self._model, hook):
            getattr(self._list, hook)(*logs)


def _has_batch_hooks(callbacks: Sequence[keras.callbacks.Callback], kind: PassKind) -> bool:
    """Whether any callback looks at batches of a pass; raises ConfigurationError for those of an evaluation."""
    from .worker.callback_hooks import hooks_of

    wanted = {f"on_{kind}_batch_begin", f"on_{kind}_batch_end"}
    for callback in callbacks:
        if (found := sorted(wanted & hooks_of(callback))) and kind == "test":
            raise ConfigurationError(
                f"The callback {type(callback).__name__} has {found[0]}, and the batches of evaluate are computed by "
                "workers in no order. Use on_test_begin and on_test_end, which has the numbers; or evaluate parts, "
                "such as dataset.take(n), one after another."
            )
        if found:
            return True
    return False


@contextlib.contextmanager
def _weights_kept(model: keras.Model, hook: str) -> Iterator[None]:
    """Raise ConfigurationError if the block changes weights: the workers' would stay what they are."""
    before = weights_digest(model.get_weights())
    yield
    if weights_digest(model.get_weights()) != before:
        raise ConfigurationError(
            f"A callback has changed weights in {hook}, and evaluate and predict use those of the workers, as fit has "
            "left them. Train with other weights: fit(initial_weights=...), or change them in a callback of fit."
        )
