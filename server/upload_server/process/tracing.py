"""Decides how a call becomes a span of OpenTelemetry, which goes to a collector by OTLP over HTTP.

Must not know what a call does, nor where its door keeps headers. The libraries are an extra; without traces nobody
imports them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from upload_server.domain.errors import CannotStart
from upload_server.domain.steps import Step

SERVICE: Final = "upload.v1.UploadService"
# Headers of a caller that name the span which the call belongs to (W3C Trace Context).
PARENT: Final = frozenset({"traceparent", "tracestate"})
# Seconds that a collector may take for what is sent to it: at the end the process waits no longer.
_EXPORT_SECONDS: Final = 2
_END_SECONDS: Final = 0.5
# Codes that are errors of the service, as OpenTelemetry's conventions for gRPC servers have it.
_FAULTS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"},
)


class Traces:
    """Spans of calls, sent in the background. How many are kept the environment says: ``OTEL_TRACES_SAMPLER``."""

    def __init__(self, endpoint: str, version: str) -> None:
        """Begin sending to the collector at ``endpoint``; raises ``CannotStart``."""
        try:
            # An extra, and a third of a second of each start.
            import requests  # noqa: PLC0415
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
            from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context  # noqa: PLC0415
            from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
                TraceContextTextMapPropagator,
            )
        except ModuleNotFoundError as error:
            raise CannotStart("--otlp-endpoint: needs the extra `otel` of the server") from error
        names = {"service.name": os.environ.get("OTEL_SERVICE_NAME", "upload-service"), "service.version": version}
        self._provider = TracerProvider(resource=Resource.create(names), shutdown_on_exit=False)
        session = requests.Session()
        # What a collector answers nobody reads, and it may be endless.
        session.stream = True
        url = f"{endpoint.rstrip('/')}/v1/traces"
        self._exporter: Any = OTLPSpanExporter(endpoint=url, timeout=_EXPORT_SECONDS, session=session)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("upload_server", version)
        self._parent_of = TraceContextTextMapPropagator().extract
        self._kind, self._failed = SpanKind.SERVER, Status(StatusCode.ERROR)
        self._inside = set_span_in_context

    def call_finished(
        self,
        method: str,
        code: str,
        began: float,
        ended: float,
        parent: Mapping[str, str],
        about: Mapping[str, str],
        steps: Sequence[Step] = (),
    ) -> Mapping[str, str] | None:
        """Note a call; returns the ids of its span, unless that is not sampled.

        ``began`` and ``ended`` are by ``time.monotonic``, as the times of steps. ``parent`` are the caller's headers,
        ``about`` what it was about, ``steps`` what it waited for.
        """
        # All times by one clock: a step lies within its call.
        past = time.time_ns() - time.monotonic_ns()
        span = self._tracer.start_span(
            f"{SERVICE}/{method}",
            context=self._parent_of(parent),
            kind=self._kind,
            start_time=past + int(began * 1e9),
            attributes={
                "rpc.system": "grpc",
                "rpc.service": SERVICE,
                "rpc.method": method,
                "rpc.response.status_code": code,
                **{f"upload.{name}": value for name, value in about.items()},
            },
        )
        if code in _FAULTS:
            span.set_status(self._failed)
        span.end(past + int(ended * 1e9))
        ids = span.get_span_context()
        if not ids.trace_flags.sampled:
            return None
        inside = self._inside(span)
        for step in steps:
            first, last = (past + int(at * 1e9) for at in (step.began, step.ended))
            named = {"upload.write": step.about} if step.about else None
            self._tracer.start_span(step.name, context=inside, start_time=first, attributes=named).end(last)
        return {"trace_id": f"{ids.trace_id:032x}", "span_id": f"{ids.span_id:016x}"}

    def close(self) -> None:
        """Send what is left; blocks for a few seconds at most."""
        # The time of a batch counts from each byte of an answer to the next, and a collector may send one now and then.
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(_EXPORT_SECONDS)
        if sending.is_alive():
            # Where nobody answers, the batches behind the first are dropped.
            self._exporter.shutdown()
            sending.join(_END_SECONDS)
