"""Decides what a path template of google.api.http says.

Must not know requests, messages or fields: a variable's field path stays text here.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

STAR: Final = "*"
DEEP: Final = "**"

_IDENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Braces, stars and slashes are structure; the rest could never stand in a path.
_NOT_LITERAL = re.compile(r"[{}*/?#\s\x00-\x20\x7f]")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class TemplateError(ValueError):
    """A template breaks the grammar; the text says where."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of the URL path: a literal, `*` or `**`."""

    kind: str
    """`*`, `**`, or the empty string for a literal."""
    text: str = ""
    """The literal, decoded: it is compared with a decoded segment."""


@dataclass(frozen=True, slots=True)
class Variable:
    """The run of segments that a field path captures."""

    path: tuple[str, ...]
    start: int
    end: int | None
    """One past the last segment; None runs to the end of the path."""
    single: bool
    """True for exactly one segment, which is decoded fully (`%2F` too)."""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template: what to match and what to capture."""

    text: str
    segments: tuple[Segment, ...]
    variables: tuple[Variable, ...]
    verb: str


def parse_template(text: str) -> Template:
    """Parses `text` by the grammar in http.proto's comment."""
    if not text.startswith("/"):
        raise TemplateError("must begin with '/'")
    body, verb = _split_verb(text)
    if body == "/" and not verb:  # the root: outside the grammar's letter, yet every engine takes it
        return Template(text, (), (), "")
    segments: list[Segment] = []
    variables: list[Variable] = []
    for part in _split_segments(body[1:]):
        if part.startswith("{"):
            _add_variable(part, segments, variables)
        else:
            segments.append(_segment(part))
    _check(segments, variables)
    return Template(text, tuple(segments), tuple(variables), verb)


def _split_verb(text: str) -> tuple[str, str]:
    """Cuts `:verb` off the last segment; a colon inside braces is not a verb."""
    last = max(text.rfind("/"), text.rfind("}"))
    colon = text.find(":", last + 1)
    if colon < 0:
        return text, ""
    verb = text[colon + 1 :]
    if not verb:
        raise TemplateError("the verb after ':' is empty")
    return text[:colon], _literal(verb)


def _split_segments(body: str) -> list[str]:
    """Splits at the slashes outside braces."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(body):
        if char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
        elif char == "/" and depth == 0:
            parts.append(body[start:index])
            start = index + 1
        if depth not in (0, 1):
            raise TemplateError("braces do not pair, or a variable holds another")
    if depth:
        raise TemplateError("a '{' is not closed")
    return [*parts, body[start:]]


def _segment(part: str) -> Segment:
    if part in (STAR, DEEP):
        return Segment(part)
    if not part:
        raise TemplateError("a segment is empty")
    if ":" in part:
        raise TemplateError(f"segment {part!r}: a ':' that starts no verb must be percent-encoded")
    return Segment("", _literal(part))


def _literal(text: str) -> str:
    if _NOT_LITERAL.search(text):
        raise TemplateError(f"{text!r} is no literal: only whole segments may be wildcards or variables")
    if _BAD_ESCAPE.search(text):
        raise TemplateError(f"{text!r} has a malformed percent-escape")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise TemplateError(f"{text!r} does not decode to UTF-8") from None


def _add_variable(part: str, segments: list[Segment], variables: list[Variable]) -> None:
    if not part.endswith("}"):
        raise TemplateError(f"{part!r}: text follows a variable in its segment")
    name, equals, inner = part[1:-1].partition("=")
    path = tuple(name.split("."))
    if not all(_IDENT.fullmatch(step) for step in path):
        raise TemplateError(f"{name!r} is no field path")
    if equals and not inner:
        raise TemplateError(f"variable {name!r} has an empty template")
    found = [_segment(piece) for piece in inner.split("/")] if equals else [Segment(STAR)]
    start = len(segments)
    segments.extend(found)
    deep = any(segment.kind == DEEP for segment in found)
    variables.append(Variable(path, start, None if deep else len(segments), len(found) == 1 and not deep))


def _check(segments: list[Segment], variables: list[Variable]) -> None:
    if any(segment.kind == DEEP for segment in segments[:-1]):
        raise TemplateError("'**' must be the last segment")
    seen: set[tuple[str, ...]] = set()
    for variable in variables:
        if variable.path in seen:
            raise TemplateError(f"variable {'.'.join(variable.path)!r} stands twice")
        seen.add(variable.path)
