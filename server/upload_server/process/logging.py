"""Decides how a log line looks: human-readable on a terminal, one JSON object otherwise.

Must not trust what it prints: nothing a caller sends may forge a line or field. Every text is escaped and cut before a
renderer sees it, for our own lines and for those of the libraries alike.
"""

from __future__ import annotations

import json as json_format
import logging
import re
import sys
import threading
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

# Longest text of one field, in characters; what is cut away is counted at the end.
MAX_TEXT: Final = 1_000
# Longest traceback, in characters; its end is kept, since that names the error.
MAX_TRACEBACK: Final = 16_000
MAX_ITEMS: Final = 20
MAX_DEPTH: Final = 3

# Everything that can end a line, move a cursor, hide or reorder text: C0, DEL, C1, the Unicode line and paragraph
# separators, zero-width and bidirectional controls, tags, and lone surrogates (which cannot be encoded at all).
_CONTROLS: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_CONTROLS_BUT_NEWLINE: Final = re.compile(_CONTROLS.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))
# A value made of these alone cannot be mistaken for anything but one value.
_BARE: Final = re.compile(r"[\w.:/@+,-]+\Z")
_BARE_EVENT: Final = re.compile(r"[\w.:/@+,;()' -]+\Z")
_LEADING: Final = ("timestamp", "level", "event", "exception", "stack")


class LogStream(Protocol):
    """What lines are written to: a text stream, or one that writes in the background."""

    def write(self, text: str, /) -> int:
        """Take a text."""

    def flush(self) -> None:
        """See that it is written."""

    def isatty(self) -> bool:
        """Whether a person reads."""


def configure_logging(json: bool | None, level: str | int, stream: LogStream | None = None) -> None:
    """Send the program's log lines, and those of the libraries, to ``stream`` (standard error by default).

    ``json`` None means: human-readable when the stream is a terminal, JSON otherwise. ``level`` is a name such as
    ``info`` or a number of the standard library; raises ValueError for an unknown name.
    """
    target = stream if stream is not None else sys.stderr
    number = _level_number(level)
    render: Processor = render_json if (json if json is not None else not target.isatty()) else render_human
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        make_safe,
    ]
    writer = LineWriter(target)
    global _json_writer  # noqa: PLW0603 - as structlog's own configuration, it is the process's
    _json_writer = writer if render is render_json and number <= logging.INFO else None
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=False,
    )
    _route_standard_library(target, number, shared, render)


# What lines of JSON at INFO are written to; None while there are none.
_json_writer: LineWriter | None = None


def info_writer(event: str) -> Callable[[Mapping[str, object]], None]:
    """Return what writes a line of ``event`` at INFO with some facts, whose names are plain words.

    The line is the one that structlog would write, in a quarter of its time: for what is logged with each change.
    """
    log = structlog.get_logger().bind()
    name = _encode(safe_text(event))

    def write(facts: Mapping[str, object]) -> None:
        if _json_writer is None:
            log.info(event, **facts)
            return
        line = f'{{"timestamp":"{datetime.now(UTC).isoformat()[:-6]}Z","level":"info","event":{name}'
        for key, value in facts.items():
            text = _quote(safe_text(value)) if type(value) is str else _encode(_safe_value(value, MAX_DEPTH))
            line += f',"{key}":{text}'
        _json_writer.msg(line + "}")

    return write


class LineWriter:
    """Writes whole lines to a stream, from any thread; a stream that is gone never breaks the work that logs."""

    def __init__(self, stream: LogStream) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def msg(self, line: str) -> None:
        """Write one line and flush it."""
        try:
            with self._lock:
                self._stream.write(line + "\n")
                self._stream.flush()
        except (OSError, ValueError):
            # A closed pipe (OSError), a closed or narrow stream (ValueError): there is nobody left to tell.
            pass

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def _level_number(level: str | int) -> int:
    if isinstance(level, int):
        return level
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"unknown log level {level!r}")
    return number


def _route_standard_library(target: LogStream, level: int, shared: list[Processor], render: Processor) -> None:
    """Give the root logger the same shape, and take from the libraries whatever handlers they brought."""
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared], processors=[remove_meta, render]
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "grpc", "peewee"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        # They tell of connections and statements; ours tells of uploads.
        library.setLevel(max(level, logging.WARNING))


def make_safe(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:  # noqa: ARG001 - structlog's shape
    """Escape and cut every text of a line; a structlog processor."""
    safe: dict[str, Any] = {}
    for key, value in event.items():
        if key.startswith("_"):  # structlog's own, removed before rendering
            safe[key] = value
        elif key in {"exception", "stack"}:
            text = _escape(str(value), _CONTROLS_BUT_NEWLINE)
            safe[key] = text if len(text) <= MAX_TRACEBACK else "…" + text[-MAX_TRACEBACK:]
        else:
            safe[safe_text(key)] = _safe_value(value, MAX_DEPTH)
    return safe


def safe_text(text: str) -> str:
    """Return ``text`` without control characters (escaped, to stay readable) and cut to ``MAX_TEXT``."""
    # What Python calls printable has none of them, and is known at once.
    if len(text) <= MAX_TEXT and text.isprintable():
        return text
    cut = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…(+{len(text) - MAX_TEXT})"
    return _escape(cut, _CONTROLS)


def _escape(text: str, controls: re.Pattern[str]) -> str:
    return controls.sub(_escaped, text) if controls.search(text) else text


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code <= 0xFF:  # noqa: PLR2004 - two hex digits hold this much
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - and four this


def _safe_value(value: object, depth: int) -> object:
    if isinstance(value, str):
        return safe_text(str(value))
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth > 0 and isinstance(value, Mapping):
        items = list(value.items())[:MAX_ITEMS]
        return {safe_text(str(key)): _safe_value(item, depth - 1) for key, item in items}
    if depth > 0 and isinstance(value, list | tuple | set | frozenset):
        return [_safe_value(item, depth - 1) for item in list(value)[:MAX_ITEMS]]
    return safe_text(str(value))


_quote: Final[Callable[[str], str]] = json_format.encoder.encode_basestring_ascii
_encode: Final[Callable[[object], str]] = json_format.JSONEncoder(
    ensure_ascii=True, separators=(",", ":"), default=str
).encode


def render_json(logger: WrappedLogger, method: str, event: MutableMapping[str, Any]) -> str:  # noqa: ARG001
    """One JSON object in ASCII, without a line break; a structlog processor."""
    leading = {key: event[key] for key in ("timestamp", "level", "event") if key in event}
    return _encode({**leading, **event})


def render_human(logger: WrappedLogger, method: str, event: MutableMapping[str, Any]) -> str:  # noqa: ARG001
    """``time LEVEL event key=value …``; what is no plain word is quoted. A structlog processor."""
    name = str(event.get("event", ""))
    parts = [str(event.get("timestamp", "")), f"{event.get('level', '')!s:<8}".upper()]
    parts.append(name if _BARE_EVENT.match(name) else _quoted(name))
    parts.extend(f"{key}={_bare_or_quoted(value)}" for key, value in event.items() if key not in _LEADING)
    lines = [" ".join(parts)]
    # A traceback holds texts of others: its lines are marked, so that none can pass for a line of the log.
    for key in ("stack", "exception"):
        if key in event:
            lines.extend(f"    | {line}" for line in str(event[key]).split("\n"))
    return "\n".join(lines)


def _bare_or_quoted(value: object) -> str:
    text = value if isinstance(value, str) else _encode(value)
    return text if _BARE.match(text) else _quoted(text)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
