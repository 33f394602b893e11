"""Decides what Ctrl-C, SIGTERM and SIGHUP do while an upload runs: the first asks to stop, the second leaves at once.

CI jobs, containers and closed terminals end a program by SIGTERM or SIGHUP: an upload left open there would keep its
bytes on the server for a day.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from upload.cli.exits import Exit

_SIGNALS = {signal.SIGINT: Exit.INTERRUPTED, signal.SIGTERM: Exit.TERMINATED}
# Windows has none.
if hasattr(signal, "SIGHUP"):
    _SIGNALS[signal.SIGHUP] = Exit.HUNG_UP


class Interrupt:
    """Set by the first signal; the second one cancels ``main``, so that no operation can hold the user."""

    def __init__(self, main: asyncio.Task[object]) -> None:
        self._main = main
        self._asked = asyncio.Event()
        # The exit code that names the first signal.
        self.exit = Exit.INTERRUPTED

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self._asked.is_set()

    async def wait(self) -> None:
        """Wait for a signal."""
        await self._asked.wait()

    def take(self, code: Exit) -> None:
        """Take one signal; ``code`` is the exit code that names it."""
        if self._asked.is_set():
            self._main.cancel()
        else:
            self.exit = code
            self._asked.set()


@contextmanager
def on_interrupt() -> Iterator[Interrupt]:
    """Take the signals for the current task until the block ends.

    A signal that the program ignored from its start stays ignored: Ctrl-C in the background of a script, SIGHUP under
    ``nohup``.
    """
    main = asyncio.current_task()
    if main is None:
        raise RuntimeError("on_interrupt needs a running task")
    interrupt = Interrupt(main)
    loop = asyncio.get_running_loop()
    taken = {number: signal.getsignal(number) for number in _SIGNALS}
    taken = {number: before for number, before in taken.items() if before is not signal.SIG_IGN}
    for number in taken:
        _take(loop, number, interrupt)
    try:
        yield interrupt
    finally:
        for number, before in taken.items():
            with suppress(NotImplementedError):
                loop.remove_signal_handler(number)
            signal.signal(number, before)


def _take(loop: asyncio.AbstractEventLoop, number: signal.Signals, interrupt: Interrupt) -> None:
    try:
        loop.add_signal_handler(number, interrupt.take, _SIGNALS[number])
    except NotImplementedError:
        # Loops on Windows have no such method.
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(interrupt.take, _SIGNALS[number]))
