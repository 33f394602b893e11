"""The parts of uploadctl that need no server: arguments, plans, exit codes, texts."""

from __future__ import annotations

import inspect
import io
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from upload import errors
from upload.cancelling import CancelledFile
from upload.cli.arguments import parse
from upload.cli.exits import EXIT_CODES, Exit, exit_of, worst
from upload.cli.output import (
    Output,
    as_json,
    audit_line,
    batch_line,
    file_line,
    outcome_json,
    printable,
    size_text,
    visible,
)
from upload.cli.plan import plan
from upload.statuses import upload_cancelled
from upload.v1 import upload_pb2 as pb


@pytest.mark.parametrize(
    "line",
    [
        "",
        "upload",
        "cancel",
        "watch",
        "watch --all x",
        "watch --all --until-final",
        "list --status gone",
        "list --limit -1",
        "upload a b --resume x",
        "upload a b --name x",
        "upload a --resume-batch x",
        "upload a --jobs 0",
        "get x --timeout 0",
        "get x --timeout soon",
        "get x --timeout nan",
        "get x --timeout inf",
        "list --lim 5",
        "--serv a:1 list",
    ],
)
def test_wrong_usage_leaves_with_2(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse(line.split())
    assert left.value.code == Exit.USAGE
    assert "uploadctl" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["--json --server a:1 list", "list --json --server a:1", "--json list --server a:1"])
def test_common_options_go_before_and_after_the_command(line: str) -> None:
    arguments = parse(line.split())
    assert (arguments.json, arguments.server, arguments.timeout) == (True, "a:1", 30.0)


def test_the_server_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPLOAD_SERVER", raising=False)
    assert parse(["list"]).server == "localhost:50051"
    monkeypatch.setenv("UPLOAD_SERVER", "there:1")
    assert parse(["list"]).server == "there:1"
    assert parse(["--server", "here:2", "list"]).server == "here:2"


def test_every_exit_code_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for line in (["--help"], ["cancel", "--help"]):
        with pytest.raises(SystemExit):
            parse(line)
        assert EXIT_CODES in capsys.readouterr().out
    documented = {int(code) for code in re.findall(r"\b\d+\b", EXIT_CODES)}
    assert documented == {code.value for code in Exit} - {Exit.PIPE_CLOSED}


def test_every_error_has_its_exit_code() -> None:
    kinds = [
        kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.UploadServiceError)
    ]
    codes = {kind.__name__: exit_of(kind("x")) for kind in kinds}
    server = {name for name, code in codes.items() if code is Exit.SERVER_ERROR}
    assert server == {
        "UploadServiceError",
        "_Stated",
        "ServerFailure",
        "DatabaseFailure",
        "StorageFailure",
        "StorageFull",
        "OutcomeUnknown",
        "InternalError",
        "UnexpectedMessage",
    }
    assert codes["ServerUnreachable"] is Exit.UNREACHABLE
    assert codes["ChecksumMismatch"] is Exit.FAILED
    assert exit_of(FileNotFoundError()) is Exit.FAILED


def test_the_worst_of_many_codes_counts() -> None:
    assert worst([]) is Exit.OK
    assert worst([Exit.OK, Exit.CANCELLED]) is Exit.CANCELLED
    assert worst([Exit.FAILED, Exit.CANCELLED, Exit.OK]) is Exit.FAILED


def test_every_class_of_the_contract_is_found_by_its_reason() -> None:
    contract = set(
        re.findall(
            r"\w+",
            """
            FILE_NOT_FOUND BATCH_NOT_FOUND FILE_NOT_CANCELLABLE BATCH_NOT_CANCELLABLE FILE_NOT_WRITABLE
            UPLOAD_CANCELLED WRITER_REPLACED OFFSET_MISMATCH UPLOAD_INCOMPLETE SIZE_EXCEEDED CHECKSUM_MISMATCH
            UNEXPECTED_MESSAGE INVALID_FIELD REQUEST_ID_REUSED OVERLOADED UPLOAD_IDLE SHUTTING_DOWN
            DATABASE_FAILURE STORAGE_FAILURE STORAGE_FULL OUTCOME_UNKNOWN INTERNAL
            """,
        )
    )
    assert contract <= set(errors.BY_REASON)
    for reason in contract:
        assert errors.BY_REASON[reason].advice, reason


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "two.txt").write_text("22")
    (folder / "a.txt").write_text("1")
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to(folder)
    return folder


def test_a_file_alone_is_no_batch(tree: Path) -> None:
    alone = plan([tree / "a.txt"])
    assert (alone.batch, alone.items[0].name, alone.size_bytes) == (False, "a.txt", 1)
    assert plan([tree / "a.txt"], "other").items[0].name == "other"


def test_a_folder_is_a_batch_of_its_regular_files(tree: Path) -> None:
    folder = plan([tree])
    assert folder.batch
    assert [(item.name, item.size_bytes) for item in folder.items] == [("a.txt", 1), ("b/two.txt", 2)]
    assert folder.size_bytes == 3


def test_names_are_composed_as_the_service_asks(tmp_path: Path) -> None:
    path = tmp_path / "u\u0308ber.txt"
    path.touch()
    assert plan([path]).items[0].name == "\u00fcber.txt"


def test_files_of_one_name_are_called_by_what_tells_them_apart(tmp_path: Path) -> None:
    for folder in ("one/a", "two/a", "b"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x").write_text(folder)
    given = [tmp_path / "one" / "a" / "x", tmp_path / "two" / "a" / "x", tmp_path / "b" / "x"]
    names = {item.path: item.name for item in plan(given).items}
    assert list(names.values()) == ["one/a/x", "two/a/x", "b/x"]
    # Whatever the order, a name means one source: a batch is resumed by names.
    assert {item.path: item.name for item in plan(given[::-1]).items} == names
    folders = plan([tmp_path / "one" / "a", tmp_path / "two" / "a"])
    assert [item.name for item in folders.items] == ["one/a/x", "two/a/x"]


def test_twins_are_refused_before_anything_is_announced(tmp_path: Path) -> None:
    for spelling in ("\u00fc", "u\u0308"):
        (tmp_path / spelling).touch()
    with pytest.raises(OSError, match="would have one name on the server"):
        plan([tmp_path])
    with pytest.raises(OSError, match="would have one name on the server"):
        plan([tmp_path / "\u00fc", tmp_path / "\u00fc"])


@pytest.mark.parametrize("name", ["album/pipe", "none"])
def test_what_is_no_file_is_refused(tree: Path, name: str) -> None:
    with pytest.raises(OSError, match=r"not a file|No such file"):
        plan([tree.parent / name])


def test_a_batch_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upload.cli.plan.MAX_BATCH_FILES", 2)
    for number in range(3):
        (tmp_path / str(number)).touch()
    with pytest.raises(OSError, match="More than 2 files"):
        plan([tmp_path])


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 * 1024**3, "3.0 GiB"), (1024**5, "1024.0 TiB")],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert size_text(count) == text


VISIBLE = json.loads((Path(__file__).parents[1] / "visible.json").read_text())


@pytest.mark.parametrize(("text", "shown"), VISIBLE)
def test_what_is_invisible_in_a_text_of_others_is_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


@pytest.mark.parametrize("text", [text for text, _ in VISIBLE])
def test_a_json_line_hides_nothing_and_is_the_same_value(text: str) -> None:
    out = io.StringIO()
    Output(json_lines=True, out=out).result({"filename": text}, "")
    (line,) = out.getvalue().splitlines()
    assert json.loads(line) == {"filename": text}
    assert line == printable(line)


def test_no_text_can_steer_a_terminal() -> None:
    assert printable("a\x1b[2Jb\r\nü\u202e") == "a\\u001b[2Jb\\u000d\\u000aü\\u202e"
    file = pb.File(filename="\x1b]0;x\x07")
    out, err = io.StringIO(), io.StringIO()
    output = Output(json_lines=False, out=out, err=err)
    output.result({}, file_line(file))
    output.details(as_json(file))
    output.note("x", file.filename)
    output.error(errors.FileNotFound(file.filename))
    assert "\x1b" not in out.getvalue() + err.getvalue()


def test_json_has_words_numbers_and_nulls() -> None:
    file = pb.File(file_id="f", size_bytes=2**40, status=pb.UPLOAD_STATUS_CANCELLED)
    file.cancelled_at.FromDatetime(datetime(2024, 1, 1, 12, 0, 0, 500_000))  # noqa: DTZ001 - protobuf's are naive UTC
    values = json.loads(json.dumps(as_json(file)))
    assert values["status"] == "cancelled"
    assert values["size_bytes"] == 2**40
    assert (values["cancelled_at"], values["completed_at"]) == ("2024-01-01T12:00:00.500Z", None)
    assert as_json(pb.Batch(status=pb.BATCH_STATUS_PROCESSING))["status"] == "processing"


def test_outcomes_and_lines_tell_who_and_why() -> None:
    outcome = CancelledFile("f", "a", datetime(2024, 1, 1, 12, tzinfo=UTC), already=True, cancelled_by="user")
    assert outcome_json(outcome)["cancelled_at"] == "2024-01-01T12:00:00Z"
    cancelled = pb.Batch(batch_id="b", status=pb.BATCH_STATUS_CANCELLED, cancelled_by="user", cancel_reason="late")
    assert batch_line(cancelled).endswith("0 cancelled of 0  (by user: late)")
    lost = pb.File(
        status=pb.UPLOAD_STATUS_CANCELLED, cancelled_by="websocket_close", cancel_reason="the page was closed"
    )
    assert file_line(lost).endswith("  (with its page's connection: the page was closed)")
    assert str(upload_cancelled(lost)).startswith("The upload was cancelled with its page's connection (the page was")
    failed = pb.File(file_id="f", status=pb.UPLOAD_STATUS_FAILED, failure_reason="expired")
    assert file_line(failed).endswith("(expired)")
    event = pb.AuditEvent(batch_id="b", to_status="pending", actor="user", source="grpc", reason="why")
    assert "batch b  (new) -> pending" in audit_line(event)


def test_an_error_is_one_sentence_that_says_what_to_do() -> None:
    error = errors.FileNotFound("No file has this id", metadata={"file_id": "f"})
    assert str(error) == "No file has this id; check the id and the server it was made on."
    out, err = io.StringIO(), io.StringIO()
    Output(json_lines=True, out=out, err=err).error(error)
    assert json.loads(err.getvalue())["error"]["metadata"] == {"file_id": "f"}
