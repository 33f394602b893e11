"""Decides that standard input, output and error are there, before anything else takes their numbers.

Must not know what is written to them.
"""

from __future__ import annotations

import os
import sys


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
