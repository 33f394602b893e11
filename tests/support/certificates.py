"""Certificates of the tests' own authorities, as files that a server or a client reads."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NAMES = ("localhost", "127.0.0.1")


class Pair:
    """A certificate with its key in two files, which may be replaced by those of another."""

    def __init__(self, folder: Path, name: str) -> None:
        self.cert = folder / f"{name}.pem"
        self.key = folder / f"{name}-key.pem"

    @property
    def options(self) -> Sequence[str]:
        """What makes a server show it."""
        return ("--tls-cert", str(self.cert), "--tls-key", str(self.key))

    def take(self, other: Pair) -> None:
        """Put the files of another in the place of these, one after the other, as programs do that renew them."""
        for mine, theirs in ((self.cert, other.cert), (self.key, other.key)):
            new = mine.with_suffix(".new")
            new.touch(mode=0o600)
            new.write_bytes(theirs.read_bytes())
            new.replace(mine)


class Authority:
    """Issues certificates into a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._ca = trustme.CA(organization_name=f"authority {name}")
        self.file = folder / f"{name}-authority.pem"
        self.file.write_bytes(self._ca.cert_pem.bytes())

    def issue(self, name: str, *names: str, days: float = 1) -> Pair:
        """Issue a certificate for ``names`` (this machine's if none) that holds for ``days``, or held until then."""
        end = datetime.now(UTC) + timedelta(days=days)
        made = self._ca.issue_cert(*(names or NAMES), not_before=end - timedelta(days=10), not_after=end)
        pair = Pair(self._folder, name)
        pair.cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        pair.key.touch(mode=0o600)
        pair.key.write_bytes(made.private_key_pem.bytes())
        return pair

    def name(self, name: str, uris: Sequence[str] = (), emails: Sequence[str] = (), dns: Sequence[str] = ()) -> Pair:
        """Issue a caller's certificate with these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        names: list[x509.GeneralName] = [*map(x509.UniformResourceIdentifier, uris), *map(x509.RFC822Name, emails)]
        names += map(x509.DNSName, dns)
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")]))
            .issuer_name(x509.load_pem_x509_certificate(self._ca.cert_pem.bytes()).subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        if names:
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signer: Any = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        pair = Pair(self._folder, name)
        pair.cert.write_bytes(made.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        pair.key.touch(mode=0o600)
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        pair.key.write_bytes(key.private_bytes(*form))
        return pair

    def context(self, client: Pair | None = None) -> ssl.SSLContext:
        """What a client over HTTP trusts, and shows."""
        # One of its own: `support` has all others share theirs.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.file)
        if client is not None:
            context.load_cert_chain(client.cert, client.key)
        return context

    def credentials(self, client: Pair | None = None) -> grpc.ChannelCredentials:
        """What a client over gRPC trusts, and shows."""
        shown = (None, None) if client is None else (client.key.read_bytes(), client.cert.read_bytes())
        return grpc.ssl_channel_credentials(self.file.read_bytes(), *shown)
