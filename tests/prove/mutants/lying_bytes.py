"""Bugs in what lies on disk; and a disk without mercy, which is no bug."""

from __future__ import annotations

from collections.abc import Sequence

from prove.mutants.registry import mutant
from prove.patching import MutantRotten, change
from upload_server import janitor
from upload_server.ingest import syncer
from upload_server.sink import Chunk, disk
from upload_server.store.sqlite import cancelling


@mutant
def clean_up_by_folder() -> None:
    """The sweep deletes whatever lies there and is not open."""
    change(janitor, "Janitor.sweep_orphans", ("if statuses.get(file_id) in _DELETABLE and not", "if not"))


@mutant
def deletion_forgotten() -> None:
    """A cancel does not note that bytes are to be deleted."""
    owe = "    transaction.write(statements.OWE_DELETIONS, first=first, last=last)\n"
    change(cancelling, "_cancel_audited", (owe, ""))


@mutant
def progress_before_sync() -> None:
    """Bytes are called durable before they are synced."""
    change(syncer, "Syncer._sync", ("await self._parts.hop(self._sink_file.sync)", "pass"))


@mutant
def volatile_disk() -> None:
    """No bug: what was not synced is lost when its file is closed or the process dies, as with the power."""
    if not all(hasattr(disk.DiskFile, name) for name in ("append", "sync", "close")):
        raise MutantRotten("DiskFile has other methods")
    append, sync, close = disk.DiskFile.append, disk.DiskFile.sync, disk.DiskFile.close
    waiting: dict[int, list[bytes]] = {}

    def late_append(self: disk.DiskFile, chunks: Sequence[Chunk]) -> None:
        waiting.setdefault(id(self), []).extend(bytes(chunk) for chunk in chunks)

    def late_sync(self: disk.DiskFile) -> None:
        append(self, waiting.pop(id(self), []))
        sync(self)

    def merciless_close(self: disk.DiskFile) -> None:
        waiting.pop(id(self), None)
        close(self)

    disk.DiskFile.close = merciless_close  # type: ignore[method-assign]
    disk.DiskFile.append = late_append  # type: ignore[method-assign]
    disk.DiskFile.sync = late_sync  # type: ignore[method-assign]
