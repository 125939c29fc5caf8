"""Every public name of the trainer, and every method and property of its classes, has an example, and it runs."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator

import heliostat.trainer
import numpy as np
import pytest
from heliostat.trainer import Result, Trainer

pytestmark = pytest.mark.engine

# Takes seconds, whatever it measures.
SLOW = {"Trainer.measure_links"}


def public() -> dict[str, object]:
    """The public names, and what the classes have, without errors: their texts are tested elsewhere."""
    names = {name: getattr(heliostat.trainer, name) for name in heliostat.trainer.__all__}
    found = {name: one for name, one in names.items() if not name.endswith("Error")}
    for owner in (Trainer, Result):
        for name in dir(owner):
            one = inspect.getattr_static(owner, name)
            if not name.startswith("_") and (inspect.isfunction(one) or isinstance(one, property)):
                found[f"{owner.__name__}.{name}"] = one
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Iterator[dict[str, object]]:
    """What the example of the class makes, for those that go on from there."""
    import keras
    import tensorflow as tf

    names = {name: getattr(heliostat.trainer, name) for name in heliostat.trainer.__all__}
    x = np.arange(24, dtype="float32").reshape(8, 3) / 24
    names |= {"__name__": "__main__", "np": np, "tf": tf, "keras": keras, "x": x, "y": x.sum(axis=1)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("trained"))
        run("Trainer", names)
        names["trainer"].evaluate(x, x.sum(axis=1))  # its threads are there before the first test
        yield names
        names["trainer"].close()


def run(name: str, names: dict[str, object]) -> None:
    """Run the example of a name, which finds and leaves other names."""
    documentation = inspect.getdoc(public()[name]) or ""
    example = doctest.DocTestParser().get_doctest(documentation, names, name, None, None)
    assert example.examples, f"{name} has no example"
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL).run(example, out=said.append, clear_globs=False)
    names |= example.globs  # of which it has made a copy
    assert not said, "".join(said)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in public()])
def test_an_example_runs(name, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(name, dict(trained))


def test_the_names_are_all_there():
    assert {"Trainer", "Trainer.fit", "Trainer.model", "Trainer.resize", "Result.model", "global_sum"} <= set(public())
    assert not [name for name in public() if "Error" in name or "._" in name]
