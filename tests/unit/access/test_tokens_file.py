"""The file of static tokens: what is read, what is refused, and what a change does."""
# ruff: noqa: ASYNC240 - a small file, which nobody waits for

from __future__ import annotations

import asyncio
import itertools
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

from upload_server.access.identity import Identity, Presented
from upload_server.access.quotas import Quota
from upload_server.access.tokens_file import QuotasFile, TokensFile, TokensFileUnusable, append, make, parse
from upload_server.domain.errors import CannotStart, CredentialExpired, CredentialInvalid

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HASH = "sha256:" + "0" * 64


def shown(token: str) -> Presented:
    return Presented(authorization=[f"Bearer {token}"])


class Clock:
    """A POSIX time that a test sets."""

    now = NOW.timestamp()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def added(path: Path, principal: str = "ada", roles: str = "user", seconds: float | None = None) -> str:
    token, line = make(principal, roles, seconds, NOW)
    append(path, line)
    return token


async def test_a_token_names_its_principal_and_another_secret_does_not(path: Path) -> None:
    token = added(path, "ada", "user,auditor")
    tokens = TokensFile(path, Clock())
    identity = await tokens.identify(shown(token))
    assert identity is not None
    assert (identity.principal, identity.roles) == ("ada", frozenset({"user", "auditor"}))
    assert identity.credential == f"token:{token.split('_')[1]}"
    assert token not in path.read_text()
    flipped = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
    for wrong in (
        flipped,
        token[:-1],
        token + "A",
        "upl_",
        "upl_aaaaaaaa_" + "a" * 43,
        token.upper().replace("UPL", "upl"),
    ):
        with pytest.raises(CredentialInvalid):
            await tokens.identify(shown(wrong))
    # Somebody else's to judge.
    assert await tokens.identify(shown("eyJhbGciOiJub25lIn0.e30.")) is None
    assert await tokens.identify(Presented()) is None


async def test_a_token_expires_at_its_time(path: Path) -> None:
    token, clock = added(path, seconds=60), Clock()
    tokens = TokensFile(path, clock)
    clock.now += 59
    assert await tokens.identify(shown(token)) is not None
    clock.now += 1
    with pytest.raises(CredentialExpired):
        await tokens.identify(shown(token))


async def test_a_line_that_goes_is_revoked_and_one_that_comes_is_known(path: Path) -> None:
    first = added(path)
    tokens = TokensFile(path, Clock())
    second = added(path, "bob")
    await tokens.refresh()
    assert await tokens.identify(shown(second)) is not None
    fresh = path.with_suffix(".new")
    fresh.touch(0o600)
    fresh.write_text(path.read_text().splitlines()[1] + "\n")
    fresh.replace(path)
    await tokens.refresh()
    with pytest.raises(CredentialInvalid):
        await tokens.identify(shown(first))
    assert tokens.revoked(identified(first))
    assert not tokens.revoked(identified(second, "bob"))
    assert not tokens.revoked(Identity("jwt:ann", frozenset({"user"}), "jwt:1"))


def identified(token: str, principal: str = "ada", roles: str = "user", expires_at: float | None = None) -> Identity:
    return Identity(principal, frozenset(roles.split(",")), f"token:{token.split('_')[1]}", expires_at)


@pytest.mark.parametrize(
    ("line", "revoked"),
    [
        ("ada user,auditor", False),
        ("ada auditor,user,monitor", False),
        ("ada user,auditor expires=2027-01-01", False),
        ("ada user", True),
        ("ada monitor", True),
        ("bob user,auditor", True),
        ("ada user,auditor expires=2025-12-31", True),
    ],
)
async def test_a_line_that_gives_less_is_revoked_for_who_came_before(path: Path, line: str, revoked: bool) -> None:
    token = added(path, "ada", "user,auditor")
    tokens = TokensFile(path, Clock())
    before = await tokens.identify(shown(token))
    assert before == identified(token, roles="user,auditor")
    assert not tokens.revoked(before)
    path.write_text(path.read_text().replace("ada user,auditor", line))
    await tokens.refresh()
    assert tokens.revoked(before) == revoked


async def test_a_token_that_expires_as_it_was_made_is_not_revoked(path: Path) -> None:
    token, clock = added(path, seconds=60), Clock()
    tokens = TokensFile(path, clock)
    before = await tokens.identify(shown(token))
    assert before is not None
    clock.now += 61
    assert not tokens.revoked(before)


async def test_a_file_that_was_not_taken_is_said_again_when_somebody_asks(path: Path) -> None:
    added(path)
    tokens = TokensFile(path, Clock())
    path.chmod(0o644)
    path.write_text("")
    with structlog.testing.capture_logs() as log:
        await tokens.refresh()
        await tokens.refresh()
        assert len(log) == 1
        tokens.forget()
        await tokens.refresh()
        assert [line["event"] for line in log] == ["tokens.reload_failed"] * 2
        path.chmod(0o600)
        tokens.forget()
        await tokens.refresh()
    assert log[-1]["event"] == "tokens.reloaded"


async def test_a_file_that_cannot_be_believed_later_turns_nobody_out(path: Path) -> None:
    token = added(path)
    tokens = TokensFile(path, Clock())
    good = path.read_text()
    for spoil in (lambda: path.write_text(good + "half a li"), lambda: path.chmod(0o640), path.unlink):
        spoil()
        await tokens.refresh()
        assert await tokens.identify(shown(token)) is not None
    path.touch(0o600)
    await tokens.refresh()
    with pytest.raises(CredentialInvalid):
        await tokens.identify(shown(token))


async def test_a_file_that_is_written_over_turns_nobody_out_meanwhile(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = added(path)
    tokens, text = TokensFile(path, Clock()), path.read_text()

    looks = itertools.count()

    async def write_on(_seconds: float) -> None:
        path.write_text(text + "# written over\n" if next(looks) else "")

    # Whoever writes over a file empties it first.
    path.write_text("")
    monkeypatch.setattr(asyncio, "sleep", write_on)
    await tokens.refresh()
    assert await tokens.identify(shown(token)) is not None
    assert not tokens.revoked(identified(token))


async def test_a_file_that_never_rests_is_read_all_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token, looks = added(path), itertools.count()
    tokens = TokensFile(path, Clock())

    async def write_on(_seconds: float) -> None:
        path.write_text("#" * next(looks))

    path.write_text("")
    monkeypatch.setattr(asyncio, "sleep", write_on)
    await tokens.refresh()
    assert tokens.revoked(identified(token))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o777])
def test_a_file_that_others_may_read_or_write_is_refused(path: Path, mode: int) -> None:
    added(path)
    path.chmod(mode)
    with pytest.raises(CannotStart, match="chmod 600"):
        TokensFile(path)
    with pytest.raises(TokensFileUnusable):
        append(path, "x")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_somebody_else_is_refused(path: Path) -> None:
    added(path)
    os.chown(path, 12345, -1)
    with pytest.raises(CannotStart, match="belongs to user 12345"):
        TokensFile(path)


def test_a_link_in_its_place_and_no_file_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="No such file"):
        TokensFile(path)
    added(tmp_path / "real")
    path.symlink_to(tmp_path / "real")
    with pytest.raises(CannotStart, match=r"--tokens-file.*is a symbolic link, which is not followed"):
        TokensFile(path)


def test_a_time_beyond_all_calendars_is_refused() -> None:
    with pytest.raises(ValueError, match="must be at most 36500d"):
        make("ada", "user", 1e12 * 86_400, datetime.now(UTC))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("short", "must be: id"),
        (f"UPPER123 {HASH} ada user", "must begin with an id"),
        (f"abcd2345 {HASH[:-1]} ada user", "must begin with an id"),
        (f"abcd2345 {HASH} issuer:ada user", "no colon"),
        (f"abcd2345 {HASH} a\u202eda user", "printable"),
        (f"abcd2345 {HASH} {'a' * 256} user", "255 bytes"),
        (f"abcd2345 {HASH} ada root", "no role 'root'"),
        (f"abcd2345 {HASH} ada user expires=soon", "no date"),
        (f"abcd2345 {HASH} ada user expires=2026-01-01T00:00:00", "no zone"),
        (f"abcd2345 {HASH} ada user expires=2026-01-01 expires=2027-01-01", "each once"),
        (f"abcd2345 {HASH} ada user colour=red", "each once"),
        (
            f"a2345678 {HASH} ada user quota=a\nb2345678 {HASH} ada user quota=b",
            "line 2: another line gives ada quota=a",
        ),
        (f"abcd2345 {HASH} ada user\nabcd2345 {HASH} bob user", "line 2: the id abcd2345 is there twice"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(line: str, says: str) -> None:
    with pytest.raises(TokensFileUnusable, match=says):
        parse(line)


def test_comments_and_options_are_read() -> None:
    tokens = parse(f"# who\n\nabcd2345 {HASH} ada user,upload.audit expires=2026-12-31 quota=large\n")
    identity = tokens["abcd2345"].identity
    assert tokens["abcd2345"].quota == "large"
    assert identity.expires_at == datetime(2026, 12, 31, tzinfo=UTC).timestamp()
    assert identity.roles == frozenset({"user", "upload.audit"})


def parsed_quotas(text: str) -> dict[str, Quota]:
    """Of lines of a name and a number of calls."""
    return {name: Quota(calls=float(calls)) for name, calls in (line.split() for line in text.splitlines())}


@pytest.fixture
def quotas_file(tmp_path: Path) -> QuotasFile:
    path = tmp_path / "quotas"
    path.touch(0o600)
    path.write_text("large 100\n")
    return QuotasFile(path, parsed_quotas)


def named(path: Path, principal: str, quota: str) -> None:
    append(path, make(principal, "user", None, NOW, quota)[1])


async def test_a_principal_has_the_quotas_that_its_tokens_name_as_they_are_now(
    path: Path, quotas_file: QuotasFile
) -> None:
    named(path, "ada", "large")
    added(path, "ada")
    added(path, "bob")
    tokens = TokensFile(path, Clock(), quotas_file)
    assert (tokens.quota_of("ada"), tokens.quota_of("bob")) == (Quota(calls=100), None)
    quotas_file.path.write_text("large 200000\n")
    await tokens.refresh()
    assert tokens.quota_of("ada") == Quota(calls=200000)
    named(path, "bob", "small")
    await tokens.refresh()
    assert tokens.quota_of("bob") is None
    # The tokens file is tried again once the quotas are there.
    quotas_file.path.write_text("large 200000\nsmall 1\n")
    await tokens.refresh()
    assert tokens.quota_of("bob") == Quota(calls=1)


async def test_quotas_that_cannot_be_taken_later_change_nothing(path: Path, quotas_file: QuotasFile) -> None:
    named(path, "ada", "large")
    tokens = TokensFile(path, Clock(), quotas_file)
    quotas = quotas_file.path
    for spoil in (
        lambda: quotas.write_text("large many\n"),
        lambda: quotas.write_text("small 1\n"),
        lambda: quotas.chmod(0o666),
        quotas.unlink,
    ):
        spoil()
        await tokens.refresh()
        assert tokens.quota_of("ada") == Quota(calls=100)


def test_a_start_is_refused_with_quotas_that_are_not_there_or_cannot_be_read(
    path: Path, quotas_file: QuotasFile
) -> None:
    named(path, "ada", "small")
    for given in (None, quotas_file):
        with pytest.raises(CannotStart, match=r"--tokens-file: .* has quota=small, which --quotas-file does not name"):
            TokensFile(path, Clock(), given)
    quotas_file.path.write_text("small many\n")
    with pytest.raises(CannotStart, match=r"--quotas-file: .*quotas: .*'many'"):
        TokensFile(path, Clock(), quotas_file)
    quotas_file.path.chmod(0o666)
    with pytest.raises(CannotStart, match=r"--quotas-file: .*quotas: .*chmod 600"):
        TokensFile(path, Clock(), quotas_file)


def test_a_line_that_contradicts_another_is_not_appended(path: Path) -> None:
    named(path, "ada", "large")
    before = path.read_text()
    with pytest.raises(TokensFileUnusable, match="line 2: another line gives ada quota=large"):
        named(path, "ada", "small")
    assert path.read_text() == before
