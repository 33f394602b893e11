"""Decides what a socket is before its page has said anything: it watches the file, and claims nothing.

Must not know how bytes are taken. A browser can refuse a handshake that the server has accepted, and a socket can be
opened long before it is used: neither may take a file from its writer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Final

from upload_server.domain.caller import Caller
from upload_server.domain.errors import FileNotWritable, OffsetMismatch, ShuttingDown, UploadCancelled, UploadError
from upload_server.domain.states import File, FileStatus
from upload_server.doors.mailbox import Mailbox
from upload_server.doors.websocket import messages
from upload_server.doors.websocket.channel import Outlet
from upload_server.service import Uploads
from upload_server.store.values import Targets
from upload_server.watch import Changed, WatchEvent

# A credential that travels as a subprotocol is never sent back.
_KNOWN: Final = ("upload.v1",)
_CREDENTIALS: Final = ("ticket.", "bearer.")


def chosen_subprotocol(offered: list[str]) -> str | None:
    """Return which subprotocol the socket speaks; without one a browser that offered some refuses the handshake."""
    known = [name for name in offered if name in _KNOWN]
    harmless = [name for name in offered if name and not any(mark in name for mark in _CREDENTIALS)]
    return next(iter(known + harmless), None)


async def first_message(
    file_id: str,
    offset: int,
    mailbox: Mailbox[str],
    outlet: Outlet,
    uploads: Uploads,
    *,
    caller: Caller,
    expect: Callable[[File], None],
    commit_seconds: float,
) -> None:
    """Tell the page what is durable, and wait until it says something or has left.

    Behind the last byte an older page has nothing to say: there ``commit_seconds`` of silence are its commit.
    ``expect`` hears of the file before anything that the page says is read.
    Raises what ends the file meanwhile, and as opening it would: ``FileNotFound``, ``FileNotWritable``,
    ``OffsetMismatch``; ``UploadIdle``, ``ShuttingDown``.
    """
    events = uploads.watch(Targets(file_ids=frozenset({file_id})), "", 0, caller, until_final=True)
    async with contextlib.aclosing(events):
        first = await anext(events)
        file = first.change.record if isinstance(first, Changed) else None
        if not isinstance(file, File):
            raise ShuttingDown
        if file.status.final:
            raise FileNotWritable(file)
        if offset != file.bytes_received:
            raise OffsetMismatch(file_id, offset, file.bytes_received)
        expect(file)
        await outlet.say(messages.progress(offset))
        ending = asyncio.create_task(_ending(events))
        ending.add_done_callback(lambda _: mailbox.ring())
        try:
            while mailbox.silent:
                if ending.done():
                    raise ending.result()
                if offset < file.size_bytes or not offset:
                    await mailbox.wait_for_sender(file_id)
                elif not await mailbox.wait_within(commit_seconds):
                    break
        finally:
            ending.cancel()
            await asyncio.wait({ending})


async def _ending(events: AsyncGenerator[WatchEvent, None]) -> UploadError:
    """Wait until the file is final; returns what that is for a page that wants to send."""
    async for event in events:
        if isinstance(event, Changed) and isinstance(event.change.record, File) and event.final:
            return ended(event.change.record)
    raise ShuttingDown


def ended(file: File) -> UploadError:
    """Return the error of a page that has an open socket on a file that became final."""
    return UploadCancelled(file) if file.status is FileStatus.CANCELLED else FileNotWritable(file)
