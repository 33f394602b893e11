"""Decides how completed files let go of their bytes: with audit events and deletions owed, in one transaction.

Must not know downloads or watchers. The rows stay, completed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from upload_server.domain.errors import ContentDeleted, FileNotCompleted
from upload_server.domain.states import File, FileStatus, without_content
from upload_server.store.commands import statements
from upload_server.store.commands.answers import Answers, keys_of
from upload_server.store.commands.files import read_file, read_files
from upload_server.store.commands.statements import EventRow, FileRow
from upload_server.store.commands.trail import make_event, write_events
from upload_server.store.commands.transaction import Transaction
from upload_server.store.commands.writes import Wants, Write
from upload_server.store.values import Audited, Command, Result


@dataclass(frozen=True, slots=True)
class DeleteContent(Write[Result[File]]):
    """Let go of the bytes of one completed file."""

    file_id: str
    command: Command

    @property
    def wants(self) -> Wants:
        """Its file; no batch counts what this changes."""
        return Wants(keys_of(self.command), uncounted=(self.file_id,))

    def run(self, transaction: Transaction) -> Result[File]:
        """Let go of them; a repeated call gets the file, which nothing changes any more."""
        answers = Answers(transaction, (self.command,))
        replayed = answers.replay(self.command) is not None
        found = read_file(transaction, self.file_id, self.command.caller)
        if replayed:
            return Result(found.file, replayed=True)
        if found.file.status is not FileStatus.COMPLETED:
            raise FileNotCompleted(found.file)
        if not found.file.has_content:
            raise ContentDeleted(found.file)
        command = self.command._replace(reason=transaction.fit(self.command.reason, 1))
        answers.keep(command, self.file_id)
        answers.write()
        audited = _let_go(transaction, (found,), command)
        return Result(without_content(found.file, audited.events[0]), audited)


@dataclass(frozen=True, slots=True)
class PruneContent(Write[Result[int]]):
    """Let go of the bytes of files that nobody asked for, with one set of statements."""

    file_ids: Sequence[str]
    command: Command

    @property
    def wants(self) -> Wants:
        """Those files; no batch counts what this changes."""
        return Wants(uncounted=self.file_ids)

    def run(self, transaction: Transaction) -> Result[int]:
        """Let go of what is still there."""
        found = [each for each in read_files(transaction, self.file_ids).values() if each.file.has_content]
        return Result(len(found), _let_go(transaction, found, self.command)) if found else Result(0)


def _let_go(transaction: Transaction, found: Sequence[FileRow], command: Command) -> Audited:
    """Let go of the bytes of files that have them, with one set of statements."""
    first = transaction.number(len(found))
    events = [
        EventRow(
            make_event(
                command,
                number,
                each.file.status.value,
                each.file.status,
                file_id=each.file.file_id,
                batch_id=each.file.batch_id,
                filename=each.file.filename,
            ),
            each.row,
            each.batch_row,
        )
        for number, each in enumerate(found, first)
    ]
    write_events(transaction, events)
    last = first + len(found) - 1
    transaction.write(statements.OWE_DELETIONS, first=first, last=last)
    transaction.write_exactly(len(found), statements.DELETE_CONTENT, first=first, last=last)
    return Audited(tuple(row.event for row in events), leaves_bytes=True)
