"""Decides what the google.api.http annotations of a service mean: one Binding per rule, checked.

Must not know requests: everything that can be wrong with a declaration is found here, when the app is built.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor import (
    Descriptor,
    FieldDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from .binder import FieldPath, FieldTables, QueryBinder, UnbindableError, reject_query
from .binding import Binding, BindQuery, Codec, Method, ReadBody, ResponseForm
from .errors import FaultError, FaultKind, FieldError, TranscodingConfigError
from .jsonreader import JsonReader
from .jsontext import JsonError, parse_json
from .options import Options, RequestLimits
from .parser import JsonParser, ObjectParser
from .printer import JsonPrinter, has_field
from .router import CollisionError, Router
from .template import Template, TemplateError, parse_template

Services = Sequence[tuple[ServiceDescriptor, Any]]
HTTP_BODY = "google.api.HttpBody"
_VERBS = ("get", "put", "post", "delete", "patch")
_MESSAGES = (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_GROUP)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""What HTTP allows as a method; `*` is one, too."""
_BODILESS = frozenset({"GET", "HEAD"})
_LONG_BYTES = 16 * 1024
"""A longer JSON body is read piece by piece, and one of more commas."""
_MANY_VALUES = 256


def build_router(services: Services, options: Options) -> Router[Binding]:
    """Every rule of every service as a route; TranscodingConfigError names what is wrong with one."""
    router: Router[Binding] = Router()
    known = {descriptor.name for service, _ in services for descriptor in service.methods}
    if unknown := sorted(options.method_limits.keys() - known):
        raise TranscodingConfigError(f"method_limits names {unknown[0]!r}, which no service has")
    codecs: dict[int, Codec] = {}  # one for each descriptor pool
    streamed: list[Method] = []
    for service, servicer in services:
        codec = codecs.get(id(service.file.pool)) or _codec(service, options)
        codecs[id(service.file.pool)] = codec
        for descriptor in service.methods:
            rule = _http_rule(descriptor)
            if rule is None:
                continue
            method = _method(service, descriptor, servicer, codec, options)
            if method.streams:
                streamed.append(method)
            for each in _flatten(descriptor, rule):
                _add(router, _Compiler(descriptor, each, codec, options).binding(method))
    _check_sse_fields(streamed, options)
    return router


def _codec(service: ServiceDescriptor, options: Options) -> Codec:
    pool = service.file.pool
    parser = JsonParser(pool, reject_unknown=options.reject_unknown)
    return Codec(parser, JsonPrinter(pool, options.style), FieldTables())


def _http_rule(descriptor: MethodDescriptor) -> HttpRule | None:
    # Through bytes: a pool of its own has option classes of its own, which know no extension.
    options = MethodOptions.FromString(descriptor.GetOptions().SerializeToString())
    extension: Any = annotations_pb2.http
    return options.Extensions[extension] if options.HasExtension(extension) else None


def _flatten(descriptor: MethodDescriptor, rule: HttpRule) -> Iterator[HttpRule]:
    yield rule
    for extra in rule.additional_bindings:
        if extra.additional_bindings:
            raise TranscodingConfigError(f"{descriptor.full_name}: additional_bindings hold additional_bindings")
        yield extra


def _method(
    service: ServiceDescriptor, descriptor: MethodDescriptor, servicer: object, codec: Codec, options: Options
) -> Method:
    where = descriptor.full_name
    if descriptor.client_streaming:
        raise TranscodingConfigError(f"{where}: a method that streams requests cannot have an HTTP rule")
    handler = getattr(servicer, descriptor.name, None)
    if not callable(handler):
        raise TranscodingConfigError(f"{where}: the servicer has no method {descriptor.name!r}")
    if inspect.isasyncgenfunction(handler) and not descriptor.server_streaming:
        raise TranscodingConfigError(f"{where}: an async generator cannot serve a unary method")
    streams = descriptor.server_streaming
    return Method(
        f"/{service.full_name}/{descriptor.name}",
        handler,
        GetMessageClass(descriptor.input_type),
        descriptor.output_type,
        GetMessageClass(descriptor.output_type),
        streams,
        options.method_limits.get(descriptor.name, options.request_limits),
        _sse_id(descriptor, options.sse_id_field) if streams else None,
        _sse_resume(descriptor, options.sse_resume_field, codec) if streams else None,
    )


def _sse_id(descriptor: MethodDescriptor, name: str | None) -> Callable[[Any], str] | None:
    """The event id's reader, where the method's responses have that field."""
    field = descriptor.output_type.fields_by_name.get(name or "")
    if name is None or field is None:
        return None
    if field.is_repeated or field.type in (FieldDescriptor.TYPE_BYTES, *_MESSAGES):
        raise TranscodingConfigError(f"{descriptor.full_name}: sse_id_field {name!r} is no field of text or number")
    return lambda message: str(getattr(message, name))


def _sse_resume(descriptor: MethodDescriptor, name: str | None, codec: Codec) -> FieldPath | None:
    """The resume field's setter, where the method's requests have that field."""
    if name is None or name not in descriptor.input_type.fields_by_name:
        return None
    try:
        return codec.tables.path_field(descriptor.input_type, (name,))
    except UnbindableError as error:
        raise TranscodingConfigError(f"{descriptor.full_name}: sse_resume_field: {error}") from None


def _check_sse_fields(streamed: Sequence[Method], options: Options) -> None:
    if options.sse_id_field and not any(method.sse_id for method in streamed):
        raise TranscodingConfigError(f"sse_id_field {options.sse_id_field!r}: no streamed response has it")
    if options.sse_resume_field and not any(method.sse_resume for method in streamed):
        raise TranscodingConfigError(f"sse_resume_field {options.sse_resume_field!r}: no streaming request has it")


def _add(router: Router[Binding], binding: Binding) -> None:
    try:
        router.add(binding.http_method, binding.template, binding)
    except CollisionError as error:
        raise TranscodingConfigError(f"{_named(binding)}: collides with {_named(error.first.target)}") from None


def _named(binding: Binding) -> str:
    method = binding.method.name[1:].replace("/", ".")
    return f"{method}: {binding.http_method} {binding.template.text}"


class _Compiler:
    """Turns one rule of one method into a Binding."""

    def __init__(self, descriptor: MethodDescriptor, rule: HttpRule, codec: Codec, options: Options) -> None:
        self._descriptor = descriptor
        self._rule = rule
        self._codec = codec
        self._options = options
        self._http_method, self._path = self._pattern()

    def binding(self, method: Method) -> Binding:
        rule = self._rule
        if rule.body and self._http_method in _BODILESS:
            raise self._error(f"{self._http_method} takes no body")
        try:
            template = parse_template(self._path)
        except TemplateError as error:
            raise self._error(str(error)) from None
        path_fields = self._path_fields(template)
        read_body, raw = self._body(method.limits)
        return Binding(
            method,
            self._http_method,
            template,
            path_fields,
            self._query(template),
            read_body,
            raw,
            self._response(),
        )

    def _pattern(self) -> tuple[str, str]:
        rule = self._rule
        kind = rule.WhichOneof("pattern")
        if kind in _VERBS:
            return kind.upper(), getattr(rule, kind)
        if kind != "custom":
            raise TranscodingConfigError(f"{self._descriptor.full_name}: an HTTP rule without a pattern")
        if not _TOKEN.fullmatch(rule.custom.kind):
            kind = rule.custom.kind
            raise TranscodingConfigError(f"{self._descriptor.full_name}: custom kind {kind!r} is no HTTP method")
        return rule.custom.kind, rule.custom.path

    def _error(self, reason: str) -> TranscodingConfigError:
        return TranscodingConfigError(f"{self._descriptor.full_name}: {self._http_method} {self._path}: {reason}")

    def _path_fields(self, template: Template) -> tuple[FieldPath, ...]:
        fields: list[FieldPath] = []
        oneofs: set[tuple[str, ...]] = set()
        for variable in template.variables:
            try:
                found = self._codec.tables.path_field(self._descriptor.input_type, variable.path)
            except UnbindableError as error:
                raise self._error(str(error)) from None
            leaf = found.steps[-1]
            oneof = (*found.names[:-1], leaf.oneof)
            if leaf.oneof and oneof in oneofs:
                raise self._error(f"two variables are members of oneof {leaf.oneof!r}")
            oneofs.add(oneof)
            fields.append(found)
        if self._rule.body and any(field.names == (self._rule.body,) for field in fields):
            raise self._error(f"field {self._rule.body!r} is bound by the path and by the body")
        return tuple(fields)

    def _query(self, template: Template) -> BindQuery | None:
        body, strict = self._rule.body, self._options.reject_unknown
        if body == "*":
            return reject_query if strict else None
        bound = [variable.path for variable in template.variables]
        if body:
            bound.append((body,))
        table = self._codec.tables.for_message(self._descriptor.input_type)
        return QueryBinder(table, bound=bound, reject_unknown=strict).bind

    def _body(self, limits: RequestLimits) -> tuple[ReadBody | None, bool]:
        """How the body is read, and whether it is raw bytes rather than JSON."""
        body, request = self._rule.body, self._descriptor.input_type
        if not body and self._http_method == "DELETE" and self._options.reject_unknown:
            # Nobody needs to send one. Whoever does shall not lose what it says.
            body = "*"
        if not body:
            return None, False
        if body == "*":
            if request.full_name == HTTP_BODY:
                return _fill_http_body, True
            return self._json_body(self._codec.parser.for_message(request), limits), False
        field = self._field(request, body, "body")
        if _is_http_body(field):
            return lambda message, data, kind: _fill_http_body(getattr(message, body), data, kind), True
        set_field = self._codec.parser.for_field(field)
        takes_null = _takes_null(field)

        def read_field(message: Message, value: object) -> None:
            if value is None and not takes_null:
                return  # as within an object: null leaves a field unset
            try:
                set_field(message, value)
            except FieldError as error:
                raise error.under(body) from None

        return self._json_body(read_field, limits), False

    def _json_body(self, parse: Callable[[Message, object], None], limits: RequestLimits) -> ReadBody:
        """How JSON is read: a short body at once, a long one, or one of many values, piece by piece."""
        max_depth = self._options.max_json_depth
        # A list of so many elements has as many commas, but one.
        most_commas = min(_MANY_VALUES, limits.max_elements - 1)

        def read(message: Message, data: bytearray, _content_type: str) -> Iterable[None]:
            if len(data) > _LONG_BYTES or data.count(b",") > most_commas:
                return read_on(message, data)
            if data:
                with _as_faults():
                    parse(message, parse_json(data, max_depth))
            return ()

        def read_on(message: Message, data: bytearray) -> Iterator[None]:
            text = JsonReader(data, max_depth=max_depth, max_value=limits.max_value_bytes)
            with _as_faults():
                if isinstance(parse, ObjectParser):
                    yield from parse.read(message, text, limits.max_elements)
                else:
                    value = text.value()
                    text.end()
                    parse(message, value)

        return read

    def _response(self) -> ResponseForm:
        name, response = self._rule.response_body, self._descriptor.output_type
        printer = self._codec.printer
        if not name:
            to_text = printer.for_message(response)
            to_body = _itself if response.full_name == HTTP_BODY else None
            return ResponseForm(to_text, to_body, printer.in_pieces(response))
        field = self._field(response, name, "response_body")
        text = printer.for_field(field)
        if _is_http_body(field):
            return ResponseForm(text, lambda message: getattr(message, name))
        if field.has_presence and not _takes_null(field) and not _always_printable(field):
            has = has_field(response, name)
            return ResponseForm(lambda message: text(getattr(message, name)) if has(message) else "null")
        return ResponseForm(lambda message: text(getattr(message, name)))

    def _field(self, descriptor: Descriptor, name: str, part: str) -> FieldDescriptor:
        field = descriptor.fields_by_name.get(name)
        if field is None:
            raise self._error(f"{part} names {name!r}, which is no top-level field of {descriptor.full_name}")
        return field


@contextmanager
def _as_faults() -> Iterator[None]:
    try:
        yield
    except JsonError as error:
        text = f"malformed JSON body: {error}"
        raise FaultError(FaultKind.MALFORMED_JSON, text, limit=error.limit) from None
    except FieldError as error:
        raise FaultError.of_field(error) from None


def _is_http_body(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name == HTTP_BODY and not field.is_repeated


def _takes_null(field: FieldDescriptor) -> bool:
    kind = field.message_type or field.enum_type
    return (
        not field.is_repeated
        and kind is not None
        and kind.full_name
        in (
            "google.protobuf.Value",
            "google.protobuf.NullValue",
        )
    )


def _always_printable(field: FieldDescriptor) -> bool:
    """Scalars and plain messages have a default form to send when unset; wrappers and times have none."""
    return field.message_type is None or not field.message_type.full_name.startswith("google.protobuf.")


def _itself(message: Any) -> Any:
    return message


def _fill_http_body(message: Any, data: bytearray, content_type: str) -> tuple[()]:
    message.content_type = content_type
    message.data = bytes(data)
    return ()
