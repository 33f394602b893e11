from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Shut(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SHUT_NONE: _ClassVar[Shut]
    SHUT_ONE: _ClassVar[Shut]
SHUT_NONE: Shut
SHUT_ONE: Shut

class New(_message.Message):
    __slots__ = ("explicit_number", "implicit_number", "shut", "delimited", "needed")
    class Part(_message.Message):
        __slots__ = ("text",)
        TEXT_FIELD_NUMBER: _ClassVar[int]
        text: str
        def __init__(self, text: _Optional[str] = ...) -> None: ...
    EXPLICIT_NUMBER_FIELD_NUMBER: _ClassVar[int]
    IMPLICIT_NUMBER_FIELD_NUMBER: _ClassVar[int]
    SHUT_FIELD_NUMBER: _ClassVar[int]
    DELIMITED_FIELD_NUMBER: _ClassVar[int]
    NEEDED_FIELD_NUMBER: _ClassVar[int]
    explicit_number: int
    implicit_number: int
    shut: Shut
    delimited: New.Part
    needed: int
    def __init__(self, explicit_number: _Optional[int] = ..., implicit_number: _Optional[int] = ..., shut: _Optional[_Union[Shut, str]] = ..., delimited: _Optional[_Union[New.Part, _Mapping]] = ..., needed: _Optional[int] = ...) -> None: ...
