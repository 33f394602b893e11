"""Decides whom a certificate names, and whose word on another one's certificate counts: that of proxies we trust.

Must not know doors. TLS has checked who signed it and that its time has come; here it is read.
"""

from __future__ import annotations

import hashlib
import re
import ssl
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from upload_server.access.identity import Identity, PeerCertificate, Presented, fits_a_principal
from upload_server.access.policy import roles_of
from upload_server.domain.errors import CannotStart, CredentialExpired, CredentialInvalid
from upload_server.process.certificates import certificate_of

KINDS: Final = ("uri", "email", "dns")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
# A pair of X-Forwarded-Client-Cert: its value may stand in quotes, where a backslash takes one of its meaning.
_PAIR: Final = re.compile(r'([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^";,]*)([;,]|$)')
_ESCAPED: Final = re.compile(r"\\(.)")
_SHORT: Final = 16


def peer_certificate(der: bytes) -> PeerCertificate | None:
    """Return what a certificate shows; None for one that cannot be read, which names nobody."""
    try:
        found = certificate_of(der)
    except ValueError:
        return None
    return PeerCertificate(
        found.uris,
        found.emails,
        found.names,
        hashlib.sha256(der).hexdigest(),
        f"{found.serial:x}",
        found.not_after.timestamp(),
    )


# A connection shows the same one for each of its calls.
@lru_cache(maxsize=4096)
def peer_certificate_of_pem(pem: bytes) -> PeerCertificate | None:
    """Return what a certificate in PEM shows, or None."""
    try:
        return peer_certificate(ssl.PEM_cert_to_DER_cert(pem.decode("ascii").strip()))
    except ValueError:
        return None


def _names(certificate: PeerCertificate, kind: str) -> Sequence[str]:
    return {"uri": certificate.uris, "email": certificate.emails, "dns": certificate.names}[kind]


def _id(certificate: PeerCertificate) -> str:
    return f"cert:{certificate.serial or certificate.sha256[:_SHORT]}"


class Certificates:
    """The authenticator of certificates: the only name of one kind is the caller."""

    def __init__(
        self, kind: str, roles: Sequence[tuple[str, str]] = (), clock: Callable[[], float] = time.time
    ) -> None:
        """``kind``: ``uri``, ``email`` or ``dns``. ``roles``: roles, each with the name of who has it."""
        self._kind = kind
        self._roles = roles
        self._clock = clock

    async def identify(self, presented: Presented) -> Identity | None:
        """Return whom a certificate names, unless the call has a bearer: that names the caller."""
        certificate = presented.certificate
        if certificate is None or presented.authorization:
            return None
        # A proxy names a kind also where the certificate has none of it, by an empty name.
        names = [name for name in _names(certificate, self._kind) if name]
        if len(names) != 1:
            raise CredentialInvalid(
                f"the certificate has {len(names)} names of the kind {self._kind}", _id(certificate)
            )
        principal = f"cert:{self._kind}:{names[0]}"
        if not fits_a_principal(principal):
            raise CredentialInvalid("the certificate's name cannot be a principal", _id(certificate))
        if certificate.not_after is not None and certificate.not_after <= self._clock():
            raise CredentialExpired(_id(certificate))
        return Identity(principal, roles_of(self._roles, names), _id(certificate), certificate.not_after)

    def revoked(self, identity: Identity) -> bool:  # noqa: ARG002 - as the protocol
        """Never: it counts until it expires, or a connection is opened under other signers."""
        return False


class Proxies:
    """Proxies that may say what they were shown, by the names of their own certificates; no address is trusted."""

    def __init__(self, principals: Collection[str]) -> None:
        """Each ``cert:KIND:NAME``, as whom they would call; raises ``CannotStart``."""
        for principal in principals:
            scheme, _, rest = principal.partition(":")
            if scheme != "cert" or rest.partition(":")[0] not in KINDS or not rest.partition(":")[2]:
                raise CannotStart(
                    f"--trusted-proxies: {principal!r} is no name in a certificate, such as cert:dns:envoy.example"
                )
        self._trusted = frozenset(principals)

    def trust(self, certificate: PeerCertificate | None) -> bool:
        """Whether a connection is one of theirs."""
        return certificate is not None and any(
            f"cert:{kind}:{name}" in self._trusted for kind in KINDS for name in _names(certificate, kind)
        )

    def seen(self, presented: Presented) -> Presented:
        """Return what a caller shows behind one of them: its certificate and address are those that the proxy saw.

        Its own certificate names nobody then. Raises ``CredentialInvalid``.
        """
        if not self.trust(presented.certificate):
            return presented
        addresses = ",".join(presented.forwarded_for).rpartition(",")[2].strip()
        return replace(presented, certificate=_forwarded(presented.forwarded), peer=addresses or presented.peer)


def _forwarded(values: Sequence[str]) -> PeerCertificate | None:
    """Return the last certificate of ``X-Forwarded-Client-Cert``: what stands before it, others have said."""
    elements = list(_elements(",".join(values)))
    if not elements:
        return None
    found: dict[str, list[str]] = {}
    for key, value in elements[-1]:
        found.setdefault(key, []).append(value)
    digests = [digest.lower() for digest in found.get("hash", [])]
    if len(digests) != 1 or not _HASH.fullmatch(digests[0]):
        raise CredentialInvalid("the proxy has not said which certificate it saw")
    return PeerCertificate(tuple(found.get("uri", ())), (), tuple(found.get("dns", ())), digests[0], "", None)


def _elements(text: str) -> Iterator[Sequence[tuple[str, str]]]:
    pairs: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None:
            raise CredentialInvalid("the proxy's word on a certificate cannot be read")
        key, value, end = pair.groups()
        quoted = value.startswith('"')
        pairs.append((key.lower(), _ESCAPED.sub(r"\1", value[1:-1]) if quoted else value))
        at = pair.end()
        if end != ";":
            yield pairs
            pairs = []
        elif at == len(text):
            raise CredentialInvalid("the proxy's word on a certificate ends too early")
