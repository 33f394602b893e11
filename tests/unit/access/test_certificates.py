"""Whom a certificate names, and who may hand on what another one has shown."""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from support.certificates import Authority
from upload_server.access.certificates import Certificates, Proxies, peer_certificate, peer_certificate_of_pem
from upload_server.access.identity import PeerCertificate, Presented
from upload_server.access.policy import named_roles
from upload_server.domain.errors import CannotStart, CredentialExpired, CredentialInvalid

SHOWN = PeerCertificate(("spiffe://x/ann",), ("ann@x.example",), ("a.example", "b.example"), "ab" * 32, "1f", 2e9)
ENVOY = PeerCertificate((), (), ("envoy.example",), "cd" * 32, "2", 2e9)
HASH = "ef" * 32


def test_what_stands_in_a_certificate_is_read(tmp_path: Path) -> None:
    pair = Authority(tmp_path).name("ann", ["spiffe://x/ann"], ["ann@x.example"], ["a.example", "b.example"])
    pem = pair.cert.read_bytes()
    der = ssl.PEM_cert_to_DER_cert(pem.decode())
    found = peer_certificate(der)
    assert found is not None
    assert found == peer_certificate_of_pem(pem)
    assert (found.uris, found.emails, found.names) == (SHOWN.uris, SHOWN.emails, SHOWN.names)
    assert found.sha256 == hashlib.sha256(der).hexdigest()
    assert peer_certificate(der[:-700]) is None
    assert peer_certificate_of_pem(b"\xff") is None


def test_a_common_name_is_no_name(tmp_path: Path) -> None:
    found = peer_certificate_of_pem(Authority(tmp_path).name("ann").cert.read_bytes())
    assert found is not None
    assert (found.uris, found.emails, found.names) == ((), (), ())


@pytest.mark.parametrize(
    ("kind", "shown", "principal"),
    [
        ("uri", SHOWN, "cert:uri:spiffe://x/ann"),
        ("email", SHOWN, "cert:email:ann@x.example"),
        ("dns", SHOWN, None),
        ("uri", replace(SHOWN, uris=()), None),
        ("uri", replace(SHOWN, uris=("a", "b")), None),
        # What Envoy says of a certificate that has none.
        ("uri", replace(SHOWN, uris=("",)), None),
        ("uri", replace(SHOWN, uris=("x\u202ey",)), None),
        ("uri", replace(SHOWN, uris=("x" * 300,)), None),
    ],
)
async def test_the_only_name_of_the_kind_is_the_caller(
    kind: str, shown: PeerCertificate, principal: str | None
) -> None:
    presented = Presented(certificate=shown)
    if principal is None:
        with pytest.raises(CredentialInvalid):
            await Certificates(kind).identify(presented)
        return
    found = await Certificates(kind).identify(presented)
    assert found is not None
    assert (found.principal, found.credential, set(found.roles)) == (principal, "cert:1f", {"user"})
    assert found.expires_at == SHOWN.not_after


@pytest.mark.parametrize(
    ("named", "roles"),
    [
        (["operator=spiffe://example/ann"], {"user", "operator"}),
        (["operator=spiffe://example/bob", "monitor=spiffe://example/ann"], {"user", "monitor"}),
        (["operator=spiffe://example/ann?x=1"], {"user"}),
        (["user=spiffe://example/bob"], set()),
    ],
)
async def test_a_name_has_its_roles(named: list[str], roles: set[str]) -> None:
    shown = replace(SHOWN, uris=("spiffe://example/ann",))
    found = await Certificates("uri", named_roles("--cert-roles", named)).identify(Presented(certificate=shown))
    assert found is not None
    assert found.roles == roles


def test_a_role_that_is_none_is_refused_at_the_start() -> None:
    with pytest.raises(CannotStart, match=r"^--cert-roles: 'root' is no ROLE=NAME"):
        named_roles("--cert-roles", ["root=x"])


async def test_of_a_certificate_that_only_a_proxy_has_seen_no_end_is_known() -> None:
    found = await Certificates("uri").identify(Presented(certificate=replace(SHOWN, not_after=None)))
    assert found is not None
    assert found.expires_at is None


async def test_a_bearer_names_the_caller_also_when_nobody_knows_it() -> None:
    assert await Certificates("uri").identify(Presented(["Bearer x"], SHOWN)) is None


async def test_a_certificate_ends_on_an_open_connection_too() -> None:
    with pytest.raises(CredentialExpired):
        await Certificates("uri", clock=lambda: 2e9).identify(Presented(certificate=SHOWN))


# Proxies -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def proxies() -> Proxies:
    return Proxies(["cert:dns:envoy.example"])


@pytest.mark.parametrize(
    ("values", "uris", "names"),
    [
        ([f"Hash={HASH};URI=spiffe://x/ann"], ("spiffe://x/ann",), ()),
        ([f"By=spiffe://n;Hash={HASH.upper()};URI=a;DNS=d1;DNS=d2"], ("a",), ("d1", "d2")),
        ([f"Hash={'00' * 32};URI=root,Hash={HASH};URI=a"], ("a",), ()),
        ([f"Hash={'00' * 32};URI=root", f"Hash={HASH};URI=a"], ("a",), ()),
        ([f'Hash={HASH};Subject="CN=x,O=y;URI=root";URI=a'], ("a",), ()),
        ([f'Hash={HASH};URI="a\\"b,c"'], ('a"b,c',), ()),
    ],
)
def test_the_last_certificate_that_a_proxy_names_counts(
    values: list[str], uris: tuple[str, ...], names: tuple[str, ...], proxies: Proxies
) -> None:
    seen = proxies.seen(
        Presented(certificate=ENVOY, forwarded=values, peer="10.0.0.1", forwarded_for=["6.6.6.6, 1.2.3.4"])
    )
    assert seen.certificate is not None
    assert (seen.certificate.sha256, seen.certificate.uris, seen.certificate.names) == (HASH, uris, names)
    assert seen.peer == "1.2.3.4"


@pytest.mark.parametrize(
    "value",
    ["x", "Hash=zz;URI=a", "URI=a", f"Hash={HASH};Hash={HASH}", f'Hash={HASH};URI="a', f"Hash={HASH};"],
)
def test_a_word_that_cannot_be_read_is_refused(value: str, proxies: Proxies) -> None:
    with pytest.raises(CredentialInvalid):
        proxies.seen(Presented(certificate=ENVOY, forwarded=[value]))


def test_a_proxy_itself_calls_as_nobody(proxies: Proxies) -> None:
    assert proxies.seen(Presented(certificate=ENVOY)).certificate is None


def test_nobody_else_is_believed(proxies: Proxies) -> None:
    for shown in (None, SHOWN, replace(ENVOY, names=(), uris=("envoy.example",))):
        presented = Presented(
            certificate=shown, forwarded=[f"Hash={HASH};URI=root"], peer="10.0.0.1", forwarded_for=["1.2.3.4"]
        )
        assert proxies.seen(presented) == presented


@pytest.mark.parametrize("principal", ["10.0.0.1", "dns:envoy.example", "cert:ip:10.0.0.1", "cert:dns:"])
def test_what_is_no_name_in_a_certificate_is_refused(principal: str) -> None:
    with pytest.raises(CannotStart, match=r"^--trusted-proxies: "):
        Proxies([principal])
