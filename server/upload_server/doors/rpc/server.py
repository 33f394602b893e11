"""Decides how the gRPC port is set up: options, handlers, health, reflection, and how it drains.

Must not know what the calls do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2

from transcoder import BodyBudget
from upload.v1 import upload_pb2 as pb
from upload_server.domain.errors import CannotStart, UploadError
from upload_server.doors.bounds import SMALL_REQUEST, method_limits, request_limits
from upload_server.doors.rpc.incoming import Arrivals, Incoming
from upload_server.doors.rpc.reflection import add_reflection
from upload_server.doors.rpc.servicer import UploadServicer
from upload_server.doors.rpc.streams import download_handler, watch_handler
from upload_server.doors.rpc.upload_stream import decode_upload_request
from upload_server.doors.rpc.wire import Decoder
from upload_server.process.ports import listen
from upload_server.process.tls import ClientAuth, Tls, TlsPair

SERVICE = pb.DESCRIPTOR.services_by_name["UploadService"]
_STREAMS = {"WatchStatus": watch_handler, "DownloadFile": download_handler}
_CANCELS = frozenset({"CancelFile", "CancelBatch"})
_MAX_METADATA_BYTES = 8192


def _options(max_message_bytes: int, max_connections: int, *, shared: bool) -> list[tuple[str, int]]:
    return [
        # A second server on the same port would silently take half of the calls.
        ("grpc.so_reuseport", int(shared)),
        # Beyond them grpcio accepts none: out of descriptors, nothing else would find one either. One that says nothing
        # goes soon: by default it may take two minutes to speak HTTP/2.
        ("grpc.max_allowed_incoming_connections", max_connections),
        ("grpc.server_handshake_timeout_ms", 20_000),
        # Watches must not use up the places that a cancel on the same connection needs.
        ("grpc.max_concurrent_streams", 2000),
        # Calls of one method that wait for our loop: more than one connection can have, or its streams, opened and
        # reset at once, would have everybody else's calls refused.
        ("grpc.server.max_pending_requests", 4000),
        ("grpc.server.max_pending_requests_hard_limit", 8000),
        ("grpc.max_receive_message_length", max_message_bytes),
        # A dead peer is noticed within some 30 s; without the ping timeout it takes a minute more.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Who pings too often is answered, not thrown out: while a connection is being closed, each further ping costs
        # grpcio more than the one before it, and a flood of them stalled every cancel for 75 ms.
        ("grpc.http2.max_ping_strikes", 0),
        # Headers of a call. By default those of 8 to 16 KiB are refused by chance, and the rest become Python objects.
        ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.max_connection_idle_ms", 900_000),
        # Else every stream's window grows to megabytes: a thousand uploads took 1.6 GiB, now they wait their turn.
        ("grpc.http2.bdp_probe", 0),
    ]


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Whether grpcio's record tells of an error; that it could not write to a caller who has left is none."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or not issubclass(kind, grpc.aio.InternalError)


def _unary_handler(serve: Callable[..., Any], incoming: Callable[[Any], Incoming]) -> Callable[..., Any]:
    async def handler(_messages: object, context: Any) -> Any:
        unread = incoming(context)
        try:
            return await serve(unread, context)
        finally:
            unread.leave()

    return handler


def _health_handlers(servicer: Any, arrivals: Arrivals) -> Mapping[str, grpc.RpcMethodHandler[Any, Any]]:
    """Health checking, which is answered whatever runs: it passes no gate."""

    def handler(method: Any) -> grpc.RpcMethodHandler[Any, Any]:
        decode = Decoder(GetMessageClass(method.input_type), SMALL_REQUEST).decode
        serve = getattr(servicer, method.name)

        async def check(_messages: object, context: Any) -> Any:
            unread = Incoming(context, decode, arrivals)
            try:
                request = await unread.read()
            except UploadError as error:
                await unread.tell(error)
            return await serve(request, context)

        to_bytes = GetMessageClass(method.output_type).SerializeToString
        if method.server_streaming:
            return grpc.stream_stream_rpc_method_handler(check, None, to_bytes)
        return grpc.stream_unary_rpc_method_handler(check, None, to_bytes)

    methods = health_pb2.DESCRIPTOR.services_by_name["Health"].methods
    return {method.name: handler(method) for method in methods}


def _credentials(tls: Tls, *, with_client: bool) -> grpc.ServerCredentials:
    """Return credentials whose every handshake takes the pair of the moment."""
    given = tls.pair

    def fetch() -> Any:
        # On threads of grpcio's core: it must not wait or raise. None: as before.
        nonlocal given
        if (pair := tls.pair) is given:
            return None
        given = pair
        return _configuration(pair, with_client=with_client)

    first = _configuration(given, with_client=with_client)
    return grpc.dynamic_ssl_server_credentials(first, fetch, require_client_authentication=with_client)


def _configuration(pair: TlsPair, *, with_client: bool) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(pair.key, pair.chain)], root_certificates=pair.client_ca if with_client else None
    )


class GrpcServer:
    """The gRPC port: UploadService, health and, where wanted, reflection."""

    def __init__(
        self,
        servicer: UploadServicer,
        *,
        max_message_bytes: int,
        message_seconds: float,
        max_connections: int,
        bodies: BodyBudget,
        reflection_on: bool,
        shared: bool = False,
    ) -> None:
        """``message_seconds``: how long the message of a call may take to come; long ones count in ``bodies``.

        ``shared``: its port is reserved, and other processes listen on it too.
        """
        # grpcio writes unary answers and the messages of UploadFile after our code has given them out of hand.
        logging.getLogger("grpc._cython.cygrpc").addFilter(_is_worth_a_line)
        self._shared = shared
        self._limits, self._limits_of = request_limits(max_message_bytes), method_limits(max_message_bytes)
        # Cancels have places of their own.
        self._arrivals, self._cancels = (Arrivals(message_seconds, bodies) for _ in range(2))
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=_options(max_message_bytes, max_connections, shared=shared))
        # Registered, so that each method has a queue of its own inside grpcio. In one for all, a cancel waited behind
        # every call of everybody else, also those that their callers had long reset.
        self._server.add_registered_method_handlers(
            SERVICE.full_name, {method.name: self._handler(method, servicer) for method in SERVICE.methods}
        )
        self._server.add_registered_method_handlers(health.SERVICE_NAME, _health_handlers(self._health, self._arrivals))
        if reflection_on:
            add_reflection(self._server, (SERVICE.full_name, health.SERVICE_NAME), servicer.calls)
        self.port = 0

    async def start(self, host: str, port: int, tls: Tls | None = None, mtls_port: int = 0) -> None:
        """Bind and serve; raises ``CannotStart``.

        On ``mtls_port``, unless it is 0, each caller shows a certificate: grpcio asks for none that may be missing.
        """
        credentials = None
        if tls is not None:
            credentials = _credentials(tls, with_client=tls.client_auth is ClientAuth.REQUIRED)
        self.port = self._bind(host, port, "--grpc-port", credentials)
        if tls is not None and mtls_port:
            self._bind(host, mtls_port, "--grpc-mtls-port", _credentials(tls, with_client=True))
        await self._server.start()
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)

    def _bind(self, host: str, port: int, option: str, credentials: grpc.ServerCredentials | None) -> int:
        try:
            if credentials is None:
                return self._server.add_insecure_port(f"{host}:{port}")
            return self._server.add_secure_port(f"{host}:{port}", credentials)
        except RuntimeError:
            # grpcio does not say why; the same without it does.
            listen(host, port, option, shared=self._shared).close()
            raise CannotStart(f"gRPC cannot listen on {host} port {port}; choose another with {option}") from None

    async def drain(self) -> None:
        """Say NOT_SERVING, to whoever asks or watches."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace: float) -> None:
        """Refuse new calls, give running ones ``grace`` seconds, then cut them: their clean-up may go on."""
        await self._server.stop(grace)

    async def _set_health(self, status: int) -> None:
        for name in (health.OVERALL_HEALTH, SERVICE.full_name):
            await self._health.set(name, status)

    def _handler(self, method: Any, servicer: UploadServicer) -> grpc.RpcMethodHandler[Any, Any]:
        request, response = getattr(pb, method.input_type.name), getattr(pb, method.output_type.name)
        if method.client_streaming:
            serve = getattr(servicer, method.name)
            return grpc.stream_stream_rpc_method_handler(serve, decode_upload_request, response.SerializeToString)
        arrivals = self._cancels if method.name in _CANCELS else self._arrivals
        decoder = Decoder(request, self._limits_of.get(method.name, self._limits))
        incoming = partial(Incoming, decode=decoder.decode, arrivals=arrivals)
        if method.server_streaming:
            handler_of = _STREAMS[method.name]
            return grpc.stream_stream_rpc_method_handler(handler_of(servicer, incoming), None, None)
        handler = _unary_handler(getattr(servicer, method.name), incoming)
        return grpc.stream_unary_rpc_method_handler(handler, None, response.SerializeToString)
