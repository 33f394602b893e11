"""Decides which route a method and a raw path belong to.

Must not know what a route does: a target is any object, and values leave as text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, NamedTuple, TypeVar

from .template import DEEP, STAR, Template

T = TypeVar("T")

ANY_METHOD: Final = "*"
"""The custom kind that leaves the HTTP method open."""

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPED = re.compile(rb"(?:%[0-9A-Fa-f]{2})+")
_ENCODED_SLASH = re.compile("(%2[Ff])")


class MalformedPathError(ValueError):
    """A percent-escape is broken, or the path does not decode to UTF-8."""


@dataclass(frozen=True, slots=True)
class Route(Generic[T]):
    """A template and what it leads to."""

    template: Template
    target: T


class CollisionError(ValueError):
    """Two routes would match the same requests; holds the one that came first."""

    def __init__(self, first: Route[Any]) -> None:
        super().__init__(first.template.text)
        self.first = first


class Match(NamedTuple, Generic[T]):
    """A route that was found, with the variables' values in the template's order."""

    target: T
    values: tuple[str, ...]


@dataclass(slots=True)
class _Node(Generic[T]):
    """One position in a path. Leaves are kept by verb, then by HTTP method."""

    literals: "dict[str, _Node[T]]" = field(default_factory=dict)
    star: "_Node[T] | None" = None
    leaves: dict[str, dict[str, Route[T]]] = field(default_factory=dict)
    deep: dict[str, dict[str, Route[T]]] = field(default_factory=dict)


@dataclass(slots=True)
class _Search:
    """What one look-up carries along."""

    method: str
    verb: str
    names: list[str]
    allowed: set[str]
    """Methods that the path would take, as far as they were met."""


class Router(Generic[T]):
    """Routes by raw path: literal before `*` before `**`, whatever the order of declaration."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._verbs: set[str] = set()
        self._longest_verb = 0

    def add(self, method: str, template: Template, target: T) -> None:
        """Adds a route; raises CollisionError when one of the same shape and method is there."""
        node = self._root
        segments = template.segments
        leaves = None
        for segment in segments:
            if segment.kind == DEEP:
                leaves = node.deep
            elif segment.kind == STAR:
                node.star = node.star or _Node()
                node = node.star
            else:
                node = node.literals.setdefault(segment.text, _Node())
        by_method = (node.leaves if leaves is None else leaves).setdefault(template.verb, {})
        if method in by_method:
            raise CollisionError(by_method[method])
        by_method[method] = Route(template, target)
        if template.verb:
            self._verbs.add(template.verb)
            self._longest_verb = max(self._longest_verb, len(template.verb.encode()) * 3)

    def find(self, method: str, raw_path: str) -> Match[T] | frozenset[str]:
        """The match, or the methods that the path would take (none: an unknown path)."""
        raw = raw_path[1:].split("/") if raw_path != "/" else []
        names = [unquote_utf8(segment) for segment in raw] if "%" in raw_path else raw
        allowed: set[str] = set()
        if raw and ":" in raw[-1]:
            found = self._find_by_verb(method, raw, names, allowed)
            if found is not None:
                return found
        return self._search(method, "", raw, names, allowed) or frozenset(allowed)

    def _find_by_verb(
        self, method: str, raw: list[str], names: list[str], allowed: set[str]
    ) -> Match[T] | frozenset[str] | None:
        """Tries each colon of the last segment that starts a known verb, the longest verb first."""
        last = raw[-1]
        # No verb is longer than this, even when all of it is escaped: a path of colons stays cheap.
        for index in range(max(0, len(last) - self._longest_verb - 1), len(last)):
            if last[index] != ":":
                continue
            verb = unquote_utf8(last[index + 1 :])
            if verb not in self._verbs:
                continue
            head = last[:index]
            match = self._search(method, verb, [*raw[:-1], head], [*names[:-1], unquote_utf8(head)], allowed)
            if match is not None:
                return match
            if not head and self._knows_verb(verb, names):
                return frozenset()  # the variable before a known verb is empty: no value of another route
        return None

    def _knows_verb(self, verb: str, names: list[str]) -> bool:
        allowed: set[str] = set()
        probe = [*names[:-1], "x"]
        self._search("", verb, probe, probe, allowed)
        return bool(allowed)

    def _search(self, method: str, verb: str, raw: list[str], names: list[str], allowed: set[str]) -> Match[T] | None:
        route = _walk(self._root, 0, _Search(method, verb, names, allowed))
        if route is None:
            return None
        values = [
            names[variable.start] if variable.single else _join(raw[variable.start : variable.end])
            for variable in route.template.variables
        ]
        return Match(route.target, tuple(values))


def _walk(node: _Node[T], index: int, search: _Search) -> Route[T] | None:
    """Depth first in order of preference; the depth is that of the templates, not of the path."""
    names = search.names
    while index < len(names):
        # Only `**` takes an empty segment: a trailing or double slash, or a value that is empty.
        first, second = node.literals.get(names[index]), node.star if names[index] else None
        index += 1
        if first is None:
            first, second = second, None
        if first is None:
            return _pick(node.deep, search)
        if second is not None or node.deep:
            found = _walk(first, index, search) or (second and _walk(second, index, search))
            return found or _pick(node.deep, search)
        node = first  # there is no other way to come back for
    return _pick(node.leaves, search) or _pick(node.deep, search)


def _pick(leaves: dict[str, dict[str, Route[T]]], search: _Search) -> Route[T] | None:
    by_method = leaves.get(search.verb)
    if by_method is None:
        return None
    route = by_method.get(search.method)
    if route is None and search.method == "HEAD":
        route = by_method.get("GET")
    if route is None:
        route = by_method.get(ANY_METHOD)
    if route is None:
        search.allowed.update(by_method)
    return route


def _join(raw: Sequence[str]) -> str:
    """Several segments as one value: decoded, but `%2F` stays as it was written."""
    text = "/".join(raw)
    if "%" not in text:
        return text
    pieces = _ENCODED_SLASH.split(text)
    return "".join(piece if index % 2 else unquote_utf8(piece) for index, piece in enumerate(pieces))


def _unescaped(run: re.Match[bytes]) -> bytes:
    return bytes.fromhex(run[0].replace(b"%", b"").decode())


def unquote_utf8(text: str) -> str:
    """Decodes percent-escapes once; raises MalformedPathError on a bad escape or bad UTF-8."""
    if "%" not in text:
        return text
    if _BAD_ESCAPE.search(text):
        raise MalformedPathError("malformed percent-escape")
    try:
        return _ESCAPED.sub(_unescaped, text.encode()).decode()
    except UnicodeDecodeError:
        raise MalformedPathError("not UTF-8 after percent-decoding") from None
