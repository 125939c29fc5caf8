"""Which modules a worker needs for code that is sent there: noted while it is packed."""

from __future__ import annotations

import collections
import importlib
import inspect
import json
import linecache
import os.path
import sys
import traceback

import cloudpickle
import pytest
from heliostat.cluster.group.user_frames import user_frame
from heliostat.trainer.shipping import Packed, imported_by, pack, ship, unship


def guarded():
    import csv

    try:
        import nothing_of_that_name
    except ImportError:
        nothing_of_that_name = None
    with open(os.devnull):
        import decimal
    return csv, nothing_of_that_name, decimal


def nested():
    def inner():
        import xml.dom

        return xml.dom, json.loads

    return inner


def test_imports_in_a_function_count_unless_it_can_do_without():
    assert list(imported_by(guarded.__code__)) == ["csv"]


def test_modules_are_noted_of_functions_by_value_and_by_name(monkeypatch):
    assert pack(collections.OrderedDict).modules == ("collections",)
    by_name = __name__ in pack(nested).modules
    cloudpickle.register_pickle_by_value(__import__(__name__, fromlist=["nested"]))
    try:
        by_value = pack(nested).modules
    finally:
        cloudpickle.unregister_pickle_by_value(__import__(__name__, fromlist=["nested"]))
    assert by_name
    assert __name__ not in by_value
    assert {"json", "xml.dom"} <= set(by_value)


def test_what_is_packed_is_what_is_unpacked():
    shipped = ship({"a": (1, json.dumps)}, "x")
    assert isinstance(shipped, Packed)
    assert "json" in shipped.modules
    assert unship(shipped, "x") == {"a": (1, json.dumps)}


def test_code_by_value_keeps_its_file_and_text_where_the_file_is_gone(tmp_path, monkeypatch):
    path = tmp_path / "passing_script.py"
    path.write_text("def divide(by):\n    return list(1 / each for each in by)\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("passing_script")
    cloudpickle.register_pickle_by_value(module)
    try:
        packed = pack(module.divide)
    finally:
        cloudpickle.unregister_pickle_by_value(module)
        del sys.modules["passing_script"]
    path.unlink()
    linecache.clearcache()
    divide = unship(packed, "divide")
    with pytest.raises(ZeroDivisionError) as raised:
        divide([0])
    assert user_frame(raised.value) == f'File "{path}", line 2, in <genexpr>'
    assert "return list(1 / each for each in by)" in "".join(traceback.format_tb(raised.value.__traceback__))
    assert inspect.getsource(divide).startswith("def divide(by)")  # for AutoGraph


def test_a_module_that_is_not_there_is_named():
    lost = Packed(b"cno_such_module\nname\n.")
    with pytest.raises(Exception, match="x needs the module 'no_such_module', which this worker does not have"):
        unship(lost, "x")
