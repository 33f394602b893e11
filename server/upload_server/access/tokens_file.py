"""Decides whom the static tokens name, and which quotas those have: two files that an operator writes, read anew when
one changes.

Must not know doors, nor what a quota bounds. A token is ``upl_<id of 8>_<43 of base64url>``; its secret has 256 bits,
so one SHA-256 hides it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

import structlog

from upload_server.access.identity import Identity, Presented, bearer, fits_a_principal
from upload_server.access.policy import GRANTS, SCOPES
from upload_server.access.quotas import Quota
from upload_server.domain.errors import CannotStart, CredentialExpired, CredentialInvalid
from upload_server.process.files import open_own

log = structlog.get_logger(__name__)

T = TypeVar("T")

_PREFIX: Final = "upl_"
_TOKEN: Final = re.compile(r"upl_([a-z0-9]{8})_[A-Za-z0-9_-]{43}")
_ID: Final = re.compile(r"[a-z0-9]{8}")
_HASH: Final = re.compile(r"sha256:([0-9a-f]{64})")
_ID_LETTERS: Final = "abcdefghijkmnpqrstuvwxyz23456789"
_ID_LENGTH: Final = 8
_SECRET_BYTES: Final = 32
# What a token that nobody has is compared with, so that an id which is there takes no longer.
_NOBODY: Final = hashlib.sha256(secrets.token_bytes(_SECRET_BYTES)).digest()
_MAX_BYTES: Final = 4 * 1024 * 1024
_LEAST_WORDS: Final = 4
# A file that has not changed for so long is not being written: who writes over it empties it first. One that changes at
# so many looks in a row is read as it is: that a line is gone counts for more than that another is half written.
_SETTLED_SECONDS: Final = 0.1
_MOST_LOOKS: Final = 4
_MOST_DAYS: Final = 36_500


class TokensFileUnusable(Exception):
    """The file cannot be believed, or a line of it cannot be read; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Token:
    """One line of the file; ``quota`` is the name of the quotas of its principal, empty where it names none."""

    sha256: bytes
    identity: Identity
    quota: str = ""


@dataclass(frozen=True, slots=True)
class QuotasFile:
    """The file of named quotas; ``parse`` reads its text, and raises ValueError naming the line."""

    path: Path
    parse: Callable[[str], Mapping[str, Quota]]


def parse(text: str) -> Mapping[str, Token]:
    """Return the tokens by their ids; raises ``TokensFileUnusable`` naming the line.

    A line is ``id sha256:HEX principal roles [expires=DATE] [quota=NAME]``, roles separated by commas; a line that
    begins with ``#`` says nothing. Lines of one principal that name quotas name the same.
    """
    tokens: dict[str, Token] = {}
    quotas: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            token_id, token = _parse_line(words)
        except ValueError as error:
            raise TokensFileUnusable(f"line {number}: {error}") from None
        if token_id in tokens:
            raise TokensFileUnusable(f"line {number}: the id {token_id} is there twice")
        principal = token.identity.principal
        if token.quota and quotas.setdefault(principal, token.quota) != token.quota:
            raise TokensFileUnusable(f"line {number}: another line gives {principal} quota={quotas[principal]}")
        tokens[token_id] = token
    return tokens


def _parse_line(words: Sequence[str]) -> tuple[str, Token]:
    if len(words) < _LEAST_WORDS:
        raise ValueError("must be: id sha256:HEX principal roles [expires=DATE] [quota=NAME]")
    token_id, digest, principal, roles, *more = words
    found = _HASH.fullmatch(digest)
    if not _ID.fullmatch(token_id) or found is None:
        raise ValueError("must begin with an id of 8 letters and digits, and sha256: with 64 hexadecimal digits")
    check_principal(principal)
    options = dict(word.partition("=")[::2] for word in more)
    if len(options) != len(more) or not options.keys() <= {"expires", "quota"} or not all(options.values()):
        raise ValueError("behind the roles only expires=DATE and quota=NAME may stand, each once")
    expires_at = parse_expiry(options["expires"]).timestamp() if "expires" in options else None
    identity = Identity(principal, parse_roles(roles), f"token:{token_id}", expires_at)
    return token_id, Token(bytes.fromhex(found[1]), identity, options.get("quota", ""))


def check_principal(name: str) -> None:
    """Raise ValueError unless ``name`` can be the principal of a static token."""
    if ":" in name:
        raise ValueError("the principal must have no colon: names with one are those of other credentials")
    if not fits_a_principal(name) or " " in name:
        raise ValueError("the principal must be printable, without blanks, of at most 255 bytes")


def parse_roles(text: str) -> frozenset[str]:
    """Read roles separated by commas; raises ValueError."""
    roles = frozenset(text.split(","))
    known = GRANTS.keys() | SCOPES.keys()
    if unknown := sorted(roles - known):
        raise ValueError(f"there is no role {unknown[0]!r}; there are {', '.join(sorted(known))}")
    return roles


def parse_expiry(text: str) -> datetime:
    """Read a day, which counts to its beginning in UTC, or a time with its zone; raises ValueError."""
    try:
        day = date.fromisoformat(text) if len(text) == len("2026-01-01") else None
        moment = datetime.fromisoformat(text) if day is None else datetime(day.year, day.month, day.day, tzinfo=UTC)
    except ValueError:
        raise ValueError(f"{text!r} is no date such as 2026-12-31 or 2026-12-31T12:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no zone; write it as 2026-12-31T12:00:00Z")
    return moment


def make(principal: str, roles: str, seconds: float | None, now: datetime, quota: str = "") -> tuple[str, str]:
    """Return a new token, and its line for the file; ``seconds`` from ``now`` it expires. Raises ValueError."""
    check_principal(principal)
    parse_roles(roles)
    if seconds is not None and seconds > _MOST_DAYS * 86_400:
        raise ValueError(f"--expires: must be at most {_MOST_DAYS}d; without it a token is for ever")
    token_id = "".join(secrets.choice(_ID_LETTERS) for _ in range(_ID_LENGTH))
    token = f"{_PREFIX}{token_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    words = [token_id, f"sha256:{hashlib.sha256(token.encode()).hexdigest()}", principal, roles]
    if seconds is not None:
        expires = (now + timedelta(seconds=seconds)).replace(microsecond=0)
        words.append(f"expires={expires.isoformat().replace('+00:00', 'Z')}")
    if quota:
        words.append(f"quota={quota}")
    return token, " ".join(words)


def append(path: Path, line: str) -> None:
    """Write a line to the end of the file, which is made if need be; raises ``TokensFileUnusable`` or OSError."""
    descriptor = open_own(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        _check_private(descriptor)
        before = file.read(_MAX_BYTES)
        more = (b"\n" if before and not before.endswith(b"\n") else b"") + f"{line}\n".encode()
        parse((before + more).decode())
        file.write(more)
        file.flush()
        os.fsync(descriptor)


def _check_private(descriptor: int) -> None:
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid():
        raise TokensFileUnusable(f"it belongs to user {found.st_uid}, and this process runs as {os.geteuid()}")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise TokensFileUnusable("others than its owner may read or write it; take that away: chmod 600")


# What tells one state of the files from another.
_Mark = Sequence[tuple[int, int, int]]


class TokensFile:
    """The authenticator of static tokens, and the quotas that they name."""

    def __init__(
        self, path: Path, clock: Callable[[], float] = time.time, quotas_file: QuotasFile | None = None
    ) -> None:
        """Read the files; raises ``CannotStart``."""
        self._path = path
        self._clock = clock
        self._quotas_file = quotas_file
        # Why the files as they are now were not taken; it is said once.
        self._doubt = ""
        self._tokens: Mapping[str, Token]
        # By principal.
        self._quotas: Mapping[str, Quota]
        self._mark, self._tokens, self._quotas = self._read()

    async def identify(self, presented: Presented) -> Identity | None:
        """Return whom a static token names."""
        text = bearer(presented)
        if text is None or not text.startswith(_PREFIX):
            return None
        shown = _TOKEN.fullmatch(text)
        token = self._tokens.get(shown[1]) if shown else None
        digest = hashlib.sha256(text.encode()).digest()
        if not hmac.compare_digest(digest, token.sha256 if token else _NOBODY) or token is None:
            raise CredentialInvalid("unknown static token", f"token:{shown[1]}" if shown else "")
        identity = token.identity
        if identity.expires_at is not None and identity.expires_at <= self._clock():
            raise CredentialExpired(identity.credential)
        return identity

    def revoked(self, identity: Identity) -> bool:
        """Whether the line of a token is gone, or gives less than it did: another name, fewer roles, a date gone by."""
        kind, _, token_id = identity.credential.partition(":")
        if kind != "token":
            return False
        token = self._tokens.get(token_id)
        if token is None or token.identity.principal != identity.principal or identity.roles - token.identity.roles:
            return True
        expires_at = token.identity.expires_at
        return expires_at is not None and expires_at != identity.expires_at and expires_at <= self._clock()

    def quota_of(self, principal: str) -> Quota | None:
        """Return the quotas that a token of ``principal`` names; None: none does."""
        return self._quotas.get(principal)

    def forget(self) -> None:
        """Have the files read by the next ``refresh``, changed or not, and a doubt about them said again."""
        self._mark, self._doubt = (), ""

    async def refresh(self) -> None:
        """Read the files anew if one has changed; what cannot be taken is logged, and all stays as it was.

        So a line that is half written turns nobody out, nor does a file whose writing has only begun: one that still
        changes is waited for, a little.
        """
        try:
            mark = await asyncio.to_thread(self._look)
            if mark == self._mark:
                return
            for _ in range(_MOST_LOOKS):
                await asyncio.sleep(_SETTLED_SECONDS)
                before, mark = mark, await asyncio.to_thread(self._look)
                if mark == before:
                    break
            self._mark, tokens, self._quotas = await asyncio.to_thread(self._read)
        except (CannotStart, OSError) as error:
            if self._doubt != (doubt := str(error)):
                self._doubt = doubt
                log.error("tokens.reload_failed", why=doubt)  # noqa: TRY400 - the words say it
            return
        self._doubt = ""
        gone = sorted(self._tokens.keys() - tokens.keys())
        log.info("tokens.reloaded", tokens=len(tokens), gone=[f"token:{token_id}" for token_id in gone])
        self._tokens = tokens

    def _look(self) -> _Mark:
        paths = [self._path] if self._quotas_file is None else [self._path, self._quotas_file.path]
        return [_mark_of(path.stat()) for path in paths]

    def _read(self) -> tuple[_Mark, Mapping[str, Token], Mapping[str, Quota]]:
        """Return what tells this state of the files, the tokens by id, the quotas by principal; raises ``CannotStart``.

        Both files in one go: a token never has quotas that are not there.
        """
        mark, tokens = _taken("--tokens-file", self._path, parse)
        marks, quotas = [mark], dict[str, Quota]()
        if self._quotas_file is not None:
            mark, found = _taken("--quotas-file", self._quotas_file.path, self._quotas_file.parse)
            marks.append(mark)
            quotas.update(found)
        for token_id, token in tokens.items():
            if token.quota and token.quota not in quotas:
                raise CannotStart(
                    f"--tokens-file: {self._path}: token {token_id} has quota={token.quota}, which --quotas-file does"
                    " not name"
                )
        return marks, tokens, {one.identity.principal: quotas[one.quota] for one in tokens.values() if one.quota}


def _taken(option: str, path: Path, parse_text: Callable[[str], T]) -> tuple[tuple[int, int, int], T]:
    """Read a file of ours; raises ``CannotStart`` naming the option, the file and what is wrong with it."""
    try:
        descriptor = open_own(path, os.O_RDONLY)
        with os.fdopen(descriptor, "rb") as file:
            _check_private(descriptor)
            mark = _mark_of(os.fstat(descriptor))
            text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise TokensFileUnusable(f"it is longer than {_MAX_BYTES} bytes")
        return mark, parse_text(text.decode())
    except UnicodeDecodeError:
        raise CannotStart(f"{option}: {path}: it is not UTF-8") from None
    except (TokensFileUnusable, ValueError, OSError) as error:
        words = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise CannotStart(f"{option}: {path}: {words}") from error


def _mark_of(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_mtime_ns, found.st_ino, found.st_size
