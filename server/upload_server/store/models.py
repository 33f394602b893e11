"""Decides which tables a store has: the one description of the schema, for every column what it holds.

Must not know a database: queries name the one they run on. The numbered steps in migrations/ create the tables; a test
compares the result with this page.
"""

from __future__ import annotations

from peewee import (
    SQL,
    AutoField,
    BigIntegerField,
    BlobField,
    CharField,
    CompositeKey,
    DateTimeField,
    DoubleField,
    Field,
    IntegerField,
    Model,
    TextField,
    fn,
)

from upload_server.domain.states import BatchStatus, FileStatus


class Row(Model):
    """Base of the tables. Times are UTC, as text without offset and with six digits, so they sort as they read."""

    class Meta:
        """Table names as `audit_event`."""

        legacy_table_names = False

    @classmethod
    def column_names(cls) -> list[str]:
        """Return the columns in the order of the fields."""
        return list(cls._meta.columns)

    @classmethod
    def copied_columns(cls) -> list[str]:
        """Return the columns that another store takes over: all but the counters that only one kind of store has."""
        return [column for column in cls.column_names() if column != "commits"]

    @classmethod
    def table_name(cls) -> str:
        """Return the table's name."""
        return str(cls._meta.table_name)

    @classmethod
    def field_types(cls) -> list[type[Field]]:
        """Return the kind of each field, in their order."""
        return [type(field) for field in cls._meta.sorted_fields]


class File(Row):
    """One announced upload."""

    # Grows with creation: the order of lists.
    id = AutoField()
    # The public id, a UUID; also the name of its bytes in the sink.
    file_id = CharField(unique=True)
    # As announced; a label, never a path of this machine.
    filename = CharField()
    # Empty when the sender did not say.
    content_type = CharField()
    # As announced: a completed file has exactly so many bytes.
    size_bytes = BigIntegerField()
    # A word of `FileStatus`.
    status = CharField()
    # The public id of its batch.
    batch_id = CharField(null=True)
    # When it was announced.
    created_at = DateTimeField()
    # When the status last changed.
    updated_at = DateTimeField()
    # Principal that announced it; empty while callers are not authenticated. No other caller sees the file, but those
    # who see everybody's.
    owner = TextField(default="")
    # Bytes that survive a crash; grows without a change number.
    bytes_received = IntegerField(default=0)
    # Of the bytes that were kept, lower-case hex; empty until the file is completed.
    sha256 = TextField(default="")
    # As announced; empty: the sender did not say.
    expected_sha256 = TextField(default="")
    # None unless completed, as the next one unless cancelled.
    completed_at = DateTimeField(null=True)
    cancelled_at = DateTimeField(null=True)
    # Actor of the cancel, `websocket_close` or `batch_cancel`; empty unless cancelled.
    cancelled_by = TextField(default="")
    # As the caller gave it; empty when none was given.
    cancel_reason = TextField(default="")
    # A word of `FailureReason`; empty unless failed.
    failure_reason = TextField(default="")
    # Counts this file's changes from 1: what callers see.
    revision = IntegerField(default=1)
    # Number of its last change among all changes of the store. Unique: of two rows with one number watchers skip one.
    change_no = IntegerField(default=0, unique=True)
    # Raised by every claim, take-over, cancel and failure, so that a replaced writer is refused; 0: no stream ever
    # opened.
    fence = IntegerField(default=0)
    # Last recorded byte, last claim or creation: what expiry counts from; of a file that waits, once it is looked at,
    # also that of its batch.
    active_at = DateTimeField(default="")
    # The same moment by `StoreInfo.served_seconds`.
    active_served = DoubleField(default=0.0)
    # `batch_id` as `batch.id`, which indexes carry cheaply.
    batch_row = IntegerField(null=True)
    # A word of `Source`: the door of the stream that brought the last recorded bytes; empty when it was refused more.
    writer = TextField(default="")
    # While it is uploading and its page is lost: when it is cancelled, unless a stream opens on it, and why.
    cancel_due_at = DateTimeField(null=True)
    cancel_due_reason = TextField(default="")
    # `node.node_id` whose stream has it open, or had when it died; None: nobody, or the only node there is.
    holder = TextField(null=True)
    # Fence of the claim that began its newest run, by which its bytes are named; 0: they came whole, or none has come.
    run_fence = IntegerField(default=0)
    # When the bytes of a completed file were let go, and who did that, as `cancelled_by`; else None, and empty.
    content_deleted_at = DateTimeField(null=True)
    content_deleted_by = TextField(default="")
    # `Upload-Metadata` as the file's tus client gave it; None: it came through another door, or without any. Beside
    # HEAD nobody asks, so it is the last.
    tus_metadata = TextField(null=True)


class Batch(Row):
    """Files that were announced together."""

    # Grows with creation.
    id = AutoField()
    # The public id, a UUID.
    batch_id = CharField(unique=True)
    # As announced.
    total_files = IntegerField()
    # When it was announced.
    created_at = DateTimeField()
    # As of its files.
    owner = TextField(default="")
    # A word of `BatchStatus`; follows from the files, unless the batch was cancelled.
    status = TextField(default=BatchStatus.PENDING.value)
    # Files by final status, kept with every change of one.
    completed_files = IntegerField(default=0)
    failed_files = IntegerField(default=0)
    cancelled_files_count = IntegerField(default=0)
    # When the status or a counter last changed.
    updated_at = DateTimeField(default="")
    # None unless cancelled.
    cancelled_at = DateTimeField(null=True)
    # Actor of the cancel, or `all_files` when each of its files was cancelled; empty unless cancelled.
    cancelled_by = TextField(default="")
    # As the caller gave it; empty when none was given.
    cancel_reason = TextField(default="")
    # As a file's. A batch is numbered after the files that changed with it.
    revision = IntegerField(default=1)
    change_no = IntegerField(default=0, unique=True)


# Lists: the order is the tail of each index, so that a page is read where it begins, whatever came before it.
# Files that are cancelled with their batch come by the thousand: they are found among what is cancelled.
# A list of everybody's reads what has no owner by the same indexes, and what has one by indexes of its own (`_all_`),
# which are empty while callers have no names, and cost nothing then.
for _table, _name, _where in (
    (File, "file", (File.cancelled_by != "") & (File.cancelled_by != "batch_cancel")),
    (Batch, "batch", Batch.cancelled_by != ""),
):
    _table.add_index(_table.owner, _table.created_at, name=f"{_name}_owner_created_at", safe=False)
    _table.add_index(
        _table.owner, _table.status, _table.created_at, name=f"{_name}_owner_status_created_at", safe=False
    )
    _table.add_index(
        _table.owner,
        _table.cancelled_by,
        _table.created_at,
        where=_where,
        name=f"{_name}_owner_cancelled_by_created_at",
        safe=False,
    )
    _owned = _table.owner != ""
    _table.add_index(_table.created_at, where=_owned, name=f"{_name}_all_created_at", safe=False)
    _table.add_index(_table.status, _table.created_at, where=_owned, name=f"{_name}_all_status_created_at", safe=False)
    _table.add_index(
        _table.cancelled_by,
        _table.created_at,
        where=_where & _owned,
        name=f"{_name}_all_cancelled_by_created_at",
        safe=False,
    )
    # A watch of all that an owner has, and its first state.
    _table.add_index(_table.owner, _table.change_no, where=_owned, name=f"{_name}_owner_change_no", safe=False)
    _table.add_index(
        _table.owner,
        _table.change_no,
        where=_owned
        & _table.status.in_([status for status in (FileStatus if _table is File else BatchStatus) if not status.final]),
        name=f"{_name}_owner_open",
        safe=False,
    )
File.add_index(File.owner, File.created_at, where=File.batch_row.is_null(), name="file_owner_without_batch", safe=False)
# Lists by name: so many characters of it.
File.add_index(File.owner, fn.substr(File.filename, 1, 255), name="file_owner_filename", safe=False)
File.add_index(
    File.created_at,
    where=File.batch_row.is_null() & (File.owner != ""),
    name="file_all_without_batch",
    safe=False,
)
File.add_index(fn.substr(File.filename, 1, 255), where=File.owner != "", name="file_all_filename", safe=False)
# A watch of a batch's files, and their list.
File.add_index(
    File.batch_row, File.change_no, where=File.batch_row.is_null(False), name="file_batch_row_change_no", safe=False
)
File.add_index(File.batch_row, where=File.batch_row.is_null(False), name="file_batch_row", safe=False)
# The first state of a watch of everything: rows that are not final, however many are.
File.add_index(
    File.change_no,
    where=File.status.in_([status for status in FileStatus if not status.final]),
    name="file_open",
    safe=False,
)
# Expiry: of those the ones that are idle.
File.add_index(
    File.active_served,
    File.active_at,
    where=File.status.in_([status for status in FileStatus if not status.final]),
    name="file_idle",
    safe=False,
)
File.add_index(
    File.cancel_due_at,
    where=File.cancel_due_at.is_null(False) & (File.status == FileStatus.UPLOADING),
    name="file_cancel_due",
    safe=False,
)
Batch.add_index(
    Batch.change_no,
    where=Batch.status.in_([status for status in BatchStatus if not status.final]),
    name="batch_open",
    safe=False,
)


class AuditEvent(Row):
    """One change of status, or the end of a completed file's bytes, written in the transaction of the change. Triggers
    refuse to change it, or to delete it before its time."""

    # Number of the change: the event's public id.
    change_no = IntegerField(primary_key=True)
    # `file.id`; None: an event of the batch itself.
    file_row = IntegerField(null=True)
    # `batch.id`; with a file it is the file's batch.
    batch_row = IntegerField(null=True)
    # Empty: creation.
    from_status = TextField()
    # A word of `FileStatus`, of a batch's event one of `BatchStatus`; so is `from_status`.
    to_status = TextField()
    # `user`, `user:PRINCIPAL` or `system`.
    actor = TextField()
    # A word of `Source`: the door or the mechanism.
    source = TextField()
    # As the caller gave it; empty when none was given.
    reason = TextField()
    # As the caller gave it; empty when none was given.
    request_id = TextField()
    # The time of the change, as the row carries it.
    occurred_at = DateTimeField()
    # Id of what the caller proved its name by, never a secret, and the address that it called from; both empty while
    # callers are not authenticated.
    credential = TextField(default="")
    peer = TextField(default="")
    # Of a file's creation: what the file is called.
    filename = TextField(default="")


AuditEvent.add_index(
    AuditEvent.file_row, where=AuditEvent.file_row.is_null(False), name="audit_event_file_row", safe=False
)
AuditEvent.add_index(AuditEvent.occurred_at, name="audit_event_occurred_at", safe=False)
AuditEvent.add_index(AuditEvent.source, AuditEvent.to_status, name="audit_event_source_to_status", safe=False)
# Without those of callers who are not authenticated, which may be nearly all.
AuditEvent.add_index(AuditEvent.actor, where=AuditEvent.actor != "user", name="audit_event_actor", safe=False)
AuditEvent.add_index(
    AuditEvent.batch_row, where=AuditEvent.batch_row.is_null(False), name="audit_event_batch_row", safe=False
)


class AuditSeal(Row):
    """One link of the audit chain. Triggers refuse to change it, or to delete it before its time."""

    # The event that is sealed.
    change_no = IntegerField(primary_key=True)
    # The event that the seal follows, 0 for the first: tells a removed event from a changed one.
    previous_no = IntegerField()
    # 32 bytes of SHA-256.
    hash = BlobField()


class AuditOrigin(Row):
    """The seal that the audit chain begins behind, once retention has taken what was before it. Triggers let a row go,
    of the trail, of a file or of a batch, that no number behind it names."""

    # The last event that was taken; the greatest counts.
    change_no = IntegerField(primary_key=True)
    # Of its seal, which went along.
    hash = BlobField()


class PrunedCount(Row):
    """How many files or batches of an owner went with the trail, so that statistics go on."""

    owner = TextField()
    # `file` or `batch`.
    kind = TextField()
    # A word of `FileStatus` or `BatchStatus`.
    status = TextField()
    total = IntegerField()
    # Of files: as their announced sizes were counted, without those whose bytes were let go.
    size_bytes = IntegerField()

    class Meta:
        """One count of each."""

        primary_key = CompositeKey("owner", "kind", "status")


class StoredAnswer(Row):
    """The answer to a call with a ``request_id``: a repeated call gets it again and changes nothing."""

    # Who called; empty while callers are not authenticated. With method and request id the key.
    principal = TextField()
    # Name of the RPC.
    method = TextField()
    # As the caller chose it.
    request_id = TextField()
    # Of the request: the same id with another request is refused.
    fingerprint = TextField()
    # A public id, or JSON of a cancel's answer.
    answer = TextField()
    # When it was given, by the wall clock and by `StoreInfo.served_seconds`: what forgetting goes by.
    created_at = DateTimeField()
    created_served = DoubleField(default=0.0)

    class Meta:
        """Who may repeat what."""

        primary_key = CompositeKey("principal", "method", "request_id")


StoredAnswer.add_index(StoredAnswer.created_served, StoredAnswer.created_at, name="stored_answer_age", safe=False)


class Run(Row):
    """A run of a file that another one follows: its bytes are named by its fence, and count up to ``upto``.

    A file that the process which began it brings to its end has no such row.
    """

    # `file.id`.
    file_row = IntegerField()
    # Of the claim that began it; 0: before there were runs.
    fence = IntegerField()
    # Where the next one begins, from the start of the file.
    upto = IntegerField()

    class Meta:
        """A claim begins one run of one file."""

        primary_key = CompositeKey("file_row", "fence")


class OwedDeletion(Row):
    """Bytes that are still to be deleted: all of a file that is cancelled or failed, or completed and let go of; of
    another completed one those of other runs."""

    # The order in which deletions are carried out.
    id = AutoField()
    # `file.id`.
    file_row = IntegerField(constraints=[SQL("UNIQUE")])


class StoreInfo(Row):
    """What a store knows of itself: one row."""

    # Always 1.
    id = AutoField()
    # A UUID, made with the store: watch tokens carry it.
    store_id = TextField()
    # The greatest change number that was given.
    last_change = IntegerField()
    # Seconds in which a service ran on the store, over all starts; kept with every transaction.
    served_seconds = DoubleField(default=0.0)
    # JSON: of each node, and under "" of one that is alone, how many transactions it has committed, so that a commit
    # whose answer was lost can be looked up.
    commits = TextField(default="{}")


class Node(Row):
    """A process that serves from the store, or did until it died."""

    # A UUID, fresh at each start.
    node_id = TextField(primary_key=True)
    started_at = DateTimeField()
    # Unless it says so again, others may take it for dead from then on.
    lives_until = DateTimeField()
    version = TextField()
    # The machine and the process, for an operator.
    address = TextField()


class StreamStop(Row):
    """A stream of a node that has to end, because of what another node committed."""

    # `node.node_id`.
    node_id = TextField()
    # `file.id`.
    file_row = IntegerField()
    # The stream's.
    fence = IntegerField()

    class Meta:
        """Each stream is stopped once."""

        primary_key = CompositeKey("node_id", "file_row", "fence")


class Lease(Row):
    """Whose turn it is to do what one node has to do for all. It saves work, and guards nothing."""

    name = TextField(primary_key=True)
    # `node.node_id`.
    node_id = TextField()
    until = DateTimeField()


class Ticket(Row):
    """What opens one WebSocket of a page, once: every node takes it."""

    # Of the ticket, its file and its page's origin, in hex: whoever reads the row cannot use it.
    sha256 = TextField(primary_key=True)
    # JSON: whom it names, as `access/tickets.py` writes it.
    identity = TextField()
    expires_at = DateTimeField()


MODELS: tuple[type[Row], ...] = (
    *(File, Batch, AuditEvent, AuditSeal, AuditOrigin, PrunedCount, StoredAnswer, Run, OwedDeletion, StoreInfo),
    *(Node, StreamStop, Lease, Ticket),
)
# What a stopped store has: of its nodes none lives, nor any ticket.
LASTING = MODELS[:-4]
