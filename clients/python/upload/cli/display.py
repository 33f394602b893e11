"""Decides how a running upload looks: bars on a terminal (with rich, if it is installed), plain lines otherwise."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from upload.cli.output import Output
from upload.cli.texts import size_text, visible
from upload.plan import Item
from upload.sending import TransferProgress

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

# Between two lines on progress.
_SECONDS = 10.0


class Display(Protocol):
    """Shows uploads under way."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def start(self, item: Item, file_id: str) -> None:
        """Show that a file begins."""

    def update(self, progress: TransferProgress) -> None:
        """Show how far it is."""

    def end(self, file_id: str, size_bytes: int) -> None:
        """Show that it is over, one way or the other."""


class Lines:
    """A line when a file begins, and now and then one on how far all of them are; results tell what became of each."""

    def __init__(self, output: Output, total_bytes: int, seconds: float) -> None:
        self._output = output
        self._total = total_bytes
        self._seconds = seconds
        self._began = self._said = time.monotonic()
        self._received: dict[str, int] = {}
        # Bytes that were on the server before, and those of files that are over.
        self._before = self._over = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def start(self, item: Item, file_id: str) -> None:
        """Say what begins, with its id."""
        _say_started(self._output, item, file_id)

    def update(self, progress: TransferProgress) -> None:
        """Say how far all is, unless that was said a moment ago."""
        if progress.file_id not in self._received:
            self._before += progress.bytes_received
        self._received[progress.file_id] = progress.bytes_received
        now = time.monotonic()
        if not self._seconds or now - self._said < self._seconds:
            return
        self._said = now
        done = self._over + sum(self._received.values())
        speed = (done - self._before) / (now - self._began)
        left = f", {(self._total - done) / speed:.0f} s left" if speed > 0 else ""
        share = f"{100 * done / self._total:.0f} %" if self._total else "100 %"
        text = f"{size_text(done)} of {size_text(self._total)} ({share}), {size_text(speed)}/s{left}"
        self._output.note("progress", text, bytes_received=done, size_bytes=self._total)

    def end(self, file_id: str, size_bytes: int) -> None:
        """Count the file as dealt with; its result says the rest."""
        self._over += size_bytes
        self._received.pop(file_id, None)


class Bars:
    """A bar per file under way, with durable bytes, speed and remaining time, and one for the whole batch."""

    def __init__(self, output: Output, bars: Progress, total_bytes: int, files: int) -> None:
        self._output = output
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._shown: dict[str, int] = {}
        self._all = bars.add_task(f"{files} files", total=total_bytes) if files > 1 else None

    def __enter__(self) -> Self:
        self._bars.start()
        # From now on everybody who writes on this terminal writes above the bars.
        self._output.screen = self._bars.console
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._output.screen = None
        self._bars.stop()

    def start(self, item: Item, file_id: str) -> None:
        """Add a bar; a file alone has its id said, of a batch's files the results do."""
        if self._all is None:
            _say_started(self._output, item, file_id)
        self._tasks[file_id] = self._bars.add_task(visible(item.name), total=item.size_bytes)
        self._shown[file_id] = 0

    def update(self, progress: TransferProgress) -> None:
        """Move a bar to the durable bytes."""
        self._move(progress.file_id, progress.bytes_received)

    def end(self, file_id: str, size_bytes: int) -> None:
        """Take a file's bar away (a single one stays); count the file as dealt with."""
        if self._all is not None:
            self._move(file_id, size_bytes)
            self._bars.remove_task(self._tasks.pop(file_id))
            del self._shown[file_id]

    def _move(self, file_id: str, shown: int) -> None:
        self._bars.update(self._tasks[file_id], completed=shown)
        if self._all is not None:
            self._bars.advance(self._all, shown - self._shown[file_id])
        self._shown[file_id] = shown


def _say_started(output: Output, item: Item, file_id: str) -> None:
    text = f"Uploading {visible(item.name)} ({size_text(item.size_bytes)}) as {file_id}"
    output.note("started", text, file_id=file_id, filename=item.name, size_bytes=item.size_bytes)


def make_display(output: Output, total_bytes: int, files: int, seconds: float | None) -> Display:
    """Return bars on a terminal, when rich is there; else lines, on progress every so many ``seconds``."""
    lines = Lines(output, total_bytes, _SECONDS if seconds is None else seconds)
    if not output.live:
        return lines
    try:
        from rich.console import Console  # noqa: PLC0415 - an extra: the library does without it
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
    except ImportError:
        return lines
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=files > 1,
    )
    return Bars(output, bars, total_bytes, files)
