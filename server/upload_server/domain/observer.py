"""Decides what can be counted about the service: one base for every part that reports, and for every counter.

Must not know what is done with the numbers. Here, at the bottom, since parts of every layer report.
"""

from __future__ import annotations

from collections.abc import Mapping


class Observer:
    """Counts nothing; a counter overrides what it counts. Called on the event loop: must not block or raise."""

    # Calls -------------------------------------------------------------------------------------------------------

    def call_finished(
        self, method: str, door: str, code: str, seconds: float, trace: Mapping[str, str] | None = None
    ) -> None:
        """One call of ``method`` through ``door`` (a Source) ended with gRPC ``code`` after ``seconds``.

        ``trace`` has the ids of its span, where one is kept.
        """

    def cancel_finished(self, source: str, outcome: str) -> None:
        """One cancel ended: ``cancelled``, ``too_late`` (it was final), ``unknown`` (no such id) or ``error``."""

    def request_refused(self, reason: str) -> None:
        """The HTTP port refused one request for its Origin or Host."""

    # TLS ---------------------------------------------------------------------------------------------------------

    def tls_read(self, file: str, not_after: float) -> None:
        """The file of an option, ``tls-cert`` or ``tls-client-ca``, holds until ``not_after``, in Unix seconds."""

    def tls_reload_failed(self) -> None:
        """Files of TLS have changed and are not good; those of before stay."""

    def auth_refused(self, door: str, reason: str) -> None:
        """One call through ``door`` was refused for its credential or its rights."""

    # Streams -----------------------------------------------------------------------------------------------------

    def upload_opened(self) -> None:
        """One more upload stream is open."""

    def upload_closed(self) -> None:
        """One upload stream less is open."""

    def watch_opened(self) -> None:
        """One more watch is open."""

    def watch_closed(self) -> None:
        """One watch less is open."""

    def websocket_opened(self) -> None:
        """One more WebSocket is open."""

    def websocket_closed(self) -> None:
        """One WebSocket less is open."""

    # Bytes -------------------------------------------------------------------------------------------------------

    def bytes_taken(self, count: int) -> None:
        """So many bytes of files were written: by a stream, or of a file that came whole and has its row."""

    def stream_stopped(self, seconds: float) -> None:
        """A cancelled stream wrote its last byte so long after the cancel reached it; 0 if it wrote none after that."""

    def bytes_reclaimed(self, count: int) -> None:
        """The janitor deleted so many bytes."""

    def orphans_counted(self, count: int) -> None:
        """After a sweep so many bytes lie in the sink that no upload may keep."""
