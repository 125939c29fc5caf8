"""Errors of calls on a cluster that is elsewhere, and of what they bring here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .base import TrainerError


class FetchError(TrainerError):
    """The run folders of a job cannot be brought here, or not as they are there.

    Once the run has ended, fetch again: what is here already is not fetched twice.
    """

    @classmethod
    def no_folder(cls, submission_id: str) -> FetchError:
        """A job has opened no run folder."""
        return cls(
            f"The job {submission_id} has no run folder: no fit of it has begun, or none has got as far as to "
            "open one. heliostat logs shows what it printed."
        )

    @classmethod
    def not_there(cls, paths: Sequence[str]) -> FetchError:
        """Run folders are not where jobs of the cluster run (any more)."""
        return cls(
            f"{', '.join(paths)} is not on the machine of the cluster where jobs run: the run in it never began, "
            "somebody has deleted it, or the job that made it ran on another machine."
        )

    @classmethod
    def small_job(cls, what: str, reason: str) -> FetchError:
        """A job that was to see to run folders has failed.

        Args:
            what: it was to do with them: "list" or "remove".
            reason: why it has not.
        """
        return cls(
            f"The job that was to {what} run folders on the cluster has failed: "
            f"{reason.strip().rstrip('.')}. Run the same command again."
        )

    @classmethod
    def changed(cls, path: str, size: int, came: int) -> FetchError:
        """A file did not come as it was told to be.

        Args:
            path: of the file there.
            size: that it should have, in bytes.
            came: how many bytes came.
        """
        return cls(
            f"{path} did not come as the cluster told it to be ({came:,} bytes of {size:,} came"
            f"{', others than told' if came == size else ''}): it changes there while it is read, or something on the "
            "way alters it. Once the run has ended, fetch again: what is here already is not fetched twice."
        )

    @classmethod
    def bad_name(cls, name: str) -> FetchError:
        """A file would not lie in the run folder."""
        return cls(f"The cluster names a file {name!r} of a run folder, which would lie outside of it here: refused.")


class CallError(TrainerError):
    """A call on a cluster has failed there; if the error there is of a class of ours, it is of that class as well.

    Catch `ConfigurationError`, `RunPausedError` and others as for a run on this machine. The message has the stage, and
    the frames there.

    Attributes:
        address: of the cluster.
        stage: in which it failed: "start", "unpickle" or "train".
        class_there: the class of the error there, with its module.
        frames: of the traceback there, from the first in the user's code on, as Python shows them.
        traceback: all of it, as text.
    """

    class_there = traceback = ""
    frames: tuple[str, ...] = ()

    def __init__(self, message: str, address: str, stage: str) -> None:
        super().__init__(message)
        self.address, self.stage = address, stage

    def __str__(self) -> str:
        shown = "".join(f"\n{frame.rstrip()}" for frame in self.frames)
        return f"{self.args[0]}{shown}\n(on the cluster at {self.address}, stage of the call: {self.stage})"


class OtherEnvironmentError(TrainerError):
    """The cluster lacks what a call needs; nothing of the call was unpickled.

    The message lists Python, packages and modules that differ. Make the two alike, or submit the script:
    ``heliostat submit``.

    Args:
        host: the machine of the cluster.
        python: its interpreter.
        differences: what is there and what is here, by name: of Python, a package, a module.
    """

    def __init__(self, host: str, python: str, differences: Mapping[str, tuple[str, str]]) -> None:
        super().__init__(host, python, {name: tuple(each) for name, each in differences.items()})
        self.host, self.python, self.differences = host, python, dict(differences)

    def __str__(self) -> str:
        lines = [f"  {name}: {there} there, {here} here" for name, (there, here) in self.differences.items()]
        return "\n".join(
            [
                f"The cluster ({self.python} on {self.host}) has not what this call needs:",
                *lines,
                "Functions are sent as bytecode and by the names of modules, so nothing was unpickled there. Make the "
                "two alike: install the same versions on the cluster or here, put modules of your own beside the "
                "script, from where they travel, or submit the script, which needs nothing here: heliostat submit.",
            ]
        )


class CallDetachedError(KeyboardInterrupt):
    """Ctrl-C has ended the watching of a call; the run on the cluster goes on.

    Run the same script again to attach to it; the message has the other commands.

    Args:
        commands: what can be done now, a line each.

    Attributes:
        exit_status: of a program that ends with it, as of one that Ctrl-C ends.
    """

    exit_status = 130

    def __init__(self, commands: Sequence[str]) -> None:
        super().__init__("\n".join(commands))
