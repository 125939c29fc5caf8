"""Every public name, and every method of a dataset, has an example in its docstring, and it runs."""

from __future__ import annotations

import doctest
import inspect
import io
from pathlib import Path

import heliostat.data
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from heliostat.data import Dataset, write_dataset
from PIL import Image

pytestmark = pytest.mark.engine

# What only a reader or another view calls, or what says itself in a word.
NO_EXAMPLE = {"check", "folders", "pass_reader", "reached", "reader"}


def public() -> dict[str, object]:
    """The public names and the methods of a dataset, without errors."""
    names = {name: getattr(heliostat.data, name) for name in heliostat.data.__all__}
    found = {name: one for name, one in names.items() if not name.endswith("Error")}
    methods = {f"Dataset.{name}": one for name, one in vars(Dataset).items() if inspect.isfunction(one)}
    shown = {name: one for name, one in methods.items() if not name.split(".")[1].startswith("_")}
    return found | {name: one for name, one in shown.items() if name.split(".")[1] not in NO_EXAMPLE}


@pytest.fixture
def names(tmp_path, monkeypatch) -> dict[str, object]:
    """What the examples find: a folder, a dataset in it, files to read, and the usual modules by their usual names."""
    import keras
    import pandas as pd
    import tensorflow as tf

    monkeypatch.chdir(tmp_path)
    customers = np.arange(10) % 5
    columns = {
        "customer": customers,
        "colour": ["red", "blue"] * 5,
        "y": np.arange(10) % 2,
    }
    Path("rows.csv").write_text("id,size\n001,1.5\n007,2.5\n")
    Path("tables").mkdir()
    pq.write_table(pa.table({"x": [1, 2, 3]}), "tables/a.parquet")
    jpeg = io.BytesIO()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(jpeg, "JPEG")
    modules = {"np": np, "pa": pa, "pd": pd, "tf": tf, "keras": keras}
    found = {name: getattr(heliostat.data, name) for name in heliostat.data.__all__}
    given = {"dataset": write_dataset("shop", columns), "folder": tmp_path, "jpeg": jpeg.getvalue()}
    return {**modules, **found, **given}


@pytest.mark.parametrize("name", public())
def test_an_example_runs(name, names):
    documentation = inspect.getdoc(public()[name]) or ""
    example = doctest.DocTestParser().get_doctest(documentation, names, name, None, None)
    assert example.examples, f"{name} has no example"
    said = io.StringIO()
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.write)
    assert not said.getvalue(), said.getvalue()
