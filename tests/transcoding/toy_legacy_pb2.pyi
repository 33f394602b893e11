from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf.internal import python_message as _python_message
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Closed(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLOSED_ONE: _ClassVar[Closed]
    CLOSED_TWO: _ClassVar[Closed]
CLOSED_ONE: Closed
CLOSED_TWO: Closed
NUMBER_EXT_FIELD_NUMBER: _ClassVar[int]
number_ext: _descriptor.FieldDescriptor
STRINGS_EXT_FIELD_NUMBER: _ClassVar[int]
strings_ext: _descriptor.FieldDescriptor
CLOSED_EXT_FIELD_NUMBER: _ClassVar[int]
closed_ext: _descriptor.FieldDescriptor

class Old(_message.Message):
    __slots__ = ("needed", "number", "closed", "extra", "numbers")
    Extensions: _python_message._ExtensionDict
    class Extra(_message.Message):
        __slots__ = ("text",)
        TEXT_FIELD_NUMBER: _ClassVar[int]
        text: str
        def __init__(self, text: _Optional[str] = ...) -> None: ...
    NEEDED_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    EXTRA_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    needed: str
    number: int
    closed: Closed
    extra: Old.Extra
    numbers: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, needed: _Optional[str] = ..., number: _Optional[int] = ..., closed: _Optional[_Union[Closed, str]] = ..., extra: _Optional[_Union[Old.Extra, _Mapping]] = ..., numbers: _Optional[_Iterable[int]] = ...) -> None: ...

class Nested(_message.Message):
    __slots__ = ("text",)
    NESTED_EXT_FIELD_NUMBER: _ClassVar[int]
    nested_ext: _descriptor.FieldDescriptor
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...
