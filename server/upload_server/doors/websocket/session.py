"""Decides what happens on one open socket, from its first byte to its end.

Must not know handshakes or other sockets. Ends by returning how: a Goodbye to be said, or Gone.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from upload_server.domain.errors import FileNotCancellable, UploadCancelled, UploadError, UploadIdle
from upload_server.domain.states import Caller, File, FileStatus, Source
from upload_server.doors.websocket import messages
from upload_server.doors.websocket.channel import Inbox, Incoming, Outlet
from upload_server.doors.websocket.messages import Cancel, Commit, Gone, Goodbye
from upload_server.ingest import Upload
from upload_server.service import Uploads

CALLER: Final = Caller(Source.WEBSOCKET)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a session waits, in seconds."""

    # For the next byte.
    idle: float
    # After the last byte, for a commit that may carry a digest: then the last byte was the commit.
    commit: float = 0.25


class Session:
    """One page and one upload."""

    def __init__(self, upload: Upload, inbox: Inbox, outlet: Outlet, uploads: Uploads, patience: Patience) -> None:
        self._upload = upload
        self._inbox = inbox
        self._outlet = outlet
        self._uploads = uploads
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._gone: Gone | None = None
        # Durable bytes the page was told of.
        self._told = -1
        # Whether this page has sent a byte: only then can it have left after the last one.
        self._wrote = False

    async def run(self) -> Goodbye | Gone:
        """Take the page's messages until the socket has to end, or raise why it has to. The upload stays open."""
        self._upload.on_news(self._inbox.ring)
        reporting = asyncio.create_task(self._report())
        try:
            return await self._course()
        except UploadCancelled as error:
            return messages.cancelled_by_other(error.file)
        except UploadError:
            # A page that left after its last byte, whose commit then failed, is one that left.
            if self._gone is None:
                raise
            return self._gone
        finally:
            await _end(reporting)

    def untold(self) -> list[dict[str, object]]:
        """The progress that the page has not heard of, if any: where it can resume."""
        return [messages.progress(self._upload.durable)] if self._upload.durable > self._told else []

    async def _report(self) -> None:
        """Tell the page how much is durable; on its own, so that a page that does not read blocks nothing."""
        durable = self._upload.durable
        while durable > self._told:
            await self._outlet.say(messages.progress(durable))
            self._told = durable
            durable = await self._upload.wait_durable(durable)

    async def _course(self) -> Goodbye | Gone:
        size = self._upload.file.size_bytes
        while size == 0 or self._upload.received < size:
            self._upload.check()
            item = self._inbox.take()
            if item is None:
                await self._hear()
            elif isinstance(item, Gone):
                return item
            elif not isinstance(item, str):
                await self._write(item)
            else:
                return await self._obey(messages.parse_text(item))
        return await self._after_last_byte()

    async def _hear(self) -> None:
        """Wait for a message or news; raises ``UploadIdle``."""
        idle_at = self._heard_at + self._patience.idle
        if self._loop.time() >= idle_at:
            raise UploadIdle(self._upload.file.file_id, self._patience.idle)
        await self._heard_by(idle_at)

    async def _heard_by(self, deadline: float) -> None:
        timer = self._loop.call_at(deadline, self._inbox.ring)
        try:
            await self._inbox.heard()
        finally:
            timer.cancel()

    async def _write(self, data: bytes) -> None:
        messages.check_binary(data)
        if data:
            await self._upload.write(data)
            self._wrote = True
            # Only now: while our storage makes the page wait, the page is not idle.
            self._heard_at = self._loop.time()

    async def _obey(self, message: Cancel | Commit) -> Goodbye:
        if isinstance(message, Commit):
            return await self._commit(message.sha256)
        return await self._cancel(message.reason)

    async def _after_last_byte(self) -> Goodbye | Gone:
        """Older pages send no commit: the last byte is one. Newer ones send it right behind, maybe with a digest.

        A close, or a connection lost, after the last byte comes after that commit and does not cancel. A page that has
        resumed behind the last byte and leaves has said nothing but that.
        """
        until = self._loop.time() + self._patience.commit
        while self._loop.time() < until:
            self._upload.check()
            item = self._inbox.take()
            if item is None:
                await self._heard_by(until)
            elif isinstance(item, Gone):
                if not self._wrote:
                    return item
                self._gone = item
                break
            elif not isinstance(item, str):
                await self._write(item)
            else:
                return await self._obey(messages.parse_text(item))
        return await self._commit("")

    async def _commit(self, sha256: str) -> Goodbye:
        """Complete the file; a cancel that comes before it is completed still wins, all else is ignored."""
        committing = asyncio.create_task(self._upload.commit(sha256, CALLER))
        committing.add_done_callback(lambda _: self._inbox.ring())
        try:
            while not committing.done():
                item = self._inbox.take()
                if item is None:
                    await self._inbox.heard()
                elif isinstance(item, Gone):
                    self._gone = item
                elif (goodbye := await self._cancel_while_committing(item)) is not None:
                    return goodbye
            return messages.success(committing.result())
        finally:
            # Left early only when a cancel has won or this session is cut off.
            await _end(committing)

    async def _cancel_while_committing(self, item: Incoming) -> Goodbye | None:
        if not isinstance(item, str):
            return None
        try:
            message = messages.parse_text(item)
            return await self._cancel(message.reason) if isinstance(message, Cancel) else None
        except UploadError:
            return None  # too late, or no message: how the commit ends is the answer

    async def _cancel(self, reason: str) -> Goodbye:
        """The page asked for it in so many words: not conditional on the fence."""
        try:
            answer = await self._uploads.cancel_file(self._upload.file.file_id, reason, "", CALLER)
        except FileNotCancellable as error:
            if isinstance(error.found, File) and error.found.status is FileStatus.CANCELLED:
                return messages.cancelled_by_other(error.found)
            raise
        return messages.cancelled(answer.cancelled_at, CALLER.cancelled_by, reason, messages.DONE)


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancel a task of ours, wait for it, and mark its error as seen: it was told, or something newer was."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
