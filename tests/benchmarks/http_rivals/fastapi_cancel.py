"""The cancel endpoint as one would write it by hand: FastAPI, pydantic and Peewee's ORM on the service's own schema.

Written to be good, not to lose: uvloop and httptools, one writer thread with one connection (no lock is ever waited
for), BEGIN IMMEDIATE, WAL with synchronous=FULL, a conditional update. It keeps the service's promises of this call:
status, audit, change number, owed deletion and the stored answer in one transaction. It tells no watcher and no upload.
"""

from __future__ import annotations

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Path
from peewee import AutoField, BigIntegerField, CompositeKey, IntegerField, Model, SqliteDatabase, TextField
from pydantic import BaseModel, ConfigDict, Field

DATABASE = SqliteDatabase(
    os.environ["BENCH_DATABASE"], pragmas={"journal_mode": "wal", "synchronous": "full", "busy_timeout": 5000}
)
OPEN = ("pending", "uploading")
WRITER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")


class Table(Model):
    """Where the tables are."""

    class Meta:
        database = DATABASE


class File(Table):
    """The columns that a cancel touches."""

    id = AutoField()
    file_id = TextField()
    filename = TextField()
    status = TextField()
    bytes_received = BigIntegerField()
    updated_at = TextField()
    cancelled_at = TextField(null=True)
    cancelled_by = TextField()
    cancel_reason = TextField()
    revision = IntegerField()
    change_no = IntegerField()
    fence = IntegerField()
    batch_row = IntegerField(null=True)


class AuditEvent(Table):
    """One committed change."""

    change_no = IntegerField(primary_key=True)
    file_row = IntegerField(null=True)
    batch_row = IntegerField(null=True)
    from_status = TextField()
    to_status = TextField()
    actor = TextField()
    source = TextField()
    reason = TextField()
    request_id = TextField()
    occurred_at = TextField()

    class Meta:
        table_name = "audit_event"


class OwedDeletion(Table):
    """Bytes to be deleted."""

    file_row = IntegerField(unique=True)

    class Meta:
        table_name = "owed_deletion"


class StoredAnswer(Table):
    """Answers by their request id."""

    principal = TextField()
    method = TextField()
    request_id = TextField()
    fingerprint = TextField()
    answer = TextField()
    created_at = TextField()

    class Meta:
        table_name = "stored_answer"
        primary_key = CompositeKey("principal", "method", "request_id")


class StoreInfo(Table):
    """The counters."""

    last_change = IntegerField()
    last_commit = IntegerField()

    class Meta:
        table_name = "store_info"


class CancelBody(BaseModel):
    """The request."""

    model_config = ConfigDict(extra="forbid")
    reason: str = Field("", max_length=500)
    request_id: str = Field("", max_length=128)


class CancelAnswer(BaseModel):
    """The answer."""

    message: str
    file_id: str
    filename: str
    cancelled_at: str


app = FastAPI()


@app.get("/healthz")  # type: ignore[misc, untyped-decorator, unused-ignore]
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@app.post("/api/v1/upload/cancel/{file_id}")  # type: ignore[misc, untyped-decorator, unused-ignore]
async def cancel_file(file_id: Annotated[str, Path(max_length=128)], body: CancelBody) -> CancelAnswer:
    """Cancel a file."""
    return await asyncio.get_running_loop().run_in_executor(WRITER, cancel, file_id, body)


def cancel(file_id: str, body: CancelBody) -> CancelAnswer:
    """Cancel in one transaction, or say why not."""
    now = datetime.now(UTC)
    fingerprint = json.dumps([file_id, body.reason])
    with DATABASE.atomic("IMMEDIATE"):
        if body.request_id:
            stored = StoredAnswer.get_or_none(principal="", method="CancelFile", request_id=body.request_id)
            if stored is not None:
                if stored.fingerprint != fingerprint:
                    raise HTTPException(400, "REQUEST_ID_REUSED")
                return CancelAnswer.model_validate_json(stored.answer)
        file = File.get_or_none(File.file_id == file_id)
        if file is None:
            raise HTTPException(404, "FILE_NOT_FOUND")
        if file.status not in OPEN:
            raise HTTPException(400, "FILE_NOT_CANCELLABLE")
        write(file, body, now.strftime("%Y-%m-%d %H:%M:%S.%f"))
        answer = CancelAnswer(
            message="Upload cancelled successfully",
            file_id=file_id,
            filename=file.filename,
            cancelled_at=now.isoformat().replace("+00:00", "Z"),
        )
        if body.request_id:
            StoredAnswer.insert(
                principal="",
                method="CancelFile",
                request_id=body.request_id,
                fingerprint=fingerprint,
                answer=answer.model_dump_json(),
                created_at=now.isoformat(),
            ).execute()
    return answer


def write(file: Any, body: CancelBody, at: str) -> None:
    """Number the change, audit it, and change the row if it is still open."""
    info = StoreInfo.get()
    number = info.last_change + 1
    StoreInfo.update(last_change=number, last_commit=info.last_commit + 1).execute()
    AuditEvent.insert(
        change_no=number,
        file_row=file.id,
        batch_row=file.batch_row,
        from_status=file.status,
        to_status="cancelled",
        actor="user",
        source="http",
        reason=body.reason,
        request_id=body.request_id,
        occurred_at=at,
    ).execute()
    if file.fence or file.bytes_received:
        OwedDeletion.insert(file_row=file.id).on_conflict_ignore().execute()
    changed = (
        File.update(
            status="cancelled",
            revision=File.revision + 1,
            fence=File.fence + 1,
            change_no=number,
            updated_at=at,
            cancelled_at=at,
            cancelled_by="user",
            cancel_reason=body.reason,
        )
        .where(File.id == file.id, File.status.in_(OPEN))
        .execute()
    )
    if changed != 1:
        raise HTTPException(400, "FILE_NOT_CANCELLABLE")
