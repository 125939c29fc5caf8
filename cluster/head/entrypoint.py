"""The shell line that runs a module of Python in a job, with the interpreter that the cluster's own workers have.

A job's ``python`` is whatever the PATH of the head's machine says, and where Ray lives in an environment that nobody
has activated there, that is another one. The raylet knows: it starts workers by a command line that it has among its
arguments. A job's shell is a child of the job's supervisor, which is a worker, which is a child of the raylet; so two
steps up in ``/proc`` stands the interpreter. (`/proc/<pid>/exe` of a worker is not it, but what a virtual environment's
link leads to.)

The shell is replaced by Python (``exec``), so that Ray's SIGTERM arrives there, and its exit status is the job's.
"""

from __future__ import annotations

import shlex

_RAYLET = "$(awk '/^PPid/{print $2}' /proc/$PPID/status)"
_INTERPRETER = (
    f"$(tr '\\0' '\\n' < /proc/{_RAYLET}/cmdline"
    " | sed -n 's/^--python_worker_command=\\([^ ]*\\) .*/\\1/p')"
)  # fmt: skip


def entrypoint(module: str, *arguments: str) -> str:
    """The shell line that runs a module, unbuffered, in the interpreter of the cluster's workers.

    Args:
        module: its dotted name.
        arguments: of its command line, as they are to arrive.
    """
    return f"p={_INTERPRETER}; exec ${{p:-python3}} -u -m {shlex.join([module, *arguments])}"
