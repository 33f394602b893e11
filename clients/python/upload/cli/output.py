"""Decides where and in which format results, notes and errors go: text for people, JSON or YAML for programs.

JSON has the contract's field names and lower-case state words; numbers are numbers, absent times are null.
"""

from __future__ import annotations

import codecs
import dataclasses
import json
import os
import re
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

from upload.cli.texts import escaped, printable, rfc3339, sentence, visible
from upload.errors import UploadServiceError

if TYPE_CHECKING:
    from rich.console import Console

Json = Mapping[str, object]
FORMATS = ("table", "json", "jsonl", "yaml")
_PAIR = re.compile(r"\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})")


def as_json(record: Any) -> dict[str, object]:
    """Return a record of the client as JSON values."""
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return {name: _value(value) for name, value in values.items()}


def _value(value: object) -> object:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, tuple):
        return [_value(item) for item in value]
    return as_json(value) if dataclasses.is_dataclass(value) else value


def error_json(error: Exception) -> dict[str, object]:
    """Return an error as JSON values."""
    if isinstance(error, UploadServiceError):
        return {"reason": error.reason, "message": str(error), "metadata": error.metadata}
    return {"reason": type(error).__name__, "message": sentence(error), "metadata": {}}


class Output:
    """Writes results to stdout and everything else to stderr, each line at once.

    ``json`` and ``yaml`` are one document: of an only result that result, of ``many`` a list. ``jsonl`` is a line for
    each. What cannot be encoded stands as JSON escapes it, in JSON and in text.
    """

    def __init__(self, fmt: str = "table", *, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.format = fmt
        # Whether the command may show any number of results.
        self.many = False
        # Whether results get lost must stop the command, since it does nothing else than show them.
        self.must_show = True
        # What drew the bars on this terminal: whoever writes past it writes over them.
        self.screen: Console | None = None
        self.lost: OSError | None = None
        self._shown = 0
        self._out = _lenient(out or sys.stdout)
        self._err = _lenient(err or sys.stderr)

    @property
    def terminal(self) -> bool:
        """Whether a person reads the results."""
        return self._out.isatty() and self.format == "table"

    @property
    def live(self) -> bool:
        """Whether a person reads the notes."""
        return self._err.isatty() and self.format == "table"

    def head(self, line: str) -> None:
        """Write what the columns are called, on a terminal."""
        if self.terminal:
            self._write(line)

    def result(self, values: Json, text: str) -> None:
        """Write one result: its values, or its text."""
        match self.format:
            case "table":
                self._write(printable(text))
            case "jsonl":
                self._write(_json(values))
            case "json":
                lead = "" if not self.many else ",\n" if self._shown else "[\n"
                indent = None if self.many else 2
                self._write(lead + _json(values, indent), end="" if self.many else "\n")
            case _:
                self._write(_yaml(values, "- " if self.many else ""))
        self._shown += 1

    def script(self, text: str) -> None:
        """Write what another program reads, as it is."""
        self._write(text, end="")

    def details(self, values: Json) -> None:
        """Write one result: its values, or a line for each."""
        if self.format == "table":
            lines = [f"{name + ':':<23} {visible(_plain(value))}" for name, value in values.items()]
            self._write("\n".join(([""] if self._shown else []) + lines))
            self._shown += 1
        else:
            self.result(values, "")

    def close(self) -> None:
        """End a list."""
        if self.many and self.format == "json":
            self._write("\n]" if self._shown else "[]")
        elif self.many and self.format == "yaml" and not self._shown:
            self._write("[]")

    def note(self, event: str, text: str, **values: object) -> None:
        """Write a note beside the results."""
        self._say(
            printable(text) if self.format == "table" else json.dumps({"event": event, "message": text, **values})
        )

    def error(self, error: Exception) -> None:
        """Say in one sentence what went wrong."""
        if self.format == "table":
            self._say(f"uploadctl: {printable(sentence(error))}")
        else:
            self._say(json.dumps({"error": error_json(error)}))

    def _write(self, text: str, end: str = "\n") -> None:
        if self.lost is not None:
            return
        if self.screen is not None and self._out.isatty():
            self._draw(text)
            return
        try:
            self._out.write(text + end)
            self._out.flush()
        except OSError as error:
            # Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())
            self.lost = error
            if self.must_show:
                raise

    def _say(self, line: str) -> None:
        if self.screen is not None and self._err.isatty():
            self._draw(line)
            return
        try:
            print(line, file=self._err, flush=True)
        except OSError:
            # The terminal was closed, or the reader of the pipe has left: a cancel must reach the server all the same.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._err.fileno())

    def _draw(self, line: str) -> None:
        assert self.screen is not None  # noqa: S101 - both callers have looked
        self.screen.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)


def _lenient(stream: TextIO) -> TextIO:
    """Make a stream escape what its encoding does not have: else one odd name ends the program half-way."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        codecs.register_error("upload.visible", _escape_what_has_no_code)
        reconfigure(errors="upload.visible")
    return stream


def _escape_what_has_no_code(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return escaped(error.object[error.start : error.end]), error.end


def _json(values: object, indent: int | None = None) -> str:
    text = json.dumps(values, ensure_ascii=False, indent=indent)
    return "\n".join(map(printable, text.split("\n")))


def _yaml(values: Json, lead: str) -> str:
    """Return a mapping in YAML: its values in JSON, which YAML includes."""
    indent = " " * len(lead)
    lines = [f"{name}: {_PAIR.sub(_joined, _json(value))}" for name, value in values.items()]
    return lead + f"\n{indent}".join(lines)


def _joined(pair: re.Match[str]) -> str:
    # YAML has one escape for what JSON writes as two.
    high, low = (int(unit, 16) for unit in pair.groups())
    return f"\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"


def _plain(value: object) -> str:
    if isinstance(value, list):
        return (
            json.dumps(value, ensure_ascii=False)
            if value and isinstance(value[0], dict)
            else ", ".join(map(str, value))
        )
    return "" if value is None else str(value)
