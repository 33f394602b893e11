"""Decides how many descriptors this process may have, and for what: uploads are refused before connections are, and
the first three are standard input, output and error.

Must not know what is written to them or sent over a connection, nor where bytes lie.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
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


def open_standard_streams() -> None:
    """Open /dev/null in the place of those of the three that whoever started this process has closed.

    Else the next file or socket gets their number, and what is meant for a person goes into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number, so this one.
            os.open(os.devnull, os.O_RDWR)
    # Python has none for a number that was closed when it started.
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - for good
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - for good
