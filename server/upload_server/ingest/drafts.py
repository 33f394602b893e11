"""Decides how the bytes of a file that comes whole reach the disk before its row does, and what becomes of them then.

Must not know what the row says. Until it is committed they are a draft: a crash in between leaves bytes that no row
knows, and the next start can tell them from bytes whose row was lost.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from upload_server.domain.errors import FieldViolation, InvalidField, OutcomeUnknown, Overloaded, UploadError
from upload_server.domain.runs import WHOLE
from upload_server.domain.states import File
from upload_server.domain.steps import note
from upload_server.ingest.ending import storage_error
from upload_server.ingest.parts import KIB, Memory, Parts
from upload_server.sink.protocol import BytesThere, Chunk, Doomed, NoRoom, SinkError
from upload_server.store.values import Alive, Result

log = structlog.get_logger(__name__)

# Drafts whose rows are committed become bytes like any others a moment later, many at once: nobody waits for it.
_KEEP_SECONDS = 0.05
# What a file that waits for the disk takes of the memory besides its bytes.
_TASK_BYTES = 8 * KIB


@dataclass(frozen=True, slots=True)
class Draft:
    """Bytes that are stored, or could not be: ``lost`` says why. ``alive``: whether no other node has swept them up."""

    sha256: str
    alive: Alive
    lost: UploadError | None = None


class Drafts:
    """The drafts of one ingest. Lives on one event loop; end it with ``close``, when no ``put`` runs any more."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        # Of its own: a caller that leaves gives its door's count back, and its bytes still wait for the disk.
        self._memory = Memory(parts.limits.total_buffer_bytes)
        # Files whose rows may still come; one whose fate is not known stays here.
        self._undecided: set[str] = set()
        # Files whose rows are committed, and when their bytes cease to be drafts.
        self._committed: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    def __contains__(self, file_id: str) -> bool:
        """Whether bytes of a file may lie in the sink whose row may still come."""
        return file_id in self._undecided

    async def put(
        self, file_id: str, data: Chunk, expected_sha256: str, write: Callable[[Draft], Awaitable[Result[File]]]
    ) -> File:
        """Store ``data``, then have ``write`` make the row; bytes that get none are deleted before this returns.

        Raises ``Overloaded`` when too many wait for the disk, ``InvalidField`` when their digest is another one than
        expected, and what ``write`` raises.
        """
        if self._memory.is_full():
            raise Overloaded("Too many files wait for the disk", 1.0)
        self._memory.hold(cost := len(data) + _TASK_BYTES)
        try:
            return await self._put(file_id, data, expected_sha256, write)
        finally:
            self._memory.hold(-cost)

    async def _put(
        self, file_id: str, data: Chunk, expected_sha256: str, write: Callable[[Draft], Awaitable[Result[File]]]
    ) -> File:
        self._undecided.add(file_id)
        draft: Draft | None = None
        decided, committed = True, False
        try:
            began = time.monotonic()
            draft = await self._parts.wait(self._store, file_id, data, expected_sha256, self._parts.store.life())
            note("storage.put", began)
            decided = False
            result = await write(draft)
            decided, committed = True, not result.replayed
        except UploadError as error:
            # The next start finds out whether an unknown commit has made the row.
            decided = not isinstance(error, OutcomeUnknown)
            raise
        finally:
            if committed:
                self._parts.observer.bytes_taken(len(data))
                self._keep_soon(file_id)
            elif decided and draft is not None and draft.lost is None:
                await self._parts.wait(self._discard, file_id)
            if decided:
                self._undecided.discard(file_id)
        return result.answer

    async def close(self) -> None:
        """See to what is committed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            await self._keep()

    def _store(self, file_id: str, data: Chunk, expected_sha256: str, alive: Alive) -> Draft:
        """Hash, then store; runs on a thread."""
        sha256 = hashlib.sha256(data).hexdigest()
        if expected_sha256 not in ("", sha256):
            raise InvalidField([FieldViolation("sha256", f"must be the SHA-256 of data, which is {sha256}")])
        try:
            self._parts.sink.put(file_id, data)
        except SinkError as error:
            # As with a stream: a full disk says so of each, and needs no tracebacks. Bytes of a stream that broke are
            # none of the disk's faults.
            if not isinstance(error, BytesThere):
                write = log.warning if isinstance(error, NoRoom) else log.exception
                write("storage failed to take a file", file_id=file_id, error=repr(error))
            return Draft(sha256, alive, storage_error(error))
        return Draft(sha256, alive)

    def _discard(self, file_id: str) -> None:
        outcome = self._parts.sink.delete_all([Doomed(file_id, (WHOLE,))])[file_id]
        if isinstance(outcome, SinkError):
            # The next start deletes it.
            log.error("a draft could not be deleted", file_id=file_id, reason=outcome.reason, error=repr(outcome))

    def _keep_soon(self, file_id: str) -> None:
        self._committed.append(file_id)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_KEEP_SECONDS, self._keep_now)

    def _keep_now(self) -> None:
        self._timer = None
        self._parts.tasks.spawn(self._keep())

    async def _keep(self) -> None:
        committed, self._committed = self._committed, []
        try:
            await self._parts.wait(self._parts.sink.keep, committed)
        except SinkError as error:
            log.warning("drafts stay drafts until the next start", files=len(committed), error=repr(error))
