"""Who watches the runs of a trainer besides its screen, as the driver knows them: nobody; `trackers` has others."""

from __future__ import annotations

import contextlib

from .display import Display


class Audience:
    """Nobody; the base of `trackers.Trackers`."""

    def watching(self, screen: Display) -> contextlib.AbstractContextManager[Display]:
        """For the block of one run: the screen that tells them, too, what it shows.

        Args:
            screen: what the user sees.
        """
        return contextlib.nullcontext(screen)

    def close(self) -> None:
        """There are no more runs."""
