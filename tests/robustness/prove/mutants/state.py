"""Bugs in what may follow what: cancels, streams, expiry, stored answers."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from robustness.prove.mutants import nets
from robustness.prove.mutants.registry import mutant
from robustness.prove.patching import MutantRotten, change, change_text
from upload_server import app, service
from upload_server.doors.rpc import upload_stream
from upload_server.doors.websocket import cancels
from upload_server.ingest import upload
from upload_server.store.commands import answers, cancelling, expiring, uploading, writer
from upload_server.store.sql import committer, queries, statements, store

_CANCEL = "    return (await self._store.cancel_file("


def _recorded_whatever_was_found() -> None:
    was_found = "(write.file_id, write.fence) in recorded for write in writes"
    change(uploading, "RecordProgress.run_all", (was_found, "True for write in writes"))


@mutant
def cancel_ignores_status() -> None:
    """The status condition is dropped in the cancel of a file."""
    change(cancelling, "_decide", ("if file.status not in _MAY_CANCEL or write.file_id in cancelled:", "if False:"))
    change_text(statements, "CANCEL_FILES", ("file.status IN ('pending', 'uploading')", "1"))
    nets.no_triggers()


@mutant
def complete_ignores_status() -> None:
    """The status condition is dropped in complete, and the fence with it."""
    change(
        uploading,
        "_writable",
        ("if found.file.status is FileStatus.CANCELLED:", "if False:"),
        ("if found.file.fence != fence:", "if False:"),
        ("if found.file.status is not FileStatus.UPLOADING:", "if False:"),
    )
    nets.any_move()
    nets.no_triggers()
    nets.deaf_to_cancels()


@mutant
def triggers_absent() -> None:
    """The triggers that keep final states final are not there."""
    nets.no_triggers()


@mutant
def fence_ignored_in_complete() -> None:
    """A stream that was replaced may still complete the file."""
    change(uploading, "_writable", ("if found.file.fence != fence:", "if False:"))
    nets.deaf_to_replacement()


@mutant
def fence_ignored_in_progress() -> None:
    """A stream that was replaced may still record bytes."""
    change_text(
        statements,
        "RECORD_PROGRESS",
        ("file.fence = v.fence", "1"),
    )
    _recorded_whatever_was_found()
    nets.deaf_to_replacement()


@mutant
def progress_after_cancel() -> None:
    """Bytes are recorded for a file that is cancelled."""
    change_text(
        statements,
        "RECORD_PROGRESS",
        ("file.fence = v.fence", "1"),
        ("file.status = 'uploading'", "1"),
    )
    _recorded_whatever_was_found()
    nets.deaf_to_cancels()


@mutant
def sender_never_told() -> None:
    """The open stream of a cancelled file is not told."""
    nets.deaf_to_cancels()


@mutant
def sender_told_before_commit() -> None:
    """The open stream is told that its file is cancelled before it is."""
    early = (
        "    who, at = command.caller, command.at\n"
        "    event = AuditEvent(0, file_id, '', '', '', who.actor, who.source, command.reason, '', at)\n"
        "    self._ingest.stop(event)\n"
        "    await __import__('asyncio').sleep(0.5)\n"
    )
    change(service, "Uploads.cancel_file", (_CANCEL, early + _CANCEL))


@mutant
def answer_before_commit() -> None:
    """Callers get their answer while the commit is still under way."""
    commit = "self._commit(connection, transaction)"
    change(committer, "SqlCommitter._transaction", (f"    {commit}\n", f"    self.late = lambda: {commit}\n"))
    tell = "self._call_soon(self._deliver, group, done, _Times(came, turn, done.commit_began, time.monotonic()))"
    late = (
        "; __import__('time').sleep(0.2)"
        "; late, self._committer.late = getattr(self._committer, 'late', None), None"
        "; late and late()"
    )
    change(writer, "Writer._main", (tell, tell + late))


@mutant
def reads_are_remembered() -> None:
    """What is read may be as it was 0.3 s ago."""
    read = "return await self._readers.run(read)"
    remembered = (
        "import time\n"
        "    kept = self.__dict__.setdefault('kept', {})\n"
        "    key = repr((query.__name__, parameters))\n"
        "    if key not in kept or kept[key][0] < time.monotonic() - 0.3:\n"
        "        kept[key] = time.monotonic(), await self._readers.run(read)\n"
        "    return kept[key][1]"
    )
    change(store, "SqlStore._read", (read, remembered))


@mutant
def end_of_stream_finishes() -> None:
    """The end of a stream is taken for its commit."""
    end = "        await upload.close()\n        if upload.durable"
    commit = (
        "        if upload.received == upload.file.size_bytes:\n            await upload.commit('', self._caller)\n"
    )
    change(upload_stream, "UploadStream._course", (end, commit + end))


@mutant
def offset_not_checked() -> None:
    """A stream may open anywhere in a file."""
    change(uploading, "ClaimFile.run", ("if self.offset != file.bytes_received:", "if False:"))


@mutant
def checksum_not_compared() -> None:
    """The digest that the sender gives is not looked at."""
    change(upload, "Upload.commit", ("if one and one != actual)", "if False)"))


@mutant
def expiry_ignores_age() -> None:
    """Everything that no stream is open on expires."""
    old = "f.active_served < :served AND f.active_at < :at"
    for module, name in ((queries, "_IDLE"), (statements, "READ_IDLE")):
        change_text(module, name, (old, f"({old} OR 1)"))
    change(expiring, "ExpireFiles._lives", ("return ", "return False and "))


@mutant
def expiry_by_wall_clock_alone() -> None:
    """A clock that is set forward makes files old."""
    for module, name in ((queries, "_IDLE"), (statements, "READ_IDLE")):
        change_text(module, name, ("f.active_served < :served", "f.active_served < :served + 1e9"))
    change(expiring, "ExpireFiles._lives", (" or active.served >= self.idle_since.served", ""))


@mutant
def leaping_clock() -> None:
    """No bug: the wall clock is a day behind at the first start; at later ones a day ahead, and then a day behind."""
    if not hasattr(app, "utc_now"):
        raise MutantRotten("app.utc_now is gone")
    first = not (Path(sys.argv[sys.argv.index("--data-dir") + 1]) / "upload.sqlite3").exists()
    leaps = (-1, 0) if first else (1, -1)
    asked: list[float] = []

    def utc_now() -> datetime:
        asked.append(time.monotonic())
        del asked[1:-1]
        turn = int((asked[-1] - asked[0]) / 3)
        return datetime.now(UTC) + timedelta(hours=25 * leaps[turn] if turn < len(leaps) else 0)

    vars(app)["utc_now"] = utc_now


@mutant
def lost_socket_ignores_fence() -> None:
    """A socket that was lost cancels its file although another stream has taken it over."""
    change_text(statements, "WRITE_FILE", ("cancel_due_at = NULL, ", ""))
    change(cancels, "CloseCancels._cancel", ("caller, fence)", "caller, None)"))


@mutant
def request_id_forgotten() -> None:
    """Answers are not kept."""
    change(answers, "Answers.write", ("if self._new:", "if False:"))


@mutant
def fingerprint_ignored() -> None:
    """Another request under a known id gets the first one's answer."""
    change(answers, "Answers.replay", ("if kept.fingerprint != command.fingerprint.hex():", "if False:"))
