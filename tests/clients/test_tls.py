"""Clients over TLS: what they trust and show, and what they say when they and the server do not speak alike."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from clients.test_matrix import build_go
from support.certificates import Authority, Pair
from support.process import ServerProcess
from upload import AsyncClient, Client, Tls, errors
from upload.tls import address_of

UPLOADCTL = str(Path(sys.executable).with_name("uploadctl"))


class Secure(NamedTuple):
    server: ServerProcess
    authority: Authority
    caller: Pair

    @property
    def url(self) -> str:
        return f"https://{self.server.target}"

    @property
    def options(self) -> Sequence[str]:
        return [f"{self.authority.file}", f"{self.caller.cert}", f"{self.caller.key}"]


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("secure")
    authority, callers = Authority(folder), Authority(folder, "callers")
    options = ("--tls-client-auth", "required", "--tls-client-ca", str(callers.file))
    with ServerProcess(folder / "data", (*authority.issue("server").options, *options)) as server:
        yield Secure(server, authority, callers.issue("caller", "caller.example"))


def uploadctl(server: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("UPLOAD_")}
    command = [UPLOADCTL, "--server", server, "--timeout", "20", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=clean)


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ("localhost:50051", ("localhost:50051", False)),
        ("https://files.example", ("files.example:443", True)),
        ("https://files.example:50051/", ("files.example:50051", True)),
        ("grpcs://[::1]:1", ("[::1]:1", True)),
        ("http://localhost:1", ("localhost:1", False)),
        ("dns:///files.example:1", ("dns:///files.example:1", False)),
        ("unix:/tmp/socket", ("unix:/tmp/socket", False)),
        ("ipv4:127.0.0.1:1", ("ipv4:127.0.0.1:1", False)),
        # gRPC itself would ask port 443 of a name alone, and of what it cannot read say that nobody is there.
        ("files.example", ("files.example:50051", False)),
        ("[::1]", ("[::1]:50051", False)),
        ("localhost:50051/", ("localhost:50051", False)),
    ],
)
def test_a_server_is_named_with_or_without_tls(server: str, address: tuple[str, bool]) -> None:
    assert address_of(server) == address


@pytest.mark.parametrize(
    "server",
    [
        *(
            "https://",
            "https://a/path",
            "https://user@a",
            "https://a?x",
            "https://a:99999",
            "http://[::1",
            "http://a:0",
        ),
        *("", ":", ":1", "a:b", "a:0", "a:99999", "a:-1", "a:1/x", "user@a:1", "a b:1", "::1:1", "[::1", "ftp://a:1"),
    ],
)
def test_what_names_no_server_is_refused(server: str) -> None:
    with pytest.raises(ValueError, match="is no server"):
        address_of(server)


async def test_the_library_trusts_and_shows_what_it_is_told(secure: Secure) -> None:
    tls = Tls(secure.authority.file, secure.caller.cert, secure.caller.key)
    async with AsyncClient(secure.url, tls=tls) as client:
        file = await client.put(b"hello", filename="a.txt")

    def again() -> str:
        with Client(secure.url, tls=tls) as blocking:
            return blocking.get(file.file_id).filename

    assert await asyncio.to_thread(again) == "a.txt"
    async with AsyncClient(secure.url, tls=Tls(secure.authority.file), timeout=20) as client:
        with pytest.raises(errors.Unavailable):
            await client.get(file.file_id)


def test_files_without_tls_are_refused() -> None:
    with pytest.raises(ValueError, match="go with https://localhost:1: localhost:1 is spoken to in plain text"):
        Client("localhost:1", tls=Tls(ca="x.pem"))
    with pytest.raises(ValueError, match="give both"):
        Client("https://localhost:1", tls=Tls(cert="x.pem"))


def test_uploadctl_speaks_tls(secure: Secure, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("hello")
    ca, cert, key = secure.options
    ended = uploadctl(secure.url, "upload", str(path), "--ca", ca, "--cert", cert, "--key", key)
    assert ended.returncode == 0, ended.stderr


def test_uploadctl_says_what_does_not_fit(secure: Secure, server: ServerProcess, tmp_path: Path) -> None:
    ca = secure.options[0]
    for named, arguments, code, words in (
        (secure.server.target, [], 7, "if it speaks TLS, name it as https://HOST:PORT"),
        (f"https://{server.target}", ["--ca", ca], 7, "speaks plain text at this port: leave out https://"),
        (secure.url, [], 7, "certificate is not signed by whom this client trusts"),
        (server.target, ["--ca", ca], 2, "go with https://"),
        (secure.url, ["--ca", str(tmp_path / "none")], 2, "No such file"),
    ):
        ended = uploadctl(named, "list", *arguments)
        # The last line, and of gRPC's own none before it.
        *usage, last = ended.stderr.splitlines()
        assert (ended.returncode, words in last) == (code, True), ended.stderr
        assert [line for line in usage if "ssl_transport" in line] == []


def test_the_go_example_speaks_tls(secure: Secure, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("hello")
    ca, cert, key = secure.options
    ended = subprocess.run(
        [build_go("example", tmp_path), "-ca", ca, "-cert", cert, "-key", key, "upload", str(path)],
        env={**os.environ, "UPLOAD_SERVER": secure.url},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
