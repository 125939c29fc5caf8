"""What a job is to do, as whoever submits it says on the command line of its process."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Literal, Self, get_args

from ..errors import ConfigurationError
from ..events import Lines

What = Literal["script", "list", "remove", "doctor"]
MODULE = "heliostat.scripts.commands.in_job"  # of which it is the one argument


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWanted(Lines):
    """What a job is to do, as the command line of its process has it.

    Attributes:
        what: "script" runs one; "list" tells the files of run folders that an earlier job has left; "remove" deletes
            run folders; "doctor" looks at the cluster.
        job: the submission id of the job whose run folders are meant: its own for a script, that of an earlier one for
            "list" and "remove".
        script: path of the script, from the job's current directory; `arguments` are its own.
        data: URIs of the packages with data that are put beside the script, in order.
        workers: how many workers its trainers have, whatever the script says; None for those that it says.
        run_dirs: absolute paths. For "list" and "remove" the run folders; for a script the one that its fits are to
            use whatever it says (as HELIOSTAT_RUN_DIR), or none.
        plan: of a script only: its first task is told, and not done.

    Raises:
        ConfigurationError: these do not go together.
    """

    what: What
    job: str
    script: str = ""
    arguments: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    workers: int | None = None
    run_dirs: tuple[str, ...] = ()
    plan: bool = False

    def __post_init__(self) -> None:
        named = re.fullmatch(r"[A-Za-z0-9_.-]+", self.job)
        is_known, is_script = self.what in get_args(What), self.what == "script"
        absolute = all(map(os.path.isabs, self.run_dirs)) and not (is_script and len(self.run_dirs) > 1)
        if not (named and is_known and absolute and is_script == bool(self.script)) or (self.plan and not is_script):
            raise ConfigurationError(f"No job can do this: {self.to_json()}.")

    def to_text(self) -> str:
        """As `from_text` reads it."""
        return json.dumps(self.to_json())

    @classmethod
    def from_text(cls, text: str) -> Self:
        """What a command line says.

        Raises:
            ConfigurationError: it is not what `to_text` makes.
        """
        try:
            return cls.from_json(json.loads(text))
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"{text!r} does not say what a job is to do: {error}.") from error
