"""Certificates of the tests' own authorities, as files that a server or a client reads."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import trustme

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

    def context(self, client: Pair | None = None) -> ssl.SSLContext:
        """What a client over HTTP trusts, and shows."""
        context = ssl.create_default_context(cafile=self.file)
        if client is not None:
            context.load_cert_chain(client.cert, client.key)
        return context

    def credentials(self, client: Pair | None = None) -> grpc.ChannelCredentials:
        """What a client over gRPC trusts, and shows."""
        shown = (None, None) if client is None else (client.key.read_bytes(), client.cert.read_bytes())
        return grpc.ssl_channel_credentials(self.file.read_bytes(), *shown)
