"""Decides which HTTP headers are gRPC metadata, in both directions, and what Grpc-Timeout says.

Must not know calls or fields; the rules are those of grpc-gateway.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from .errors import FaultError, FaultKind
from .status import DETAILS_KEY

RawHeaders = Sequence[tuple[bytes, bytes]]

PREFIX: Final = b"grpc-metadata-"
# Metadata that goes back as the HTTP header of its own name.
CHALLENGE: Final = "www-authenticate"
_PERMANENT: Final = frozenset(
    b"accept accept-charset accept-language accept-ranges authorization cache-control content-type cookie date"
    b" expect from host if-match if-modified-since if-none-match if-schedule-tag-match if-unmodified-since"
    b" max-forwards origin pragma referer user-agent via warning".split()
)
# What gRPC keeps for itself, and what says who calls or where from: no caller may set these through such a header.
_RESERVED: Final = re.compile(
    r"grpc-.*|grpcgateway-.*|te|content-type|user-agent|authorization|cookie|forwarded|x-forwarded-.*"
)
_KEY: Final = re.compile(r"[0-9a-z_.-]+")
_TEXT: Final = re.compile(r"[ -~]*")
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


class Metadatum(NamedTuple):
    """One pair of metadata, as grpc.aio hands it out."""

    key: str
    value: str | bytes


class Headers:
    """A request's headers: as they came, the first of each name, and whether any is metadata by its name."""

    __slots__ = ("get", "have_metadata", "raw")

    def __init__(self, raw: RawHeaders) -> None:
        self.raw = raw
        self.have_metadata = False
        first: dict[bytes, bytes] = {}
        for key, value in raw:
            name = key.lower()
            first.setdefault(name, value)
            if name.startswith(PREFIX):
                self.have_metadata = True
        # The first header of a name, which must be in lower case.
        self.get: Callable[[bytes], bytes | None] = first.get


def timeout_seconds(value: bytes) -> float:
    """What a Grpc-Timeout header allows; FaultError where it is malformed."""
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        raise FaultError(FaultKind.INVALID_HEADER, "malformed Grpc-Timeout header")
    return int(match[1]) * _UNITS[match[2]]


def invocation_metadata(headers: Headers, client_host: str) -> list[Metadatum]:
    """The metadata that a request's headers carry."""
    result: list[Metadatum] = []
    forwarded: list[str] = []
    host = forwarded_host = ""
    for raw, value in headers.raw:
        key = raw.lower()
        if key.startswith(PREFIX):
            result.extend(_prefixed(key[len(PREFIX) :].decode("latin-1"), value))
        elif key in _PERMANENT:
            result.extend(_permanent(key.decode(), value.decode("latin-1")))
            if key == b"host":
                host = host or value.decode("latin-1")
        elif key == b"x-forwarded-for":
            forwarded.append(value.decode("latin-1"))
        elif key == b"x-forwarded-host":
            forwarded_host = forwarded_host or value.decode("latin-1")
    result.extend(_text("x-forwarded-host", forwarded_host or host))
    if client_host:
        forwarded.append(client_host)
    result.extend(_text("x-forwarded-for", ", ".join(forwarded)))
    return result


def _permanent(key: str, text: str) -> Iterable[Metadatum]:
    if not _TEXT.fullmatch(text):
        return ()
    own = (Metadatum("grpcgateway-" + key, text),)
    return (Metadatum(key, text), *own) if key == "authorization" else own


def _text(key: str, text: str) -> Iterable[Metadatum]:
    return (Metadatum(key, text),) if text and _TEXT.fullmatch(text) else ()


def _prefixed(key: str, value: bytes) -> Iterable[Metadatum]:
    if not _KEY.fullmatch(key) or _RESERVED.fullmatch(key):
        return ()
    if key.endswith("-bin"):
        return (Metadatum(key, _decode_bin(key, value)),)
    text = value.decode("latin-1")
    return (Metadatum(key, text),) if _TEXT.fullmatch(text) else ()


def _decode_bin(key: str, value: bytes) -> bytes:
    try:
        letters = value.rstrip(b"=") if len(value) % 4 == 0 else value
        return base64.b64decode(letters + b"=" * (-len(letters) % 4), validate=True)
    except binascii.Error:
        raise FaultError(FaultKind.INVALID_HEADER, f"header Grpc-Metadata-{key} is not base64") from None


def response_headers(metadata: Iterable[tuple[str, str | bytes]], prefix: bytes = PREFIX) -> list[tuple[bytes, bytes]]:
    """Metadata as response headers; what HTTP could not carry safely is left out."""
    result: list[tuple[bytes, bytes]] = []
    for key, value in metadata:
        if not _KEY.fullmatch(key) or key in (DETAILS_KEY, CHALLENGE):
            continue
        if key.endswith("-bin"):
            raw = value if isinstance(value, bytes) else value.encode()
            result.append((prefix + key.encode(), base64.b64encode(raw)))
            continue
        text = value if isinstance(value, str) else value.decode("latin-1")
        if _TEXT.fullmatch(text):
            result.append((prefix + key.encode(), text.encode()))
    return result
