"""A tokens file with one token for each role, and the servers that read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from upload_server.access.tokens_file import append, make

# By who calls: the principal, and its roles.
CALLERS = {
    "owner": ("ada", "user"),
    "other": ("bob", "user"),
    "operator": ("sre", "operator"),
    "auditor": ("eve", "auditor"),
    "monitor": ("prom", "monitor"),
}


@dataclass
class Tokens:
    """The file, and the secrets that it hashes, by who has them."""

    path: Path
    secrets: dict[str, str] = field(default_factory=dict)

    def add(self, who: str, principal: str, roles: str, seconds: float | None = None, quota: str = "") -> str:
        """Append a token's line; returns the token."""
        token, line = make(principal, roles, seconds, datetime.now(UTC), quota)
        append(self.path, line)
        self.secrets[who] = token
        return token

    def revoke(self, who: str) -> None:
        """Take the line of a token out."""
        token_id = self.secrets.pop(who).split("_")[1]
        self._write([line for line in self.path.read_text().splitlines() if not line.startswith(token_id)])

    def change(self, who: str, old: str, new: str) -> None:
        """Put other words into the line of a token."""
        token_id = self.secrets[who].split("_")[1]
        lines = self.path.read_text().splitlines()
        self._write([line.replace(old, new) if line.startswith(token_id) else line for line in lines])

    def _write(self, lines: Sequence[str]) -> None:
        """Do as an editor does that writes a new file."""
        fresh = self.path.with_suffix(".new")
        fresh.touch(0o600)
        fresh.write_text("".join(f"{line}\n" for line in lines))
        fresh.replace(self.path)

    def header(self, who: str) -> dict[str, str]:
        """Return the header that says who calls; none for nobody."""
        return {"authorization": f"Bearer {self.secrets[who]}"} if who in self.secrets else {}

    def metadata(self, who: str) -> tuple[tuple[str, str], ...]:
        """The same over gRPC."""
        return tuple(self.header(who).items())

    @property
    def options(self) -> tuple[str, ...]:
        """Options of a server that believes the file."""
        return "--auth", "required", "--tokens-file", str(self.path)


def tokens_in(folder: Path) -> Tokens:
    """Make a file with a token for each of CALLERS."""
    tokens = Tokens(folder / "tokens")
    for who, (principal, roles) in CALLERS.items():
        tokens.add(who, principal, roles)
    return tokens
