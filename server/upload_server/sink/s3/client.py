"""Decides how the object store is spoken to: which library carries which call, how long, and what its errors mean.

Must not know files, nor what the keys mean. Keys here are without the address's prefix. obstore moves bytes beside the
interpreter's lock; boto3 does what obstore hides: multipart uploads, and looks at the bucket. Both take the credentials
that boto3's own chain finds. No text of the store's is passed on: some repeat the access key.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar, Final, TypeVar

import boto3
import boto3.session
import obstore
from botocore.config import Config as BotoConfig
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from upload_server.domain.errors import CannotStart
from upload_server.sink.protocol import BytesMissing, Chunk, NoRoom, SinkError
from upload_server.sink.s3.address import Address

T = TypeVar("T")

# At the level of information it tells where credentials were found.
logging.getLogger("botocore").setLevel(logging.WARNING)

# A request is given up after so long; a PUT that was sent before may land until then.
REQUEST_SECONDS: Final = 15.0
_CONNECT_SECONDS: Final = 3.0
# A store that is away or overloaded is asked again for so long.
PATIENCE_SECONDS: Final = 15.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.5
# Credentials are asked for anew after so long: their own chain keeps and refreshes them.
_CREDENTIALS_SECONDS: Final = 300.0
_CONNECTIONS: Final = 32
# What one request deletes or lists.
_AT_ONCE: Final = 1000

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_FULL = frozenset({"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "StorageFull", "507"})


class Unavailable(SinkError):
    """The object store is away, or too busy; the same call may succeed later."""

    reason: ClassVar[str] = "unavailable"


class Refused(SinkError):
    """The object store refuses; ``code`` is its word for it."""

    reason: ClassVar[str] = "refused"

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Found:
    """An object: its key and its bytes."""

    key: str
    size: int


class Bucket:
    """The objects under an address. Methods block and raise SinkError; any thread may call them."""

    def __init__(self, address: Address, patience: float = PATIENCE_SECONDS) -> None:
        """``patience``: seconds for which a store that is away is asked again. Raises ``CannotStart``."""
        self.address = address
        self._patience = patience
        session = boto3.session.Session()
        self._credentials = session.get_credentials()
        if self._credentials is None:
            raise CannotStart(
                "--storage-url: no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a"
                " profile by AWS_PROFILE, or give this machine a role"
            )
        endpoint = address.endpoint or None
        self._boto: Any = session.client(
            "s3",
            endpoint_url=endpoint,
            region_name=address.region,
            config=BotoConfig(
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=REQUEST_SECONDS,
                retries={"total_max_attempts": 1},
                max_pool_connections=_CONNECTIONS,
                # Servers of others know no checksums behind the body.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path" if endpoint else "auto"},
            ),
        )
        config: Any = {"endpoint": endpoint} if endpoint else {}
        self._objects = S3Store(
            address.bucket,
            config=config,
            prefix=address.prefix or None,
            region=address.region,
            checksum_algorithm="sha256",
            credential_provider=self._provide,
            client_options={
                "allow_http": address.endpoint.startswith("http:"),
                "timeout": timedelta(seconds=REQUEST_SECONDS),
                "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
            },
            # Tried again here, where an answer that was lost is known to be one.
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=1)},
        )

    def _provide(self) -> Any:
        frozen = self._credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + timedelta(seconds=_CREDENTIALS_SECONDS),
        }

    # Objects -------------------------------------------------------------------------------------------------------

    def put_new(self, key: str, data: Chunk | bytearray) -> bool:
        """Put an object whose name nobody else gives; False when it is there already.

        It is when an earlier try was carried out and its answer lost.
        """

        def put() -> bool:
            try:
                obstore.put(self._objects, key, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

        return self._patiently("PUT", key, put)

    def read(self, key: str, start: int, end: int) -> bytes:
        """Return the bytes from ``start`` to ``end`` of an object; ``BytesMissing`` when it or they are not there."""
        data = self._patiently("GET", key, lambda: bytes(obstore.get_range(self._objects, key, start=start, end=end)))
        if len(data) != end - start:
            raise BytesMissing(f"{key} has no bytes {start} to {end}")
        return data

    def stream(self, key: str, start: int, end: int, chunk_bytes: int) -> Iterator[bytes]:
        """Give the bytes from ``start`` to ``end`` of an object, one request for all; another goes on where one breaks.

        Raises what ``read`` does.
        """
        at = start
        while at < end:
            begun, coming = at, self._get_from(key, at, end, chunk_bytes)
            try:
                while (piece := self._once("GET", key, partial(next, coming, None))) is not None:
                    at += len(piece)
                    yield piece
            except Unavailable:
                if at == begun:
                    raise
            else:
                if at < end:
                    raise BytesMissing(f"{key} has no bytes {at} to {end}")

    def _get_from(self, key: str, start: int, end: int, chunk_bytes: int) -> Iterator[Any]:
        def get() -> Iterator[Any]:
            answer = obstore.get(self._objects, key, options={"range": (start, end)})
            return iter(answer.stream(chunk_bytes))

        return self._patiently("GET", key, get)

    def read_all(self, key: str) -> bytes:
        """Return a small object's bytes; ``BytesMissing`` when it is not there."""
        return self._patiently("GET", key, lambda: bytes(obstore.get(self._objects, key).bytes()))

    def size(self, key: str) -> int | None:
        """Return an object's bytes, None when there is none."""

        def head() -> int | None:
            try:
                return int(obstore.head(self._objects, key)["size"])
            except FileNotFoundError:
                return None

        return self._patiently("HEAD", key, head)

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the store."""
        self._patiently("COPY", target, lambda: obstore.copy(self._objects, source, target))

    def walk(self, folder: str) -> Iterator[Found]:
        """List what lies under a folder of whole segments, a page at a time."""
        pages = iter(obstore.list(self._objects, folder, chunk_size=_AT_ONCE))
        while True:
            page = self._once("LIST", folder, lambda: next(pages, None))
            if page is None:
                return
            yield from (Found(str(each["path"]), int(each["size"])) for each in page)

    def find(self, folder: str) -> list[Found]:
        """List what lies under a folder, all of it."""
        return self._patiently("LIST", folder, lambda: list(self.walk(folder)))

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; that one is not there is no error, and that it was deleted is the store's word alone."""
        for first in range(0, len(keys), _AT_ONCE):
            some = list(keys[first : first + _AT_ONCE])
            self._patiently("DELETE", some[0], lambda some=some: obstore.delete(self._objects, some))  # type: ignore[misc]

    # Multipart uploads ---------------------------------------------------------------------------------------------

    def begin(self, key: str) -> str:
        """Begin a multipart upload; returns its id."""
        return str(self._call("create_multipart_upload", Key=self._full(key))["UploadId"])

    def copy_part(self, key: str, upload_id: str, number: int, source: str) -> str:
        """Have the store make a part of an object of its own; returns the part's tag."""
        answer = self._call(
            "upload_part_copy",
            Key=self._full(key),
            UploadId=upload_id,
            PartNumber=number,
            CopySource={"Bucket": self.address.bucket, "Key": self._full(source)},
        )
        return str(answer["CopyPartResult"]["ETag"])

    def put_part(self, key: str, upload_id: str, number: int, data: bytes) -> str:
        """Send a part; returns its tag."""
        full = self._full(key)
        return str(self._call("upload_part", Key=full, UploadId=upload_id, PartNumber=number, Body=data)["ETag"])

    def complete(self, key: str, upload_id: str, tags: Mapping[int, str]) -> None:
        """Make the object of the parts, given their tags by number."""
        parts = [{"PartNumber": number, "ETag": tags[number]} for number in sorted(tags)]
        self._call(
            "complete_multipart_upload", Key=self._full(key), UploadId=upload_id, MultipartUpload={"Parts": parts}
        )

    def abort(self, key: str, upload_id: str) -> None:
        """Abort a multipart upload. That it answers is no evidence: parts on their way may still land."""
        try:
            self._call("abort_multipart_upload", Key=self._full(key), UploadId=upload_id)
        except Refused as error:
            if error.code != "NoSuchUpload":
                raise

    def open_uploads(self, folder: str) -> list[tuple[str, str]]:
        """List the multipart uploads that are open under a folder: key and upload id of each."""
        prefix, found = self._full(f"{folder}/"), list[tuple[str, str]]()
        cut = len(prefix) - len(folder) - 1
        markers: dict[str, str] = {}
        while True:
            page = self._call("list_multipart_uploads", Prefix=prefix, **markers)
            found += [(str(each["Key"])[cut:], str(each["UploadId"])) for each in page.get("Uploads", ())]
            if not page.get("IsTruncated"):
                return found
            markers = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page.get("NextUploadIdMarker", "")}

    # The bucket itself ---------------------------------------------------------------------------------------------

    def ask(self, operation: str) -> Any:
        """Ask something of the bucket."""
        return self._call(operation)

    # Errors --------------------------------------------------------------------------------------------------------

    def _full(self, key: str) -> str:
        return self.address.key(key)

    def _call(self, operation: str, **arguments: object) -> Any:
        return self._patiently(operation, str(arguments.get("Key", "")), lambda: self._operation(operation, arguments))

    def _operation(self, operation: str, arguments: Mapping[str, object]) -> Any:
        return getattr(self._boto, operation)(Bucket=self.address.bucket, **arguments)

    def _patiently(self, what: str, key: str, work: Callable[[], T]) -> T:
        """Carry out a call, again while the store is away; raises what it means."""
        deadline, pause = time.monotonic() + self._patience, _FIRST_PAUSE
        while True:
            try:
                return self._once(what, key, work)
            except Unavailable:
                # Never all at once, when the store is back.
                wait = pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
                if time.monotonic() + wait >= deadline:
                    raise
                time.sleep(wait)
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _once(self, what: str, key: str, work: Callable[[], T]) -> T:
        try:
            return work()
        except ClientError as error:
            answer: Mapping[str, Any] = error.response
            status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            raise _meaning(what, key, status, str(answer.get("Error", {}).get("Code", ""))) from None
        except (BotoCoreError, ResponseParserError) as error:
            raise _gone(what, key, type(error).__name__) from None
        except FileNotFoundError:
            raise BytesMissing(f"{key} is not there") from None
        except BaseError as error:
            text = str(error)
            told, word = _STATUS.search(text), _CODE.search(text)
            if told is None:
                raise _gone(what, key, type(error).__name__) from None
            raise _meaning(what, key, int(told[1]), word[1] if word else "") from None


def _gone(what: str, key: str, kind: str) -> SinkError:
    if "Credential" in kind or "Token" in kind:
        return Refused(f"{what} {key}: no usable credentials ({kind})", "NoCredentials")
    return Unavailable(f"{what} {key}: the object store does not answer ({kind})")


def _meaning(what: str, key: str, status: int, code: str) -> SinkError:
    text = f"{what} {key}: {status} {code}".rstrip()
    if code in _FULL or str(status) in _FULL:
        return NoRoom(text)
    # 429, SlowDown, RequestTimeout, and whatever a server or a proxy in front of it says of itself.
    if status >= 500 or status in (408, 429) or code in ("SlowDown", "RequestTimeout"):  # noqa: PLR2004
        return Unavailable(text)
    return BytesMissing(text) if code == "NoSuchKey" else Refused(text, code or str(status))
