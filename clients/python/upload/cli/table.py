"""Decides how ``uploadctl watch --table`` looks: one row a target, its newest state, the last that changed on top."""

from __future__ import annotations

from rich.live import Live
from rich.table import Table
from rich.text import Text

from upload.cli.texts import size_text, visible
from upload.records import Progress, WatchEvent
from upload.statuses import by_whom

# Rows that are kept; older ones make way, so that watching everything for a week costs no more than a minute of it.
_MAX_ROWS = 200
_STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow", "uploading": "cyan", "processing": "cyan"}


class WatchTable:
    """The newest state of whatever is watched. ``show`` events into it, inside ``with table.live():``."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[str, ...]] = {}
        self._sizes: dict[str, int] = {}
        self._live: Live | None = None

    def live(self) -> Live:
        """Return the display that keeps the table on the terminal."""
        self._live = Live(get_renderable=self.render, refresh_per_second=8, transient=False)
        return self._live

    def show(self, event: WatchEvent) -> None:
        """Take one event; the display follows by itself."""
        if event.file:
            file = event.file
            self._sizes[file.file_id] = file.size_bytes
            self._put(
                file.file_id,
                file.status,
                f"{size_text(file.bytes_received)} of {size_text(file.size_bytes)}",
                file.filename,
                _why(file.cancelled_by, file.cancel_reason or file.failure_reason),
            )
        elif event.batch:
            batch = event.batch
            done = f"{batch.completed_files} done, {batch.cancelled_files_count} cancelled of {batch.total_files}"
            self._put(batch.batch_id, batch.status, done, "(batch)", _why(batch.cancelled_by, batch.cancel_reason))
        elif event.progress:
            self._progress(event.progress)

    def render(self) -> Table:
        """Return the table as it is now."""
        table = Table(expand=True)
        # Whole at any width: it is there to be copied.
        table.add_column("id", no_wrap=True, min_width=36)
        for name in ("status", "received", "name", "by, why"):
            table.add_column(name, no_wrap=True, overflow="ellipsis")
        for identifier, row in reversed(self._rows.items()):
            status = Text(row[0], style=_STYLES.get(row[0], ""))
            table.add_row(identifier, status, *(Text(visible(cell)) for cell in row[1:]))
        return table

    def _put(self, identifier: str, *row: str) -> None:
        self._rows.pop(identifier, None)
        self._rows[identifier] = row
        if len(self._rows) > _MAX_ROWS:
            oldest = next(iter(self._rows))
            del self._rows[oldest]
            self._sizes.pop(oldest, None)

    def _progress(self, progress: Progress) -> None:
        row = self._rows.get(progress.file_id)
        if row is not None:
            received = f"{size_text(progress.bytes_received)} of {size_text(self._sizes[progress.file_id])}"
            self._rows[progress.file_id] = (row[0], received, *row[2:])


def _why(by: str, reason: str) -> str:
    return ": ".join(part for part in (by and by_whom(by).removeprefix("by "), reason) if part)
