"""What the laptop does with the cluster, of which it reaches one port; and where a submission's time goes."""

from __future__ import annotations

import shlex

from .machines import AT_GATEWAY, HEAD, LAPTOP

# Parts of the time from a command to the first step: the first line that has one of these words ends a part.
PARTS = (
    ("loading, first answer", ("packing ",)),
    ("packing", ("packed",)),
    ("sending, the job's start", ("run folder ",)),
    ("workers to the first step", ("first step after",)),
)


def heliostat(machines, *arguments, at=LAPTOP, **env):
    """Start a command of Heliostat's on the laptop, in its ``/tmp/work``."""
    return machines.python(at, "-P", "-m", "heliostat.scripts.cli", *arguments, **env)


def submit(machines, run, *arguments, script="/tmp/project/train.py", address=AT_GATEWAY, at=LAPTOP, **env):
    """``heliostat submit`` of the script beside which the data lie; what the script is given goes behind ``--``."""
    ours = (f"--address={address}", f"--run-dir={run}")
    return heliostat(machines, "submit", script, *ours, "--", "--data=data", "--epochs=3", *arguments, at=at, **env)


def call(machines, *arguments, address=AT_GATEWAY, at=LAPTOP, **env):
    """The same script on the laptop, whose trainer has the cluster's address."""
    return machines.python(at, "train.py", f"--address={address}", "--epochs=3", *arguments, **env)


def commands_in(text, run):
    """Commands of Heliostat's for a run that are named in a text: their names."""
    words = [line.split() for line in text.splitlines()]
    found = [each[each.index("heliostat") + 1 :] for each in words if "heliostat" in each]
    return {name for name, *rest in found if rest[:1] == [shlex.quote(run)]}


def parts_of(running):
    """The seconds of each part until the first step, as a line; a part whose end was not said is missing."""
    found, before = [], 0.0
    for name, words in PARTS:
        at = running.second_of(*words)
        if at is not None:
            found.append(f"{name} {at - before:.1f}")
            before = at
    return f"{before:.1f} s until the first step: {', '.join(found)}"


def run_on_the_head(machines, name):
    """Where the head's disk has a run folder of a script that was submitted with a relative one."""
    return machines.disk(HEAD) / "home" / "heliostat" / "train" / name


def links_left(machines):
    """Links to run folders in the log folder of the head's Ray."""
    return [str(path) for path in machines.disk(HEAD).glob("ray/session_*/logs/heliostat-*") if path.is_symlink()]
