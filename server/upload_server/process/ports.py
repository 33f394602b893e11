"""Decides how a port is taken, and what the operator reads when it cannot be.

Must not know what is served on it.
"""

from __future__ import annotations

import errno
import socket
from typing import Final

from upload_server.domain.errors import CannotStart

BACKLOG: Final = 1024


class PortUnavailable(CannotStart):
    """The port cannot be listened on; the message says which, why and what to do."""


def listen(host: str, port: int, option: str, *, shared: bool = False) -> socket.socket:
    """Bind and listen; port 0 takes a free one. Raises ``PortUnavailable``; ``option`` is where the port was chosen.

    SO_REUSEPORT stays off: two servers on one port would each get half of the calls. It is on for processes that are to
    be one server, which say ``shared`` and whose port somebody has reserved. SO_REUSEADDR is on, so that a restart is
    not refused for a minute because of connections that are being closed.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        # UnicodeError: a name that cannot even be asked for.
        why = error.strerror if isinstance(error, OSError) else "this is no host name"
        raise PortUnavailable(f"cannot listen on {host}: {why}; choose another address with --host") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise PortUnavailable(
            f"cannot listen on {host} port {port}: {error.strerror}; {_remedy(error, option)}"
        ) from error
    return sock


def reserve(host: str, port: int, option: str) -> socket.socket:
    """Take a port for processes that listen on it ``shared``, whether any of them does so yet; raises as ``listen``.

    Two sockets, for the system goes by what the first one and the newest one allowed: while the first listens nobody
    else can have the port, and once the second one is bound (without SO_REUSEADDR) nobody can who does not share. The
    second one never listens, so it gets no connections.
    """
    with listen(host, port, option) as first:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept = socket.socket(first.family, socket.SOCK_STREAM)
        try:
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            kept.bind(first.getsockname())
        except OSError as error:
            kept.close()
            raise PortUnavailable(f"{option}: this system cannot share a port: {error.strerror}") from error
    return kept


def _remedy(error: OSError, option: str) -> str:
    if error.errno == errno.EADDRNOTAVAIL:
        return "choose an address of this machine with --host"
    return f"choose another port with {option}"
