"""Client of upload-service: uploads, watches and cancels over the generated stubs in ``upload.v1``.

Python loads a name at its first use: the server imports ``upload.v1`` from here and must not pay for the client.

Example::

    from upload import Client

    with Client("localhost:50051") as client:
        file = client.upload("report.pdf")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from upload import errors
    from upload.async_client import AsyncClient
    from upload.batching import UploadedBatch
    from upload.cancelling import CancelledBatch, CancelledFile
    from upload.client import Client
    from upload.errors import UploadServiceError
    from upload.records import AuditEvent, Batch, BatchStatus, Caller, File, Statistics, UploadStatus, WatchEvent
    from upload.sending import TransferProgress
    from upload.tls import Tls
    from upload.v1.upload_pb2 import FileSpec

_HOMES = {
    "AsyncClient": "upload.async_client",
    "AuditEvent": "upload.records",
    "Batch": "upload.records",
    "BatchStatus": "upload.records",
    "Caller": "upload.records",
    "CancelledBatch": "upload.cancelling",
    "CancelledFile": "upload.cancelling",
    "Client": "upload.client",
    "File": "upload.records",
    "FileSpec": "upload.v1.upload_pb2",
    "Statistics": "upload.records",
    "Tls": "upload.tls",
    "TransferProgress": "upload.sending",
    "UploadServiceError": "upload.errors",
    "UploadStatus": "upload.records",
    "UploadedBatch": "upload.batching",
    "WatchEvent": "upload.records",
}

__all__ = [
    "AsyncClient",
    "AuditEvent",
    "Batch",
    "BatchStatus",
    "Caller",
    "CancelledBatch",
    "CancelledFile",
    "Client",
    "File",
    "FileSpec",
    "Statistics",
    "Tls",
    "TransferProgress",
    "UploadServiceError",
    "UploadStatus",
    "UploadedBatch",
    "WatchEvent",
    "errors",
]


# Hidden from type checkers: to them any name would exist then.
if not TYPE_CHECKING:

    def __getattr__(name):
        if name == "errors":
            return importlib.import_module("upload.errors")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
        return globals()[name]
