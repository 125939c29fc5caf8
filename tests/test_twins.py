"""What twins.txt lists is there: a test that has another name by now would be run by every change again."""

from __future__ import annotations

import pytest


def test_every_twin_is_a_test(pytestconfig, gone_twins):
    if pytestconfig.getoption("file_or_dir"):
        pytest.skip("some tests were not collected")
    assert gone_twins == [], "names in tests/twins.txt without a test"
