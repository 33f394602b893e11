"""Decides how the parts are put together, and in which order they start and drain. The composition root.

Must not decide anything else: whatever a part needs is passed in here. What is opened first decides ``start``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from transcoder import BodyBudget, build_app
from upload_server import __version__
from upload_server.access.certificates import Proxies
from upload_server.access.identity import Presented
from upload_server.access.open import Access
from upload_server.access.policy import check_complete
from upload_server.access.quotas import Use
from upload_server.access.tickets import Tickets
from upload_server.config import Config
from upload_server.domain.errors import CredentialMissing, CutOff, UploadError
from upload_server.domain.states import FileStatus, Source
from upload_server.doors.admission import Admission, Gate
from upload_server.doors.bounds import BODY_BYTES, method_limits, request_limits
from upload_server.doors.calls import Calls
from upload_server.doors.convert import file_to_proto, with_content_uri
from upload_server.doors.errors import HTTP_STATUSES, challenge
from upload_server.doors.http.app import WebApp
from upload_server.doors.http.asgi import Application
from upload_server.doors.http.content import ContentDoor
from upload_server.doors.http.faults import fault_details
from upload_server.doors.http.guard import Guard
from upload_server.doors.http.pages import default_pages
from upload_server.doors.http.protocol import MAX_CONNECTIONS
from upload_server.doors.http.server import HttpServer, bind
from upload_server.doors.http.tickets import TicketDoor
from upload_server.doors.presented import of_grpc, of_grpc_with_certificate, of_scope, of_socket, of_transcoded
from upload_server.doors.rpc.server import SERVICE, GrpcServer
from upload_server.doors.rpc.servicer import UploadServicer
from upload_server.doors.tus import TusDoor
from upload_server.doors.websocket import WebSocketDoor
from upload_server.ingest import Ingest, Limits
from upload_server.process import Metrics
from upload_server.process.descriptors import Descriptors
from upload_server.process.heap import Heap
from upload_server.process.tls import Tls
from upload_server.process.tracing import Traces
from upload_server.service import Uploads
from upload_server.sink.protocol import Sink
from upload_server.store.protocol import Store
from upload_server.store.values import Commit
from upload_server.upkeep.clock import ClockWatch
from upload_server.upkeep.janitor import Janitor
from upload_server.upkeep.journal import Journal
from upload_server.upkeep.node import Node
from upload_server.upkeep.retention import Retention
from upload_server.upkeep.sealer import Sealer
from upload_server.watch import WatchHub

log = structlog.get_logger(__name__)

_GAUGE_SECONDS = 10.0
# After the grace is over: time for streams to tell their senders and let go of their files, and then for the ports.
_STOP_SECONDS = 1.0
# At the end, for the seals of the last audit events.
_SEAL_SECONDS = 2.0
# Unsealed audit events are counted up to this.
_MAX_UNSEALED = 100_000

# The service's clock: UTC, whole microseconds.
utc_now = functools.partial(datetime.now, UTC)


def new_id() -> str:
    """Return a fresh UUIDv4 as text."""
    return str(uuid.uuid4())


class Service:
    """A server process: everything between the ports and the disk."""

    def __init__(self, config: Config, store: Store, sink: Sink, descriptors: Descriptors, metrics: Metrics) -> None:
        check_complete([method.name for method in SERVICE.methods])
        self._config = config
        self._connections = max(1, min(MAX_CONNECTIONS // config.workers, descriptors.connections))
        # An idle connection makes way for a new one, a socket does not: half of them stay for callers.
        max_websockets = min(config.max_websockets, max(1, self._connections // 2))
        # None: nobody has to say who calls.
        self._access: Access | None = None
        self._proxies = Proxies(config.trusted_proxies) if config.trusted_proxies else None
        if config.with_auth:
            self._access = Access(config, store, self._use_of, metrics, proxies=self._proxies)
        self._store = store
        self._metrics = metrics
        self._traces = Traces(config.otlp_endpoint, __version__) if config.otlp_endpoint else None
        self._quotas = None if self._access is None else self._access.quotas
        self._admission = Admission(
            {
                Gate.READ: config.max_calls,
                Gate.LIST: config.max_calls,
                Gate.CHANGE: config.max_calls,
                Gate.CANCEL: config.max_calls,
                Gate.UPLOAD: config.max_uploads,
                Gate.DOWNLOAD: config.max_downloads,
                Gate.WATCH: config.max_watches,
                Gate.WEBSOCKET: max_websockets,
            },
            self._quotas,
        )
        self._tls = None if config.tls is None else Tls(config.tls, metrics)
        self._hub = WatchHub(
            store, history=config.watch_history, bookmark_interval=config.bookmark_interval, observer=metrics
        )
        self._journal = Journal(store, with_files=config.log_level == "debug")
        metrics.show_room(sink.room, store.room)
        limits = Limits(open_files=descriptors.uploads, sync_seconds=config.durable_interval)
        self._ingest = Ingest(
            store,
            sink,
            clock=utc_now,
            limits=limits.of_one_in(config.workers),
            on_progress=self._hub.publish_progress,
            observer=metrics,
        )
        self._janitor = Janitor(
            store,
            sink,
            self._ingest,
            clock=utc_now,
            upload_ttl=config.upload_ttl,
            request_ttl=config.request_ttl,
            expiry_grace=config.expiry_grace,
            observer=metrics,
        )
        self._sealer = Sealer(store)
        self._node = Node(
            store,
            self._ingest,
            busy=lambda: self._ingest.open_count > 0 or self._hub.open_watches > 0,
            on_change=self._on_change_elsewhere,
            on_stop=self._janitor.nudge,
            on_cut_off=lambda: self._hub.close(CutOff),
            on_back=self._hub.open_again,
        )
        self._uploads = Uploads(
            store,
            self._ingest,
            self._hub,
            clock=utc_now,
            new_id=new_id,
            max_file_bytes=config.max_file_bytes,
            observer=metrics,
            announce=None if self._quotas is None else self._quotas.announce,
        )
        self._file_message = with_content_uri(sink.uri) if config.publish_content_uri else file_to_proto
        self._bodies = BodyBudget(max(BODY_BYTES // config.workers, config.max_message_bytes))
        self._grpc = GrpcServer(
            self._servicer(Source.GRPC, of_grpc_with_certificate if config.tls_client_ca else of_grpc),
            bodies=self._bodies,
            max_message_bytes=config.max_message_bytes,
            message_seconds=config.call_timeout,
            max_connections=self._connections,
            reflection_on=config.with_reflection,
            shared=config.workers > 1,
        )

        self._websockets = WebSocketDoor(
            self._uploads,
            self._ingest,
            self._calls(Source.WEBSOCKET, of_socket),
            clock=utc_now,
            grace_seconds=config.websocket_grace,
            max_grace_seconds=config.max_websocket_grace,
            idle_seconds=config.idle_timeout,
            least_bytes=config.least_bytes,
            observer=metrics,
            file_message=self._file_message,
        )
        self._web = WebApp(
            transcoder=self._transcoder(),
            websocket=self._websockets,
            tus=self._tus(),
            content=ContentDoor(self._uploads, self._calls(Source.HTTP, of_scope)),
            tickets=None if self._access is None else self._ticket_door(self._access.tickets),
            ready=store.ping,
            metrics=metrics,
            calls=self._calls(Source.HTTP, of_scope),
            pages=default_pages(),
        )
        self._http: HttpServer | None = None
        store.on_commit(self._on_commit)

    def _on_commit(self, commits: Sequence[Commit]) -> None:
        """Log what was committed, and nudge all who act upon it."""
        for commit in commits:
            self._journal.write(commit)
        self._hub.nudge()
        self._sealer.nudge()
        self._janitor.nudge_if_owed(commits)

    def _on_change_elsewhere(self) -> None:
        """Nudge those who act upon what any node commits."""
        self._hub.nudge()
        self._sealer.nudge()

    async def run(self, stop: asyncio.Event, started: Callable[[int, int], None]) -> None:
        """Serve until ``stop`` is set, then drain. ``started`` hears the gRPC and the HTTP port once both are open."""
        config = self._config
        self._http = HttpServer(
            self._guarded(),
            bind(config.host, config.http_port, shared=config.workers > 1),
            stop_seconds=_STOP_SECONDS,
            memory=self._ingest.memory,
            max_connections=self._connections,
            tls=None if self._tls is None else self._tls.context,
            # A browser would take it for every port of its own machine.
            https_only=self._tls is not None and not config.on_loopback,
        )
        reloaders = [] if self._tls is None else [self._tls.reloader]
        if reloaders or config.tokens_file:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._read_anew)
        try:
            # Ports first: an error of the bind then reaches the operator plainly, not inside a group of errors.
            await self._grpc.start(config.host, config.grpc_port, self._tls, config.grpc_mtls_port)
            await self._http.start()
            async with _background(
                self._node.run(),
                self._hub.run(),
                self._hub.follow_others(),
                self._janitor.run(),
                self._sealer.run(),
                self._websockets.run(),
                self._journal.run(),
                self._refresh_gauges(),
                self._metrics.measure_loop_lag(),
                ClockWatch(utc_now).run(),
                Heap().run(),
                *(reloader.run() for reloader in reloaders),
                *([] if self._access is None else self._access.loops(self._end_lost)),
                *([self._retention().run()] if config.keep_content else []),
            ):
                started(self._grpc.port, self._http.port)
                await stop.wait()
                await self._drain(self._http)
        finally:
            await self._http.stop()
            await self._store.drain()
            await self._sealer.finish(_SEAL_SECONDS)
            if self._traces is not None:
                await asyncio.to_thread(self._traces.close)

    def _read_anew(self) -> None:
        """Have the files of TLS and of tokens read at once, changed or not."""
        if self._tls is not None:
            self._tls.reloader.nudge()
        if self._access is not None:
            self._access.read_anew()

    async def _drain(self, http: HttpServer) -> None:
        """Say so first, wait for the calls that run, then end those that are left; what is durable stays resumable."""
        log.info("draining", uploads=self._ingest.open_count, watches=self._hub.open_watches)
        await self._grpc.drain()
        self._web.drain()
        self._websockets.drain()
        self._admission.close()
        # Watches never end by themselves: their clients resume elsewhere with their token.
        self._hub.close()
        await self._wait_idle(self._config.drain_grace)
        await self._ingest.aclose()
        await asyncio.gather(self._grpc.stop(_STOP_SECONDS), self._stop_http(http))
        await self._admission.wait_empty()

    async def _wait_idle(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._admission.wait_idle()
                await self._websockets.finish()

    async def _stop_http(self, http: HttpServer) -> None:
        # First the goodbyes of sockets: the HTTP server's own close tells a page nothing.
        await self._wait_idle(_STOP_SECONDS)
        http.drain()
        await http.stop()

    async def _refresh_gauges(self) -> None:
        while True:
            try:
                # None: everybody's.
                counts = await self._store.count(None, utc_now())
                self._metrics.set_files({status.value: total.files for status, total in counts.files.items()})
                self._metrics.set_unsealed_events(await self._store.count_unsealed_events(_MAX_UNSEALED))
            except UploadError as error:
                log.warning("metrics.count_failed", reason=error.reason)
            await asyncio.sleep(_GAUGE_SECONDS)

    def _guarded(self) -> Guard:
        return Guard(
            self._web,
            on_loopback=self._config.on_loopback,
            allowed_origins=self._config.allowed_origins,
            allowed_hosts=self._config.allowed_hosts,
            allowed_headers=self._config.allowed_headers,
            observer=self._metrics,
            trusts=None if self._proxies is None else self._proxies.trust,
            refuse_cross_site=self._config.with_auth,
        )

    def _end_lost(self) -> None:
        """End the streams of callers who may not go on."""
        if self._access is not None:
            callers = self._access.callers
            self._hub.end_where(callers.lost_or_expired)
            self._ingest.end_where(callers.lost)
            self._admission.end_where(callers.lost)

    def _servicer(self, door: Source, see: Callable[[Any], Presented]) -> UploadServicer:
        return UploadServicer(
            self._uploads,
            self._ingest,
            self._calls(door, see),
            idle_seconds=self._config.idle_timeout,
            least_bytes=self._config.least_bytes,
            file_message=self._file_message,
            quotas=self._quotas,
        )

    async def _use_of(self, principal: str) -> Use:
        """Return what a principal has in the store."""
        files = (await self._store.count(principal, utc_now())).files
        opened = [files[status] for status in FileStatus if not status.final]
        size_bytes = sum(total.size_bytes for total in opened) + files[FileStatus.COMPLETED].size_bytes
        return Use(sum(total.files for total in opened), size_bytes)

    def _calls(self, door: Source, see: Callable[[Any], Presented]) -> Calls:
        timeout, callers = self._config.call_timeout, None if self._access is None else self._access.callers
        return Calls(
            door, self._admission, self._metrics, timeout=timeout, callers=callers, see=see, traces=self._traces
        )

    def _tus(self) -> Application:
        config = self._config
        return TusDoor(
            self._uploads,
            self._ingest,
            self._calls(Source.TUS, of_scope),
            clock=utc_now,
            idle_seconds=config.idle_timeout,
            least_bytes=config.least_bytes,
            upload_ttl=config.upload_ttl,
            max_file_bytes=config.max_file_bytes,
        )

    def _retention(self) -> Retention:
        config = self._config
        return Retention(
            self._store,
            clock=utc_now,
            keep_content=config.keep_content,
            keep_rows=config.keep_rows,
            pruned_dir=Path(config.pruned_dir) if config.pruned_dir else config.data_dir / "pruned",
        )

    def _ticket_door(self, tickets: Tickets) -> Application:
        return TicketDoor(self._uploads, self._calls(Source.HTTP, of_scope), tickets)

    def _transcoder(self) -> Application:
        servicer = self._servicer(Source.HTTP, of_transcoded)
        return build_app(
            [(SERVICE, servicer)],
            reject_unknown=True,
            request_limits=request_limits(self._config.max_message_bytes),
            method_limits=method_limits(self._config.max_message_bytes),
            body_budget=self._bodies,
            sse_id_field="resume_token",
            sse_resume_field="resume_token",
            error_details=fault_details,
            http_statuses=HTTP_STATUSES,
            www_authenticate=challenge(CredentialMissing()),
            before_body=None if self._access is None else servicer.calls.identify_early,
        )


@contextlib.asynccontextmanager
async def _background(*loops: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Run ``loops`` beside the block, end them with it; one that breaks ends the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(loop) for loop in loops]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
