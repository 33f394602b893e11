"""Decides what the ports show and ask for under TLS: which files are taken, and which are refused in which words.

Must not know the ports. Files that go wrong while the service runs are told of, and what was good before stays.
"""

from __future__ import annotations

import asyncio
import ssl
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Final

import structlog

from upload_server.domain.errors import CannotStart
from upload_server.domain.observer import Observer
from upload_server.process.certificates import Certificate, certificates_in
from upload_server.process.reloading import Reloader, stamp_of

log = structlog.get_logger(__name__)

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_MAX_FILE_BYTES: Final = 1024 * 1024


class ClientAuth(StrEnum):
    """Whether callers show a certificate."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where certificate, key and the certificates of those who may sign callers' lie, all as PEM."""

    cert: Path
    key: Path
    client_ca: Path | None
    client_auth: ClientAuth

    @property
    def paths(self) -> Sequence[Path]:
        """All of them."""
        return [path for path in (self.cert, self.key, self.client_ca) if path is not None]


@dataclass(frozen=True, slots=True)
class TlsPair:
    """A certificate with its key, checked, and what callers' certificates are checked by; of one moment."""

    chain: bytes
    key: bytes
    client_ca: bytes | None
    # For HTTP; a new one for each pair, so no session of before is resumed with it.
    context: ssl.SSLContext
    # By option, the moment from which on what the file holds is refused.
    not_after: dict[str, datetime]


class Tls:
    """The pair that new connections get: what its files held when they were last good."""

    def __init__(self, files: TlsFiles, observer: Observer) -> None:
        """Read the files; raises ``CannotStart``."""
        self._files = files
        self._observer = observer
        self.client_auth = files.client_auth
        self.pair = read_pair(files)
        self.reloader = Reloader(files.paths, self._reload)
        self._tell()

    def context(self) -> ssl.SSLContext:
        """Return what a new connection over HTTP gets."""
        return self.pair.context

    async def _reload(self, again: bool = False) -> bool:
        try:
            self.pair = await asyncio.to_thread(read_pair, self._files)
        except CannotStart as error:
            if not again:
                self._observer.tls_reload_failed()
                log.error("tls.reload_failed", problem=str(error), goes_on_until=self._end)  # noqa: TRY400 - says it all
            return False
        self._tell()
        log.info("tls.reloaded", not_after=self._end)
        return True

    @property
    def _end(self) -> str:
        return self.pair.not_after["--tls-cert"].isoformat()

    def _tell(self) -> None:
        for option, moment in self.pair.not_after.items():
            self._observer.tls_read(option.removeprefix("--"), moment.timestamp())


def read_pair(files: TlsFiles) -> TlsPair:
    """Read and check all files; raises ``CannotStart``, which names the option and the cure."""
    before = stamp_of(files.paths)
    now = datetime.now(UTC)
    chain, key = _read("--tls-cert", files.cert), _read("--tls-key", files.key)
    _refuse_open_key(files.key)
    _check_key(key)
    certificates = _certificates("--tls-cert", chain)
    _check_order(certificates)
    for certificate in certificates:
        _check_dates("--tls-cert", certificate, now)
    context = _context(files)
    not_after = {"--tls-cert": min(certificate.not_after for certificate in certificates)}
    client_ca = None
    if files.client_ca is not None:
        client_ca = _read("--tls-client-ca", files.client_ca)
        signers = _certificates("--tls-client-ca", client_ca)
        last = max(signers, key=lambda signer: signer.not_after)
        _check_dates("--tls-client-ca", last, now)
        not_after["--tls-client-ca"] = last.not_after
        _load_signers(context, client_ca)
    if stamp_of(files.paths) != before:
        raise CannotStart("--tls-cert, --tls-key: they changed while they were read; try again")
    return TlsPair(chain, key, client_ca, context, not_after)


def _read(option: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CannotStart(f"{option}: {path} cannot be read: {error.strerror}; name a PEM file of ours") from error
    if len(data) > _MAX_FILE_BYTES:
        raise CannotStart(f"{option}: {path} is larger than 1 MiB: name a PEM file")
    return data


def _refuse_open_key(path: Path) -> None:
    if stat.S_IMODE(path.stat().st_mode) & stat.S_IRWXO:
        raise CannotStart(f"--tls-key: everybody on this machine may read or change {path}; chmod 0600 {path}")


def _check_key(key: bytes) -> None:
    if b"ENCRYPTED" in key:
        raise CannotStart(
            "--tls-key: the key has a passphrase, which a service cannot be asked for; take it off (openssl pkey -in …"
            " -out …) and keep the file 0600"
        )
    if b"PRIVATE KEY-----" not in key:
        raise CannotStart("--tls-key: there is no PEM private key in the file (-----BEGIN PRIVATE KEY-----)")


def _certificates(option: str, pem: bytes) -> Sequence[Certificate]:
    try:
        found = certificates_in(pem.decode("ascii", "replace"))
    except ValueError as error:
        raise CannotStart(f"{option}: a certificate in the file is damaged; copy it anew") from error
    if not found:
        raise CannotStart(f"{option}: there is no PEM certificate in the file (-----BEGIN CERTIFICATE-----)")
    return found


def _check_order(chain: Sequence[Certificate]) -> None:
    for number, (certificate, signer) in enumerate(pairwise(chain), 1):
        if certificate.issuer != signer.subject:
            raise CannotStart(
                f"--tls-cert: certificate {number + 1} of the file is not the one that signed certificate {number};"
                " the server's own comes first, then each one's signer"
            )


def _check_dates(option: str, certificate: Certificate, now: datetime) -> None:
    if now > certificate.not_after:
        raise CannotStart(f"{option}: the certificate expired on {_date(certificate.not_after)}; get a new one")
    if now < certificate.not_before:
        raise CannotStart(
            f"{option}: the certificate is not valid before {_date(certificate.not_before)}; wait, or set the clock"
        )


def _date(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.verify_mode = {
        ClientAuth.NONE: ssl.CERT_NONE,
        ClientAuth.OPTIONAL: ssl.CERT_OPTIONAL,
        ClientAuth.REQUIRED: ssl.CERT_REQUIRED,
    }[files.client_auth]
    if files.client_ca is not None:
        # A resumed session would go on with a certificate that has expired since.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    try:
        context.load_cert_chain(files.cert, files.key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CannotStart(
                "--tls-key: it is not the key of the first certificate in --tls-cert; name the files that belong"
                " together"
            ) from error
        raise CannotStart(f"--tls-cert, --tls-key: OpenSSL does not take them: {error.reason or error}") from error
    return context


def _load_signers(context: ssl.SSLContext, pem: bytes) -> None:
    try:
        context.load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise CannotStart(f"--tls-client-ca: OpenSSL does not take it: {error}") from error
