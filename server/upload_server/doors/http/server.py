"""Decides how the HTTP port lives inside our process: bind, serve, drain, stop, without uvicorn's hand on the signals.

Must not know what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import uvicorn

from upload_server.doors.http.asgi import Application
from upload_server.doors.http.protocol import MAX_CONNECTIONS, BoundedHttpProtocol, make_place
from upload_server.doors.http.tls import TlsListener
from upload_server.doors.http.untaken import Untaken
from upload_server.doors.websocket.protocol import HonestWebSocketProtocol
from upload_server.ingest import Memory
from upload_server.process.ports import listen

# Longer than a balancer keeps its connections (60 s with AWS and nginx): the one that closes first must be the one that
# sends, or a cancel could be sent into the close and be lost.
KEEP_ALIVE_SECONDS: Final = 75
# A peer that has vanished, or takes nothing for so long, is cut off: TCP alone waits a quarter of an hour.
VANISHED_SECONDS: Final = 40
_PROBE_AFTER_SECONDS: Final = 20
_PROBE_EVERY_SECONDS: Final = 5
_UNSENT_BYTES: Final = 16 * 1024
_HTTPS_ONLY: Final = ("strict-transport-security", "max-age=31536000")


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Listen for HTTP, ``shared`` as ``listen`` says; raises ``PortUnavailable``."""
    sock = listen(host, port, "--http-port", shared=shared)
    _mind_peers_that_do_not_read(sock)
    return sock


def _mind_peers_that_do_not_read(sock: socket.socket) -> None:
    """Set what accepted connections inherit: probes while nothing is sent, bounds for what is sent in vain."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _PROBE_AFTER_SECONDS),
        ("TCP_KEEPINTVL", _PROBE_EVERY_SECONDS),
        ("TCP_KEEPCNT", (VANISHED_SECONDS - _PROBE_AFTER_SECONDS) // _PROBE_EVERY_SECONDS),
        ("TCP_USER_TIMEOUT", VANISHED_SECONDS * 1000),
        # Else the system takes megabytes for a watcher that does not read: work for nothing, and old news when it does.
        ("TCP_NOTSENT_LOWAT", _UNSENT_BYTES),
    ):
        # Not every system has all of them.
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class _Embedded(uvicorn.Server):
    """uvicorn without its signal handlers (they would end the process before our stores are closed)."""

    def __init__(self, config: uvicorn.Config, max_connections: int, tls: Callable[[], ssl.SSLContext] | None) -> None:
        super().__init__(config)
        self._max_connections = max_connections
        self._tls = tls
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._tls is None or not sockets:
            await super().startup(sockets)
        else:
            listeners: list[Any] = [
                TlsListener(sock, self._make_protocol, self._tls, self._has_place) for sock in sockets
            ]
            self.servers = listeners
            self.started = True
        self.listening.set()

    def _make_protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]  # as uvicorn calls it
            config=self.config, server_state=self.server_state, app_state={}
        )

    def _has_place(self, shaking: int) -> bool:
        """Whether one more may begin its handshake beside ``shaking`` others; an idle connection makes way for it."""
        connections = self.server_state.connections
        if len(connections) + shaking < self._max_connections:
            return True
        return shaking <= self._max_connections // 2 and make_place(connections)


class HttpServer:
    """Serves an ASGI application on a bound socket, inside the running event loop."""

    def __init__(
        self,
        app: Application,
        sock: socket.socket,
        *,
        ping_interval_seconds: float = 20.0,
        ping_timeout_seconds: float = 20.0,
        stop_seconds: float = 5.0,
        memory: Memory | None = None,
        untaken: Untaken | None = None,
        max_connections: int = MAX_CONNECTIONS,
        tls: Callable[[], ssl.SSLContext] | None = None,
        https_only: bool = False,
    ) -> None:
        """``stop_seconds`` is how long ``stop`` waits for running requests before it cuts them.

        Beyond ``max_connections`` an idle one makes way. While ``memory`` is short, no WebSocket is read far ahead.
        ``tls`` is asked for each connection's context. ``https_only``: tell browsers so.
        """
        self._sock = sock
        self.port: int = sock.getsockname()[1]
        self._config = uvicorn.Config(
            app,
            loop="none",
            http=partial(  # type: ignore[arg-type]  # uvicorn calls it
                BoundedHttpProtocol, untaken=untaken or Untaken(), max_connections=max_connections
            ),
            ws=partial(HonestWebSocketProtocol, memory=memory),  # type: ignore[arg-type]  # uvicorn calls it
            ws_per_message_deflate=False,
            ws_ping_interval=ping_interval_seconds,
            ws_ping_timeout=ping_timeout_seconds,
            lifespan="off",
            log_config=None,
            access_log=False,
            interface="asgi3",
            # Forwarded headers are claims of the caller; nothing here depends on them.
            proxy_headers=False,
            server_header=False,
            headers=[_HTTPS_ONLY] if https_only else [],
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, math.ceil(stop_seconds)),
        )
        if not self._config.loaded:
            self._config.load()
        self._server = _Embedded(self._config, max_connections, tls)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to accept; returns when connections are served."""
        self._serving = asyncio.create_task(self._server.serve([self._sock]), name="http-server")
        listening = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait({self._serving, listening}, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if self._serving.done():
            await self._serving  # raises what went wrong

    def drain(self) -> None:
        """Close idle connections, and busy ones after their answer; new ones are still served, and refused politely."""
        for connection in list(self._server.server_state.connections):
            if isinstance(connection, BoundedHttpProtocol):
                connection.shutdown()

    async def stop(self) -> None:
        """Accept no more, wait a bounded time for what runs, cut the rest. Safe to call twice."""
        if self._serving is None:
            self._sock.close()
            return
        self._server.should_exit = True
        await asyncio.wait({self._serving})
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        self._serving.result()
