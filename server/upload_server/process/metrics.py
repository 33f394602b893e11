"""Decides which series Prometheus sees; every number of the service ends here.

Must not know which part counts: methods take plain words and numbers. Label values come from closed sets in the code,
never from a caller, so that the number of series is bounded. Safe to call from any thread.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from upload_server.domain.observer import Observer

# Seconds. A durable cancel takes under a millisecond; a call is cut at 30 s, a stream may last hours.
_CALL_SECONDS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    300.0,
    3600.0,
)
_STOP_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LAG_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics(Observer):
    """Counts into the service's series, on a registry of their own; ``/metrics`` answers with ``render``."""

    def __init__(self, version: str = "", workers: Workers | None = None, *, examples: bool = False) -> None:
        """``workers``: this process is one of several, and ``render`` tells of all of them; ``examples``: calls name
        their spans."""
        self.registry = registry = CollectorRegistry()
        # What several processes count has none.
        self._shows_examples = examples and workers is None
        # What is rendered.
        self._shown = registry
        if workers is None:
            ProcessCollector(registry=registry)
        else:
            self._shown = CollectorRegistry()
            MultiProcessCollector(self._shown, workers.folder)  # type: ignore[no-untyped-call]
            self._shown.register(_Processes(workers.pids))
        calls = Counter(
            "upload_calls",
            "Calls that ended, by method, door and gRPC code.",
            ["method", "door", "code"],
            registry=registry,
        )
        call_seconds = Histogram(
            "upload_call_duration_seconds",
            "Time from a call's start to its end.",
            ["method", "door", "code"],
            buckets=_CALL_SECONDS,
            registry=registry,
        )
        # Of what each process counts for all the newest counts, of what is open in each the sum.
        self._files = Gauge(
            "upload_files", "Uploads by state.", ["status"], registry=registry, multiprocess_mode="mostrecent"
        )
        self._statuses: set[str] = set()
        cancels = Counter(
            "upload_cancels",
            "Cancel requests by source and outcome (cancelled, too_late, unknown, error).",
            ["source", "outcome"],
            registry=registry,
        )
        # Looked up by their labels once: every call ends with them.
        self._calls_of, self._cancels_of = cache(calls.labels), cache(cancels.labels)
        self._seconds_of = cache(call_seconds.labels)
        self._refused = Counter(
            "upload_refused_requests",
            "Requests refused at the HTTP port before anything ran, by reason.",
            ["reason"],
            registry=registry,
        )
        self._tls_not_after = Gauge(
            "upload_tls_not_after_seconds",
            "Unix time until which the certificates of a file hold; no series without TLS.",
            ["file"],
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._tls_reload_failed = Counter(
            "upload_tls_reload_failed",
            "Changes of the files of TLS that were not good, so that those of before stayed.",
            registry=registry,
        )
        self._auth_refused = Counter(
            "upload_auth_refused",
            "Calls refused for their credential or their rights, by door and reason.",
            ["door", "reason"],
            registry=registry,
        )
        self._cancel_to_last_byte = Histogram(
            "upload_cancel_to_last_byte_seconds",
            "Time from a committed cancel to the last byte taken of that file on this node.",
            buckets=_STOP_SECONDS,
            registry=registry,
        )
        self._loop_lag = Histogram(
            "upload_event_loop_lag_seconds",
            "How late the event loop ran a timer, sampled.",
            buckets=_LAG_SECONDS,
            registry=registry,
        )
        self._taken = Counter("upload_taken_bytes", "Bytes taken from senders.", registry=registry)
        self._reclaimed = Counter("upload_reclaimed_bytes", "Stored bytes deleted again.", registry=registry)
        self._orphans = Gauge(
            "upload_orphan_bytes",
            "Bytes that lie in the storage for cancelled or failed uploads, or for none at all, as of the last sweep.",
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._unsealed = Gauge(
            "upload_audit_unsealed_events",
            "Audit events that the chain has not sealed yet.",
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._uploads, self._watches, self._websockets = (
            Gauge(name, text, registry=registry, multiprocess_mode="livesum")
            for name, text in (
                ("upload_open_uploads", "Upload streams open on this node, over any door."),
                ("upload_open_watches", "Watches open on this node."),
                ("upload_open_websockets", "WebSockets open on this node."),
            )
        )
        Gauge(
            "upload_build_info",
            "Always 1; the label tells the version.",
            ["version"],
            registry=registry,
            multiprocess_mode="max",
        ).labels(version).set(1)

    # Calls -------------------------------------------------------------------------------------------------------

    def call_finished(
        self, method: str, door: str, code: str, seconds: float, trace: Mapping[str, str] | None = None
    ) -> None:
        """Count one call of ``method`` through ``door`` (a Source) that ended with gRPC ``code`` after ``seconds``.

        ``trace`` has the ids of its span, as an example of calls that took as long.
        """
        self._calls_of(method, door, code).inc()
        duration = self._seconds_of(method, door, code)
        if trace is None:
            duration.observe(seconds)
        else:
            duration.observe(seconds, dict(trace))

    def cancel_finished(self, source: str, outcome: str) -> None:
        """Count one cancel request: ``cancelled``, ``too_late`` (it was final), ``unknown`` (no such id), ``error``."""
        self._cancels_of(source, outcome).inc()

    def request_refused(self, reason: str) -> None:
        """Count one request that the HTTP port refused for its Origin or Host."""
        self._refused.labels(reason).inc()

    # TLS ---------------------------------------------------------------------------------------------------------

    def tls_read(self, file: str, not_after: float) -> None:
        """Show until when the certificates of a file hold, in Unix seconds."""
        self._tls_not_after.labels(file).set(not_after)

    def tls_reload_failed(self) -> None:
        """Count one change of TLS files that were not good."""
        self._tls_reload_failed.inc()

    def auth_refused(self, door: str, reason: str) -> None:
        """Count one call through ``door`` that was refused for its credential or its rights."""
        self._auth_refused.labels(door, reason).inc()

    # Bytes -------------------------------------------------------------------------------------------------------

    def bytes_taken(self, count: int) -> None:
        """Add bytes that a stream took from its sender."""
        self._taken.inc(count)

    def stream_stopped(self, seconds: float) -> None:
        """Record how long after a committed cancel the last byte of that file was taken."""
        self._cancel_to_last_byte.observe(seconds)

    def bytes_reclaimed(self, count: int) -> None:
        """Add bytes that the janitor deleted."""
        self._reclaimed.inc(count)

    # What is open --------------------------------------------------------------------------------------------------

    def upload_opened(self) -> None:
        """One more upload stream is open."""
        self._uploads.inc()

    def upload_closed(self) -> None:
        """One upload stream less is open."""
        self._uploads.dec()

    def watch_opened(self) -> None:
        """One more watch is open."""
        self._watches.inc()

    def watch_closed(self) -> None:
        """One watch less is open."""
        self._watches.dec()

    def websocket_opened(self) -> None:
        """One more WebSocket is open."""
        self._websockets.inc()

    def websocket_closed(self) -> None:
        """One WebSocket less is open."""
        self._websockets.dec()

    # State -------------------------------------------------------------------------------------------------------

    def set_files(self, counts: Mapping[str, int]) -> None:
        """Set the number of uploads by state, as the store counted them; states left out become 0."""
        for status in self._statuses.difference(counts):
            self._files.labels(status).set(0)
        for status, count in counts.items():
            self._files.labels(status).set(count)
        self._statuses.update(counts)

    def orphans_counted(self, count: int) -> None:
        """Set how many bytes lie in the storage that no upload may keep."""
        self._orphans.set(count)

    def show_room(self, storage: Callable[[], int], database: Callable[[], int]) -> None:
        """Have both asked at every ``render``, on its thread: bytes that uploads, and announcements, may still take."""
        self._shown.register(_Room(storage, database))

    def set_unsealed_events(self, count: int) -> None:
        """Set how many audit events wait for their seal."""
        self._unsealed.set(count)

    async def measure_loop_lag(self, interval_seconds: float = 0.25) -> None:
        """Sample how late the running event loop is, until cancelled; run as a task."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + interval_seconds
            await asyncio.sleep(interval_seconds)
            self._loop_lag.observe(max(0.0, loop.time() - due))

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the text exposition and its media type; takes a few ms with many series, so call it in a thread.

        It is OpenMetrics, which alone tells examples, where there are some and the ``Accept`` header takes it.
        """
        if self._shows_examples and "application/openmetrics-text" in accept:
            return openmetrics.generate_latest(self._shown), openmetrics.CONTENT_TYPE_LATEST  # type: ignore[no-untyped-call]
        return generate_latest(self._shown), CONTENT_TYPE_PLAIN_0_0_4


@dataclass(frozen=True, slots=True)
class Workers:
    """Processes that serve as one: where each of them counts, and who they are now."""

    folder: str
    pids: Callable[[], Iterable[int]]


class _Room(Collector):
    """What is left of the disks, asked at each scrape."""

    def __init__(self, storage: Callable[[], int], database: Callable[[], int]) -> None:
        self._asked = (
            (
                "upload_storage_room_bytes",
                "Bytes that uploads may still store: what is free, without what is kept for cancels.",
                storage,
            ),
            (
                "upload_database_room_bytes",
                "Bytes that announcements may still take, with what is kept for the ends of the files they announce.",
                database,
            ),
        )

    def describe(self) -> Iterable[Metric]:
        """Tell the names without asking."""
        return [GaugeMetricFamily(name, text) for name, text, _ in self._asked]

    def collect(self) -> Iterable[Metric]:
        """Ask both."""
        return [GaugeMetricFamily(name, text, value=_asked(room)) for name, text, room in self._asked]


def _asked(room: Callable[[], int]) -> float:
    try:
        return room()
    except Exception:  # noqa: BLE001 - one gauge must not cost a scrape all the others
        return math.nan


class _Processes(Collector):
    """Processor time, memory and the like of several processes as if they were one."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids

    def describe(self) -> Iterable[Metric]:
        """Tell nothing before it is asked."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Add up; of the starts the first counts."""
        values: dict[str, list[float]] = {}
        kinds: dict[str, Metric] = {}
        for pid in self._pids():
            for metric in ProcessCollector(pid=partial(str, pid), registry=None).collect():
                kinds[metric.name] = metric
                values.setdefault(metric.name, []).append(metric.samples[0].value)
        for name, metric in kinds.items():
            total = min(values[name]) if name == "process_start_time_seconds" else sum(values[name])
            summed = Metric(name, metric.documentation, metric.type)
            summed.add_sample(metric.samples[0].name, {}, total)
            yield summed
