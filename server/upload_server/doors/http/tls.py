"""Decides how connections of the HTTP port come to TLS: accepted, counted, and given the pair of the moment.

Must not know HTTP. asyncio's own servers tell nobody of a connection before its handshake is over, so nothing would
bound those that never end theirs, and they keep the certificate that they began with.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Final

import structlog

from upload_server.access.certificates import peer_certificate
from upload_server.access.identity import PeerCertificate

log = structlog.get_logger(__name__)

# In the state of a connection's scopes: what the other end has shown.
CERTIFICATE: Final = "certificate"
HANDSHAKE_SECONDS: Final = 10.0
# For the goodbye of TLS; a peer that does not say it is cut.
_GOODBYE_SECONDS: Final = 5.0
# Out of descriptors nothing can be accepted; until something is closed there is no use in trying at once again.
_PAUSE_SECONDS: Final = 0.1


def shown_on(transport: asyncio.Transport) -> PeerCertificate | None:
    """Return the certificate that the other end has shown, verified; asked once a connection."""
    secured = transport.get_extra_info("ssl_object")
    der = None if secured is None else secured.getpeercert(binary_form=True)
    return None if der is None else peer_certificate(der)


class TlsListener:
    """Accepts connections on a socket; as an ``asyncio.Server``, as far as uvicorn uses one."""

    def __init__(
        self,
        sock: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        context: Callable[[], ssl.SSLContext],
        has_place: Callable[[int], bool],
    ) -> None:
        """``has_place`` hears how many connections are in their handshake, and tells whether one more may come in."""
        self._sock = sock
        self._make_protocol = make_protocol
        self._context = context
        self._has_place = has_place
        # In the order in which they came.
        self._shaking: dict[asyncio.Task[None], None] = {}
        self._accepting = asyncio.create_task(self._accept(), name="https-accept")

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._sock)
            except OSError as error:
                log.warning("https.accept_failed", problem=error.strerror)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            if not self._has_place(len(self._shaking)) and self._shaking:
                # Rather the one that has taken longest than the new one, which may bring a cancel.
                next(iter(self._shaking)).cancel()
            task = loop.create_task(self._shake(connection))
            self._shaking[task] = None
            task.add_done_callback(self._shaken)

    async def _shake(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make_protocol,
                connection,
                ssl=self._context(),
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=_GOODBYE_SECONDS,
            )
        except (OSError, asyncio.CancelledError):
            # Broken, too slow, or without what it has to show: nobody of ours has heard of it yet.
            with contextlib.suppress(OSError, RuntimeError):
                connection.close()

    def _shaken(self, task: asyncio.Task[None]) -> None:
        self._shaking.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("https.handshake_broke", exc_info=error)

    def close(self) -> None:
        """Accept no more, and cut handshakes."""
        self._accepting.cancel()
        for task in self._shaking:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until none is under way."""
        await asyncio.wait({self._accepting, *self._shaking})
