"""Decides what others may see of this process's command line: everything but the passwords of its URLs.

Must not know which options take a URL.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
from pathlib import Path

# Of `scheme://user:password@host`, up to the last @, and of `?password=`.
_PASSWORDS = re.compile(rb"://[^:@/\0]*:([^\0]+)@|[?&](?:ssl)?password=([^&\0]+)")
# Of the fields behind the name in /proc/self/stat: where the arguments begin (`arg_start`, proc(5)).
_ARG_START = 45


def hide_passwords() -> None:
    """Overwrite the passwords of URLs in the list of processes, which every user of the machine may read.

    Python has its own copy of the arguments by now. Where the system has no such list in memory nothing is done.
    """
    with contextlib.suppress(OSError, IndexError, ValueError):
        shown = Path("/proc/self/cmdline").read_bytes()
        begin = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[_ARG_START])
        # Zero where the system does not tell; elsewhere others' names of it may have moved it.
        if not begin or ctypes.string_at(begin, len(shown)) != shown:
            return
        for found in _PASSWORDS.finditer(shown):
            for first, end in filter(lambda span: span[0] >= 0, (found.span(1), found.span(2))):
                ctypes.memset(begin + first, ord("x"), end - first)
