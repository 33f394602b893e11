"""Nothing a caller sends can forge a line or a field of the log (promise R32)."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from upload_server.process import configure_logging, info_writer
from upload_server.process.logging import MAX_TEXT, MAX_TRACEBACK, safe_text

HOSTILE = [
    "a\n2024-01-01T00:00:00Z INFO     file.changed file_id=forged",
    "a\r\nforged",
    "a\x1b[2K\x1b[1;31mforged",
    "a\x00b",
    "a\u2028b\u2029c\x85d",
    "a\u202egnp.exe",
    "a\x9b31mb",
    "lone \ud800 surrogate",
    'a" actor="admin',
    "a actor=admin",
    'a","actor":"admin',
    "\\",
    '\\" actor=admin',
    "",
    "x" * 100_000,
]


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    yield stream
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    for handler in before[0]:
        root.addHandler(handler)
    root.setLevel(before[1])
    structlog.reset_defaults()


def fields_of(line: str) -> dict[str, str]:
    """Read a human line back, as an honest parser would."""
    pairs = re.findall(r' ([A-Za-z_.]+)=("(?:[^"\\]|\\.)*"|[^ "]*)(?= |$)', line)
    return dict(pairs)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_json_line_is_one_object_with_the_fields_we_gave(lines: io.StringIO, text: str) -> None:
    configure_logging(json=True, level="info", stream=lines)
    structlog.get_logger().info("file.changed", reason=text, file_id="f1")
    written = lines.getvalue()
    assert written.count("\n") == 1
    assert written.isascii()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", written)
    assert json.loads(written).keys() == {"timestamp", "level", "event", "reason", "file_id"}
    assert len(json.loads(written)["reason"]) <= MAX_TEXT + 20


@pytest.mark.parametrize("text", HOSTILE)
def test_a_human_line_is_one_line_with_the_fields_we_gave(lines: io.StringIO, text: str) -> None:
    configure_logging(json=False, level="info", stream=lines)
    structlog.get_logger().info("file.changed", reason=text, file_id="f1")
    written = lines.getvalue()
    assert written.count("\n") == 1
    assert len(written.splitlines()) == 1  # by Unicode's idea of a line, too
    assert "\x1b" not in written
    assert fields_of(written.rstrip("\n")).keys() == {"reason", "file_id"}


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("text", HOSTILE)
def test_lines_of_libraries_are_made_safe_as_well(lines: io.StringIO, text: str, *, as_json: bool) -> None:
    configure_logging(json=as_json, level="info", stream=lines)
    logging.getLogger("some.library").warning("got %s", text)
    written = lines.getvalue()
    assert len(written.splitlines()) == 1
    if as_json:
        assert json.loads(written).keys() == {"timestamp", "level", "event", "logger"}
    else:
        assert fields_of(written.rstrip("\n")).keys() <= {"logger"}


@pytest.mark.parametrize("text", HOSTILE)
def test_a_traceback_cannot_pass_for_lines_of_the_log(lines: io.StringIO, text: str) -> None:
    configure_logging(json=False, level="info", stream=lines)
    try:
        raise ValueError(text)
    except ValueError:
        structlog.get_logger().exception("failed")
    first, *rest = lines.getvalue().rstrip("\n").split("\n")
    assert first.endswith("failed")
    assert rest
    assert all(line.startswith("    | ") for line in rest)
    assert len(lines.getvalue()) < MAX_TRACEBACK + 20_000


@given(st.text(), st.dictionaries(st.text(max_size=5), st.text(), max_size=3), st.binary(max_size=20))
def test_any_value_leaves_one_line(text: str, nested: dict[str, str], raw: bytes) -> None:
    stream = io.StringIO()
    try:
        for as_json in (True, False):
            configure_logging(json=as_json, level="info", stream=stream)
            structlog.get_logger().info("event", text=text, nested=nested, raw=raw, many=[text, nested])
    finally:
        structlog.reset_defaults()
        logging.getLogger().handlers.clear()
    assert len(stream.getvalue().splitlines()) == 2


@given(st.text())
def test_safe_text_holds_no_control_and_keeps_plain_text(text: str) -> None:
    safe = safe_text(text)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", safe)
    if text.isascii() and text.isprintable():
        assert safe == text
    safe.encode()


def test_every_character_that_hides_or_reorders_text_is_escaped() -> None:
    kinds = {"Cc", "Cs", "Zl", "Zp"}
    hiding = {0xAD, 0x61C, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070)}
    hiding |= {*range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080)}
    passed = [hex(code) for code in range(sys.maxunicode + 1) if safe_text(chr(code)) == chr(code)]
    assert [c for c in passed if int(c, 16) in hiding or unicodedata.category(chr(int(c, 16))) in kinds] == []


def test_values_of_other_kinds_keep_their_kind_in_json(lines: io.StringIO) -> None:
    configure_logging(json=True, level="info", stream=lines)
    structlog.get_logger().info("event", count=3, seconds=0.5, ok=True, nothing=None, ids=["a", "b"])
    line: dict[str, Any] = json.loads(lines.getvalue())
    assert (line["count"], line["seconds"], line["ok"], line["nothing"], line["ids"]) == (
        3,
        0.5,
        True,
        None,
        ["a", "b"],
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"])


def test_the_level_holds_for_ours_and_for_libraries(lines: io.StringIO) -> None:
    configure_logging(json=True, level="warning", stream=lines)
    structlog.get_logger().info("quiet")
    logging.getLogger("some.library").info("quiet")
    structlog.get_logger().warning("loud")
    assert json.loads(lines.getvalue())["event"] == "loud"


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown log level 'lodu'"):
        configure_logging(json=True, level="lodu")


def test_without_a_terminal_lines_are_json(lines: io.StringIO) -> None:
    configure_logging(json=None, level="info", stream=lines)
    structlog.get_logger().info("event")
    json.loads(lines.getvalue())


class _Broken(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError


@pytest.mark.usefixtures("lines")
def test_a_stream_that_is_gone_breaks_nobodys_work() -> None:
    configure_logging(json=True, level="info", stream=_Broken())
    structlog.get_logger().info("event")


_FACTS = st.text() | st.sampled_from(HOSTILE) | st.integers() | st.floats(allow_nan=False) | st.none() | st.booleans()


@given(facts=st.dictionaries(st.sampled_from(["file_id", "from", "reason", "latency_ms"]), _FACTS))
@pytest.mark.parametrize("json_lines", [True, False])
def test_a_line_made_by_hand_is_that_of_structlog(json_lines: bool, facts: dict[str, Any]) -> None:
    stream = io.StringIO()
    try:
        configure_logging(json_lines, "info", stream)
        structlog.get_logger().info("status.changed", **facts)
        info_writer("status.changed")(facts)
    finally:
        structlog.reset_defaults()
    first, second = (re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "T", line, count=1) for line in stream.getvalue().splitlines())
    assert first == second


def test_a_line_made_by_hand_keeps_to_the_level(lines: io.StringIO) -> None:
    write = info_writer("status.changed")
    configure_logging(True, "warning", lines)
    write({"file_id": "a"})
    assert lines.getvalue() == ""
