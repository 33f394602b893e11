"""Decides when audit events are sealed: behind the commits, within a second, in small pieces that hold up no cancel.

Must not know who made the changes. The sealer does nothing while nothing changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass

import structlog

from upload_server.domain.chain import Seal, seals_of
from upload_server.domain.errors import UploadError
from upload_server.store.protocol import Store

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the sealer works; times are seconds."""

    # Events sealed in one write: one or two milliseconds of the writer.
    chunk: int = 500
    # Time for more to come after a commit.
    linger: float = 0.1
    # Between chunks, as a share of the time that the last one took, and at most so long: the sealer takes half a
    # second for 10,000 events when it is alone, and leaves more room the more cancels come meanwhile.
    rest_share: float = 0.5
    max_rest: float = 0.1
    # After the database failed, and after a row could not be read.
    retry: float = 1.0
    retry_damaged: float = 30.0


class Sealer:
    """Seals committed audit events; ``run`` it until it is cancelled, then ``finish``."""

    def __init__(self, store: Store, pace: Pace | None = None) -> None:
        self._store = store
        self._pace = pace or Pace()
        self._behind = asyncio.Event()
        # The newest seal as this process knows it; None: not known.
        self._head: Seal | None = None

    def nudge(self) -> None:
        """Say that audit events were committed; they are sealed soon."""
        self._behind.set()

    async def run(self) -> None:
        """Seal what an earlier process left, then what the service commits. It logs errors, and tries again."""
        self.nudge()
        while True:
            await self._behind.wait()
            await asyncio.sleep(self._pace.linger)
            self._behind.clear()
            while (wait := await self._step()) is not None:  # noqa: ASYNC110 - nothing is waited for
                await asyncio.sleep(wait)

    async def finish(self, seconds: float) -> None:
        """Seal what is left at the end, for at most so long; the next start does the rest."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                # Not after an error, which leaves no head: nobody waits for its repair now.
                while await self._step() is not None and self._head is not None:
                    pass

    async def _step(self) -> float | None:
        """Seal a chunk; returns how many seconds to rest before the next one, None when there is none."""
        began = time.monotonic()
        if not self._store.leads:
            # Another node seals; when its turn is over this one goes on from there.
            self._head = None
            return None
        try:
            if not await self._seal_chunk():
                return None
            return min(self._pace.max_rest, self._pace.rest_share * (time.monotonic() - began))
        except UploadError as error:
            self._head = None
            log.warning("audit.not_sealed", reason=error.reason)
            return self._pace.retry
        except Exception:
            # A row that the store cannot read: the trail is damaged. The service must go on without seals.
            self._head = None
            log.exception("audit.not_sealed")
            return self._pace.retry_damaged

    async def _seal_chunk(self) -> bool:
        """Seal the oldest events without a seal; whether there may be more."""
        found = await self._store.read_unsealed(self._pace.chunk)
        if self._head is not None and found.head != self._head and await self._is_altered(self._head):
            log.error(
                "audit.chain_altered",
                expected_event_id=str(self._head.event_id),
                found_event_id=str(found.head.event_id if found.head else 0),
            )
        self._head = found.head
        if not found.events:
            return False
        seals = await asyncio.to_thread(seals_of, found.events, found.head, self._store.store_id)
        if await self._store.seal_events(found.head, seals):
            self._head = seals[-1]
        return len(found.events) == self._pace.chunk

    async def _is_altered(self, head: Seal) -> bool:
        """Whether another newest seal is no node's work: one that was stopped may end late what it began."""
        return self._store.alone or await self._store.read_seal(head.event_id) != head
