"""Decides whether a bucket can be used, and says otherwise in one sentence what is wrong and what to do.

Must not know what lies there. Nothing is believed that can be tried: an object is put, found, and deleted.
"""

from __future__ import annotations

import uuid
from typing import Any

import structlog

from upload_server.domain.errors import CannotStart
from upload_server.sink.protocol import SinkError
from upload_server.sink.s3.client import Bucket, Refused, Unavailable
from upload_server.sink.s3.names import DONE, OPEN

log = structlog.get_logger(__name__)

_OPTION = "--storage-url"
_WRONG_KEYS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "401"})
_ELSEWHERE = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
)
_DENIED = frozenset({"AccessDenied", "403", "AllAccessDisabled"})
_RIGHTS = "PutObject, GetObject, DeleteObject, ListBucket, ListBucketMultipartUploads and AbortMultipartUpload"


def refuse_unusable(bucket: Bucket) -> None:
    """Raise ``CannotStart`` unless objects can be put there, and are gone once they are deleted."""
    try:
        _refuse_keeping(bucket)
        _try(bucket)
    except SinkError as error:
        raise CannotStart(f"{_OPTION}: {_words(error, bucket)}") from None


def _refuse_keeping(bucket: Bucket) -> None:
    """Refuse a bucket that keeps what is deleted."""
    versioning = _ask(bucket, "get_bucket_versioning")
    if versioning.get("Status") == "Enabled":
        raise CannotStart(
            f"{_OPTION}: bucket {bucket.address.bucket} keeps old versions, so what is cancelled would not be deleted;"
            " suspend its versioning, or name another bucket"
        )
    lock = _ask(bucket, "get_object_lock_configuration").get("ObjectLockConfiguration", {})
    if lock.get("ObjectLockEnabled") == "Enabled":
        raise CannotStart(
            f"{_OPTION}: bucket {bucket.address.bucket} has object lock, so what is cancelled could not be deleted;"
            " name a bucket without it"
        )


def _ask(bucket: Bucket, operation: str) -> dict[str, Any]:
    try:
        return dict(bucket.ask(operation))
    except Refused as error:
        if error.code in _DENIED:
            log.warning("cannot see whether the bucket keeps what is deleted", asked=operation, error=str(error))
        elif error.code not in ("ObjectLockConfigurationNotFoundError", "NotImplemented", "MethodNotAllowed", "501"):
            raise
        return {}


def _try(bucket: Bucket) -> None:
    """Put, find and delete an object under a name that nobody else has."""
    name = str(uuid.uuid4())
    key = f"{OPEN}/start-{name}/try"
    bucket.put_new(key, b"")
    try:
        if [found.key for found in bucket.find(f"{OPEN}/start-{name}")] != [key]:
            raise CannotStart(
                f"{_OPTION}: what was put at {bucket.address} is not listed there; name a store that does"
            )
    finally:
        bucket.delete([key])
    bucket.open_uploads(DONE)


def _words(error: SinkError, bucket: Bucket) -> str:
    where = bucket.address.endpoint or f"AWS in {bucket.address.region}"
    if isinstance(error, Unavailable):
        return f"no object store answers at {where} ({error}); see whether its endpoint is right and can be reached"
    if not isinstance(error, Refused):
        return f"{bucket.address} cannot be used: {error}"
    if error.code in ("NoSuchBucket", "404"):
        return f"there is no bucket {bucket.address.bucket} at {where}; make it, or name another"
    if error.code in _WRONG_KEYS:
        return (
            f"the object store at {where} does not know our credentials ({error.code}); see AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY, or the profile or role that they come from"
        )
    if error.code == "RequestTimeTooSkewed":
        return f"the object store at {where} has another time than this machine; have NTP set both clocks"
    if error.code in _ELSEWHERE:
        return f"bucket {bucket.address.bucket} is in another region than {bucket.address.region}; name it by &region="
    if error.code in _DENIED:
        return f"our credentials may not write to {bucket.address} ({error}); allow {_RIGHTS}"
    return f"the object store at {where} refuses what is needed ({error}); see whether it speaks S3"
