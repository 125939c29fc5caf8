"""The package's surface: its errors, and what it does not import."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
from heliostat.data import errors

ERROR_CLASSES = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.DatasetError)
]


def test_every_error_has_a_line_of_its_own():
    assert len(ERROR_CLASSES) == 14
    said = [(kind.__doc__ or "").split("\n") for kind in ERROR_CLASSES]
    assert all(lines[0].endswith(".") and lines[1:2] == [""] for lines in said), "a sentence, then what to do"
    assert len({lines[0] for lines in said}) == 14


@pytest.mark.parametrize("kind", ERROR_CLASSES)
def test_errors_keep_message_and_fields_when_pickled(kind):
    error = kind("what happened", path="/data/set", column="x")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert str(again) == "what happened"
        assert (again.path, again.column) == ("/data/set", "x")


def test_the_data_layer_imports_neither_tensorflow_nor_ray():
    program = "import sys, heliostat.data; print([m for m in ('tensorflow', 'keras', 'ray') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
