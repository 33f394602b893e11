"""The parts of uploadctl that need no server: arguments, plans, exit codes, texts."""

from __future__ import annotations

import dataclasses
import inspect
import io
import json
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from clients.python.program import HEARS_CTRL_C
from upload import errors
from upload.cancelling import CancelledFile
from upload.cli.arguments import parse
from upload.cli.completion import completion
from upload.cli.exits import EXIT_CODES, Exit, exit_of, worst
from upload.cli.output import FORMATS, Output, as_json
from upload.cli.texts import audit_line, batch_line, file_line, printable, size_text, visible
from upload.cli.when import length, moment
from upload.plan import Skipped, name_problem, plan
from upload.records import AuditEvent, Batch, BatchStatus, File, UploadStatus, record
from upload.statuses import batch_status_number, status_number, upload_cancelled
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
        "list --status completed,gone",
        "list --since yesterday",
        "list --watch --oldest",
        "cancel a b --request-id x",
        "upload -",
        "upload - a --name x",
        "stats --window 5",
        "list -o xml",
        "list --header nothing",
        "list --header a-bin:x",
        "watch x --progress -1",
        "completion tcsh",
        "list --server there:1 --header authorization:x",
        "list --server https://h/path",
        # What a shell hands on of a byte that is no UTF-8.
        "get \udcff",
        "list --owner \udcff",
        "cancel x --reason \udcff",
        "list --server \udcff:1",
        "upload x --content-type \udcff",
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
    assert (arguments.output, arguments.server, arguments.timeout) == ("jsonl", "a:1", 30.0)


def test_headers_go_together_and_are_not_secrets_in_plain_text() -> None:
    arguments = parse(["--header", "X-Tenant: a", "list", "--header", "traceparent:00-1", "--server", "localhost:1"])
    assert arguments.metadata == (("x-tenant", "a"), ("traceparent", "00-1"))
    secret = ["list", "--server", "https://there:1", "--header", "Authorization: Bearer x"]
    assert parse(secret).metadata == (("authorization", "Bearer x"),)


@pytest.mark.parametrize(
    ("line", "meant"),
    [("cancle x", "cancel"), ("list --stauts pending", "--status"), ("get x --ouput json", "--output")],
)
def test_what_was_meant_is_said(line: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(line.split())
    assert capsys.readouterr().err.endswith(f"did you mean {meant}?\n")


def test_what_is_too_much_for_a_command_is_told_under_its_own_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["audit", "7d9c"])
    said = capsys.readouterr().err
    assert said.startswith("usage: uploadctl audit ")
    assert said.endswith("uploadctl audit: error: unrecognized arguments: 7d9c\n")


def test_times_are_written_as_people_do() -> None:
    then = moment("2h")
    ago = datetime.now(UTC) - then
    assert timedelta(hours=2) <= ago < timedelta(hours=2, minutes=1)
    assert moment("2024-01-31T12:00:00Z") == datetime(2024, 1, 31, 12, tzinfo=UTC)
    assert moment("2024-01-31").tzinfo is UTC
    assert [length(text) for text in ("90s", "1.5m", "1d")] == [timedelta(seconds=90)] * 2 + [timedelta(days=1)]


def test_version_and_help_are_commands_that_people_expect(capsys: pytest.CaptureFixture[str]) -> None:
    for line, shown in (["--version"], "uploadctl 0."), (["help", "cancel"], "usage: uploadctl cancel"):
        with pytest.raises(SystemExit) as left:
            parse(line)
        assert left.value.code == Exit.OK
        assert shown in capsys.readouterr().out


def test_bash_completes_commands_options_and_their_words(tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(completion("bash"))
    ask = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _uploadctl; echo "${COMPREPLY[@]}"'

    def completed(*words: str) -> list[str]:
        done = subprocess.run(["bash", "-c", ask, script, "uploadctl", *words], capture_output=True, check=True)
        return done.stdout.decode().split()

    assert completed("cancel-b") == ["cancel-batch"]
    assert completed("list", "--cancelled") == ["--cancelled-by"]
    assert completed("get", "x", "-o", "") == list(FORMATS)
    assert completed("completion", "z") == ["zsh"]
    assert "bashcompinit" in completion("zsh")
    assert "-a cancel-batch -d 'cancel batches" in completion("fish")


def test_the_server_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPLOAD_SERVER", raising=False)
    assert parse(["list"]).server == "localhost:50051"
    monkeypatch.setenv("UPLOAD_SERVER", "there:1")
    assert parse(["list"]).server == "there:1"
    assert parse(["--server", "here:2", "list"]).server == "here:2"


def test_ctrl_c_while_the_program_is_loaded_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "grpc.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(
        [*HEARS_CTRL_C, sys.executable, "-m", "upload", "list"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "")


def test_every_exit_code_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for line in (["--help"], ["cancel", "--help"]):
        with pytest.raises(SystemExit):
            parse(line)
        assert EXIT_CODES in capsys.readouterr().out
    documented = {int(code) for code in re.findall(r"\b\d+\b", EXIT_CODES)}
    assert documented == {code.value for code in Exit}


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
    (folder / "broken").symlink_to(folder / "nowhere")
    (folder / "dev\\x2d").touch()
    (folder / os.fsdecode(b"caf\xe9")).touch()
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
    assert {skipped.path.name: (skipped.why, skipped.is_file) for skipped in folder.skipped} == {
        "loop": ("is a link to a folder, which is not followed", False),
        "broken": ("is a link that leads nowhere", False),
        "pipe": ("is no regular file", False),
        "dev\\x2d": ("has a backslash in its name", True),
        "caf\udce9": ("has a name that is not UTF-8", True),
    }


def test_a_name_is_bounded_by_segment_and_as_a_whole(tmp_path: Path) -> None:
    deep = "/".join(["\u042f" * 255] * 8)
    assert name_problem(deep) == ""
    assert "255 characters in one segment" in name_problem("\u042f" * 256)
    assert "4096 bytes" in name_problem(f"{deep}/{'x' * 20}")
    (tmp_path / "a\\b").touch()
    with pytest.raises(OSError, match=r"a\\b has a backslash in its name; --name gives it another one"):
        plan([tmp_path / "a\\b"])


def test_what_cannot_be_read_of_a_folder_is_left_out(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The user who runs the tests may read everything.
    monkeypatch.setattr("os.access", lambda path, _: path.name != "two.txt")
    found = plan([tree])
    assert [item.name for item in found.items] == ["a.txt"]
    assert Skipped(tree / "b" / "two.txt", "cannot be read: Permission denied", is_file=True) in found.skipped


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
    Output("jsonl", out=out).result({"filename": text}, "")
    (line,) = out.getvalue().splitlines()
    assert json.loads(line) == {"filename": text}
    assert line == printable(line)


def test_no_text_can_steer_a_terminal() -> None:
    assert printable("a\x1b[2Jb\r\nü\u202e") == "a\\u001b[2Jb\\u000d\\u000aü\\u202e"
    file = record(File, pb.File(filename="\x1b]0;x\x07"))
    out, err = io.StringIO(), io.StringIO()
    output = Output(out=out, err=err)
    output.result({}, file_line(file))
    output.details(as_json(file))
    output.note("x", file.filename)
    output.error(errors.FileNotFound(file.filename))
    assert "\x1b" not in out.getvalue() + err.getvalue()


def test_json_has_words_numbers_and_nulls() -> None:
    file = pb.File(file_id="f", size_bytes=2**40, status=pb.UPLOAD_STATUS_CANCELLED)
    file.cancelled_at.FromDatetime(datetime(2024, 1, 1, 12, 0, 0, 500_000))  # noqa: DTZ001 - protobuf's are naive UTC
    values = json.loads(json.dumps(as_json(record(File, file))))
    assert values["status"] == "cancelled"
    assert values["size_bytes"] == 2**40
    assert (values["cancelled_at"], values["completed_at"]) == ("2024-01-01T12:00:00.500Z", None)
    assert as_json(record(Batch, pb.Batch(status=pb.BATCH_STATUS_PROCESSING)))["status"] == "processing"


def test_records_have_every_field_and_their_words_go_in_as_they_come_out() -> None:
    for kind, message in (File, pb.File), (Batch, pb.Batch), (AuditEvent, pb.AuditEvent):
        assert [field.name for field in dataclasses.fields(kind)] == list(message.DESCRIPTOR.fields_by_name)
    for words, number in (UploadStatus, status_number), (BatchStatus, batch_status_number):
        known = [word for word in words if word != "unspecified"]
        assert len({number(word) for word in known}) == len(known) == 5
    found = record(File, pb.File(status=pb.UPLOAD_STATUS_FAILED, revision=7))
    assert (found.status, found.status.final, found.completed_at) == (UploadStatus.FAILED, True, None)
    # Of a newer service.
    newer = pb.File.FromString(b"\x30\x63")
    assert record(File, newer).status is UploadStatus.UNSPECIFIED
    found_at = pb.Batch()
    found_at.created_at.FromJsonString("2024-01-01T12:00:00.500Z")
    assert record(Batch, found_at).created_at == datetime(2024, 1, 1, 12, 0, 0, 500_000, tzinfo=UTC)


@pytest.mark.parametrize("fmt", ["json", "yaml", "jsonl"])
@pytest.mark.parametrize("count", [None, 0, 1, 2])
def test_json_and_yaml_are_one_document(fmt: str, count: int | None) -> None:
    values = {"filename": "a: \U0001d159\u202e\n- 'b'", "size_bytes": 5, "cancelled_at": None, "roles": ["x"]}
    out = io.StringIO()
    output = Output(fmt, out=out)
    output.many = count is not None
    for _ in range(1 if count is None else count):
        output.result(values, "")
    output.close()
    text = out.getvalue()
    if fmt == "jsonl":
        assert [json.loads(line) for line in text.splitlines()] == [values] * (1 if count is None else count)
        return
    read = json.loads(text) if fmt == "json" else yaml.safe_load(text)
    assert read == (values if count is None else [values] * count)
    assert "\u202e" not in text


def test_outcomes_and_lines_tell_who_and_why() -> None:
    outcome = CancelledFile("f", "a", datetime(2024, 1, 1, 12, tzinfo=UTC), already=True, cancelled_by="user")
    assert as_json(outcome)["cancelled_at"] == "2024-01-01T12:00:00Z"
    cancelled = pb.Batch(batch_id="b", status=pb.BATCH_STATUS_CANCELLED, cancelled_by="user", cancel_reason="late")
    assert batch_line(record(Batch, cancelled)).endswith("0 cancelled of 0  (by user: late)")
    lost = pb.File(
        status=pb.UPLOAD_STATUS_CANCELLED, cancelled_by="websocket_close", cancel_reason="the page was closed"
    )
    assert file_line(record(File, lost)).endswith("  (with its page's connection: the page was closed)")
    assert str(upload_cancelled(lost)).startswith("The upload was cancelled with its page's connection (the page was")
    failed = pb.File(file_id="f", status=pb.UPLOAD_STATUS_FAILED, failure_reason="expired")
    assert file_line(record(File, failed)).endswith("(expired)")
    event = pb.AuditEvent(batch_id="b", to_status="pending", actor="user", source="grpc", reason="why")
    assert "(new) -> pending" in audit_line(record(AuditEvent, event))


def test_an_error_is_one_sentence_that_says_what_to_do() -> None:
    error = errors.FileNotFound("No file has this id", metadata={"file_id": "f"})
    assert str(error) == "No file has this id; check the id and the server it was made on."
    out, err = io.StringIO(), io.StringIO()
    Output("jsonl", out=out, err=err).error(error)
    assert json.loads(err.getvalue())["error"]["metadata"] == {"file_id": "f"}
