"""The service as it is promised, as plain Python: files, batches, requests and revisions. Sequential; no I/O, no time.

Must not know the service's code: the two are driven side by side and must agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

FINAL = frozenset({"completed", "failed", "cancelled"})


class Refused(Exception):
    """The call is refused with a reason of the contract; ``facts`` is what the answer must say beside it."""

    def __init__(self, reason: str, **facts: str) -> None:
        super().__init__(reason, facts)
        self.reason = reason
        self.facts = facts


@dataclass
class File:
    """A file; ``durable`` bytes are surely recorded, more than that only if a stream has brought them (``ceiling``)."""

    file_id: str
    size: int
    batch_id: str = ""
    status: str = "pending"
    revision: int = 1
    durable: int = 0
    ceiling: int = 0
    writer: int = 0
    cancelled_by: str = ""
    reason: str = ""
    failure: str = ""
    active: int = 0
    trail: list[tuple[str, str, str]] = field(default_factory=lambda: [("", "pending", "user")])


@dataclass
class Batch:
    """A batch; everything but its own cancel follows from its files."""

    batch_id: str
    files: Sequence[File]
    status: str = "pending"
    revision: int = 1
    cancelled_by: str = ""
    reason: str = ""
    trail: list[tuple[str, str, str]] = field(default_factory=lambda: [("", "pending", "user")])

    def count(self, status: str) -> int:
        """How many of its files are in ``status``."""
        return sum(file.status == status for file in self.files)


class Model:
    """All state there is. ``tick`` counts calls and stands for time."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.batches: dict[str, Batch] = {}
        self.answers: dict[tuple[str, str], tuple[object, object]] = {}
        self.changed: set[str] = set()
        self.tick = 0

    def replay(self, method: str, request_id: str, request: object) -> object | None:
        """The answer kept under a request id, if any; another request with it is refused."""
        kept = self.answers.get((method, request_id)) if request_id else None
        if kept is not None and kept[0] != request:
            raise Refused("REQUEST_ID_REUSED")
        return None if kept is None else kept[1]

    def keep(self, method: str, request_id: str, request: object, answer: object) -> None:
        """Keep an OK answer."""
        if request_id:
            self.answers[method, request_id] = (request, answer)

    def initiate(self, file_id: str, size: int) -> None:
        """Announce a file."""
        self.files[file_id] = File(file_id, size, active=self.tick)
        self.changed.add(file_id)

    def initiate_batch(self, batch_id: str, sizes: dict[str, int]) -> None:
        """Announce files together."""
        files = [File(file_id, size, batch_id, active=self.tick) for file_id, size in sizes.items()]
        self.files.update((file.file_id, file) for file in files)
        self.batches[batch_id] = Batch(batch_id, files)
        self.changed |= {batch_id, *sizes}

    def claim(self, file_id: str, offset: int) -> int:
        """Open a stream; returns the writer's number. An older writer is replaced."""
        file = self.files[file_id]
        if file.status in FINAL:
            raise Refused("FILE_NOT_WRITABLE", status=file.status, revision=str(file.revision))
        if offset != file.durable:
            raise Refused("OFFSET_MISMATCH", expected_offset=str(file.durable))
        file.writer += 1
        file.ceiling, file.active = file.durable, self.tick
        if file.status == "pending":
            self._move([file], "uploading", "user")
        return file.writer

    def check_writer(self, file_id: str, writer: int) -> File:
        """Refuse what a stream does on a file that is no longer its own."""
        file = self.files[file_id]
        if file.status == "cancelled":
            raise Refused("UPLOAD_CANCELLED", status="cancelled", revision=str(file.revision))
        if writer != file.writer:
            raise Refused("WRITER_REPLACED")
        return file

    def commit(self, file_id: str, writer: int, received: int, *, matches: bool) -> File:
        """Finish a file: completed if all is there and right, failed if the digest is wrong."""
        file = self.check_writer(file_id, writer)
        if received < file.size:
            raise Refused("UPLOAD_INCOMPLETE", bytes_received=str(received))
        if not matches:
            file.failure, file.active = "checksum_mismatch", self.tick
            self._move([file], "failed", "user")
            raise Refused("CHECKSUM_MISMATCH")
        file.durable, file.active = received, self.tick
        file.ceiling = received
        self._move([file], "completed", "user")
        return file

    def cancel(self, file_id: str, reason: str, by: str = "user") -> None:
        """Cancel a file."""
        file = self.files.get(file_id)
        if file is None:
            raise Refused("FILE_NOT_FOUND")
        if file.status in FINAL:
            raise Refused("FILE_NOT_CANCELLABLE", status=file.status, revision=str(file.revision))
        file.cancelled_by, file.reason = by, reason
        self._move([file], "cancelled", "user")

    def cancel_batch(self, batch_id: str, reason: str) -> int:
        """Cancel a batch and what of it is not final; returns how many files that were."""
        batch = self.batches.get(batch_id)
        if batch is None:
            raise Refused("BATCH_NOT_FOUND")
        if batch.status in FINAL:
            raise Refused("BATCH_NOT_CANCELLABLE", status=batch.status, revision=str(batch.revision))
        open_files = [file for file in batch.files if file.status not in FINAL]
        for file in open_files:
            file.cancelled_by, file.reason = "batch_cancel", reason
        batch.cancelled_by, batch.reason = "user", reason
        self._move_batch(batch, "cancelled", "user")
        self._move(open_files, "cancelled", "user")
        return len(open_files)

    def expire(self, before: int, open_files: frozenset[str]) -> set[str]:
        """Fail what nobody has sent to since tick ``before``; returns their ids.

        What waits in a batch is as old as the newest file there, and new while one of them has an open stream.
        """
        stale = []
        for file in self.files.values():
            group = self.batches[file.batch_id].files if file.batch_id and file.status == "pending" else [file]
            newest = max(each.active for each in group)
            held = not open_files.isdisjoint(each.file_id for each in group)
            if file.status not in FINAL and newest < before and not held:
                stale.append(file)
            elif file.status not in FINAL and held and len(group) > 1 and file.active < before:
                file.active = self.tick
        for file in stale:
            file.failure, file.writer = "expired", file.writer + 1
        self._move(stale, "failed", "system")
        return {file.file_id for file in stale}

    def _move(self, files: Sequence[File], status: str, actor: str) -> None:
        """Change files in one step, and then what follows for their batches."""
        for file in files:
            file.trail.append((file.status, status, actor))
            file.status, file.revision = status, file.revision + 1
            self.changed.add(file.file_id)
        for batch_id in dict.fromkeys(file.batch_id for file in files if file.batch_id):
            self._follow(self.batches[batch_id], status)

    def _follow(self, batch: Batch, moved_to: str) -> None:
        if batch.status in FINAL:
            return  # cancelled as a whole, in this very step: counted in its own revision
        before = batch.status
        if all(file.status in FINAL for file in batch.files):
            cancelled = batch.count("cancelled") == len(batch.files)
            after = "cancelled" if cancelled else "failed" if batch.count("failed") else "completed"
            batch.cancelled_by = "all_files" if cancelled else ""
        else:
            after = "processing" if moved_to in {"uploading", "completed"} else before
        if after != before:
            self._move_batch(batch, after, "system")
        elif moved_to in FINAL:
            batch.revision += 1  # a counter has changed
            self.changed.add(batch.batch_id)

    def _move_batch(self, batch: Batch, status: str, actor: str) -> None:
        batch.trail.append((batch.status, status, actor))
        batch.status, batch.revision = status, batch.revision + 1
        self.changed.add(batch.batch_id)
