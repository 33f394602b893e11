"""Decides how whoever started this process hears that it serves or stops: the protocol of systemd's sd_notify.

Must not know what a service manager does with it. Without one, as in a shell or a container, nothing is said.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

_SECONDS: Final = 1.0


def tell(state: str) -> None:
    """Send a state such as ``READY=1``; a manager that cannot be told changes nothing here."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    # A name that begins with a zero byte lies in no folder.
    name = "\0" + address[1:] if address.startswith("@") else address
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as there:
        # One that reads no more, and has its queue full, does not keep this process from its work.
        there.settimeout(_SECONDS)
        there.sendto(state.encode(), name)
