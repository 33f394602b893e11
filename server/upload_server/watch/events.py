"""Decides what a watcher may ask for, and what its stream may send.

Must not know how either travels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from upload_server.domain.caller import Caller
from upload_server.domain.states import Batch, File
from upload_server.domain.tokens import ResumeToken
from upload_server.store.values import Change, Targets


@dataclass(slots=True)
class Changed:
    """A change on its way to watchers. One object serves them all: ``wire`` caches what a door made of it."""

    change: Change
    token: str
    # The id by which it is watched, and whether its state is final: asked once for each of thousands of watchers.
    key: str
    final: bool
    wire: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Progressed:
    """The newest durable byte count of one file; no change, so it repeats the stream's current token."""

    file_id: str
    bytes_received: int
    token: str


@dataclass(frozen=True, slots=True)
class Bookmarked:
    """The stream has sent everything up to ``token``. ``resynced``: the server could not honour the token asked for."""

    token: str
    resynced: bool = False


WatchEvent = Changed | Progressed | Bookmarked


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """What a watcher asks for; checked by the service."""

    targets: Targets
    resume: ResumeToken | None = None
    until_final: bool = False
    # Seconds between two progress events of the stream; 0: none.
    progress_interval: float = 0.0
    # Whoever asks, who may lose the right to go on.
    caller: Caller | None = None


class Outlet(Protocol):
    """Where a stream's events go out, if its door can begin to send one without waiting for it to be taken."""

    @property
    def free(self) -> bool:
        """Whether what was sent before has been taken."""

    def send(self, event: WatchEvent) -> None:
        """Begin to send, while it is free. Never waits; a failure is the door's."""


def key_of(record: File | Batch) -> str:
    """Return the id by which a file or batch is watched."""
    return record.file_id if isinstance(record, File) else record.batch_id
