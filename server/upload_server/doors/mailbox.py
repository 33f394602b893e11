"""Decides how a door waits for its sender and for its upload at once, and how much it reads before it has a use for it.

Must not know what a message means, but for this: bytes are bytes of the file. A door inside a read hears of no cancel,
and a timeout around a read leaks in grpcio; so a task reads, and everything else rings the same bell.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from upload_server.domain.errors import FieldViolation, InvalidField, UploadError, UploadIdle
from upload_server.ingest import Memory, Upload

M = TypeVar("M")
Bytes = bytes | memoryview
Write = Callable[[Bytes], Awaitable[None]]

# Bytes of a file in one message.
MAX_DATA_BYTES: Final = 1024 * 1024
# Messages that wait for the door. Reading no further is the back-pressure.
_READ_AHEAD: Final = 2


class End:
    """Nothing more comes from the sender; a door's own kinds say why."""

    __slots__ = ()


class Mailbox(Generic[M]):
    """The messages of one sender in order: bytes of the file, and others of type ``M``. And a bell. ``async with`` it.

    Nothing is read before the door asks: a client that waits for "100 Continue" keeps its bytes until then.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[Bytes | M | End]],
        memory: Memory,
        *,
        idle_seconds: float,
        least_bytes: int = 0,
        gated: bool = True,
    ) -> None:
        """``read`` gives the next message; after an ``End`` it is not called again, and an error is one.

        What waits here counts in ``memory``. While that is short, a ``gated`` mailbox reads nothing; another reads one
        message, because below it a socket is held back that knows how long the message is. A sender is idle after
        ``idle_seconds`` without a byte, or with fewer than ``least_bytes``.
        """
        self._read = read
        self._memory = memory
        self._gated = gated
        self._idle_seconds = idle_seconds
        self._least_bytes = least_bytes
        self._waiting: deque[Bytes | M] = deque()
        self._bell = asyncio.Event()
        self._room = asyncio.Event()
        self._end: End | None = None
        # Bytes that are read and forgotten; None: they are kept.
        self._unwanted: int | None = None
        self._reader: asyncio.Task[None] | None = None
        # How bytes are written without waking the door, while it waits and lets that happen; and why that failed.
        self._write: Write | None = None
        self._writing = False
        self._failure: Exception | None = None
        self._gate: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        # The loop's time from which the sender is idle, unless it brings enough; and what it has brought since then.
        self._idle_since = self._loop.time()
        self._brought = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait({self._reader})
            self._forget()

    @property
    def exhausted(self) -> bool:
        """Whether nothing more comes from the sender."""
        return self._end is not None

    @property
    def silent(self) -> bool:
        """Whether the sender has sent nothing that the door has not taken, and goes on; begins to read."""
        self._start()
        return not self._waiting and self._end is None

    @property
    def end(self) -> End | None:
        """The end of what the sender sends, once the door has taken all that came before it."""
        return None if self._waiting else self._end

    def ring(self) -> None:
        """Wake the door."""
        self._bell.set()

    def follow(self, upload: Upload) -> None:
        """Wake the door for an upload's news; its sender is not idle yet."""
        upload.ending.on_news(self.ring)
        self.start_idling()

    def start_idling(self) -> None:
        """Count from now for how long the sender has sent no byte, or too few."""
        self._idle_since = self._loop.time()
        self._brought = 0

    def bring(self, size: int, began: float) -> None:
        """Count bytes that the sender has brought, and that the service has taken since the loop's time ``began``.

        Enough of them, and it is not idle; until then the time that the disk has taken is not the sender's.
        """
        self._brought += size
        if self._brought >= self._least_bytes:
            self.start_idling()
        else:
            self._idle_since += self._loop.time() - began

    def take(self) -> Bytes | M | None:
        """Take the next message, if one waits; raises what came of bytes that were written without the door."""
        self._start()
        if self._failure is not None:
            raise self._failure
        return self._pop()

    def _pop(self) -> Bytes | M | None:
        if not self._waiting:
            return None
        message = self._waiting.popleft()
        self._memory.hold(-_size(message))
        if not self._memory.is_crowded():
            self._room.set()
        return message

    async def take_whole(self, most: int, seconds: float) -> tuple[list[Bytes], M | End | None]:
        """Take the bytes up to the first other message or the end, and that; None for it: it does not come so soon,
        or not after so few bytes.

        The bytes stay counted until they are let go, or put back together with what was taken after them.
        """
        pieces: list[Bytes] = []
        size, is_late = 0, False

        def be_late() -> None:
            # Noted here: a timer may ring a moment before the clock shows its time.
            nonlocal is_late
            is_late = True
            self.ring()

        timer = self._loop.call_later(seconds, be_late)
        self._start()
        try:
            while size <= most:
                if self._waiting:
                    message = self._waiting.popleft()
                    if not isinstance(message, (bytes, memoryview)):
                        return pieces, message
                    pieces.append(message)
                    size += len(message)
                elif self._end is not None:
                    return pieces, self._end
                elif is_late:
                    break
                else:
                    await self.wait()
        except BaseException:
            self.put_back(pieces)
            raise
        finally:
            timer.cancel()
        return pieces, None

    def put_back(self, messages: Sequence[Bytes | M]) -> None:
        """Have what was taken as a whole wait again, before what waits."""
        self._waiting.extendleft(reversed(messages))
        self._bell.set()

    def let_go(self, pieces: Sequence[Bytes]) -> None:
        """Count bytes that were taken as a whole no longer."""
        self._memory.hold(-sum(map(len, pieces)))

    def _start(self) -> None:
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_all())

    async def wait(self) -> None:
        """Wait until a message waits or the bell rings."""
        if not self._waiting:
            self._room.set()
            await self._bell.wait()
        self._bell.clear()

    async def wait_within(self, seconds: float, write: Write | None = None) -> bool:
        """Wait likewise; returns False once the sender has been idle for ``seconds``.

        Bytes that come meanwhile are written by ``write``, which wakes the door only by its failure.
        """
        if self._writing:
            # While the disk makes the sender wait, it is not idle.
            self.start_idling()
        deadline = self._idle_since + seconds
        if self._loop.time() >= deadline:
            return False
        timer = self._loop.call_at(deadline, self.ring)
        self._write = write
        try:
            await self.wait()
        finally:
            self._write = None
            timer.cancel()
        return True

    async def wait_for_sender(self, file_id: str, write: Write | None = None) -> None:
        """Wait likewise; raises ``UploadIdle``."""
        if not await self.wait_within(self._idle_seconds, write):
            raise UploadIdle(file_id, self._idle_seconds, self._least_bytes)

    async def discard(self, seconds: float) -> None:
        """Read on and forget it until the sender ends, at most for ``seconds``: a sender busy writing hears nothing."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.discard_all(sys.maxsize)

    async def discard_all(self, most: int) -> None:
        """Likewise, until the sender has sent ``most`` bytes more or is idle."""
        self._unwanted = most
        self._start()
        self._forget()
        self._room.set()
        if self._gate is not None:
            self._gate.cancel()
        self.start_idling()
        while not self.exhausted and self._unwanted > 0 and await self.wait_within(self._idle_seconds):
            pass

    def _forget(self) -> None:
        while self._pop() is not None:
            pass

    async def _read_all(self) -> None:
        try:
            while await self._read_one():
                if len(self._waiting) >= _READ_AHEAD or (self._waiting and self._memory.is_crowded()):
                    self._room.clear()
                    await self._room.wait()
                if self._gated and self._memory.is_crowded() and self._unwanted is None:
                    await self._wait_for_memory()
        finally:
            self._end = self._end or End()
            self._bell.set()

    async def _read_one(self) -> bool:
        # A frame of its own, and no iterator: while they wait for the next message both would keep the last one alive,
        # half a gigabyte in a thousand streams.
        message = await self._read()
        if isinstance(message, End):
            self._end = message
            return False
        if self._unwanted is not None:
            self.bring(_size(message), self._loop.time())
            self._unwanted -= _size(message)
            if self._unwanted <= 0:
                self._bell.set()
        elif self._write is not None and not self._waiting and isinstance(message, (bytes, memoryview)):
            await self._write_past_door(self._write, message)
        else:
            self._waiting.append(message)
            self._memory.hold(_size(message))
            self._bell.set()
        return True

    async def _write_past_door(self, write: Write, data: Bytes) -> None:
        self._writing = True
        try:
            await write(data)
        except Exception as error:  # noqa: BLE001 - the door raises it
            self._failure = error
            self._write = None
            self._bell.set()
        finally:
            self._writing = False

    async def _wait_for_memory(self) -> None:
        """Wait until there is room for another message, or nobody wants it."""
        began = self._loop.time()
        self._gate = asyncio.create_task(self._memory.uncrowded())
        try:
            await asyncio.wait({self._gate})
        finally:
            self._gate.cancel()
        self._idle_since += self._loop.time() - began


def data_too_long() -> UploadError:
    """The refusal of a message with too many bytes of a file."""
    return InvalidField([FieldViolation("data", f"must be at most {MAX_DATA_BYTES} bytes a message", MAX_DATA_BYTES)])


def _size(message: object) -> int:
    """Return how many bytes a message takes of memory, as far as they count."""
    return len(message) if isinstance(message, (bytes, memoryview, str)) else 0


async def take_bytes(
    upload: Upload,
    mailbox: Mailbox[M],
    *,
    write: Write | None = None,
    told: int = sys.maxsize,
    commit_seconds: float | None = None,
) -> M | End | None:
    """Write what bytes come, by ``write`` if not by the upload's; returns the first other message, or the end.

    None instead: more than ``told`` bytes have become durable; or every byte of a file has come, and then nothing for
    ``commit_seconds``. Raises what ended the upload, ``UploadIdle`` and what ``write`` raises.
    """
    file, write_on = upload.file, _writer(upload, mailbox, write or upload.write)
    while True:
        if upload.durable > told:
            return None
        upload.ending.check()
        message = mailbox.take()
        if isinstance(message, (bytes, memoryview)):
            await write_on(message)
        elif message is not None:
            return message
        elif mailbox.end is not None:
            return mailbox.end
        elif commit_seconds is None or upload.received < file.size_bytes or not file.size_bytes:
            await mailbox.wait_for_sender(file.file_id, write_on)
        elif not await mailbox.wait_within(commit_seconds):
            return None


def _writer(upload: Upload, mailbox: Mailbox[M], write: Write) -> Write:
    loop = asyncio.get_running_loop()

    async def write_on(data: Bytes) -> None:
        if len(data) > MAX_DATA_BYTES:
            raise data_too_long()
        if data:
            began, before = loop.time(), upload.received
            await write(data)
            # More than these bytes, where others did not come through here.
            mailbox.bring(upload.received - before, began)
            if upload.received >= upload.file.size_bytes:
                # From now on the door counts how long the sender is silent.
                mailbox.start_idling()
                mailbox.ring()

    return write_on
