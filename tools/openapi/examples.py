"""Holds the examples of the document. Error examples are made by the server's own code."""

import base64
import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message

from upload_server.domain import errors
from upload_server.domain.caller import Caller, Permission
from upload_server.domain.states import Batch, BatchStatus, File, FileStatus, Source
from upload_server.domain.statistics import Buckets, Counts, Moves, Total
from upload_server.doors.convert import batch_to_proto, caller_to_proto, file_to_proto, statistics_to_proto
from upload_server.doors.errors import to_status
from upload_server.doors.http.asgi import to_json
from upload_server.service import Statistics

Json = dict[str, Any]

FILE_ID = "1f0c7b9e-4a36-4d0e-9a43-6f4f0f4b8a11"
BATCH_ID = "7b6d2c3a-95d1-4f1e-8c55-0d7a2b9e6c42"
SECOND_FILE_ID = "c2a9e4d8-0f57-4b7c-b1f3-8e6d5a4c3b20"
TOKEN = "8cW_NxUXT0S5n8Lti34UOgAAAAAAAAADskQlGg"  # noqa: S105 - a resume token, made up
EVENT_AT = "2024-01-01T12:00:00Z"
_CREATED = datetime(2024, 1, 1, 11, 59, 30, tzinfo=UTC)
_CANCELLED = datetime(2024, 1, 1, 12, 0, tzinfo=UTC)

_PENDING_FILE = File(
    file_id=FILE_ID,
    filename="example.pdf",
    content_type="application/pdf",
    size_bytes=5_000_000,
    bytes_received=0,
    status=FileStatus.PENDING,
    batch_id="",
    owner="",
    sha256="",
    created_at=_CREATED,
    updated_at=_CREATED,
    completed_at=None,
    cancelled_at=None,
    cancelled_by="",
    cancel_reason="",
    failure_reason="",
    revision=1,
    change_no=1,
    fence=0,
)
_CANCELLED_FILE = replace(
    _PENDING_FILE,
    bytes_received=1_048_576,
    status=FileStatus.CANCELLED,
    updated_at=_CANCELLED,
    cancelled_at=_CANCELLED,
    cancelled_by="user",
    cancel_reason="not needed",
    revision=3,
)
_HELLO = b"Hello, world!\n"
_PUT_FILE = replace(
    _PENDING_FILE,
    filename="hello.txt",
    content_type="text/plain",
    size_bytes=len(_HELLO),
    bytes_received=len(_HELLO),
    status=FileStatus.COMPLETED,
    sha256=hashlib.sha256(_HELLO).hexdigest(),
    completed_at=_CREATED,
    revision=3,
)
_LET_GO_FILE = replace(_PUT_FILE, content_deleted_at=_CANCELLED, content_deleted_by="user", revision=4)
_BATCH = Batch(
    batch_id=BATCH_ID,
    status=BatchStatus.PENDING,
    owner="",
    total_files=2,
    completed_files=0,
    failed_files=0,
    cancelled_files_count=0,
    created_at=_CREATED,
    updated_at=_CREATED,
    cancelled_at=None,
    cancelled_by="",
    cancel_reason="",
    revision=1,
    change_no=1,
)
_CANCELLED_BATCH = replace(
    _BATCH,
    status=BatchStatus.CANCELLED,
    total_files=5,
    cancelled_files_count=5,
    updated_at=_CANCELLED,
    cancelled_at=_CANCELLED,
    cancelled_by="user",
    revision=2,
)

_STATISTICS = Statistics(
    counts=Counts(
        no=80_742,
        files={status: Total(0, 0) for status in FileStatus}
        | {FileStatus.COMPLETED: Total(156, 780_000_000), FileStatus.CANCELLED: Total(42, 210_000_000)},
        batches=dict.fromkeys(BatchStatus, 0) | {BatchStatus.CANCELLED: 1},
        moves=[Moves(198, 156, 0, 42)],
    ),
    resume_token=TOKEN,
    late=3,
    since=_CREATED,
    buckets=Buckets.until(_CREATED, 60, 1),
    late_in_buckets=[3],
)


def _answer(message: Message) -> Json:
    """The message as JSON in the order of its fields, as the service prints it."""
    printed = to_json(message)
    return {field.name: printed[field.name] for field in message.DESCRIPTOR.fields if field.name in printed}


FILE = _answer(file_to_proto(_CANCELLED_FILE))


def _status(error: errors.UploadError) -> Json:
    status = to_json(to_status(error))
    for detail in status["details"]:
        if "metadata" in detail:
            # The order of a protobuf map is not the same in every process.
            detail["metadata"] = dict(sorted(detail["metadata"].items()))
    return status


_VIOLATION = errors.FieldViolation("request_id", "must be at most 128 characters")
ERRORS = {
    "FILE_NOT_FOUND": _status(errors.FileNotFound(FILE_ID)),
    "BATCH_NOT_FOUND": _status(errors.BatchNotFound(BATCH_ID)),
    "FILE_NOT_CANCELLABLE": _status(errors.FileNotCancellable(_CANCELLED_FILE)),
    "FILE_NOT_COMPLETED": _status(errors.FileNotCompleted(_PENDING_FILE)),
    "CONTENT_DELETED": _status(errors.ContentDeleted(_LET_GO_FILE)),
    "BATCH_NOT_CANCELLABLE": _status(errors.BatchNotCancellable(_CANCELLED_BATCH)),
    "REQUEST_ID_REUSED": _status(errors.RequestIdReused("cancel-42")),
    "INVALID_FIELD": _status(
        errors.InvalidField([errors.FieldViolation("request_id", "must be at most 128 characters")])
    ),
    "CREDENTIAL_MISSING": _status(errors.CredentialMissing()),
    "CREDENTIAL_INVALID": _status(errors.CredentialInvalid()),
    "CREDENTIAL_EXPIRED": _status(errors.CredentialExpired()),
    "PERMISSION_DENIED": _status(errors.PermissionDenied("upload.cancel")),
    "OVERLOADED": _status(errors.Overloaded("Too many calls at once; try again soon", 1.0)),
    "STORAGE_FULL": _status(errors.StorageFull("disk", 96_468_992)),
    "SHUTTING_DOWN": _status(errors.ShuttingDown()),
    "DATABASE_FAILURE": _status(errors.DatabaseFailure()),
    "OUTCOME_UNKNOWN": _status(errors.OutcomeUnknown()),
    "INTERNAL": _status(errors.InternalError("3f2a9c1d5b7e4f60a1b2c3d4e5f60718")),
}

_CALLER = Caller(
    Source.HTTP,
    "ada",
    "ada",
    frozenset({Permission.AUDIT, Permission.CANCEL, Permission.COUNT, Permission.READ, Permission.WRITE}),
    "token:ab12cd34",
    roles=frozenset({"user"}),
)
_SPEC = {"filename": "example.pdf", "size_bytes": "5000000", "content_type": "application/pdf"}
_SECOND = {"filename": "pictures/cat.jpg", "size_bytes": "120000", "content_type": "image/jpeg"}
REQUESTS: dict[str, Json] = {
    "InitiateUpload": {**_SPEC, "request_id": "upload-42"},
    "PutFile": {
        "filename": "hello.txt",
        "size_bytes": str(len(_HELLO)),
        "content_type": "text/plain",
        "data": base64.b64encode(_HELLO).decode(),
        "request_id": "put-42",
    },
    "InitiateBatch": {"files": [_SPEC, _SECOND], "request_id": "batch-42"},
    "CancelFile": {"reason": "not needed", "request_id": "cancel-42"},
    "CancelBatch": {"reason": "not needed", "request_id": "cancel-42"},
}
ANSWERS: dict[str, Json] = {
    "InitiateUpload": {"file": _answer(file_to_proto(_PENDING_FILE))},
    "PutFile": _answer(file_to_proto(_PUT_FILE)),
    "InitiateBatch": {"batch": _answer(batch_to_proto(_BATCH)), "file_ids": [FILE_ID, SECOND_FILE_ID]},
    "DeleteContent": _answer(file_to_proto(_LET_GO_FILE)),
    "GetFile": FILE,
    "ListFiles": {"files": [FILE], "next_page_token": ""},
    "GetBatch": _answer(batch_to_proto(_CANCELLED_BATCH)),
    "ListBatches": {"batches": [_answer(batch_to_proto(_CANCELLED_BATCH))], "next_page_token": ""},
    "GetStatistics": _answer(statistics_to_proto(_STATISTICS)),
    "GetCaller": _answer(caller_to_proto(_CALLER, {"open-files": (100_000, 3)})),
    "CancelFile": {
        "message": "Upload cancelled successfully",
        "file_id": FILE_ID,
        "filename": "example.pdf",
        "cancelled_at": EVENT_AT,
    },
    "CancelBatch": {
        "message": "Batch upload cancelled successfully",
        "batch_id": BATCH_ID,
        "cancelled_files_count": 5,
        "total_files_in_batch": 5,
        "cancelled_at": EVENT_AT,
    },
    "WatchStatus": {"result": {"file": FILE, "resume_token": TOKEN}},
    "ListAuditEvents": {
        "events": [
            {
                "event_id": "3",
                "file_id": FILE_ID,
                "batch_id": "",
                "from_status": "uploading",
                "to_status": "cancelled",
                "actor": "user",
                "source": "http",
                "reason": "not needed",
                "request_id": "cancel-42",
                "occurred_at": EVENT_AT,
                "credential": "",
                "peer": "192.0.2.7",
                "filename": "example.pdf",
            }
        ],
        "next_page_token": "",
    },
}
