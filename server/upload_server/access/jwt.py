"""Decides whom a JWT names: every rule of it that needs no signature first, then the signature, then a cache.

Must not know doors, nor how keys come here. PyJWT is used for keys and signatures only; it is imported when tokens are.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from upload_server.access.identity import Identity, Presented, bearer, fits_a_principal
from upload_server.access.jwks import Json, Key, Keys, check_url, of_file, of_issuer, of_url
from upload_server.access.policy import GRANTS, SCOPES, named_roles, roles_of
from upload_server.domain.errors import CannotStart, CredentialExpired, CredentialInvalid, Overloaded

# What each algorithm needs of a key; no other can be named: none of them is a secret, and none is no signature.
ALGORITHMS: Final[Mapping[str, tuple[str, str]]] = {
    "RS256": ("RSA", ""),
    "PS256": ("RSA", ""),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "EdDSA": ("OKP", "Ed25519"),
}
_ACCESS_TOKEN: Final = frozenset({"at+jwt", "application/at+jwt"})
_SEGMENTS: Final = 3
_MAX_AGE_SECONDS: Final = 24 * 3600.0
_CACHED: Final = 10_000
_CACHED_SECONDS: Final = 300.0
_WAITING: Final = 64
_RETRY_SECONDS: Final = 0.1
_REST: Final = 3
_REST_AFTER_A_FORGERY: Final = 15
_MAX_ID_LETTERS: Final = 64
_ALIAS: Final = re.compile(r"[A-Za-z0-9._-]{1,32}")
# Names of other credentials begin with them.
_TAKEN: Final = frozenset({"cert", "token", "session", "user"})


@dataclass(frozen=True, slots=True)
class Rules:
    """Which tokens count. ``alias`` stands before the subjects of this issuer. ``roles``: roles, each with a group."""

    issuer: str
    audience: str
    alias: str = "jwt"
    algorithms: frozenset[str] = frozenset({"RS256", "ES256"})
    # Or `any`, for issuers that do not yet say what their tokens are.
    typ: str = "at+jwt"
    leeway: float = 30.0
    role_claim: str = ""
    roles: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class _Known:
    """A token that was verified."""

    identity: Identity
    # Of the certificate that it is bound to, or empty.
    certificate: str
    expires_at: float
    forget_at: float


@dataclass(frozen=True, slots=True)
class _Token:
    """A token taken apart, whose every rule but the signature is kept."""

    known: _Known
    issuer: str
    algorithm: str
    kid: str
    signed: bytes
    signature: bytes


def rules_of(
    alias: str,
    issuer: str,
    audience: str,
    algorithms: Sequence[str],
    typ: str,
    leeway: float,
    role_claim: str,
    roles: Sequence[str],
) -> Rules:
    """Return the rules that options give; raises ``CannotStart``. ``roles``: each ``ROLE=GROUP``."""
    if not _ALIAS.fullmatch(alias) or alias in _TAKEN:
        raise CannotStart(f"--jwt-issuer: {alias!r} cannot stand before a subject; take some letters, such as corp=URL")
    try:
        check_url(issuer)
    except ValueError as error:
        raise CannotStart(f"--jwt-issuer: {error}") from error
    if not algorithms or (wrong := sorted(set(algorithms) - ALGORITHMS.keys())):
        named = wrong[0] if algorithms else "none"
        raise CannotStart(f"--jwt-algorithms: there is no {named}; there are {', '.join(ALGORITHMS)}")
    groups = named_roles("--jwt-roles", roles)
    return Rules(issuer, audience, alias, frozenset(algorithms), typ, leeway, role_claim, groups)


def keys_of(issuer: str, where: str) -> Keys:
    """Return the keys at ``where``, a file or a URL, or where the issuer says; raises ``CannotStart``.

    A file must be good at once; an issuer may be down when we start.
    """
    if not where:
        return Keys(of_issuer(issuer))
    if "://" not in where:
        keys = Keys(of_file(Path(where)))
        keys.must_read()
        return keys
    try:
        return Keys(of_url(check_url(where)))
    except ValueError as error:
        raise CannotStart(f"--jwt-jwks: {error}") from error


def need_library() -> None:
    """Raise ``CannotStart`` where what verifies signatures is not installed."""
    try:
        import cryptography  # noqa: F401, PLC0415 - it is imported by nobody who needs none
        import jwt  # noqa: F401, PLC0415 - as above
    except ImportError as error:
        raise CannotStart(f"--jwt-issuer: {error.name} is not installed; the server's extra `jwt` brings it") from error


class Jwt:
    """The authenticator of JWTs, of one or several issuers."""

    def __init__(self, issuers: Sequence[tuple[Rules, Keys]], clock: Callable[[], float] = time.time) -> None:
        """Raises ``CannotStart`` without the library, or where two issuers cannot be told apart."""
        need_library()
        self._rules = {rules.issuer: rules for rules, _ in issuers}
        self._keys = {rules.issuer: keys for rules, keys in issuers}
        if len(self._rules) < len(issuers) or len({rules.alias for rules, _ in issuers}) < len(issuers):
            raise CannotStart("--jwt-issuer: each of several needs an alias and a URL of its own, such as corp=URL")
        self._clock = clock
        # By the SHA-256 of the token; those used last stand last.
        self._known: dict[bytes, _Known] = {}
        self._edition = self._edition_now
        self._verifying: dict[bytes, asyncio.Task[_Known]] = {}
        # One: whoever sends tokens that nobody has signed keeps one thread busy, and waits for it.
        self._thread = ThreadPoolExecutor(1, "jwt")

    async def run(self) -> None:
        """Keep the keys fresh, until cancelled."""
        try:
            await asyncio.gather(*(keys.run() for keys in self._keys.values()))
        finally:
            self.close()

    def close(self) -> None:
        """Let the thread go."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def identify(self, presented: Presented) -> Identity | None:
        """Return whom a JWT names; raises ``Overloaded`` when too many unknown ones wait for their signatures."""
        text = bearer(presented)
        if text is None or text.count(".") != _SEGMENTS - 1:
            return None
        digest = hashlib.sha256(text.encode()).digest()
        known = self._cached(digest)
        if known is None:
            known = await self._verified(digest, text)
        if known.certificate:
            _check_bound(known, presented)
        return known.identity

    def revoked(self, identity: Identity) -> bool:  # noqa: ARG002 - as the protocol
        """Never: a JWT counts until it expires, and its issuer keeps it short."""
        return False

    def _cached(self, digest: bytes) -> _Known | None:
        self._forget_old_keys()
        known = self._known.pop(digest, None)
        if known is None:
            return None
        now = self._clock()
        if known.expires_at <= now:
            raise CredentialExpired(known.identity.credential)
        if known.forget_at <= now:
            return None
        self._known[digest] = known
        return known

    @property
    def _edition_now(self) -> int:
        """What tells the keys as they are from those of before."""
        return sum(keys.edition for keys in self._keys.values())

    def _forget_old_keys(self) -> None:
        if self._edition != (now := self._edition_now):
            self._edition = now
            self._known.clear()

    async def _verified(self, digest: bytes, text: str) -> _Known:
        verifying = self._verifying.get(digest)
        if verifying is None:
            # Before it is read: a flood costs the loop a digest each.
            if len(self._verifying) >= _WAITING:
                raise Overloaded("Too many new tokens wait to be verified; try again soon", _RETRY_SECONDS)
            token = read(text, digest, self._rules, self._clock())
            verifying = self._verifying[digest] = asyncio.create_task(self._verify(digest, token))
            verifying.add_done_callback(lambda task: self._done(digest, task))
        return await asyncio.shield(verifying)

    def _done(self, digest: bytes, task: asyncio.Task[_Known]) -> None:
        del self._verifying[digest]
        if not task.cancelled():
            # Its callers may have left.
            task.exception()

    async def _verify(self, digest: bytes, token: _Token) -> _Known:
        credential = token.known.identity.credential
        key = await self._keys[token.issuer].get(token.kid)
        edition = self._edition_now
        if key is None:
            raise CredentialInvalid("its key is not one of the issuer's", credential)
        if not _fits(key, token.algorithm):
            raise CredentialInvalid("its key is for another algorithm", credential)
        loop = asyncio.get_running_loop()
        if not await loop.run_in_executor(self._thread, _rested, _is_signed_by, key, token):
            raise CredentialInvalid("its signature is wrong", credential)
        if edition == self._edition_now:
            self._forget_old_keys()
            while len(self._known) >= _CACHED:
                del self._known[next(iter(self._known))]
            self._known[digest] = token.known
        return token.known


def _fits(key: Key, algorithm: str) -> bool:
    kind, curve = ALGORITHMS[algorithm]
    return key.kind == kind and key.algorithm in ("", algorithm) and (not curve or key.jwk.get("crv") == curve)


def _rested(verify: Callable[[Key, _Token], bool], key: Key, token: _Token) -> bool:
    """Verify, and rest for a multiple of that, longest after a forgery: callers have Python's lock most of the time."""
    # This thread's own time: its waits for Python's lock on a busy server are the callers' already.
    began = time.thread_time()
    signed = verify(key, token)
    time.sleep((_REST if signed else _REST_AFTER_A_FORGERY) * (time.thread_time() - began))
    return signed


def _is_signed_by(key: Key, token: _Token) -> bool:
    import jwt  # noqa: PLC0415 - as above

    try:
        if (made := key.made.get(token.algorithm)) is None:
            made = key.made[token.algorithm] = jwt.PyJWK(dict(key.jwk), token.algorithm)
        return bool(made.Algorithm.verify(token.signed, made.key, token.signature))
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
        # The latter are the library's words for keys that are none: a point off its curve, a secret one.
        return False


def _check_bound(known: _Known, presented: Presented) -> None:
    shown = presented.certificate
    if shown is None or shown.sha256 != known.certificate:
        raise CredentialInvalid("it is bound to a certificate that was not shown", known.identity.credential)


# Rules that need no signature ----------------------------------------------------------------------------------------


def read(text: str, digest: bytes, issuers: Mapping[str, Rules], now: float) -> _Token:
    """Take a token apart and judge it by all but its signature, by the rules of the issuer that it names.

    Raises ``CredentialInvalid`` or ``…Expired``.
    """
    first, second, third = text.split(".")
    head, claims = _object(first), _object(second)
    credential = _credential(claims, digest)
    rules = issuers.get(str(claims.get("iss")))
    if rules is None:
        raise CredentialInvalid("its issuer is another one", credential)
    _judge_head(head, rules)
    issued_at, expires_at = _moment(claims, "iat"), _moment(claims, "exp")
    audience = claims.get("aud")
    _refuse(
        rules.audience not in (audience if isinstance(audience, list) else [audience]),
        "it is for another audience",
        credential,
    )
    _refuse(rules.typ == "any" and bool({"nonce", "at_hash"} & claims.keys()), "it is an ID token", credential)
    _refuse(expires_at - issued_at > _MAX_AGE_SECONDS, "it holds for longer than a day", credential)
    _refuse(issued_at > now + rules.leeway, "it was issued in the future", credential)
    if "nbf" in claims:
        _refuse(_moment(claims, "nbf") > now + rules.leeway, "it does not count yet", credential)
    ends_at = expires_at + rules.leeway
    if ends_at <= now:
        raise CredentialExpired(credential)
    identity = Identity(_principal(claims, rules, credential), _roles(claims, rules), credential, ends_at)
    known = _Known(identity, _bound_to(claims, credential), ends_at, min(ends_at, now + _CACHED_SECONDS))
    return _Token(known, rules.issuer, head["alg"], head["kid"], f"{first}.{second}".encode(), _bytes(third))


def _refuse(wrong: bool, why: str, credential: str = "") -> None:
    if wrong:
        raise CredentialInvalid(why, credential)


def _judge_head(head: Json, rules: Rules) -> None:
    _refuse(
        not isinstance(head.get("alg"), str) or head["alg"] not in rules.algorithms,
        "its algorithm is none of --jwt-algorithms",
    )
    _refuse("crit" in head, "it says that it must be understood in a way that is not")
    _refuse(not isinstance(head.get("kid"), str), "it names no key")
    typ = head.get("typ")
    if rules.typ != "any":
        _refuse(not isinstance(typ, str) or typ.lower() not in _ACCESS_TOKEN, "it is no access token (typ at+jwt)")


def _bytes(segment: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        raise CredentialInvalid("it is not Base64") from None


def _object(segment: str) -> Json:
    try:
        found = json.loads(_bytes(segment), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise CredentialInvalid("it is no JSON, or says something twice") from None
    if not isinstance(found, dict):
        raise CredentialInvalid("it is no JSON object")
    return found


def _once(pairs: Sequence[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("something is said twice")
    return found


def _no_number(text: str) -> object:
    raise ValueError(text)


def _moment(claims: Json, name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 40:
        raise CredentialInvalid(f"it has no {name}")
    return float(value)


def _principal(claims: Json, rules: Rules, credential: str) -> str:
    subject = claims.get("sub")
    principal = f"{rules.alias}:{subject}"
    _refuse(
        not isinstance(subject, str) or not subject or not fits_a_principal(principal),
        "its subject cannot be a principal",
        credential,
    )
    return principal


def _credential(claims: Json, digest: bytes) -> str:
    name = claims.get("jti")
    fine = isinstance(name, str) and len(name) <= _MAX_ID_LETTERS and name.isprintable() and name.isascii()
    return f"jwt:{name if fine and name else digest.hex()[:16]}"


def _roles(claims: Json, rules: Rules) -> frozenset[str]:
    """A scope decides where there is one, by words that we know; else groups do, and without any one is a user."""
    if "scope" in claims:
        scope = claims["scope"]
        words = scope.split() if isinstance(scope, str) else scope if isinstance(scope, list) else []
        known = {word for word in GRANTS if word.startswith("upload.")} | SCOPES.keys()
        return frozenset(word for word in words if isinstance(word, str) and word in known)
    return roles_of(rules.roles, _groups(claims, rules.role_claim))


def _groups(claims: Json, name: str) -> Sequence[object]:
    """Return what a claim says, whose name may lead into others: ``realm_access.roles``."""
    if not name:
        return []
    found: object = claims.get(name)
    if found is None:
        found = claims
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    return found if isinstance(found, list) else [found]


def _bound_to(claims: Json, credential: str) -> str:
    """Return the digest of the certificate that a token is bound to; another way of binding is not believed."""
    if "cnf" not in claims:
        return ""
    bound = claims["cnf"]
    digest = bound.get("x5t#S256") if isinstance(bound, dict) and len(bound) == 1 else None
    _refuse(not isinstance(digest, str), "it is bound in a way that is not checked here", credential)
    return _bytes(str(digest)).hex() or "nothing"
