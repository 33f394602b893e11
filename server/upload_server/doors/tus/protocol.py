"""Decides how tus 1.0 puts things into headers: versions, lengths, offsets, metadata, checksums.

Pure: must not know files' states, nor how a request travels.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from upload_server.domain.errors import FieldViolation, InvalidField
from upload_server.domain.states import File, FileSpec
from upload_server.doors.http.asgi import FOREIGN, Headers, Scope

VERSION: Final = b"1.0.0"
EXTENSIONS: Final = b"creation,creation-with-upload,termination,expiration,checksum"
# SHA-1 is the one every server has to know; here none of them guards against more than broken networks.
ALGORITHMS: Final = ("sha1", "sha256", "md5")
BYTES_TYPE: Final = b"application/offset+octet-stream"
# What a file is called whose sender gave it no name: many tools send no metadata unless told to.
UNNAMED: Final = "unnamed"
_MAX_DIGITS: Final = 19
_WORDS_OF_A_PAIR: Final = 2
# Of metadata, several lines of it joined: it is kept, and goes back in one line. Larger ones many a proxy refuses; the
# longest name takes 5.5 KiB in Base64.
_MAX_METADATA_BYTES: Final = 8 * 1024
# What a header can give back as it came.
_PLAIN: Final = re.compile(r"[\t\x20-\x7e]*")
# A media type that the service takes: printable ASCII of 127 bytes at most.
_MEDIA_TYPE: Final = re.compile(rb"[\x20-\x7e]{0,127}")


@dataclass(frozen=True, slots=True)
class Request:
    """A request as tus sees it; header names in lower case, several lines of one joined as a list's are."""

    method: str
    headers: Mapping[bytes, bytes]
    # Whether a page asks that may change nothing.
    is_foreign: bool = False

    @classmethod
    def of(cls, scope: Scope) -> Request:
        """Read a request. Only a POST may stand for another method: the guard has judged the method it saw."""
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            # RFC 9110, 5.3. Of two numbers none is right: joined they are refused.
            headers[name] = headers[name] + b"," + value if name in headers else value
        method = scope["method"]
        if method == "POST":
            method = headers.get(b"x-http-method-override", b"POST").decode("latin-1").strip().upper()
        return cls(method, headers, scope.get(FOREIGN, False))

    @property
    def version_fits(self) -> bool:
        """Whether the client speaks the version spoken here."""
        return self.headers.get(b"tus-resumable") == VERSION

    @property
    def has_body(self) -> bool:
        """Whether a body comes, as far as can be told before it is read."""
        return b"transfer-encoding" in self.headers or self.headers.get(b"content-length", b"0") != b"0"

    @property
    def carries_bytes(self) -> bool:
        """Whether the body is declared to be bytes of a file."""
        kind = self.headers.get(b"content-type", b"").partition(b";")[0]
        return kind.strip().lower() == BYTES_TYPE

    @property
    def body_bytes(self) -> int:
        """Length of the body where it is declared, else 0."""
        length = self.headers.get(b"content-length", b"")
        return int(length[:_MAX_DIGITS]) if length.isdigit() else 0

    def number(self, name: str) -> int:
        """A header that must be there and hold a decimal number; raises ``InvalidField``."""
        text = self.headers.get(name.lower().encode())
        if text is None:
            raise _invalid(name, "must be there")
        if not text.isdigit() or len(text) > _MAX_DIGITS:
            raise _invalid(name, f"must be a decimal number of at most {_MAX_DIGITS} digits")
        return int(text)

    def refuse(self, name: str, why: str) -> None:
        """Raise ``InvalidField`` if a header is there that asks for what is not done here."""
        if name.lower().encode() in self.headers:
            raise _invalid(name, why)

    def checksum(self) -> Checksum | None:
        """What the client says of the body's bytes; raises ``InvalidField``."""
        text = self.headers.get(b"upload-checksum")
        if text is None:
            return None
        algorithm, _, encoded = text.decode("latin-1").partition(" ")
        if algorithm not in ALGORITHMS:
            raise _invalid("Upload-Checksum", f"must be of {', '.join(ALGORITHMS)}")
        checksum = Checksum(algorithm, _decode("Upload-Checksum", encoded))
        if len(checksum.expected) != checksum.size:
            raise _invalid("Upload-Checksum", f"must hold {checksum.size} bytes in Base64 for {algorithm}")
        return checksum

    def spec(self) -> FileSpec:
        """What a creation announces; raises ``InvalidField``. Names and sizes are judged by the use case."""
        self.refuse("Upload-Defer-Length", "is not supported: Upload-Length must be known at the creation")
        self.refuse("Upload-Concat", "is not supported: send the file in one upload (parallelUploads: 1)")
        size = self.number("Upload-Length")
        text = self.headers.get(b"upload-metadata", b"").decode("latin-1")
        given = decode_metadata(text)
        filename = _relative_path(given) or _text(given, "filename", "name") or UNNAMED
        kind = given.get("filetype") or given.get("type") or b""
        return FileSpec(
            # macOS hands browsers names in another normal form, and tools pass them on as they are.
            filename=unicodedata.normalize("NFC", filename),
            size_bytes=size,
            # Browsers make it up from the name: one that is no media type is not worth the upload.
            content_type=kind.decode() if _MEDIA_TYPE.fullmatch(kind) else "",
            sha256=_text(given, "sha256"),
            tus_metadata=text,
        )


class Checksum:
    """The digest that a request's bytes must have."""

    def __init__(self, algorithm: str, expected: bytes) -> None:
        self.algorithm = algorithm
        self.expected = expected
        self._hash = hashlib.new(algorithm, usedforsecurity=False)

    @property
    def size(self) -> int:
        """Bytes of such a digest."""
        return self._hash.digest_size

    async def update(self, data: bytes | memoryview) -> None:
        """Add bytes, beside the event loop."""
        await asyncio.to_thread(self._hash.update, data)

    @property
    def matches(self) -> bool:
        """Whether the bytes added are those that were meant."""
        return self._hash.digest() == self.expected


def _relative_path(given: Mapping[str, bytes]) -> str:
    """Return the path in the folder that was chosen; of a file that was chosen alone Uppy writes none in a word."""
    path = _text(given, "relativePath")
    return "" if path in {"null", "undefined"} else path.removeprefix("/")


def decode_metadata(text: str) -> dict[str, bytes]:
    """Read ``Upload-Metadata``: keys and Base64 of any bytes, separated by commas; raises ``InvalidField``."""
    if len(text) > _MAX_METADATA_BYTES:
        raise _invalid("Upload-Metadata", f"must have at most {_MAX_METADATA_BYTES} bytes")
    if not _PLAIN.fullmatch(text):
        raise _invalid("Upload-Metadata", "must be printable ASCII")
    found: dict[str, bytes] = {}
    for pair in text.split(","):
        words = pair.split()
        if not words:
            continue
        key, encoded = words[0], "".join(words[1:2])
        if len(words) > _WORDS_OF_A_PAIR:
            raise _invalid("Upload-Metadata", "must hold a key and its value in Base64, separated by a space")
        if key in found:
            raise _invalid("Upload-Metadata", f"must hold each key once, and holds {key[:32]} twice")
        found[key] = _decode("Upload-Metadata", encoded)
    return found


def _text(given: Mapping[str, bytes], *keys: str) -> str:
    """Return the first of these values that is there; raises ``InvalidField`` when it is no text."""
    key = next((key for key in keys if given.get(key)), "")
    try:
        return given[key].decode() if key else ""
    except UnicodeDecodeError:
        raise _invalid("Upload-Metadata", f"{key} must be UTF-8 in Base64") from None


def encode_metadata(file: File) -> bytes:
    """Return what is known of a file that no tus client described, as ``Upload-Metadata``."""
    name = "" if file.filename == UNNAMED else file.filename
    given = {"filename": name, "filetype": file.content_type}
    pairs = (f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in given.items() if value)
    return ",".join(pairs).encode()


def capabilities(max_file_bytes: int) -> Headers:
    """Headers of the answer to OPTIONS."""
    return [
        (b"tus-version", VERSION),
        (b"tus-extension", EXTENSIONS),
        (b"tus-max-size", b"%d" % max_file_bytes),
        (b"tus-checksum-algorithm", ",".join(ALGORITHMS).encode()),
    ]


def _decode(field: str, encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise _invalid(field, "must hold Base64") from None


def _invalid(field: str, description: str) -> InvalidField:
    return InvalidField([FieldViolation(field, description)])
