"""Decides which files have been left alone for too long, and how they fail.

Must not know how long that is, nor how idle files are found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from upload_server.domain.states import FailureReason, FileStatus
from upload_server.store.commands import statements
from upload_server.store.commands.files import file_event, next_state
from upload_server.store.commands.statements import IdleFile
from upload_server.store.commands.trail import follow_up, write_events
from upload_server.store.commands.transaction import Transaction
from upload_server.store.commands.writes import Wants, Write
from upload_server.store.values import Audited, Command, Expired, Moment, Result


@dataclass(frozen=True, slots=True)
class ExpireFiles(Write[Result[Expired]]):
    """Fail files that nobody sends to; a reader found their ``rows``, which are checked again."""

    rows: Sequence[int]
    idle_since: Moment
    # Files that a stream of this node has open; of the others the rows tell.
    open_files: Sequence[str]
    command: Command

    @property
    def wants(self) -> Wants:
        """Those files."""
        return Wants(rows=self.rows)

    def run(self, transaction: Transaction) -> Result[Expired]:
        """Fail those that are still idle; those whose batch is not are looked at again when it has become so."""
        since = self.idle_since
        idle = transaction.read(
            statements.READ_IDLE, rows=list(self.rows), at=since.at, served=since.served, node=transaction.node_id
        )
        batches = self._batches_of_waiting(transaction, idle)
        alive = {row: active for row, active in batches.items() if self._lives(active)}
        waiting = [(one.found.row, alive[row]) for one in idle if (row := _waits_for(one)) in alive]
        if waiting:
            rows = [(row, active.at, active.served) for row, active in waiting]
            transaction.write_exactly(len(rows), statements.PROLONG_FILES, files=rows)
        expired = [
            one._replace(active=_newer(one.active, batches.get(_waits_for(one))))
            for one in idle
            if _waits_for(one) not in alive
        ]
        return self._fail(transaction, expired)

    def _lives(self, active: Moment) -> bool:
        return active.at >= self.idle_since.at or active.served >= self.idle_since.served

    def _batches_of_waiting(self, transaction: Transaction, idle: Sequence[IdleFile]) -> Mapping[int | None, Moment]:
        """When a file of each batch was last sent to, for the batches that idle files wait for."""
        rows = {row for one in idle if (row := _waits_for(one)) is not None}
        if not rows:
            return {}
        found = transaction.read(
            statements.READ_BATCH_ACTIVITY,
            rows=sorted(rows),
            open_files=list(self.open_files),
            node=transaction.node_id,
        )
        now = Moment(self.command.at, transaction.served)
        return {batch.batch_row: now if batch.open else batch.active for batch in found}

    def _fail(self, transaction: Transaction, idle: Sequence[IdleFile]) -> Result[Expired]:
        """Fail them with one set of statements."""
        if not idle:
            return Result(Expired(looked_at=len(self.rows)))
        failed = [
            next_state(
                transaction,
                one.found.file,
                FileStatus.FAILED,
                self.command.at,
                failure_reason=FailureReason.EXPIRED.value,
                fence=one.found.file.fence + 1,
            )
            for one in idle
        ]
        now = Moment(self.command.at, transaction.served)
        events = [
            file_event(self.command._replace(reason=_reason(one.active, now)), one.found, after)
            for one, after in zip(idle, failed, strict=True)
        ]
        write_events(transaction, events)
        first, last = failed[0].change_no, failed[-1].change_no
        transaction.write(statements.OWE_DELETIONS, first=first, last=last)
        transaction.write_exactly(
            len(failed), statements.FAIL_FILES, first=first, last=last, failure_reason=FailureReason.EXPIRED.value
        )
        batch_events = follow_up(transaction, events)
        audited = Audited((*(row.event for row in events), *batch_events.values()))
        return Result(Expired(tuple(failed), len(self.rows)), audited)


def _waits_for(one: IdleFile) -> int | None:
    """The row of the batch whose turn the file may be waiting for: nobody has sent to it yet."""
    return one.found.batch_row if one.found.file.status is FileStatus.PENDING else None


def _newer(own: Moment, batch: Moment | None) -> Moment:
    return own if batch is None else Moment(max(own.at, batch.at), max(own.served, batch.served))


def _reason(active: Moment, now: Moment) -> str:
    wall, served = (now.at - active.at).total_seconds(), now.served - active.served
    return f"{FailureReason.EXPIRED}: idle for {wall:.0f} s by the clock, for {served:.0f} s while the service ran"
