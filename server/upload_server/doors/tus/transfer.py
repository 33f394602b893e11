"""Decides how the body of one request gets into one file, and what is left of it when something comes between.

Must not know headers or answers.
"""

from __future__ import annotations

import asyncio
from typing import Final

from upload_server.domain.errors import SizeExceeded, UploadIdle
from upload_server.domain.states import Caller, File, Source
from upload_server.doors.tus.answers import chunk_mismatch
from upload_server.doors.tus.body import Body
from upload_server.doors.tus.protocol import Checksum
from upload_server.ingest import Upload

CALLER: Final = Caller(Source.TUS)


class Transfer:
    """One body on its way into one open upload."""

    def __init__(self, upload: Upload, body: Body, checksum: Checksum | None, *, idle_seconds: float) -> None:
        self._upload = upload
        self._body = body
        self._checksum = checksum
        self._idle = idle_seconds
        self._loop = asyncio.get_running_loop()

    async def run(self, announced: int) -> File | None:
        """Take the whole body; returns the completed file if it held the last byte.

        ``announced`` is the body's length where it is known. What came is durable then, also when this raises: the
        upload's own errors, ``SenderGone``, ``UploadIdle``. Bytes that shall have a checksum are taken whole or not at
        all: until it is known they are withheld.
        """
        upload = self._upload
        if upload.received + announced > upload.file.size_bytes:
            raise SizeExceeded(upload.file.file_id, upload.received, upload.file.size_bytes)
        upload.on_news(self._body.ring)
        if self._checksum is not None:
            upload.withhold()
        await self._take_all()
        if self._checksum is not None:
            if not self._checksum.matches:
                raise chunk_mismatch(upload.file.file_id, upload.durable)
            upload.release()
        if upload.received == upload.file.size_bytes:
            return await upload.commit("", CALLER)
        await upload.close()
        upload.check()
        return None

    async def _take_all(self) -> None:
        heard_at = self._loop.time()
        while True:
            self._upload.check()
            data = self._body.take()
            if data is not None:
                await self._write(data)
                # Only now: while our storage makes the sender wait, it is not idle.
                heard_at = self._loop.time()
            elif self._body.ended:
                return
            elif self._loop.time() >= heard_at + self._idle:
                raise UploadIdle(self._upload.file.file_id, self._idle)
            else:
                await self._body.heard(heard_at + self._idle)

    async def _write(self, data: bytes) -> None:
        if self._checksum is not None:
            await self._checksum.update(data)
        await self._upload.write(data)
