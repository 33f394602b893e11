"""Decides what a use case knows of who calls: the name, what that name sees, and what it may.

Must not know how a caller is known (credentials, certificates), nor what is done for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from upload_server.domain.states import SYSTEM, Source, named


class Permission(StrEnum):
    """What a caller may do, by kinds of calls. Which rows it does that to, ``Caller.sees`` says."""

    # Announce files, and send their bytes.
    WRITE = "write"
    # Get, list and watch.
    READ = "read"
    # Have the bytes of a completed file.
    DOWNLOAD = "download"
    CANCEL = "cancel"
    # Read the audit trail.
    AUDIT = "audit"
    # Ask how much there is.
    COUNT = "count"
    # Read what is measured of a node.
    METRICS = "metrics"


ALL: Final = frozenset(Permission)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and through which door.

    ``principal`` is the name, and the owner of what it announces; empty while callers are not authenticated.
    ``sees`` is the one owner whose rows are there for the caller; None: everybody's, as for an operator, and for all
    while callers are not authenticated. ``credential`` is the id of what it proved its name by, never a secret;
    ``peer`` the address that it calls from; ``expires_at`` the POSIX time from which on it proves nothing, None for
    never; ``roles`` the words by which it was given its permissions. ``by_itself``: nobody asked, the door acts for the
    caller.
    """

    source: Source
    principal: str = ""
    sees: str | None = None
    may: frozenset[Permission] = ALL
    credential: str = ""
    peer: str = ""
    expires_at: float | None = None
    roles: frozenset[str] = frozenset()
    by_itself: bool = False

    @property
    def actor(self) -> str:
        """The caller as the audit trail and ``cancelled_by`` name them; ``system`` when nobody called."""
        if self.by_itself or self.source in (Source.EXPIRY, Source.ROLL_UP, Source.RETENTION):
            return SYSTEM
        return f"user:{self.principal}" if self.principal else "user"

    @property
    def cancelled_by(self) -> str:
        """The caller as a file names who cancelled it."""
        return named(self.source, self.actor)

    def does_see(self, owner: str) -> bool:
        """Whether rows of ``owner`` are there for the caller; others are to it as if there were none."""
        return self.sees is None or self.sees == owner
