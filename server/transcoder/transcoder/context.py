"""Decides what a servicer sees of a call: grpc.aio's ServicerContext, without a gRPC server.

Must not know ASGI; the app feeds it and reads it back.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
import grpc.aio

from .metadata import Metadatum
from .status import Metadata, Outcome, details_of

_log = logging.getLogger(__name__)
_CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """The HTTP side of a call, for a servicer that must know which door it came through."""

    method: str
    path: str
    """As it was sent: escapes are not decoded."""
    template: str
    """The path template of the rule that matched."""
    headers: Sequence[tuple[bytes, bytes]]
    client: tuple[str, int] | None
    state: Mapping[str, Any]
    """What the server knows of the connection: `state` of the ASGI scope."""


class HttpContext(grpc.aio.ServicerContext[Any, Any]):
    """The context of one call. `http` is what a gRPC call's context does not have."""

    # Most calls change none of these, so none pays for setting them.
    aborted = False
    write_message: Callable[[Any], Awaitable[None]] | None = None
    known: Any = None
    """What `before_body` has returned; None where the request has no body."""
    _http: HttpRequest | None = None
    _metadata: tuple[Metadatum, ...] | None = None
    status_code: grpc.StatusCode | None = None
    """The code set so far, for the app to read."""
    _details = ""
    initial: Metadata = ()
    """The initial metadata, as pairs; for the app to read."""
    trailing: Metadata = ()
    """The trailing metadata, likewise."""
    _initial_sent = False
    _done_callbacks: tuple[Callable[[Any], None], ...] = ()
    _done = False
    _cancelled = False

    def __init__(
        self,
        http: Callable[[], HttpRequest],
        metadata: Callable[[HttpRequest], tuple[Metadatum, ...]],
        deadline: float | None,
        rpc_method: str,
    ) -> None:
        """`http` and `metadata` are called when they are first asked for."""
        self.rpc_method = rpc_method
        self._read_http = http
        self._read_metadata = metadata
        self._deadline = deadline

    @property
    def http(self) -> HttpRequest:
        """The HTTP side of the call."""
        if self._http is None:
            self._http = self._read_http()
        return self._http

    # What a servicer calls.

    async def read(self) -> NoReturn:
        """Not for HTTP: the one request message is the method's argument."""
        raise grpc.aio.UsageError("a call over HTTP has no stream of requests")

    async def write(self, message: Any) -> None:
        """Sends one message of a streamed response."""
        if self.write_message is None:
            raise grpc.aio.UsageError("this method does not write a stream")
        await self.write_message(message)

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Sets the metadata that goes back as `Grpc-Metadata-` headers."""
        if self._initial_sent:
            raise grpc.aio.UsageError("Send initial metadata failed: already sent")
        self._initial_sent = True
        self.initial = _pairs(initial_metadata)

    async def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """Ends the call with a status; what the handler does with the exception changes nothing."""
        if self.aborted:
            raise grpc.aio.UsageError("Abort already called!")
        self.status_code = _code(code)
        if self.status_code is grpc.StatusCode.OK:
            _log.error("%s: abort() called with StatusCode.OK; answering UNKNOWN", self.rpc_method)
            self.status_code, details = grpc.StatusCode.UNKNOWN, ""
        self._details = _text(details) or self._details
        self.trailing = _pairs(trailing_metadata) or self.trailing
        self.aborted = True
        raise grpc.aio.AbortError("Locally aborted.")

    async def abort_with_status(self, status: Any) -> NoReturn:
        """Ends the call with a grpc.Status, its details in the trailing metadata."""
        await self.abort(status.code, status.details, status.trailing_metadata)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Replaces the metadata that goes back at the end; too late after an abort."""
        if not self.aborted:
            self.trailing = _pairs(trailing_metadata)

    def invocation_metadata(self) -> Any:
        """The request's metadata: pairs that also have `key` and `value`."""
        if self._metadata is None:
            self._metadata = self._read_metadata(self.http)
        return self._metadata

    def set_code(self, code: Any) -> None:
        """Sets the code that the call ends with unless it is aborted."""
        if not self.aborted:
            self.status_code = _code(code)

    def set_details(self, details: str) -> None:
        """Sets the message beside the code; too late after an abort."""
        if not self.aborted:
            self._details = _text(details)

    def code(self) -> Any:
        """The code set so far."""
        return self.status_code

    def details(self) -> Any:
        """The message set so far."""
        return self._details

    def trailing_metadata(self) -> Any:
        """The trailing metadata set so far."""
        return self.trailing

    def peer(self) -> str:
        """The client's address as gRPC writes it."""
        client = self.http.client
        if not client:
            return "unknown"
        host, port = client
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def peer_identities(self) -> None:
        """Nobody is authenticated by the transport."""

    def peer_identity_key(self) -> None:
        """Nobody is authenticated by the transport."""

    def auth_context(self) -> dict[str, Any]:
        """Nothing is known from the transport."""
        return {}

    def time_remaining(self) -> Any:
        """Seconds until the deadline; None when there is none."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    def set_compression(self, compression: Any) -> None:
        """Accepted and without effect: compression is the HTTP server's or proxy's."""

    def disable_next_message_compression(self) -> None:
        """Accepted and without effect."""

    def add_done_callback(self, callback: Any) -> None:
        """Has `callback` called with this context when the call has ended."""
        self._done_callbacks = (*self._done_callbacks, callback)

    def cancelled(self) -> bool:
        """Whether the client went away or the deadline passed."""
        return self._cancelled

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._done

    # What the app calls.

    def outcome(self) -> Outcome | None:
        """The error that the servicer set or aborted with; None where there is none."""
        if self.status_code is None or self.status_code is grpc.StatusCode.OK:
            return None
        return Outcome(
            self.status_code,
            self._details,
            details_of(self.trailing),
            metadata=self.initial,
            trailing=self.trailing,
        )

    def cancel(self) -> None:
        """Notes that the call was ended from outside."""
        self._cancelled = True

    def finish(self) -> None:
        """Notes the end and calls who asked for it."""
        self._done = True
        for callback in self._done_callbacks:
            try:
                callback(self)
            except Exception:  # noqa: BLE001 - as grpc.aio: a callback cannot fail the call
                _log.exception("%s: a done callback failed", self.rpc_method)


def _code(code: Any) -> grpc.StatusCode:
    """A code, given as one or as its number."""
    return code if isinstance(code, grpc.StatusCode) else _CODES.get(code, grpc.StatusCode.UNKNOWN)


def _text(details: object) -> str:
    """A status message, whatever a servicer gave as one: it must never break the answer."""
    if isinstance(details, bytes):
        return details.decode(errors="replace")
    return details if isinstance(details, str) else str(details or "")


def _pairs(metadata: Iterable[tuple[str, str | bytes]] | None) -> Metadata:
    """Metadata in any of grpc's forms as a tuple of pairs."""
    return tuple((str(key).lower(), value) for key, value in metadata or ())
