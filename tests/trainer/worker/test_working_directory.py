"""Callbacks work in the run folder; the process is back where it was, whoever ends last."""

from __future__ import annotations

import os

import pytest
from heliostat.trainer.worker.worker import WORKING_DIRECTORY

pytestmark = pytest.mark.engine


def test_a_worker_that_begins_in_the_run_folder_does_not_leave_the_process_there(tmp_path):
    before = os.getcwd()
    chief, replacement = WORKING_DIRECTORY.kept(), WORKING_DIRECTORY.kept()
    chief.__enter__()
    os.chdir(tmp_path)
    replacement.__enter__()
    chief.__exit__(None, None, None)
    assert os.getcwd() == str(tmp_path), "the other one still works there"
    replacement.__exit__(None, None, None)
    assert os.getcwd() == before
