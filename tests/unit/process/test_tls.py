"""Files of TLS: what is refused in which words, and what goes on when they are replaced."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.certificates import Authority, Pair
from upload_server.domain.errors import CannotStart
from upload_server.domain.observer import Observer
from upload_server.process.certificates import certificate_of, certificates_in
from upload_server.process.tls import ClientAuth, Tls, TlsFiles, read_pair


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.issue("server")


def files(pair: Pair, client_ca: Path | None = None) -> TlsFiles:
    auth = ClientAuth.NONE if client_ca is None else ClientAuth.OPTIONAL
    return TlsFiles(pair.cert, pair.key, client_ca, auth)


class Counter(Observer):
    def __init__(self) -> None:
        self.failed = 0
        self.until: dict[str, float] = {}

    def tls_read(self, file: str, not_after: float) -> None:
        self.until[file] = not_after

    def tls_reload_failed(self) -> None:
        self.failed += 1


def of_another(pair: Pair, authority: Authority) -> None:
    pair.key.write_bytes(authority.issue("other").key.read_bytes())


def of_yesterday(pair: Pair, authority: Authority) -> None:
    pair.take(authority.issue("old", days=-1))


def of_next_week(pair: Pair, authority: Authority) -> None:
    pair.take(authority.issue("new", days=17))


def turned_around(pair: Pair, authority: Authority) -> None:
    pair.cert.write_bytes(authority.file.read_bytes() + pair.cert.read_bytes())


def with_a_strangers_signer(pair: Pair, _: Authority) -> None:
    pair.cert.write_bytes(pair.cert.read_bytes() + Authority(pair.cert.parent, "stranger").file.read_bytes())


def with_a_passphrase(pair: Pair, _: Authority) -> None:
    clear = pair.key.read_bytes()
    command = ["openssl", "pkey", "-aes256", "-passout", "pass:secret"]
    pair.key.write_bytes(subprocess.run(command, input=clear, capture_output=True, check=True).stdout)


def cut_off(pair: Pair, _: Authority) -> None:
    lines = pair.cert.read_text().splitlines()
    pair.cert.write_text("\n".join([*lines[:3], *lines[-1:]]))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (of_another, "--tls-key: it is not the key of the first certificate in --tls-cert; name the files"),
        (of_yesterday, "--tls-cert: the certificate expired on .* get a new one"),
        (of_next_week, "--tls-cert: the certificate is not valid before .* wait, or set the clock"),
        (turned_around, "--tls-cert: certificate 2 .* not the one that signed certificate 1; the server's own comes"),
        (with_a_strangers_signer, "--tls-cert: certificate 2 .* not the one that signed certificate 1"),
        (with_a_passphrase, "--tls-key: the key has a passphrase, .* take it off"),
        (cut_off, "--tls-cert: a certificate in the file is damaged; copy it anew"),
        (lambda pair, _: pair.key.chmod(0o644), "--tls-key: everybody on this machine may read .* chmod 0600"),
        (lambda pair, _: pair.key.unlink(), "--tls-key: .* cannot be read: No such file or directory; name a PEM"),
        (lambda pair, _: pair.cert.write_bytes(b"x" * (1 << 21)), "--tls-cert: .* is larger than 1 MiB"),
        (lambda pair, _: pair.cert.write_bytes(pair.key.read_bytes()), "--tls-cert: there is no PEM certificate"),
        (lambda pair, _: pair.key.write_bytes(pair.cert.read_bytes()), "--tls-key: there is no PEM private key"),
    ],
)
def test_a_pair_that_is_not_good_is_refused_with_its_cure(
    spoil: Callable[[Pair, Authority], None], words: str, pair: Pair, authority: Authority
) -> None:
    spoil(pair, authority)
    with pytest.raises(CannotStart, match=f"(?s)^{words}"):
        read_pair(files(pair))


def test_signers_of_callers_are_checked_too(pair: Pair, tmp_path: Path) -> None:
    empty = tmp_path / "none.pem"
    empty.write_text("")
    with pytest.raises(CannotStart, match=r"^--tls-client-ca: there is no PEM certificate"):
        read_pair(files(pair, empty))


def test_what_stands_in_a_certificate_is_read_as_openssl_reads_it(pair: Pair) -> None:
    (found,) = certificates_in(pair.cert.read_text())
    command = ["openssl", "x509", "-in", str(pair.cert), "-noout", "-serial", "-enddate", "-dateopt", "iso_8601"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    assert f"{found.serial:X}" == said[0].removeprefix("serial=").lstrip("0")
    assert f"{found.not_after:%Y-%m-%d %H:%M:%S}Z" == said[1].removeprefix("notAfter=")


@pytest.mark.parametrize(
    "der", [b"", b"\x30", b"\x30\x80", b"\x30\x03\x02\x01", b"\x30\x84\xff\xff\xff\xff", b"\x30\x00"]
)
def test_what_is_no_certificate_is_refused(der: bytes) -> None:
    with pytest.raises(ValueError, match=r"no certificate|cut off"):
        certificate_of(der)


async def test_a_bad_change_is_counted_and_the_good_pair_stays(pair: Pair, authority: Authority) -> None:
    counter = Counter()
    tls = Tls(files(pair, authority.file), counter)
    good = tls.pair
    of_another(pair, authority)
    assert not await tls._reload()
    assert not await tls._reload(again=True)
    assert (tls.pair, counter.failed) == (good, 1)
    pair.take(authority.issue("next", days=5))
    assert await tls._reload(again=True)
    assert tls.pair.context is not good.context
    assert counter.failed == 1
    assert counter.until["tls-cert"] == tls.pair.not_after["--tls-cert"].timestamp()
    assert counter.until.keys() == {"tls-cert", "tls-client-ca"}
