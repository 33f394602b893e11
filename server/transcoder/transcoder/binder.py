"""Decides which request field a path variable or a query parameter sets, and how text becomes its value.

Must not know routes or bodies: a field path and its text come in, a field is set. A message's methods are called by its
class: a field may have a method's name, and hides it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from . import wellknown
from .errors import FaultError, FieldError
from .parser import map_entry
from .router import MalformedPathError, unquote_utf8
from .scalars import converters

SetText = Callable[[Any, str], None]
"""Sets one field of its parent message from text."""

MAX_KEY_DEPTH: Final = 100
"""Levels of a query key: as deep as protobuf lets messages nest."""


class UnbindableError(ValueError):
    """A field that no text can set; the text says why."""


@dataclass(slots=True)
class FieldStep:
    """One field as a step of a path: a message to walk into, or a leaf that text can set."""

    name: str
    repeated: bool
    raw_plus: bool
    """Base64: a '+' in a query is the letter, not a space."""
    oneof: str
    set_text: SetText | None = None
    unbindable: str = ""
    """Why this field is no leaf."""
    fields: "FieldTable | None" = None
    """The fields below, for a message that can be walked into."""


@dataclass(slots=True)
class FieldTable:
    """The fields of one message type, by either spelling."""

    by_name: dict[str, FieldStep] = field(default_factory=dict)
    by_any_name: dict[str, FieldStep] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FieldPath:
    """A leaf field and the messages on the way to it."""

    steps: tuple[FieldStep, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The path in the proto's spelling."""
        return tuple(step.name for step in self.steps)

    def set(self, message: Any, text: str) -> None:
        """Sets the leaf below `message`; another member of a oneof that is set already is an error."""
        leaf = self.steps[-1]
        try:
            for step in self.steps[:-1]:
                _check_oneof(message, step)
                message = getattr(message, step.name)
                type(message).SetInParent(message)
            if leaf.oneof:
                _check_oneof(message, leaf)
            if leaf.set_text is None:
                raise FieldError(leaf.unbindable)
            leaf.set_text(message, text)
        except FieldError as error:
            raise error.under(".".join(self.names)) from None


def _check_oneof(message: Any, step: FieldStep) -> None:
    if step.oneof and type(message).WhichOneof(message, step.oneof) not in (None, step.name):
        raise FieldError(f"another field of oneof {step.oneof!r} is given too")


class FieldTables:
    """The tables of all message types that can be reached, each compiled once."""

    def __init__(self) -> None:
        self._tables: dict[str, FieldTable] = {}

    def for_message(self, descriptor: Descriptor) -> FieldTable:
        """The table of a message type and of those below it."""
        known = self._tables.get(descriptor.full_name)
        if known is not None:
            return known
        table = self._tables[descriptor.full_name] = FieldTable()
        for item in descriptor.fields:
            step = self._step(item)
            if descriptor.full_name in _CHECKS and step.set_text is not None:
                step.set_text = _checked(step.set_text, _CHECKS[descriptor.full_name])
            table.by_name[item.name] = table.by_any_name[item.name] = step
            table.by_any_name.setdefault(item.json_name, step)
        return table

    def _step(self, item: FieldDescriptor) -> FieldStep:
        oneof = item.containing_oneof
        shared = oneof.name if oneof is not None and len(oneof.fields) > 1 else ""
        step = FieldStep(item.name, item.is_repeated, item.type == FieldDescriptor.TYPE_BYTES, shared)
        descriptor = item.message_type
        try:
            step.set_text = _setter(item)
        except UnbindableError as error:
            step.unbindable = str(error)
        if descriptor is not None and not item.is_repeated and descriptor.full_name not in wellknown.STRUCTURAL:
            step.fields = self.for_message(descriptor)
        if descriptor is not None and descriptor.full_name == "google.protobuf.BytesValue":
            step.raw_plus = True
        return step

    def path_field(self, descriptor: Descriptor, names: tuple[str, ...]) -> FieldPath:
        """The field that a path template names; UnbindableError when a path cannot set it."""
        table: FieldTable | None = self.for_message(descriptor)
        steps: list[FieldStep] = []
        for name in names:
            step = table.by_name.get(name) if table is not None else None
            if step is None:
                raise UnbindableError(f"the request has no field {'.'.join(names)!r}")
            steps.append(step)
            table = step.fields
        leaf = steps[-1]
        if leaf.repeated or leaf.set_text is None:
            raise UnbindableError(
                f"field {'.'.join(names)!r} cannot be bound: {leaf.unbindable or 'a path holds no repeated field'}"
            )
        return FieldPath(tuple(steps))


def _setter(item: FieldDescriptor) -> SetText:
    name = item.name
    if map_entry(item) is not None:
        raise UnbindableError("a map cannot be set from a URL")
    if item.message_type is None:
        convert = converters(item)[1]
        if item.is_repeated:
            return lambda parent, text: getattr(parent, name).append(convert(text))
        return lambda parent, text: setattr(parent, name, convert(text))
    fill = _filler(item.message_type)
    if item.is_repeated:
        return lambda parent, text: fill(getattr(parent, name).add(), text)

    def set_message(parent: Any, text: str) -> None:
        child = getattr(parent, name)
        child.Clear()  # the body may have filled it
        child.SetInParent()
        fill(child, text)

    return set_message


def _filler(descriptor: Descriptor) -> SetText:
    """How a message whose JSON form is a scalar reads text."""
    name = descriptor.full_name
    if name in wellknown.WRAPPERS:
        convert = converters(descriptor.fields_by_name["value"])[1]
        return lambda message, text: setattr(message, "value", convert(text))
    if name == wellknown.TIMESTAMP:
        return lambda message, text: _set_pair(message, wellknown.timestamp_from_text(text))
    if name == wellknown.DURATION:
        return lambda message, text: _set_pair(message, wellknown.duration_from_text(text))
    if name == wellknown.FIELD_MASK:
        return lambda message, text: message.paths.extend(wellknown.mask_from_url(text))
    raise UnbindableError("a message cannot be set from a URL")


# A well-known type may also be set part by part; it must still be one that JSON can say.
_CHECKS: Final[dict[str, Callable[[Any], object]]] = {
    wellknown.TIMESTAMP: lambda message: wellknown.timestamp_to_text(message.seconds, message.nanos),
    wellknown.DURATION: lambda message: wellknown.duration_to_text(message.seconds, message.nanos),
    wellknown.FIELD_MASK: lambda message: wellknown.mask_to_text(list(message.paths)),
}


def _checked(set_text: SetText, check: Callable[[Any], object]) -> SetText:
    def set_part(parent: Any, text: str) -> None:
        set_text(parent, text)
        try:
            check(parent)
        except ValueError as error:
            raise FieldError(str(error)) from None

    return set_part


def _set_pair(message: Any, pair: tuple[int, int]) -> None:
    message.seconds, message.nanos = pair


class QueryBinder:
    """Sets request fields from a query string, except those that the path or the body binds."""

    def __init__(
        self,
        table: FieldTable,
        *,
        bound: Iterable[tuple[str, ...]],
        reject_unknown: bool,
    ) -> None:
        self._table = table
        self._bound = tuple(bound)
        self._reject_unknown = reject_unknown

    def bind(self, message: Message, query: str) -> None:
        """Sets what `query` names; FaultError where it does not fit."""
        seen: set[tuple[str, ...]] = set()
        parents: set[tuple[str, ...]] = set()
        # The keys of repeated fields come many times.
        lists: dict[str, FieldPath] = {}
        for pair in query.split("&"):
            if not pair:
                continue
            key, _, raw = pair.partition("=")
            try:
                path = lists.get(key)
                if path is None:
                    path = self._resolve(unquote_utf8(key.replace("+", " ")))
                    if path is None:
                        unquote_utf8(raw)
                        continue
                    names = path.names
                    above = [names[:level] for level in range(1, len(names))]
                    repeated = path.steps[-1].repeated
                    # A well-known type that is given whole is given again by one of its parts.
                    if (not repeated and names in seen) or names in parents or not seen.isdisjoint(above):
                        raise FieldError("given more than once").under(".".join(names))
                    seen.add(names)
                    parents.update(above)
                    if repeated:
                        lists[key] = path
                path.set(message, unquote_utf8(raw if path.steps[-1].raw_plus else raw.replace("+", " ")))
            except MalformedPathError as error:
                raise FaultError.of_field(FieldError(f"malformed: {error}", "query")) from None
            except FieldError as error:
                raise FaultError.of_field(error) from None

    def _resolve(self, key: str) -> FieldPath | None:
        """The field that a key names; None for one to ignore."""
        if key.count(".") >= MAX_KEY_DEPTH:
            raise FieldError("nested too deep").under(key[:64])
        table: FieldTable | None = self._table
        steps: list[FieldStep] = []
        for name in key.split("."):
            if table is None:
                raise FieldError("it has no fields that a query can set").under(".".join(s.name for s in steps))
            step = table.by_any_name.get(name)
            if step is None:
                self._check_unknown(key)
                return None
            steps.append(step)
            table = step.fields
        path = FieldPath(tuple(steps))
        names = path.names
        return None if any(names[: len(bound)] == bound for bound in self._bound) else path

    def _check_unknown(self, key: str) -> None:
        if self._reject_unknown:
            raise FieldError("unknown query parameter").under(key[:64])


def reject_query(_message: Message, query: str) -> None:
    """The query of a rule that takes none, where unknown parameters are refused."""
    for pair in query.split("&"):
        if pair:
            error = FieldError("unknown query parameter").under(pair.partition("=")[0][:64])
            raise FaultError.of_field(error)
