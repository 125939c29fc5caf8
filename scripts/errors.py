"""Errors of the command line and its demo.

ScriptError
└── CorpusError
"""

from __future__ import annotations


class ScriptError(Exception):
    """A command of Heliostat can not do what it was asked."""


class CorpusError(ScriptError):
    """The docstring corpus can not be built from the installed packages."""
