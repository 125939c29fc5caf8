"""What becomes of every argument of Keras's `fit`, `evaluate` and `predict`, and of names that other libraries have.

One table, for three readers: the methods' signatures have each argument that is `taken` here (a test compares them with
Keras's own, and fails when a new Keras has one that is not in the table), the page `docs/reference/arguments.md` is
this table, and whoever gives a name that a method does not have is answered from it.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from .errors import ConfigurationError
from .errors.texts import joined

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_PASSES, _ALL = ("evaluate", "predict"), ("fit", "evaluate", "predict")


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of Keras.

    Attributes:
        name: its name.
        methods: of which methods.
        text: what it does here: as in Keras, unless this says otherwise.
    """

    name: str
    methods: tuple[str, ...]
    text: str


TABLE: tuple[Argument, ...] = (
    Argument(
        "x",
        _ALL,
        "arrays; or, as one value, a dataset of any kind: a path or URI, a `heliostat.data.Dataset`, a stream of "
        "batches, or a tuple `(x, y)` or `(x, y, sample_weight)` of arrays. `data=` is another name for it",
    ),
    Argument("y", ("fit", "evaluate"), "arrays of targets beside arrays x; of a dataset `targets=` names the column"),
    Argument(
        "batch_size",
        _ALL,
        "rows of one step over all workers; `global_batch_size=` is another name for it. 32 without, of a stream as "
        "many as its first batch has; with `steps_per_epoch` arrays are divided into so many batches",
    ),
    Argument("epochs", ("fit",), "the number of the last epoch"),
    Argument(
        "verbose",
        _ALL,
        '"auto", 0, 1 (a live block), 2 (lines) or "json" (lines for programs), of [our own display]'
        "(../how-to/watch.md); without it `evaluate` and `predict` show nothing",
    ),
    Argument(
        "callbacks",
        _ALL,
        "a list, or one. Those of `fit` run on the chief; those of `evaluate` and `predict` in the calling process, "
        "before the pass and when all of it is there, with `trainer.model` as their model, which they may not change. "
        "`on_test_batch_begin` and `on_test_batch_end` are refused in `evaluate`",
    ),
    Argument(
        "validation_split",
        ("fit",),
        "of arrays the last rows, before they are shuffled; of a dataset the second part of "
        "`dataset.split(1 - fraction)`; not of streams, as in Keras",
    ),
    Argument(
        "validation_data",
        ("fit",),
        "as x, or a tuple `(x, y)` or `(x, y, sample_weight)`; rows weigh 1 where it has no weights. It wins over "
        "`validation_split`",
    ),
    Argument(
        "shuffle",
        ("fit",),
        'True is `"full"`, in an order of our own that depends on the seed alone; `"window"` reads large datasets in '
        "stretches; streams keep the order in which they were read once (Keras shuffles the batches of a `PyDataset`)",
    ),
    Argument("class_weight", ("fit",), "a dict; for one output, and not beside `sample_weight`, as in Keras"),
    Argument(
        "sample_weight",
        ("fit", "evaluate"),
        "arrays beside arrays x, one for each output or each timestep; of a dataset the column, or one for each output "
        "(a list or dict of columns)",
    ),
    Argument("initial_epoch", ("fit",), "the number that callbacks and history have for this run's first epoch"),
    Argument(
        "steps_per_epoch",
        ("fit",),
        "steps after which an epoch ends; the next goes on in the pass, whose last epoch may be shorter, as in Keras. "
        "With it a stream may be endless",
    ),
    Argument(
        "validation_steps", ("fit",), "validate on so many batches, the first ones; on all where there are not so many"
    ),
    Argument("validation_batch_size", ("fit",), "rows of one step of validation; `batch_size` without"),
    Argument(
        "validation_freq", ("fit",), "a number, or a list of epochs (counted from 1); the history has these alone"
    ),
    Argument("steps", _PASSES, "take so many batches, the first ones; all where there are not so many"),
    Argument(
        "return_dict", ("evaluate",), "True without: a dict by name. False: a list, or one number, in Keras's order"
    ),
)
_RATE = "the optimizer, keras.optimizers.Adam(learning_rate=...) say, that build_model compiles the model with"
_GPUS = (
    "Trainer(workers=1, replicas_per_worker=...): one process with so many GPUs of this machine, all of them without "
    "replicas_per_worker; or Trainer(workers=...): a process for each GPU"
)
# What is called otherwise elsewhere, or belongs elsewhere: by name, what to write.
ELSEWHERE: Mapping[str, str] = {
    "workers": "Trainer(workers=...)",
    "num_workers": "Trainer(workers=...)",
    "num_nodes": "Trainer(workers=...): one worker for each machine takes all its GPUs",
    "gpus": _GPUS,
    "num_gpus": _GPUS,
    "n_gpus": _GPUS,
    "gpus_per_worker": "Trainer(replicas_per_worker=...): the GPUs of each worker, all of its machine without",
    "gpu": "Trainer(device='gpu')",
    "devices": "Trainer(replicas_per_worker=...): the devices of each worker; device='cpu' or 'gpu' says which",
    "accelerator": "Trainer(device='gpu'), 'cpu' or 'auto'",
    "use_gpu": "Trainer(device='gpu')",
    "strategy": "Trainer(replicas_per_worker=N): each worker makes its own MirroredStrategy",
    "model": "the first argument, build_model: a function that returns the compiled model",
    "optimizer": "model.compile(optimizer=...) in build_model",
    "loss": "model.compile(loss=...) in build_model",
    "metrics": "model.compile(metrics=...) in build_model",
    "lr": _RATE,
    "learning_rate": _RATE,
    "jit_compile": "model.compile(jit_compile=...) in build_model",
    "generator": "the first argument: a function that yields batches (x, y)",
    "nb_epoch": "epochs=",
    "max_queue_size": "nothing: rows are read ahead by themselves",
    "use_multiprocessing": "nothing: rows are read ahead by themselves",
    "checkpoint": "fit(checkpoint_every=...); checkpoint_dir= is where they go",
    "epochs": "fit(epochs=...)",
    "seed": "Trainer(seed=...)",
    "run_dir": "Trainer(run_dir=...)",
    "address": "Trainer(address=...)",
    "num_microbatches": "Trainer(num_microbatches=...)",
}


def refuses_unknown(name: str) -> Callable[[Callable[_Parameters, _Result]], Callable[_Parameters, _Result]]:
    """Answer arguments that `name` does not have with what to write instead: raises `ConfigurationError`."""

    def decorate(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
            for argument in kwargs:
                if argument not in signature.parameters:
                    raise ConfigurationError(_answer(name, argument, kwargs[argument], list(signature.parameters)))
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise ConfigurationError(_misplaced(name, error, signature, len(args))) from error
            return function(*args, **kwargs)

        return checked

    return decorate


def _answer(name: str, argument: str, value: object, known: list[str]) -> str:
    """What to write instead of an argument that a method does not have."""
    of_keras = next((each for each in TABLE if each.name == argument), None)
    shown = f"={value!r}" if _is_short(value) else "=..."
    said = f"{name}() has no argument {argument!r}, which was given as {argument}{shown}."
    if of_keras is not None:
        return f"{said} It belongs to {joined([f'{each}()' for each in of_keras.methods])}: {of_keras.text}."
    if argument in ELSEWHERE:
        return f"{said} Use {ELSEWHERE[argument].replace('=...', shown)}."
    close = difflib.get_close_matches(argument, known, n=1)
    return f"{said} {f'Did you mean {close[0]}{shown}? ' if close else ''}See help(heliostat.trainer.Trainer)."


def _misplaced(name: str, error: TypeError, signature: inspect.Signature, num_given: int) -> str:
    """What to write where arguments without a name are too many, or one that is needed is missing."""
    nameless = [each for each in signature.parameters.values() if each.kind is each.POSITIONAL_OR_KEYWORD]
    taken = [each.name for each in nameless if each.name != "self"]
    shown = f"{name}({', '.join([*taken[:3], *(['...'] if len(taken) > 3 else []), 'name=value'])})"
    if num_given > len(nameless):
        what = f"{num_given - 1} arguments without a name, and takes {len(taken)}"
        return f"{name}() was given {what}: write {shown}. See help(heliostat.trainer.Trainer)."
    if name == "Trainer" and "'build_model'" in str(error):
        return "Trainer() needs build_model, its first argument: a function that returns the compiled model."
    return f"{name}(): {error}. See help(heliostat.trainer.Trainer)."


def _is_short(value: object) -> bool:
    """Whether a value can be shown in a line."""
    return isinstance(value, (int, float, type(None))) or (isinstance(value, str) and len(value) < 40)


def page_lines() -> Iterator[str]:
    """The table as the lines of a page."""
    yield "| argument | of | here |"
    yield "|---|---|---|"
    for each in TABLE:
        yield f"| `{each.name}` | {', '.join(f'`{method}`' for method in each.methods)} | {each.text} |"
