"""An OpenID provider that nobody here wrote, as a program (npm `oidc-provider`)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from support.issuer import AUDIENCE
from support.wanting import missing

NODE = Path(__file__).parent / "node"
# Of the proxy that people sign in for.
PROXY_SECRET = "pr0xy"  # noqa: S105 - nobody else has it
_EVERYTHING = "upload.read upload.write upload.cancel"


class Provider(NamedTuple):
    """The provider as a program."""

    process: subprocess.Popen[str]
    url: str

    def token(self, scope: str = _EVERYTHING) -> str:
        """Ask for an access token, as a program with a secret of its own does."""
        asked = {"grant_type": "client_credentials", "resource": AUDIENCE, "scope": scope}
        answer = httpx.post(f"{self.url}/token", data=asked, auth=("ann", "s3cret"), timeout=20)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def rotate(self) -> None:
        """Have it sign by a new key."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("rotate\n")
        self.process.stdin.flush()
        while self.process.stdout.readline() != "rotated\n":
            assert self.process.poll() is None


@contextmanager
def serving(callback: str = "") -> Iterator[Provider]:
    """Start it; with ``callback`` people sign in on its pages, for the proxy that has this address."""
    node = shutil.which("node")
    if node is None:
        missing("needs Node")
    if not (NODE / "node_modules").exists():
        missing("needs an OpenID provider: npm ci in tests/clients/oidc/node")
    words = [node, str(NODE / "issuer.mjs"), AUDIENCE, *([callback] if callback else [])]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Provider(process, process.stdout.readline().strip())
        finally:
            process.kill()
