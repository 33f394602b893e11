"""Decides how many descriptors this process may have, and for what: uploads are refused before connections are.

Must not know what is sent over a connection, nor where bytes lie.
"""

from __future__ import annotations

import contextlib
import resource
from dataclasses import dataclass
from typing import Final

# For the database, the log, ports, threads at work: the process has some thirty at rest.
_OWN: Final = 512
_LEAST_OWN: Final = 48
_OWN_SHARE: Final = 4


@dataclass(frozen=True, slots=True)
class Descriptors:
    """The shares of what ``limit`` allows: files of open uploads, and the connections of each of the two ports."""

    limit: int
    uploads: int
    connections: int

    @classmethod
    def of(cls, limit: int) -> Descriptors:
        """Share out: half of what the process does not need itself goes to uploads, a quarter to each port."""
        free = max(0, limit - min(_OWN, max(_LEAST_OWN, limit // _OWN_SHARE)))
        return cls(limit, max(1, free // 2), max(1, free // 4))


def needed_for(uploads: int, connections: int) -> int:
    """Return the limit under which these shares are met; ``connections`` of each port."""
    return _OWN + 2 * max(uploads, 2 * connections)


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one, as far as the system lets us; returns what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some systems say "unlimited" and take less.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _UNLIMITED if soft == resource.RLIM_INFINITY else soft


_UNLIMITED: Final = 2**31 - 1
