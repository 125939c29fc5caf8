"""The package's surface: its names, its errors, and what it does not import."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import heliostat.data
import pytest
from heliostat.data import errors

ERROR_CLASSES = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.DatasetError)
]


def test_every_error_is_public_and_in_the_tree():
    assert len(ERROR_CLASSES) == 14
    for kind in ERROR_CLASSES:
        assert kind.__name__ in heliostat.data.__all__
        assert kind.__name__ in (errors.__doc__ or "")
        assert kind.__doc__
        assert "\n" not in kind.__doc__


@pytest.mark.parametrize("kind", ERROR_CLASSES)
def test_errors_keep_message_and_fields_when_pickled(kind):
    error = kind("what happened", path="/data/set", column="x")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert str(again) == "what happened"
        assert (again.path, again.column) == ("/data/set", "x")


def test_all_names_exist():
    assert sorted(heliostat.data.__all__) == sorted(set(heliostat.data.__all__))
    for name in heliostat.data.__all__:
        assert hasattr(heliostat.data, name)


def test_the_data_layer_imports_neither_tensorflow_nor_ray():
    program = "import sys, heliostat.data; print([m for m in ('tensorflow', 'keras', 'ray') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
