"""Decides what a page meant that has left, and how that is said to those who read of the cancel.

Pure: must not know sockets or rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from upload_server.doors.mailbox import End

# What stands for a close code when no close frame came.
NO_CLOSE_FRAME: Final = 1006
_GOING_AWAY: Final = 1001
_OWN_WORDS: Final = 4000
# Close codes of the page that mean "cancel": done, tab closed, no code, and an application's own.
_CANCELLING: Final = frozenset({1000, _GOING_AWAY, 1005, _OWN_WORDS})
# WebKit's words for a page that it puts aside and may bring back, as when one swipes back or switches the app.
_SUSPENDED: Final = "WebSocket is closed due to suspension."
_UNITS: Final = (("h", 3600), ("min", 60))


@dataclass(frozen=True, slots=True)
class Gone(End):
    """The page has left. ``code`` is that of its close frame (1005: a frame without one), or 1006 when none came."""

    code: int = NO_CLOSE_FRAME
    text: str = ""
    # Our own close, or our shutdown: the page had no say.
    by_server: bool = False

    @property
    def cancels(self) -> bool:
        """Whether the page meant to cancel, rather than having been lost."""
        return self.code in _CANCELLING and not self._suspended and not self.by_server

    @property
    def _suspended(self) -> bool:
        return self.code == _GOING_AWAY and self.text == _SUSPENDED

    def reason(self, grace_seconds: float) -> str:
        """Say why the upload is cancelled: what happened, in our words. A person's words come with code 4000 alone."""
        if self.code == _OWN_WORDS:
            return self.text.replace("\x00", "") or "the page cancelled the upload"
        if self.cancels:
            return "the page was closed" if self.code == _GOING_AWAY else "the page closed the connection"
        what = "the connection was lost"
        if self._suspended:
            what = "the browser put the page aside"
        elif self.code != NO_CLOSE_FRAME:
            what = "the page was away"
        return f"{what} for more than {_said(grace_seconds)}" if grace_seconds else what


def _said(seconds: float) -> str:
    """Say a duration in its largest whole unit."""
    for unit, size in _UNITS:
        if seconds % size == 0:
            return f"{seconds // size:g} {unit}"
    return f"{seconds:g} s"
