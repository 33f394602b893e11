"""Decides what happens on one open socket, from its first byte to its end.

Must not know handshakes or other sockets. Ends by returning how: a Goodbye to be said, or Gone.
"""

from __future__ import annotations

import asyncio
from typing import Any

from upload_server.access.policy import SCOPE_OF
from upload_server.domain.caller import Caller, Permission
from upload_server.domain.errors import FileNotCancellable, PermissionDenied, UploadCancelled, UploadError
from upload_server.domain.states import File, FileStatus
from upload_server.doors.convert import FileMessage
from upload_server.doors.mailbox import Bytes, End, Mailbox, take_bytes
from upload_server.doors.websocket import messages
from upload_server.doors.websocket.channel import Outlet
from upload_server.doors.websocket.leaving import Gone
from upload_server.doors.websocket.messages import Cancel, Commit, Goodbye, Refused
from upload_server.ingest import Upload
from upload_server.service import Uploads


class Session:
    """One page and one upload."""

    def __init__(
        self,
        upload: Upload,
        mailbox: Mailbox[str],
        outlet: Outlet,
        uploads: Uploads,
        *,
        caller: Caller,
        silent: bool,
        commit_seconds: float,
        file_message: FileMessage,
    ) -> None:
        """``silent``: the page has said nothing behind the last byte, which is its commit."""
        self._upload = upload
        self._mailbox = mailbox
        self._outlet = outlet
        self._uploads = uploads
        self._caller = caller
        self._silent = silent
        self._commit_seconds = commit_seconds
        self._file_message = file_message
        # Where this page began to send.
        self._opened_at = upload.received
        self._committing = False
        # Durable bytes that the page knows of.
        self._told = upload.durable

    async def run(self) -> Goodbye | Gone:
        """Take the page's messages until the socket has to end, or raise why it has to. The upload stays open."""
        self._mailbox.follow(self._upload)
        reporting = asyncio.create_task(self._report())
        try:
            return await self._course()
        except UploadCancelled as error:
            return messages.cancelled_by_other(error.file)
        except UploadError:
            # A page that left after its last byte, whose commit then failed, is one that left; a silent one cancels
            # nothing by that.
            if self._silent or not (isinstance(self._mailbox.end, Gone) and self._committing):
                raise
            return _gone(self._mailbox.end)
        finally:
            await _end(reporting)

    def untold(self) -> list[dict[str, object]]:
        """The progress that the page has not heard of, if any: where it can resume."""
        return [messages.progress(self._upload.durable)] if self._upload.durable > self._told else []

    async def _report(self) -> None:
        """Tell the page how much is durable; on its own, so that a page that does not read blocks nothing."""
        durable = await self._upload.wait_durable(self._told)
        while durable > self._told:
            await self._outlet.say(messages.progress(durable))
            self._told = durable
            durable = await self._upload.wait_durable(durable)

    async def _course(self) -> Goodbye | Gone:
        """Older pages send no commit: the last byte is one. Newer pages send it right behind, maybe with a digest."""
        if self._silent:
            return await self._commit("")
        item = await take_bytes(self._upload, self._mailbox, commit_seconds=self._commit_seconds)
        if isinstance(item, str):
            return await self._obey(messages.parse_text(item))
        if isinstance(item, Refused):
            raise item.error
        if isinstance(item, End) and not self._has_sent_all():
            return _gone(item)
        # A close, or a lost connection, behind the last byte is behind its commit and does not cancel.
        return await self._commit("")

    def _has_sent_all(self) -> bool:
        """Whether this page has sent the last byte: one that resumed behind it and leaves has said nothing."""
        return self._opened_at < self._upload.received == self._upload.file.size_bytes

    async def _obey(self, message: Cancel | Commit) -> Goodbye:
        if isinstance(message, Commit):
            return await self._commit(message.sha256)
        return await self._cancel(message.reason)

    async def _commit(self, sha256: str) -> Goodbye:
        """Complete the file; a cancel that comes before it is completed still wins, all else is ignored."""
        committing = asyncio.create_task(self._upload.commit(sha256, self._caller))
        committing.add_done_callback(lambda _: self._mailbox.ring())
        self._committing = True
        try:
            while not committing.done():
                item = self._mailbox.take()
                if item is None:
                    await self._mailbox.wait()
                elif (goodbye := await self._cancel_while_committing(item)) is not None:
                    return goodbye
            return messages.success(self._file_message(committing.result()))
        finally:
            # Left early only when a cancel has won or this session is cut off.
            await _end(committing)

    async def _cancel_while_committing(self, item: Bytes | str) -> Goodbye | None:
        if not isinstance(item, str):
            return None
        try:
            message = messages.parse_text(item)
            return await self._cancel(message.reason) if isinstance(message, Cancel) else None
        except UploadError:
            return None  # too late, or no message: how the commit ends is the answer

    async def _cancel(self, reason: str) -> Goodbye:
        """The page asked for it in so many words: not conditional on the fence."""
        if Permission.CANCEL not in self._caller.may:
            raise PermissionDenied(SCOPE_OF[Permission.CANCEL])
        try:
            answer = await self._uploads.cancel_file(self._upload.file.file_id, reason, "", self._caller)
        except FileNotCancellable as error:
            if isinstance(error.found, File) and error.found.status is FileStatus.CANCELLED:
                return messages.cancelled_by_other(error.found)
            raise
        return messages.cancelled(answer.cancelled_at, self._caller.cancelled_by, reason, messages.DONE)


def _gone(end: End) -> Gone:
    return end if isinstance(end, Gone) else Gone()


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancel a task of ours, wait for it, and mark its error as seen: it was told, or something newer was."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
