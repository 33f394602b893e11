"""Whom a JWT names, and every token that somebody may forge, mix up or send twice."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.issuer import AUDIENCE, Issuer, SigningKey
from upload_server.access import jwt as module
from upload_server.access.identity import Identity, PeerCertificate, Presented
from upload_server.access.jwks import Keys, of_issuer
from upload_server.access.jwt import Jwt, Rules, rules_of
from upload_server.domain.errors import CannotStart, CredentialExpired, CredentialInvalid, Overloaded

CERTIFICATE = PeerCertificate((), (), (), hashlib.sha256(b"der").hexdigest(), "1", 2e9)
BOUND = base64.urlsafe_b64encode(hashlib.sha256(b"der").digest()).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as started:
        yield started


class World:
    """An authenticator whose clock a test sets."""

    def __init__(self, issuer: Issuer, **rules: Any) -> None:
        self.now = time.time()
        self.keys = Keys(of_issuer(issuer.url), clock=lambda: self.now)
        self.jwt = Jwt([(Rules(issuer.url, AUDIENCE, **rules), self.keys)], clock=lambda: self.now)

    async def who(self, token: str, certificate: PeerCertificate | None = None) -> Identity | None:
        return await self.jwt.identify(Presented((f"Bearer {token}",), certificate))


@pytest.fixture
def world(issuer: Issuer) -> Iterator[World]:
    made = World(issuer)
    yield made
    made.jwt.close()


def raw(head: object, claims: object, signature: bytes = b"x") -> str:
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (head, claims)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*parts, signature))


# Who -----------------------------------------------------------------------------------------------------------------


async def test_a_token_names_its_subject(world: World, issuer: Issuer) -> None:
    found = await world.who(issuer.token())
    assert found is not None
    assert (found.principal, set(found.roles), found.credential) == ("jwt:ann", {"user"}, "jwt:t1")
    assert found.expires_at is not None
    assert 325 < found.expires_at - time.time() <= 330


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "ES384", "EdDSA"])
async def test_every_algorithm_that_can_be_named_counts(algorithm: str, issuer: Issuer) -> None:
    world = World(issuer, algorithms=frozenset({algorithm}))
    key = SigningKey(f"of {algorithm}", algorithm)
    issuer.keys.append(key)
    try:
        assert await world.who(key.sign(issuer.claims()))
    finally:
        issuer.keys.remove(key)
        world.jwt.close()


@pytest.mark.parametrize(
    ("claims", "roles"),
    [
        ({"scope": "upload.read upload.cancel other"}, {"upload.read", "upload.cancel"}),
        ({"scope": "openid"}, set()),
        ({"scope": "upload.operate", "groups": ["auditors"]}, {"upload.operate"}),
        ({"scope": 7}, set()),
        ({"scope": "operator user"}, set()),
        ({"groups": ["admins", "auditors"]}, {"operator", "auditor", "user"}),
        ({"groups": "admins"}, {"operator", "user"}),
        ({"groups": {"admins": 1}}, {"user"}),
        ({}, {"user"}),
    ],
)
async def test_a_scope_decides_else_groups_do(claims: dict[str, Any], roles: set[str], issuer: Issuer) -> None:
    world = World(issuer, role_claim="groups", roles=(("operator", "admins"), ("auditor", "auditors")))
    found = await world.who(issuer.token(**claims))
    assert found is not None
    assert found.roles == roles
    world.jwt.close()


async def test_groups_may_lie_deeper(issuer: Issuer) -> None:
    world = World(issuer, role_claim="realm_access.roles", roles=(("operator", "ops"),))
    found = await world.who(issuer.token(realm_access={"roles": ["ops"]}))
    assert found is not None
    assert found.roles == {"operator", "user"}
    world.jwt.close()


async def test_what_is_no_jwt_is_somebody_elses(world: World) -> None:
    for authorization in ([], ["Bearer upl_abc"], ["Basic a.b.c"], ["Bearer a.b.c", "Bearer a.b.c"]):
        assert await world.jwt.identify(Presented(authorization)) is None


# Forged --------------------------------------------------------------------------------------------------------------

LEEWAY = 30


@pytest.mark.parametrize(
    ("changed", "counts"),
    [
        ({}, True),
        ({"aud": ["other", AUDIENCE]}, True),
        ({"aud": None}, False),
        ({"aud": "other"}, False),
        ({"aud": ["other"]}, False),
        ({"aud": {AUDIENCE: 1}}, False),
        ({"iss": None}, False),
        ({"iss": "https://other"}, False),
        ({"sub": None}, False),
        ({"sub": 7}, False),
        ({"sub": ""}, False),
        ({"sub": "ann\u202ebob"}, False),
        ({"sub": "ann\n"}, False),
        ({"sub": "x" * 260}, False),
        ({"exp": None}, False),
        ({"exp": "2030"}, False),
        ({"exp": True}, False),
        ({"exp": -1}, False),
        ({"exp": 1e300}, False),
        ({"iat": None}, False),
        ({"nbf": "soon"}, False),
        ({"cnf": {"jkt": "x"}}, False),
        ({"cnf": {"x5t#S256": BOUND, "jkt": "x"}}, False),
        ({"cnf": {"x5t#S256": 1}}, False),
        ({"cnf": {}}, False),
        ({"cnf": None, "nonce": "n"}, True),
    ],
)
async def test_claims_are_judged(changed: dict[str, Any], counts: bool, world: World, issuer: Issuer) -> None:
    if counts:
        assert await world.who(issuer.token(**changed))
    else:
        with pytest.raises(CredentialInvalid):
            await world.who(issuer.token(**changed), CERTIFICATE)


async def test_a_claim_that_is_said_twice_is_refused(world: World, issuer: Issuer) -> None:
    key = issuer.keys[0]
    claims = json.dumps(issuer.claims())
    assert await world.who(key.sign_text(claims.encode()))
    with pytest.raises(CredentialInvalid):
        await world.who(key.sign_text(claims.replace("{", '{"sub": "root", ', 1).encode()))


async def test_an_issuer_with_a_slash_more_is_another_one(world: World, issuer: Issuer) -> None:
    with pytest.raises(CredentialInvalid):
        await world.who(issuer.token(iss=f"{issuer.url}/"))


@pytest.mark.parametrize(
    ("claim", "at", "counts"),
    [
        ("exp", -LEEWAY + 2, True),
        ("exp", -LEEWAY - 1, False),
        ("nbf", LEEWAY - 1, True),
        ("nbf", LEEWAY + 2, False),
        ("iat", LEEWAY - 1, True),
        ("iat", LEEWAY + 2, False),
        ("exp", 24 * 3600 - 1, True),
        ("exp", 24 * 3600 + 2, False),
    ],
)
async def test_times_count_within_the_leeway(claim: str, at: int, counts: bool, world: World, issuer: Issuer) -> None:
    token = issuer.token(**{claim: int(world.now) + at})
    if counts:
        assert await world.who(token)
    else:
        with pytest.raises((CredentialInvalid, CredentialExpired)):
            await world.who(token)


@pytest.mark.parametrize(
    "head",
    [
        {"typ": "JWT"},
        {"typ": None},
        {"typ": "dpop+jwt"},
        {"kid": None},
        {"kid": "nobody's"},
        {"kid": 7},
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
    ],
)
async def test_heads_are_judged(head: dict[str, Any], world: World, issuer: Issuer) -> None:
    claims = issuer.claims()
    if isinstance(head.get("kid"), int):
        token = raw({"alg": "ES256", "typ": "at+jwt", **head}, claims)
    else:
        token = issuer.keys[0].sign(claims, **head)
    with pytest.raises(CredentialInvalid):
        await world.who(token)


async def test_a_key_that_the_token_brings_along_is_not_looked_at(world: World, issuer: Issuer) -> None:
    own = SigningKey("first")
    for brought in ({"jwk": own.jwk}, {"jku": f"{issuer.url}/jwks"}, {"x5u": issuer.url}):
        with pytest.raises(CredentialInvalid):
            await world.who(own.sign(issuer.claims(), **brought))
        assert await world.who(issuer.keys[0].sign(issuer.claims(), **brought))


async def test_a_token_signed_by_the_public_key_or_nobody_is_refused(issuer: Issuer) -> None:
    world = World(issuer, algorithms=frozenset({"ES256", "RS256"}))
    key = issuer.keys[0]
    public = key.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    signed = raw({"alg": "HS256", "kid": "first", "typ": "at+jwt"}, issuer.claims(), b"").rstrip(".")
    mac = base64.urlsafe_b64encode(hmac.digest(public, signed.encode(), "sha256")).rstrip(b"=").decode()
    secret = f"{signed}.{mac}"
    nobody = raw({"alg": "none", "kid": "first", "typ": "at+jwt"}, issuer.claims(), b"")
    # An algorithm that counts, with a key that is none of it.
    confused = raw({"alg": "RS256", "kid": "first", "typ": "at+jwt"}, issuer.claims(), b"x" * 256)
    head, claims, _ = key.sign(issuer.claims()).split(".")
    for token in (secret, nobody, confused, f"{head}.{claims}.", f"{head}.{claims}.AAAA"):
        with pytest.raises(CredentialInvalid):
            await world.who(token)
    world.jwt.close()


@pytest.mark.parametrize(
    "claims",
    [
        b'{"sub":"ann","sub":"root"}',
        b"[]",
        b"\xff",
        b"[" * 2500,
        b'{"exp":NaN}',
        b'{"exp":' + b"9" * 2000 + b"}",
        b"",
    ],
)
async def test_what_is_no_sound_json_is_refused(claims: bytes, world: World) -> None:
    with pytest.raises(CredentialInvalid):
        await world.who(raw({"alg": "ES256", "kid": "first", "typ": "at+jwt"}, claims))


async def test_a_token_of_ten_kilobytes_is_not_read(world: World, issuer: Issuer) -> None:
    assert await world.who(issuer.token(more="x" * 10_000)) is None


async def test_where_any_type_counts_an_id_token_does_not(issuer: Issuer) -> None:
    world = World(issuer, typ="any")
    key = issuer.keys[0]
    assert await world.who(key.sign(issuer.claims(), typ="JWT"))
    for claim in ("nonce", "at_hash"):
        with pytest.raises(CredentialInvalid):
            await world.who(key.sign(issuer.claims(**{claim: "x"}), typ="JWT"))
    world.jwt.close()


async def test_a_bound_token_counts_with_its_certificate_only(world: World, issuer: Issuer) -> None:
    token = issuer.token(cnf={"x5t#S256": BOUND})
    assert await world.who(token, CERTIFICATE)
    # Also of a token that is known.
    for shown in (None, replace(CERTIFICATE, sha256="00" * 32)):
        with pytest.raises(CredentialInvalid):
            await world.who(token, shown)


# The cache, and the queue --------------------------------------------------------------------------------------------


async def test_a_known_token_is_verified_once_until_it_expires(
    world: World, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = 0
    real = module._is_signed_by

    def counted(*arguments: Any) -> bool:
        nonlocal verified
        verified += 1
        return real(*arguments)

    monkeypatch.setattr(module, "_is_signed_by", counted)
    token = issuer.token()
    await asyncio.gather(*(world.who(token) for _ in range(100)))
    assert verified == 1
    world.now += 301
    await world.who(token)
    assert verified == 2
    world.now += 60
    with pytest.raises(CredentialExpired):
        await world.who(token)


async def test_other_keys_forget_what_is_known(world: World, issuer: Issuer) -> None:
    token = issuer.token()
    assert await world.who(token)
    kept, issuer.keys[:] = issuer.keys[:], [SigningKey("other")]
    try:
        assert await world.who(token)
        await world.keys.refresh()
        with pytest.raises(CredentialInvalid):
            await world.who(token)
    finally:
        issuer.keys[:] = kept


async def test_unknown_tokens_wait_and_known_ones_do_not(
    world: World, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = issuer.token()
    await world.who(known)
    go = threading.Event()
    real = module._is_signed_by

    def held(*arguments: Any) -> bool:
        go.wait()
        return real(*arguments)

    monkeypatch.setattr(module, "_is_signed_by", held)
    waiting = [asyncio.create_task(world.who(issuer.token(jti=f"new {number}"))) for number in range(64)]
    try:
        await asyncio.sleep(0)
        assert await world.who(known)
        with pytest.raises(Overloaded):
            await world.who(issuer.token(jti="one too many"))
    finally:
        go.set()
    assert all(await asyncio.gather(*waiting))


async def test_the_cache_keeps_the_newest(world: World, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CACHED", 2)
    tokens = [issuer.token(jti=f"{number}") for number in range(3)]
    for token in (tokens[0], tokens[1], tokens[0], tokens[2]):
        await world.who(token)
    digests = {hashlib.sha256(token.encode()).digest() for token in (tokens[0], tokens[2])}
    assert world.jwt._known.keys() == digests


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"alias": "cert"}, "--jwt-issuer: 'cert' cannot stand before a subject"),
        ({"alias": "a:b"}, "--jwt-issuer: 'a:b' cannot stand"),
        ({"issuer": "http://id.example"}, "--jwt-issuer: .* must begin with https://"),
        ({"algorithms": ["HS256"]}, "--jwt-algorithms: there is no HS256; there are RS256, PS256, ES256, ES384, EdDSA"),
        ({"algorithms": ["none"]}, "--jwt-algorithms: there is no none"),
        ({"algorithms": []}, "--jwt-algorithms: there is no none"),
        ({"roles": ["root=admins"]}, "--jwt-roles: 'root' is no ROLE=NAME"),
        ({"roles": ["operator"]}, "--jwt-roles: 'operator' is no ROLE=NAME"),
    ],
)
def test_rules_that_would_let_others_in_are_refused_at_the_start(changed: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {
        "alias": "corp",
        "issuer": "https://id.example",
        "audience": AUDIENCE,
        "algorithms": ["ES256"],
        "typ": "at+jwt",
        "leeway": 30.0,
        "role_claim": "groups",
        "roles": ["operator=admins"],
    }
    assert rules_of(**given).alias == "corp"
    with pytest.raises(CannotStart, match=f"^{words}"):
        rules_of(**{**given, **changed})


async def test_each_of_several_issuers_signs_for_itself_alone(issuer: Issuer) -> None:
    with Issuer() as other:
        pairs = [
            (Rules(one.url, AUDIENCE, alias), Keys(of_issuer(one.url))) for alias, one in (("a", issuer), ("b", other))
        ]
        jwt = Jwt(pairs)

        async def who(token: str) -> str | None:
            found = await jwt.identify(Presented((f"Bearer {token}",)))
            return found.principal if found else None

        assert [await who(one.token()) for one in (issuer, other, issuer, other)] == ["a:ann", "b:ann"] * 2
        for forged in (other.token(iss=issuer.url), issuer.token(iss=other.url), issuer.token(iss=f"{issuer.url}/")):
            with pytest.raises(CredentialInvalid):
                await who(forged)
        jwt.close()


@pytest.mark.parametrize("second", [("a", "https://other.example"), ("b", "https://id.example")])
def test_issuers_that_cannot_be_told_apart_are_refused_at_the_start(second: tuple[str, str]) -> None:
    given = (("a", "https://id.example"), second)
    pairs = [(Rules(url, AUDIENCE, alias), Keys(of_issuer(url))) for alias, url in given]
    with pytest.raises(CannotStart, match=r"^--jwt-issuer: each of several needs an alias and a URL of its own"):
        Jwt(pairs)


def test_without_the_library_a_start_says_what_to_install(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(CannotStart, match=r"extra `jwt`"):
        World(issuer)
