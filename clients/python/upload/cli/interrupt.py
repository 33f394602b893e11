"""Decides what Ctrl-C does while an upload runs: the first asks to stop, the second leaves at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupt:
    """Set by the first Ctrl-C; the second one cancels ``main``, so that nothing can hold the user."""

    def __init__(self, main: asyncio.Task[object]) -> None:
        self._main = main
        self._asked = asyncio.Event()

    @property
    def asked(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._asked.is_set()

    async def wait(self) -> None:
        """Wait for Ctrl-C."""
        await self._asked.wait()

    def press(self) -> None:
        """Take one Ctrl-C."""
        if self._asked.is_set():
            self._main.cancel()
        self._asked.set()


@contextmanager
def on_interrupt() -> Iterator[Interrupt]:
    """Take Ctrl-C for the current task until the block ends."""
    main = asyncio.current_task()
    if main is None:
        raise RuntimeError("on_interrupt needs a running task")
    interrupt = Interrupt(main)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in the background of a script: Ctrl-C is meant for others, as for any program there.
        yield interrupt
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupt.press)
    try:
        yield interrupt
    finally:
        loop.remove_signal_handler(signal.SIGINT)
