"""Decides which token a call carries: one that is given, a file's, or what a command prints; and when to ask anew.

Must not know calls. A token is never printed and never an argument, which others could see in the list of processes.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Protocol

from grpc import StatusCode

from upload.errors import CredentialMissing

# A token that expires so soon is not used any more.
_LEEWAY_SECONDS = 20.0
_COMMAND_SECONDS = 60.0
_FITS = re.compile(r"[\x21-\x7e]+")


class TokenSource(Protocol):
    """Where tokens come from. Its methods may block; threads may share it."""

    def current(self) -> str:
        """Return the token to show."""

    def refresh(self) -> bool:
        """The server has refused the token: look for another one; returns whether there is one."""


class GivenToken:
    """One token, for as long as it is good; or a function that gives one whenever it is asked."""

    def __init__(self, token: str | Callable[[], str]) -> None:
        self._give = token if callable(token) else None
        self._token = token if isinstance(token, str) else ""

    def current(self) -> str:
        """Return it."""
        if not self._token and self._give is not None:
            self._token = self._give().strip()
        return self._token

    def refresh(self) -> bool:
        """Ask the function again, if there is one."""
        before, self._token = self._token, self._token if self._give is None else ""
        return self.current() != before


class FileToken:
    """The token in a file, which somebody else renews."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._path = path
        self._token = self._read()

    def current(self) -> str:
        """Return it as it was read last."""
        return self._token

    def refresh(self) -> bool:
        """Read the file again."""
        before, self._token = self._token, self._read()
        return self._token != before

    def _read(self) -> str:
        # Some editors and shells begin a file with a mark of its encoding.
        return self._path.read_text("utf-8-sig").strip()


class CommandToken:
    """What a command prints: ``{"token": …, "expires_at": …}``, the time as RFC 3339 or left out."""

    def __init__(self, command: str) -> None:
        self._command = shlex.split(command)
        self._token = ""
        self._expires_at: float | None = None

    def current(self) -> str:
        """Return the token, asked for when there is none that is good for a while; raises ``ValueError``, OSError."""
        if not self._token or (self._expires_at is not None and time.time() > self._expires_at - _LEEWAY_SECONDS):
            self._ask()
        return self._token

    def refresh(self) -> bool:
        """Run the command again."""
        before = self._token
        self._ask()
        return self._token != before

    def _ask(self) -> None:
        try:
            ran = subprocess.run(  # noqa: S603 - the user's own command
                self._command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=_COMMAND_SECONDS, check=True
            )
            answer = json.loads(ran.stdout)
            token, expires_at = answer["token"], answer.get("expires_at")
            if not isinstance(token, str) or not token.strip():
                raise ValueError
            self._expires_at = datetime.fromisoformat(expires_at).timestamp() if expires_at else None
        except subprocess.CalledProcessError as error:
            raise ValueError(f"the command for a token ended with {error.returncode}") from None
        except subprocess.TimeoutExpired:
            raise ValueError(f"the command for a token said nothing for {_COMMAND_SECONDS:g} s") from None
        except (ValueError, TypeError, KeyError, AttributeError):
            # Its output may hold the token: it is not quoted.
            raise ValueError('the command for a token must print {"token": …, "expires_at": …}') from None
        self._token = token.strip()


# What a client takes for one.
Token = str | Callable[[], str] | TokenSource


def source_of(token: Token | None) -> TokenSource | None:
    """Return where tokens come from."""
    if not token:
        return None
    return GivenToken(token) if isinstance(token, str) or callable(token) else token


class Authorization:
    """What each call of one client carries."""

    def __init__(self, metadata: tuple[tuple[str, str], ...], source: TokenSource | None) -> None:
        self._metadata = metadata
        self._source = source

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of the next call; may block. Raises ``CredentialMissing``."""
        if self._source is None:
            return self._metadata
        try:
            token = self._source.current().strip()
            # A header that cannot carry it would fail in the midst of gRPC. It is not quoted: a part may be the secret.
            if not _FITS.fullmatch(token):
                raise ValueError("what should be one is empty, or has other characters than printable ASCII")
        except (ValueError, OSError) as error:
            raise CredentialMissing(f"There is no token: {error}", code=StatusCode.UNAUTHENTICATED) from error
        return (*self._metadata, ("authorization", f"Bearer {token}"))

    @property
    def blocks(self) -> bool:
        """Whether ``metadata`` may take its time."""
        return self._source is not None

    def refresh(self) -> bool:
        """Whether there is another token than the one that the server refused."""
        try:
            return self._source is not None and self._source.refresh()
        except (ValueError, OSError):
            return False
