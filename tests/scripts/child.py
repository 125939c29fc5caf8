"""The command in a process of its own, as a shell runs it: `sys.argv`, `sys.path` and the folder are its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

COMMAND = (sys.executable, "-P", "-m", "heliostat.scripts.cli")


def environment(**variables: str) -> dict[str, str]:
    """This process's environment, and what a child needs to find Heliostat where this process finds it."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **variables}


def interruptible() -> None:
    """For `Popen(preexec_fn=...)`: Ctrl-C reaches the child, also where a shell in the background ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def heliostat(
    *arguments: object, cwd: Path | None = None, timeout_s: float = 300.0, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `heliostat` to its end.

    Args:
        arguments: those of the command line.
        cwd: the folder it runs in.
        timeout_s: how long it may take.
        variables: of its environment, beside those of this process.
    """
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(**variables),
        timeout=timeout_s,
        check=False,
    )
