"""Clients say who calls: by a token, a file, a command; over TLS or to this machine only; and ask anew once refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.process import ServerProcess
from support.tokens import Tokens
from upload import AsyncClient, Client, errors
from upload.errors import CredentialMissing
from upload.tokens import Authorization, FileToken, source_of


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tokens: Tokens) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), tokens.options) as process:
        yield process


def uploadctl(server: ServerProcess, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("UPLOAD_")}
    return subprocess.run(
        [sys.executable, "-m", "upload", "--server", server.target, *words],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_each_error_has_its_class(server: ServerProcess, tokens: Tokens) -> None:
    with Client(server.target) as nobody, pytest.raises(errors.CredentialMissing):
        nobody.caller()
    with Client(server.target, token="upl_aaaaaaaa_" + "b" * 43) as wrong, pytest.raises(errors.CredentialInvalid):
        wrong.caller()
    with Client(server.target, token=tokens.secrets["auditor"]) as auditor, pytest.raises(errors.PermissionDenied):
        auditor.cancel("x")


async def test_a_refused_token_is_asked_for_anew_and_the_call_made_again(server: ServerProcess, tokens: Tokens) -> None:
    given = iter(["upl_aaaaaaaa_" + "b" * 43, tokens.secrets["owner"], "never"])
    async with AsyncClient(server.target, token=lambda: next(given)) as client:
        assert (await client.caller()).principal == "ada"
        file = await client.upload(b"hello", filename="a.txt")
        assert file.owner == "ada"
    assert next(given) == "never"


def test_a_token_that_stays_refused_is_tried_once_more(server: ServerProcess) -> None:
    asked: list[str] = []

    def give() -> str:
        asked.append(f"upl_aaaaaaaa_{len(asked):043d}")
        return asked[-1]

    with Client(server.target, token=give) as client, pytest.raises(errors.CredentialInvalid):
        client.caller()
    # The second is tried; a third is there for whoever calls next.
    assert len(asked) <= 3


@pytest.mark.parametrize("target", ["files.example:50051", "192.0.2.1:50051", "http://files.example"])
def test_a_token_does_not_travel_in_plain_text(target: str) -> None:
    with pytest.raises(ValueError, match="plain text"):
        Client(target, token="secret")  # noqa: S106 - none


@pytest.mark.parametrize("token", [" ", "a b", "a\nb", "a\0", "\u00e9"])
def test_what_cannot_be_a_token_is_said_before_a_call(token: str) -> None:
    with pytest.raises(CredentialMissing, match="There is no token"):
        Authorization((), source_of(token)).metadata()


def test_a_file_may_begin_with_a_mark_of_its_encoding(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\ufeffupl_a\r\n", "utf-8")
    assert Authorization((), FileToken(tmp_path / "token")).metadata() == (("authorization", "Bearer upl_a"),)


def test_uploadctl_takes_a_token_from_each_place(server: ServerProcess, tokens: Tokens, tmp_path: Path) -> None:
    token, file = tokens.secrets["owner"], tmp_path / "token"
    file.write_text(f"{token}\n")
    say = json.dumps({"token": token, "expires_at": "2999-01-01T00:00:00Z"})
    command = tmp_path / "give.py"
    command.write_text(f"print('''{say}''')")
    for words, environment in (
        ([], {"UPLOAD_TOKEN": token}),
        ([], {"UPLOAD_TOKEN_FILE": str(file)}),
        (["--token-file", str(file)], {}),
        (["--token-command", f"{sys.executable} {command}"], {}),
    ):
        done = uploadctl(server, *words, "list", **environment)
        assert done.returncode == 0, done.stderr


def test_uploadctl_says_so_and_leaves_with_8(server: ServerProcess, tokens: Tokens, tmp_path: Path) -> None:
    command = tmp_path / "give.py"
    command.write_text("print('no JSON: upl_secret')")
    for words, environment, says in (
        (["list"], {}, "needs a credential"),
        (["list"], {"UPLOAD_TOKEN": "upl_aaaaaaaa_" + "b" * 43}, "not valid"),
        (["cancel", "x"], {"UPLOAD_TOKEN": tokens.secrets["auditor"]}, "may not do this"),
        (["--token-command", f"{sys.executable} {command}", "list"], {}, "must print"),
    ):
        done = uploadctl(server, *words, **environment)
        assert (done.returncode, done.stdout) == (8, "")
        assert says in done.stderr
        assert "upl_" not in done.stderr
    refused = uploadctl(server, "--server", "192.0.2.1:50051", "list", UPLOAD_TOKEN="upl_x")  # noqa: S106 - none
    assert (refused.returncode, "plain text" in refused.stderr) == (2, True)
