"""Decides how a running upload looks: bars on a terminal (with rich, if it is installed), plain lines otherwise."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from upload.cli.output import Output, size_text, visible
from upload.cli.plan import Item
from upload.sending import TransferProgress

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


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
    """One line when a file begins; its result tells what became of it."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def start(self, item: Item, file_id: str) -> None:
        """Say what begins, with its id."""
        text = f"Uploading {visible(item.name)} ({size_text(item.size_bytes)}) as {file_id}"
        self._output.note("started", text, file_id=file_id, filename=item.name, size_bytes=item.size_bytes)

    def update(self, progress: TransferProgress) -> None:
        """Lines do not move."""

    def end(self, file_id: str, size_bytes: int) -> None:
        """The result says it."""


class Bars:
    """A bar per file under way, with durable bytes, speed and remaining time, and one for the whole batch."""

    def __init__(self, bars: Progress, total_bytes: int, files: int) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._shown: dict[str, int] = {}
        self._all = bars.add_task(f"{files} files", total=total_bytes) if files > 1 else None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def start(self, item: Item, file_id: str) -> None:
        """Add a bar."""
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


def make_display(output: Output, total_bytes: int, files: int) -> Display:
    """Return bars on a terminal, when rich is there; else lines."""
    if not output.live:
        return Lines(output)
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
        return Lines(output)
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=files > 1,
    )
    return Bars(bars, total_bytes, files)
