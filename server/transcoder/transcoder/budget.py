"""Decides how many bytes of long request bodies may be in memory at once, over all requests.

Must not know how a body comes in. Whoever has no place is told so before its body is read.
"""

from typing import Final

SMALL_BYTES: Final = 64 * 1024
"""A body up to this length needs no place: such are the bodies of most calls, and they are bounded by their number."""


class BodyBudget:
    """Counts the bytes that long bodies take."""

    def __init__(self, most: int = 64 * 1024 * 1024) -> None:
        self.most = most
        self._taken = 0

    def take(self, count: int) -> bool:
        """Counts a body in, if there is room; a small one always has."""
        if count <= SMALL_BYTES:
            return True
        if self._taken + count > self.most:
            return False
        self._taken += count
        return True

    def give_back(self, count: int) -> None:
        """Counts a body out that was counted in."""
        if count > SMALL_BYTES:
            self._taken -= count
