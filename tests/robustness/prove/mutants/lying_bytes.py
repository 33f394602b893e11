"""Bugs in what lies on disk; and a disk without mercy, which is no bug."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import structlog

from robustness.prove.mutants.registry import mutant
from robustness.prove.patching import MutantRotten, change
from upload_server.domain.runs import Run
from upload_server.ingest import syncer, upload
from upload_server.sink.disk import file, sink
from upload_server.sink.protocol import Chunk, SinkFile
from upload_server.store.commands import cancelling, uploading
from upload_server.store.commands.writer import Committed
from upload_server.store.commands.writes import Write
from upload_server.store.sqlite import committer
from upload_server.upkeep import janitor

log = structlog.get_logger(__name__)


@mutant
def clean_up_by_folder() -> None:
    """The sweep deletes whatever lies there and is not open."""
    change(janitor, "Janitor.sweep_orphans", ("(left := named.left_over(found))", "(left := found)"))


@mutant
def runs_shared() -> None:
    """A stream goes on in a run that another process has begun, and may still write to."""
    change(uploading, "ClaimFile.run", ("if file.run_fence == self.continues else", "if file.run_fence else"))


@mutant
def run_ends_ignored() -> None:
    """A run counts as far as its writer came, also behind where the next one begins."""
    change(sink, "DiskSink.finish", ("parts_of(runs, 0, newest.start)", "parts_of(runs[:-1], 0, size_bytes)"))


@mutant
def never_joined() -> None:
    """A file is completed before its earlier runs are where its row says they are."""
    change(upload, "Upload._complete", ("        await self._assemble()\n", "        pass\n"))


@mutant
def kept_fence_ignored() -> None:
    """With what a completed file leaves behind its own bytes go too."""
    change(janitor, "Janitor._deletable", ("kept = named.kept\n", "kept = None\n"))


@mutant
def deletion_forgotten() -> None:
    """A cancel does not note that bytes are to be deleted."""
    owe = "transaction.write(statements.OWE_DELETIONS, first=first, last=last)"
    change(cancelling, "_cancel_audited", (owe, "pass"))


@mutant
def progress_before_sync() -> None:
    """Bytes are called durable before they are synced."""
    change(syncer, "Syncer._sync", ("await self._parts.wait(self._sink_file.sync, target)", "target"))


@mutant
def volatile_disk() -> None:
    """No bug: what was not synced is lost when its file is closed or the process dies, as with the power."""
    if not all(hasattr(file.DiskFile, name) for name in ("append", "sync", "close")):
        raise MutantRotten("DiskFile has other methods")
    append, sync, close = file.DiskFile.append, file.DiskFile.sync, file.DiskFile.close
    waiting: dict[int, list[bytes]] = {}

    def late_append(self: file.DiskFile, chunks: Sequence[Chunk]) -> None:
        waiting.setdefault(id(self), []).extend(bytes(chunk) for chunk in chunks)

    def late_sync(self: file.DiskFile, upto: int | None = None) -> int:
        append(self, waiting.pop(id(self), []))
        return sync(self, upto)

    def merciless_close(self: file.DiskFile) -> None:
        waiting.pop(id(self), None)
        close(self)

    file.DiskFile.close = merciless_close  # type: ignore[method-assign]
    file.DiskFile.append = late_append  # type: ignore[method-assign]
    file.DiskFile.sync = late_sync  # type: ignore[method-assign]


@mutant
def late_bytes_told() -> None:
    """No bug: when a cancel was committed goes to the log, and what is written of its file later, for the benchmark."""
    if not hasattr(committer.SqliteCommitter, "run") or not hasattr(file.DiskFile, "append"):
        raise MutantRotten("SqliteCommitter.run or DiskFile.append is gone")
    run, opened, append = committer.SqliteCommitter.run, sink.DiskSink.open, file.DiskFile.append
    committed: dict[str, float] = {}

    def timed_run(self: committer.SqliteCommitter, group: Sequence[Write[Any]]) -> Committed:
        done = run(self, group)
        for each in group:
            if isinstance(each, cancelling.CancelFile):
                committed[each.file_id] = time.time()
                log.info("committed", file_id=each.file_id, at=int(time.time() * 1e6))
        return done

    def named_open(self: sink.DiskSink, file_id: str, runs: Sequence[Run], size_bytes: int, offset: int) -> SinkFile:
        file = opened(self, file_id, runs, size_bytes, offset)
        vars(file)["file_id"] = file_id
        return file

    def timed_append(self: file.DiskFile, chunks: Sequence[Chunk]) -> None:
        append(self, chunks)
        file_id = vars(self)["file_id"]
        after = time.time() - committed.get(file_id, float("inf"))
        if after > 0:
            log.info("late bytes", file_id=file_id, bytes=sum(map(len, chunks)), milliseconds=after * 1000)

    committer.SqliteCommitter.run = timed_run  # type: ignore[assignment, method-assign]
    sink.DiskSink.open = named_open  # type: ignore[method-assign]
    file.DiskFile.append = timed_append  # type: ignore[method-assign]
