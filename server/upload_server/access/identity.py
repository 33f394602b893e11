"""Decides what is known of somebody who has proved who they are, and what an authenticator is.

Must not know doors, nor what a role may.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

# A longer credential is none: it is refused unread.
MAX_CREDENTIAL_BYTES: Final = 4096
# Of ASCII, as RFC 6750 has it.
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
# What a principal may be as long as, in UTF-8: names of owners stand in rows, and `user:` before them in the trail.
MAX_PRINCIPAL_BYTES: Final = 255


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who has proved who they are.

    ``roles`` are words of ``policy.GRANTS``; others grant nothing. ``credential`` is the id of what it was proved by,
    never a secret: ``token:ab12cd34``, ``jwt:<jti>``, ``cert:<serial>``, ``session:<id>``. ``expires_at`` is a POSIX
    time, None for never.
    """

    principal: str
    roles: frozenset[str]
    credential: str
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """What the other end of a connection has shown, verified by TLS against the CA that the operator named.

    ``sha256`` is the digest of the whole certificate in lower-case hex, ``serial`` its number in hex, ``not_after`` a
    POSIX time, None where only a proxy has seen it.
    """

    uris: tuple[str, ...]
    emails: tuple[str, ...]
    names: tuple[str, ...]
    sha256: str
    serial: str
    not_after: float | None


@dataclass(frozen=True, slots=True)
class Presented:
    """What a door saw of a caller, raw: nothing of it is believed yet.

    ``authorization``, ``forwarded`` and ``forwarded_for`` are every value of the headers ``Authorization``,
    ``X-Forwarded-Client-Cert`` and ``X-Forwarded-For``, in order; what a page has signed in with counts as
    ``Authorization``. ``tickets`` are those that a WebSocket's handshake offers, with the file that it asks for and the
    page's ``Origin``.
    """

    authorization: Sequence[str] = ()
    certificate: PeerCertificate | None = None
    forwarded: Sequence[str] = ()
    peer: str = ""
    forwarded_for: Sequence[str] = ()
    tickets: Sequence[str] = ()
    file_id: str = ""
    origin: str = ""


class Authenticator(Protocol):
    """Knows one kind of credential."""

    async def identify(self, presented: Presented) -> Identity | None:
        """Return who has shown a credential of this kind; None: there is none of this kind.

        Raises ``CredentialInvalid`` or ``CredentialExpired``: it is of this kind, and no other authenticator is asked.
        """

    def revoked(self, identity: Identity) -> bool:
        """Whether a credential of this kind proves less by now than this identity, although it has not expired.

        Asked twice a second for each open watch, upload and download: answers from memory.
        """


def bearer(presented: Presented) -> str | None:
    """Return the token of the one ``Authorization: Bearer`` header, None where there is none that is well-formed."""
    if len(presented.authorization) != 1:
        return None
    scheme, _, token = presented.authorization[0].partition(" ")
    fine = scheme.lower() == "bearer" and _TOKEN.fullmatch(token) and len(token) <= MAX_CREDENTIAL_BYTES
    return token if fine else None


def why_unknown(presented: Presented) -> str:
    """Say, for the log, why no authenticator knows what stands in ``Authorization``."""
    if len(presented.authorization) > 1:
        return "there is more than one Authorization header"
    scheme, _, token = presented.authorization[0].partition(" ")
    if scheme.lower() != "bearer":
        return "it is no bearer"
    if len(token) > MAX_CREDENTIAL_BYTES:
        return f"it is longer than {MAX_CREDENTIAL_BYTES} bytes"
    return "it is no token of a kind that is known here"


def fits_a_principal(name: str) -> bool:
    """Whether a name can stand in rows, in the log and in what others read.

    Printable, which a mark that changes the direction of text is not; no blank at its ends; at most 255 bytes.
    """
    return bool(name) and name.isprintable() and name == name.strip() and len(name.encode()) <= MAX_PRINCIPAL_BYTES
