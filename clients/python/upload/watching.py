"""Decides how a watch goes on over broken connections: token, pauses, and no revision twice.

Must not know what the caller does with the events.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from grpc import StatusCode

from upload import errors
from upload.retry import Backoff, watch_resumable
from upload.transport import WATCH_STATUS, Transport
from upload.v1 import upload_pb2 as pb

# Targets whose last revision is remembered; beyond it the oldest are forgotten. Only a resynced stream repeats
# states, so a watch of `all` over more targets than this might see one of them again after a restored backup.
MAX_REMEMBERED = 100_000
# Seconds for the first connection.
FIRST_PATIENCE = 3.0


@dataclass(slots=True)
class Memory:
    """The last revision of each target that the caller got; drops repeats of a resumed stream."""

    limit: int = MAX_REMEMBERED
    _seen: OrderedDict[str, tuple[int, int]] = field(default_factory=OrderedDict)
    _held: dict[str, pb.WatchStatusResponse] = field(default_factory=dict)

    @property
    def holding(self) -> bool:
        """Whether an event waits for the bookmark that tells what it is: the token must not move on meanwhile."""
        return bool(self._held)

    def admit(self, event: pb.WatchStatusResponse) -> list[pb.WatchStatusResponse]:
        """Return the events that the caller gets after ``event``, in order."""
        match event.WhichOneof("event"):
            case "file" | "batch":
                return self._change(event)
            case "bookmark":
                held, self._held = self._held.values(), {}
                if event.bookmark.resynced:
                    # Another store, or a restored backup: a lower revision is the truth now, an equal one a repeat.
                    return [*(one for one in held if self._differs(one)), event]
                return [event]
            case _:
                return [event]

    def _change(self, event: pb.WatchStatusResponse) -> list[pb.WatchStatusResponse]:
        key, mark = _identify(event)
        seen = self._seen.get(key)
        if seen is not None and mark[0] <= seen[0]:
            self._held[key] = event
            return []
        self._remember(key, mark)
        return [event]

    def _differs(self, event: pb.WatchStatusResponse) -> bool:
        key, mark = _identify(event)
        if self._seen.get(key) == mark:
            return False
        self._remember(key, mark)
        return True

    def _remember(self, key: str, mark: tuple[int, int]) -> None:
        self._seen[key] = mark
        self._seen.move_to_end(key)
        if len(self._seen) > self.limit:
            self._seen.popitem(last=False)


def _identify(event: pb.WatchStatusResponse) -> tuple[str, tuple[int, int]]:
    if event.WhichOneof("event") == "file":
        return event.file.file_id, (event.file.revision, event.file.status)
    return event.batch.batch_id, (event.batch.revision, event.batch.status)


async def watch(
    transport: Transport, request: pb.WatchStatusRequest, patience: float
) -> AsyncGenerator[pb.WatchStatusResponse, None]:
    """Yield events until the server ends the watch for good, reconnecting for up to ``patience`` seconds at a time."""
    memory = Memory()
    backoff = Backoff(tries=1_000_000)
    connected = False
    failing_since: float | None = None
    while True:
        error: errors.UploadServiceError
        try:
            async with aclosing(transport.stream(WATCH_STATUS, request)) as events:
                async for event in events:
                    connected, failing_since = True, None
                    backoff.reset()
                    admitted = memory.admit(event)
                    if not memory.holding:
                        request.resume_token = event.resume_token
                    for one in admitted:
                        yield one
            if request.until_final:
                return
            error = errors.ServerUnreachable("The server ended the watch", code=StatusCode.UNAVAILABLE)
        except errors.UploadServiceError as failure:
            error = failure
        delay = backoff.next(error.retry_after) or 0.0
        # Before the first message there is nothing to resume: a wrong address ends the watch soon.
        limit = patience if connected else min(patience, FIRST_PATIENCE)
        now = time.monotonic()
        failing_since = failing_since or now
        if not watch_resumable(error) or now + delay - failing_since > limit:
            raise error
        await transport.sleep(delay)
