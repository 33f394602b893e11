"""Bugs in who hears of what, and when."""

from __future__ import annotations

from robustness.prove.mutants.registry import mutant
from robustness.prove.patching import change
from upload_server import service
from upload_server.store.commands import cancelling
from upload_server.watch import history, hub, interests, stream


@mutant
def watcher_told_before_commit() -> None:
    """Watchers hear of a cancel before it is committed."""
    cancel = "    return (await self._store.cancel_file("
    early = (
        "    import upload_server.store.values as stores\n"
        "    file = await self._store.get_file(file_id, '')\n"
        "    early = replace(file, status=FileStatus.CANCELLED, revision=file.revision + 1)\n"
        "    self._hub._publish(stores.Change(self._store.last_change + 1, early))\n"
        "    await __import__('asyncio').sleep(0.1)\n"
    )
    change(service, "Uploads.cancel_file", (cancel, early + cancel))


@mutant
def event_lost() -> None:
    """The tail passes over the final states of files."""
    passing = "hasattr(change.record, 'file_id') and change.record.status.final or self._publish(change)"
    change(hub, "WatchHub._tail", ("self._publish(change)", passing))


@mutant
def slow_watcher_loses_final_states() -> None:
    """A watcher that is handed more than it takes forgets it, and does not read it again."""
    change(interests, "NamedWatcher.offer", ("        self._behind = True\n", ""))
    start = "self._history.start"
    change(history, "AllWatcher.behind", (start, "0"))
    skip = f"self._position = max(self._position, {start})\n    "
    change(history, "AllWatcher.take", ("while self", skip + "while self"))


@mutant
def resume_token_too_low() -> None:
    """A token is one behind: what was sent comes again."""
    change(stream, "Shared.token", ("(self.store.incarnation, no)", "(self.store.incarnation, max(0, no - 1))"))


@mutant
def resume_token_too_high() -> None:
    """A token is one ahead: a change is passed over after a break."""
    change(stream, "Shared.token", ("(self.store.incarnation, no)", "(self.store.incarnation, no + 1)"))


@mutant
def batch_numbered_before_its_files() -> None:
    """Watchers hear of a cancelled batch before its files."""
    number = "    change_no = transaction.number()\n"
    count = "    [(count,)] = transaction.read(statements.COUNT_OPEN_OF_BATCH, batch_row=before.row)\n"
    change(cancelling, "CancelBatch.run", (number, ""), (count, number + count))
