"""What a run says of the machines it is computed on: other ones than before, and different ones beside each other."""

from __future__ import annotations

from ..checkpoints.model_record import ModelRecord
from ..hardware import DESCRIPTIONS, HARDWARE, Platform, differing, not_compared, permission, told
from ..jobs import Ready
from .display import Display
from .run_folder import RunFolder


class Computers:
    """What the run was computed with until now (another time, or in the fit before), and what workers tell of theirs.

    Attributes:
        platform: of the run until now; empty where it begins.
        where: where that was, in words.
        model: the record of the run's model until now.
    """

    def __init__(self) -> None:
        self.platform: Platform = {}
        self.where = "where the run began"
        self.model = ModelRecord()
        self._told: list[Platform] = []  # one of each kind that workers have had

    def look_back(self, folder: RunFolder) -> None:
        """Take from its folder what the run that goes on was computed with; raises StorageError."""
        self.model, self.platform = folder.model_record(), folder.record.get("platform", {})
        self.where = "where the run began"

    def follow(self, platform: Platform) -> None:
        """The run goes on from the end of a fit that was computed on this platform."""
        self.platform, self.where = platform, "in the fit before"

    def compare(self, platform: Platform, folder: RunFolder, screen: Display, *, may_differ: bool) -> None:
        """Say and note, once for each kind, that workers compute on mixed hardware; unless it is refused."""
        if not all(differing(one, platform, HARDWARE) for one in self._told):
            return  # one of its kind has told already
        differences = [differing(one, platform, HARDWARE) for one in (self.platform, *self._told)]
        self._told.append(platform)
        if may_differ and (found := next(filter(None, differences), None)):
            screen.say(permission(told(found, "at first", "now")))
            folder.update(mixed_hardware=[dict(each) for each in self._told])

    def lines(self, ready: Ready) -> list[str]:
        """What there is to say of the first worker that is ready: what differs from before, what was not compared."""
        before, lines = self.platform, []
        if software := differing(before, ready.platform, before.keys() - {*HARDWARE, *DESCRIPTIONS}):
            lines.append(f"warning: bits may differ: {told(software, self.where, 'here')}")
        if before and (missing := not_compared(before, ready.platform)):
            lines.append(f"the run's record is older and does not tell its {', '.join(missing)}: not compared")
        if line := self.model.not_compared(ready.settings, ready.platform.get("keras", "")):
            lines.append(line)
        return lines

    def to_note(self, platform: Platform) -> Platform:
        """The platform for the run's record: software is that of now, hardware stays what the run began on."""
        return {**platform, **{name: value for name, value in self.platform.items() if name in HARDWARE}}
