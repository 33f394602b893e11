"""Decides which keys sign tokens: read from a file or an issuer, which may be slow, down, huge or somebody else's.

Must not know what stands in tokens. A source that fails leaves the keys of before, for a day.
"""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import json
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import structlog

from upload_server.domain.errors import CannotStart

log = structlog.get_logger(__name__)

MAX_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 64
MIN_RSA_BITS: Final = 2048
# Of one request, from its beginning to its last byte.
FETCH_SECONDS: Final = 5.0
REFRESH_SECONDS: Final = 300.0
# Nobody makes us ask more often than that, whatever keys their tokens name.
ASK_AGAIN_SECONDS: Final = 30.0
KEEP_SECONDS: Final = 24 * 3600.0
_OK: Final = 200
_PIECE: Final = 16 * 1024

Json = dict[str, Any]


class KeysUnusable(Exception):
    """The source gave no keys; the message says why."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, and the algorithm that its publisher has bound it to, empty for any of its kind.

    ``made``: what the library has made of it, by algorithm, which takes longer than to verify a signature.
    """

    kind: str
    algorithm: str
    jwk: Mapping[str, Any]
    made: dict[str, Any] = field(default_factory=dict, compare=False)


def read_keys(data: bytes) -> Mapping[str, Key]:
    """Return the keys for signatures by their ids; raises ``KeysUnusable`` for what is no set of keys.

    Left out: what has no id, is for something else, is a secret, or an RSA key too short to be believed.
    """
    found = _json(data).get("keys")
    if not isinstance(found, list):
        raise KeysUnusable("there is no list of keys in it")
    if len(found) > MAX_KEYS:
        raise KeysUnusable(f"it has {len(found)} keys, more than {MAX_KEYS}")
    keys: dict[str, Key] = {}
    for jwk in found:
        if not isinstance(jwk, dict) or not _is_for_signatures(jwk):
            continue
        if jwk["kid"] in keys:
            raise KeysUnusable("two of its keys have the same id")
        keys[jwk["kid"]] = Key(jwk["kty"], jwk.get("alg") or "", jwk)
    return keys


def _is_for_signatures(jwk: Json) -> bool:
    if not isinstance(jwk.get("kid"), str) or jwk.get("kty") not in ("RSA", "EC", "OKP"):
        return False
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return False
    if not isinstance(jwk.get("alg", ""), str):
        return False
    # Six bits a letter.
    return jwk["kty"] != "RSA" or len(str(jwk.get("n", "")).lstrip("A")) * 6 >= MIN_RSA_BITS


def _json(data: bytes) -> Json:
    if len(data) > MAX_BYTES:
        raise KeysUnusable(f"it is larger than {MAX_BYTES // 1024} KiB")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise KeysUnusable("it is no JSON") from None
    if not isinstance(found, dict):
        raise KeysUnusable("it is no JSON object")
    return found


def check_url(url: str) -> str:
    """Return ``url``; raises ValueError unless it is https, or http to this machine."""
    parts = urlsplit(url)
    if not parts.hostname or parts.username is not None or parts.fragment or not _has_port(parts):
        raise ValueError(f"{url!r} is not a URL such as https://id.example/")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise ValueError(f"{url!r} must begin with https://")
    return url


def _has_port(parts: SplitResult) -> bool:
    """Whether the port is a number, or is not named."""
    try:
        return parts.port != 0
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def fetch(url: str) -> bytes:
    """Return what lies at ``url``; raises ``KeysUnusable``. Blocks, for 5 s at most; follows nothing."""
    until = time.monotonic() + FETCH_SECONDS
    parts = urlsplit(check_url(url))
    assert parts.hostname is not None  # noqa: S101 - it was checked
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        trusted = ssl.create_default_context()
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=FETCH_SECONDS, context=trusted)
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=FETCH_SECONDS)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"Accept": "application/json", "Connection": "close"})
        answer = connection.getresponse()
        if answer.status != _OK:
            raise KeysUnusable(f"{url} answers {answer.status}; it is asked once, and no redirect is followed")
        return _read(answer, until)
    except (OSError, http.client.HTTPException) as error:
        raise KeysUnusable(f"{url} cannot be read: {error}") from error
    finally:
        connection.close()


def _read(answer: http.client.HTTPResponse, until: float) -> bytes:
    data = bytearray()
    while piece := answer.read1(_PIECE):
        data += piece
        if len(data) > MAX_BYTES:
            raise KeysUnusable(f"it is larger than {MAX_BYTES // 1024} KiB")
        if time.monotonic() > until:
            raise KeysUnusable(f"it did not come within {FETCH_SECONDS:.0f} s")
    return bytes(data)


def of_file(path: Path) -> Callable[[], bytes]:
    """Read keys from a file."""

    def read() -> bytes:
        try:
            with path.open("rb") as file:
                return file.read(MAX_BYTES + 1)
        except OSError as error:
            raise KeysUnusable(f"{path} cannot be read: {error.strerror}") from error

    return read


def of_url(url: str) -> Callable[[], bytes]:
    """Read keys from a URL."""
    return lambda: fetch(url)


def of_issuer(issuer: str) -> Callable[[], bytes]:
    """Read keys from where an issuer says that they are; it must call itself exactly as we call it."""

    def read() -> bytes:
        found = _json(fetch(f"{issuer.rstrip('/')}/.well-known/openid-configuration"))
        if found.get("issuer") != issuer:
            raise KeysUnusable(f"the issuer calls itself {found.get('issuer')!r}, and not {issuer!r}")
        url = found.get("jwks_uri")
        try:
            return fetch(check_url(str(url)))
        except ValueError as error:
            raise KeysUnusable(f"its keys lie at a place that is not safe: {error}") from None

    return read


class Keys:
    """The keys of one issuer, as fresh as need be."""

    def __init__(self, source: Callable[[], bytes], clock: Callable[[], float] = time.monotonic) -> None:
        """``source`` returns a set of keys, blocking, or raises ``KeysUnusable``; ``clock`` gives seconds."""
        self._source = source
        self._clock = clock
        self._keys: Mapping[str, Key] = {}
        self._asked_at = float("-inf")
        self._good_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None
        # Rises with every set that differs from the one before.
        self.edition = 0

    def must_read(self) -> None:
        """Read them now, blocking; raises ``CannotStart``."""
        try:
            self._take(read_keys(self._source()))
        except KeysUnusable as error:
            raise CannotStart(f"--jwt-jwks: {error}") from error

    async def get(self, kid: str) -> Key | None:
        """Return a key by its id; one that is not known is looked for at the source, if that is not asked too often."""
        if self._clock() - self._good_at > KEEP_SECONDS:
            self._take({}, good=False)
        if kid not in self._keys and self._clock() - self._asked_at >= ASK_AGAIN_SECONDS:
            await self.refresh()
        elif kid not in self._keys and self._asking is not None:
            await asyncio.shield(self._asking)
        return self._keys.get(kid)

    async def run(self) -> None:
        """Read them now and then, until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH_SECONDS if self._keys else ASK_AGAIN_SECONDS)

    async def refresh(self) -> None:
        """Read them anew; callers that come meanwhile wait for the same answer. What fails is logged."""
        if self._asking is None:
            self._asked_at = self._clock()
            self._asking = asyncio.create_task(self._refresh())
            self._asking.add_done_callback(self._asked)
        await asyncio.shield(self._asking)

    def _asked(self, _task: asyncio.Task[None]) -> None:
        self._asking = None

    async def _refresh(self) -> None:
        try:
            keys = read_keys(await asyncio.to_thread(self._source))
        except Exception as error:  # noqa: BLE001 - whatever an issuer says, the keys of before go on, and the server
            left = max(0.0, KEEP_SECONDS - (self._clock() - self._good_at))
            log.error("jwks.failed", problem=str(error), keys=len(self._keys), kept_seconds=round(left))  # noqa: TRY400
            return
        self._take(keys)

    def _take(self, keys: Mapping[str, Key], *, good: bool = True) -> None:
        if good:
            self._good_at = self._clock()
        if keys != self._keys:
            log.info("jwks.changed", new=_names(keys.keys() - self._keys.keys()), gone=_names(self._keys.keys() - keys))
            self._keys = keys
            self.edition += 1


def _names(kids: set[str]) -> Sequence[str]:
    return sorted(kids)
