"""Decides what of a certificate the service reads by itself: names, dates, serial number.

Must not know what the certificate is for, and trusts nothing in it: signatures are OpenSSL's business.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

_BLOCK: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_LONG: Final = 0x80
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_EXTENSIONS: Final = 0xA3
_SUBJECT_ALT_NAME: Final = bytes.fromhex("551d11")
_EMAIL: Final = 0x81
_DNS: Final = 0x82
_URI: Final = 0x86
# RFC 5280, 4.1.2.5.1: years of two digits from here on are of the twentieth century.
_CENTURY: Final = 50


@dataclass(frozen=True, slots=True)
class Certificate:
    """What stands in a certificate. ``issuer`` and ``subject`` are DER, made to be compared.

    ``uris``, ``emails`` and ``names`` (of hosts) are its alternative names; the subject's common name is none.
    """

    serial: int
    issuer: bytes
    subject: bytes
    not_before: datetime
    not_after: datetime
    uris: tuple[str, ...]
    emails: tuple[str, ...]
    names: tuple[str, ...]


def certificates_in(pem: str) -> Sequence[Certificate]:
    """Return the certificates of a PEM file in their order; raises ValueError for what is none."""
    return [certificate_of(ssl.PEM_cert_to_DER_cert(block)) for block in _BLOCK.findall(pem)]


def certificate_of(der: bytes) -> Certificate:
    """Return what stands in a certificate; raises ValueError for what is none."""
    try:
        fields = _parts(_parts(_parts(der)[0][1])[0][1])
        if fields[0][0] == _VERSION:
            fields = fields[1:]
        (_, serial), _, (_, issuer), (_, dates), (_, subject) = fields[:5]
        not_before, not_after = (_moment(kind, text) for kind, text in _parts(dates))
        found = _alternative_names(fields)
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError("this is no certificate") from error
    return Certificate(
        int.from_bytes(serial, signed=True),
        issuer,
        subject,
        not_before,
        not_after,
        *(tuple(name.decode("ascii") for kind, name in found if kind == tag) for tag in (_URI, _EMAIL, _DNS)),
    )


def _alternative_names(fields: Sequence[tuple[int, bytes]]) -> Sequence[tuple[int, bytes]]:
    for tag, content in fields:
        if tag != _EXTENSIONS:
            continue
        for _, extension in _parts(_parts(content)[0][1]):
            # Its id, perhaps whether it is critical, and its value: a string that holds DER.
            (_, name), *_, (_, value) = _parts(extension)
            if name == _SUBJECT_ALT_NAME:
                return _parts(_parts(value)[0][1])
    return []


def _parts(der: bytes) -> Sequence[tuple[int, bytes]]:
    return list(_walk(der))


def _walk(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each value that stands in a row."""
    at = 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length >= _LONG:
            size = length - _LONG
            length = int.from_bytes(der[at : at + size])
            at += size
        if at + length > len(der):
            raise ValueError("a value is cut off")
        yield tag, der[at : at + length]
        at += length


def _moment(kind: int, text: bytes) -> datetime:
    written = text.decode("ascii").removesuffix("Z")
    if kind == _UTC_TIME:
        written = ("20" if int(written[:2]) < _CENTURY else "19") + written
    return datetime.strptime(written, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
