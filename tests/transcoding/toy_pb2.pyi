import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.api import httpbody_pb2 as _httpbody_pb2
from google.protobuf import any_pb2 as _any_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf import wrappers_pb2 as _wrappers_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Color(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COLOR_UNSPECIFIED: _ClassVar[Color]
    COLOR_RED: _ClassVar[Color]
    COLOR_BLUE: _ClassVar[Color]

class Alias(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ALIAS_NONE: _ClassVar[Alias]
    ALIAS_FIRST: _ClassVar[Alias]
    ALIAS_SECOND: _ClassVar[Alias]
COLOR_UNSPECIFIED: Color
COLOR_RED: Color
COLOR_BLUE: Color
ALIAS_NONE: Alias
ALIAS_FIRST: Alias
ALIAS_SECOND: Alias

class Book(_message.Message):
    __slots__ = ("name", "shelf", "id", "display_name", "page_count", "subtitle", "tag_list", "sequel", "color")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHELF_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    PAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SUBTITLE_FIELD_NUMBER: _ClassVar[int]
    TAG_LIST_FIELD_NUMBER: _ClassVar[int]
    SEQUEL_FIELD_NUMBER: _ClassVar[int]
    COLOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    shelf: str
    id: str
    display_name: str
    page_count: int
    subtitle: str
    tag_list: _containers.RepeatedScalarFieldContainer[str]
    sequel: Book
    color: Color
    def __init__(self, name: _Optional[str] = ..., shelf: _Optional[str] = ..., id: _Optional[str] = ..., display_name: _Optional[str] = ..., page_count: _Optional[int] = ..., subtitle: _Optional[str] = ..., tag_list: _Optional[_Iterable[str]] = ..., sequel: _Optional[_Union[Book, _Mapping]] = ..., color: _Optional[_Union[Color, str]] = ...) -> None: ...

class UpdateBookRequest(_message.Message):
    __slots__ = ("book", "update_mask", "allow_missing")
    BOOK_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    book: Book
    update_mask: _field_mask_pb2.FieldMask
    allow_missing: bool
    def __init__(self, book: _Optional[_Union[Book, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., allow_missing: _Optional[bool] = ...) -> None: ...

class Child(_message.Message):
    __slots__ = ("number", "text_value", "child", "numbers")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_VALUE_FIELD_NUMBER: _ClassVar[int]
    CHILD_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    number: int
    text_value: str
    child: Child
    numbers: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, number: _Optional[int] = ..., text_value: _Optional[str] = ..., child: _Optional[_Union[Child, _Mapping]] = ..., numbers: _Optional[_Iterable[int]] = ...) -> None: ...

class Everything(_message.Message):
    __slots__ = ("int32_value", "int64_value", "uint32_value", "uint64_value", "sint32_value", "sint64_value", "fixed32_value", "fixed64_value", "sfixed32_value", "sfixed64_value", "float_value", "double_value", "bool_value", "string_value", "bytes_value", "color", "alias", "child", "optional_int32", "optional_string", "integers", "strings", "colors", "children", "doubles", "blobs", "string_to_int", "int_to_string", "bool_to_child", "long_to_color", "ulong_to_bytes", "choice_text", "choice_number", "choice_child", "choice_null", "timestamp", "duration", "mask", "struct", "value", "list_value", "any", "empty", "null_value", "wrapped_double", "wrapped_float", "wrapped_int64", "wrapped_uint64", "wrapped_int32", "wrapped_uint32", "wrapped_bool", "wrapped_string", "wrapped_bytes", "timestamps", "values", "wrapped_list", "string_to_value", "string_to_duration", "renamed", "nulls", "anys")
    class StringToIntEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class IntToStringEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: str
        def __init__(self, key: _Optional[int] = ..., value: _Optional[str] = ...) -> None: ...
    class BoolToChildEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: bool
        value: Child
        def __init__(self, key: _Optional[bool] = ..., value: _Optional[_Union[Child, _Mapping]] = ...) -> None: ...
    class LongToColorEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: Color
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[Color, str]] = ...) -> None: ...
    class UlongToBytesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: bytes
        def __init__(self, key: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...
    class StringToValueEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _struct_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ...) -> None: ...
    class StringToDurationEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _duration_pb2.Duration
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
    INT32_VALUE_FIELD_NUMBER: _ClassVar[int]
    INT64_VALUE_FIELD_NUMBER: _ClassVar[int]
    UINT32_VALUE_FIELD_NUMBER: _ClassVar[int]
    UINT64_VALUE_FIELD_NUMBER: _ClassVar[int]
    SINT32_VALUE_FIELD_NUMBER: _ClassVar[int]
    SINT64_VALUE_FIELD_NUMBER: _ClassVar[int]
    FIXED32_VALUE_FIELD_NUMBER: _ClassVar[int]
    FIXED64_VALUE_FIELD_NUMBER: _ClassVar[int]
    SFIXED32_VALUE_FIELD_NUMBER: _ClassVar[int]
    SFIXED64_VALUE_FIELD_NUMBER: _ClassVar[int]
    FLOAT_VALUE_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_VALUE_FIELD_NUMBER: _ClassVar[int]
    BOOL_VALUE_FIELD_NUMBER: _ClassVar[int]
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    BYTES_VALUE_FIELD_NUMBER: _ClassVar[int]
    COLOR_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    CHILD_FIELD_NUMBER: _ClassVar[int]
    OPTIONAL_INT32_FIELD_NUMBER: _ClassVar[int]
    OPTIONAL_STRING_FIELD_NUMBER: _ClassVar[int]
    INTEGERS_FIELD_NUMBER: _ClassVar[int]
    STRINGS_FIELD_NUMBER: _ClassVar[int]
    COLORS_FIELD_NUMBER: _ClassVar[int]
    CHILDREN_FIELD_NUMBER: _ClassVar[int]
    DOUBLES_FIELD_NUMBER: _ClassVar[int]
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    STRING_TO_INT_FIELD_NUMBER: _ClassVar[int]
    INT_TO_STRING_FIELD_NUMBER: _ClassVar[int]
    BOOL_TO_CHILD_FIELD_NUMBER: _ClassVar[int]
    LONG_TO_COLOR_FIELD_NUMBER: _ClassVar[int]
    ULONG_TO_BYTES_FIELD_NUMBER: _ClassVar[int]
    CHOICE_TEXT_FIELD_NUMBER: _ClassVar[int]
    CHOICE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    CHOICE_CHILD_FIELD_NUMBER: _ClassVar[int]
    CHOICE_NULL_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    STRUCT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LIST_VALUE_FIELD_NUMBER: _ClassVar[int]
    ANY_FIELD_NUMBER: _ClassVar[int]
    EMPTY_FIELD_NUMBER: _ClassVar[int]
    NULL_VALUE_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_DOUBLE_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_FLOAT_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_INT64_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_UINT64_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_INT32_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_UINT32_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_BOOL_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_STRING_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_BYTES_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMPS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_LIST_FIELD_NUMBER: _ClassVar[int]
    STRING_TO_VALUE_FIELD_NUMBER: _ClassVar[int]
    STRING_TO_DURATION_FIELD_NUMBER: _ClassVar[int]
    RENAMED_FIELD_NUMBER: _ClassVar[int]
    NULLS_FIELD_NUMBER: _ClassVar[int]
    ANYS_FIELD_NUMBER: _ClassVar[int]
    int32_value: int
    int64_value: int
    uint32_value: int
    uint64_value: int
    sint32_value: int
    sint64_value: int
    fixed32_value: int
    fixed64_value: int
    sfixed32_value: int
    sfixed64_value: int
    float_value: float
    double_value: float
    bool_value: bool
    string_value: str
    bytes_value: bytes
    color: Color
    alias: Alias
    child: Child
    optional_int32: int
    optional_string: str
    integers: _containers.RepeatedScalarFieldContainer[int]
    strings: _containers.RepeatedScalarFieldContainer[str]
    colors: _containers.RepeatedScalarFieldContainer[Color]
    children: _containers.RepeatedCompositeFieldContainer[Child]
    doubles: _containers.RepeatedScalarFieldContainer[float]
    blobs: _containers.RepeatedScalarFieldContainer[bytes]
    string_to_int: _containers.ScalarMap[str, int]
    int_to_string: _containers.ScalarMap[int, str]
    bool_to_child: _containers.MessageMap[bool, Child]
    long_to_color: _containers.ScalarMap[int, Color]
    ulong_to_bytes: _containers.ScalarMap[int, bytes]
    choice_text: str
    choice_number: int
    choice_child: Child
    choice_null: _struct_pb2.NullValue
    timestamp: _timestamp_pb2.Timestamp
    duration: _duration_pb2.Duration
    mask: _field_mask_pb2.FieldMask
    struct: _struct_pb2.Struct
    value: _struct_pb2.Value
    list_value: _struct_pb2.ListValue
    any: _any_pb2.Any
    empty: _empty_pb2.Empty
    null_value: _struct_pb2.NullValue
    wrapped_double: _wrappers_pb2.DoubleValue
    wrapped_float: _wrappers_pb2.FloatValue
    wrapped_int64: _wrappers_pb2.Int64Value
    wrapped_uint64: _wrappers_pb2.UInt64Value
    wrapped_int32: _wrappers_pb2.Int32Value
    wrapped_uint32: _wrappers_pb2.UInt32Value
    wrapped_bool: _wrappers_pb2.BoolValue
    wrapped_string: _wrappers_pb2.StringValue
    wrapped_bytes: _wrappers_pb2.BytesValue
    timestamps: _containers.RepeatedCompositeFieldContainer[_timestamp_pb2.Timestamp]
    values: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Value]
    wrapped_list: _containers.RepeatedCompositeFieldContainer[_wrappers_pb2.Int32Value]
    string_to_value: _containers.MessageMap[str, _struct_pb2.Value]
    string_to_duration: _containers.MessageMap[str, _duration_pb2.Duration]
    renamed: str
    nulls: _containers.RepeatedScalarFieldContainer[_struct_pb2.NullValue]
    anys: _containers.RepeatedCompositeFieldContainer[_any_pb2.Any]
    def __init__(self, int32_value: _Optional[int] = ..., int64_value: _Optional[int] = ..., uint32_value: _Optional[int] = ..., uint64_value: _Optional[int] = ..., sint32_value: _Optional[int] = ..., sint64_value: _Optional[int] = ..., fixed32_value: _Optional[int] = ..., fixed64_value: _Optional[int] = ..., sfixed32_value: _Optional[int] = ..., sfixed64_value: _Optional[int] = ..., float_value: _Optional[float] = ..., double_value: _Optional[float] = ..., bool_value: _Optional[bool] = ..., string_value: _Optional[str] = ..., bytes_value: _Optional[bytes] = ..., color: _Optional[_Union[Color, str]] = ..., alias: _Optional[_Union[Alias, str]] = ..., child: _Optional[_Union[Child, _Mapping]] = ..., optional_int32: _Optional[int] = ..., optional_string: _Optional[str] = ..., integers: _Optional[_Iterable[int]] = ..., strings: _Optional[_Iterable[str]] = ..., colors: _Optional[_Iterable[_Union[Color, str]]] = ..., children: _Optional[_Iterable[_Union[Child, _Mapping]]] = ..., doubles: _Optional[_Iterable[float]] = ..., blobs: _Optional[_Iterable[bytes]] = ..., string_to_int: _Optional[_Mapping[str, int]] = ..., int_to_string: _Optional[_Mapping[int, str]] = ..., bool_to_child: _Optional[_Mapping[bool, Child]] = ..., long_to_color: _Optional[_Mapping[int, Color]] = ..., ulong_to_bytes: _Optional[_Mapping[int, bytes]] = ..., choice_text: _Optional[str] = ..., choice_number: _Optional[int] = ..., choice_child: _Optional[_Union[Child, _Mapping]] = ..., choice_null: _Optional[_Union[_struct_pb2.NullValue, str]] = ..., timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., struct: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., value: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., list_value: _Optional[_Union[_struct_pb2.ListValue, _Mapping]] = ..., any: _Optional[_Union[_any_pb2.Any, _Mapping]] = ..., empty: _Optional[_Union[_empty_pb2.Empty, _Mapping]] = ..., null_value: _Optional[_Union[_struct_pb2.NullValue, str]] = ..., wrapped_double: _Optional[_Union[_wrappers_pb2.DoubleValue, _Mapping]] = ..., wrapped_float: _Optional[_Union[_wrappers_pb2.FloatValue, _Mapping]] = ..., wrapped_int64: _Optional[_Union[_wrappers_pb2.Int64Value, _Mapping]] = ..., wrapped_uint64: _Optional[_Union[_wrappers_pb2.UInt64Value, _Mapping]] = ..., wrapped_int32: _Optional[_Union[_wrappers_pb2.Int32Value, _Mapping]] = ..., wrapped_uint32: _Optional[_Union[_wrappers_pb2.UInt32Value, _Mapping]] = ..., wrapped_bool: _Optional[_Union[_wrappers_pb2.BoolValue, _Mapping]] = ..., wrapped_string: _Optional[_Union[_wrappers_pb2.StringValue, _Mapping]] = ..., wrapped_bytes: _Optional[_Union[_wrappers_pb2.BytesValue, _Mapping]] = ..., timestamps: _Optional[_Iterable[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]]] = ..., values: _Optional[_Iterable[_Union[_struct_pb2.Value, _Mapping]]] = ..., wrapped_list: _Optional[_Iterable[_Union[_wrappers_pb2.Int32Value, _Mapping]]] = ..., string_to_value: _Optional[_Mapping[str, _struct_pb2.Value]] = ..., string_to_duration: _Optional[_Mapping[str, _duration_pb2.Duration]] = ..., renamed: _Optional[str] = ..., nulls: _Optional[_Iterable[_Union[_struct_pb2.NullValue, str]]] = ..., anys: _Optional[_Iterable[_Union[_any_pb2.Any, _Mapping]]] = ...) -> None: ...

class FailRequest(_message.Message):
    __slots__ = ("code", "message", "how", "details")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HOW_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    how: str
    details: _containers.RepeatedCompositeFieldContainer[_any_pb2.Any]
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., how: _Optional[str] = ..., details: _Optional[_Iterable[_Union[_any_pb2.Any, _Mapping]]] = ...) -> None: ...

class UploadRequest(_message.Message):
    __slots__ = ("name", "file", "note")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    name: str
    file: _httpbody_pb2.HttpBody
    note: str
    def __init__(self, name: _Optional[str] = ..., file: _Optional[_Union[_httpbody_pb2.HttpBody, _Mapping]] = ..., note: _Optional[str] = ...) -> None: ...

class CountRequest(_message.Message):
    __slots__ = ("up_to", "how", "resume_token", "fail_at")
    UP_TO_FIELD_NUMBER: _ClassVar[int]
    HOW_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FAIL_AT_FIELD_NUMBER: _ClassVar[int]
    up_to: int
    how: str
    resume_token: str
    fail_at: int
    def __init__(self, up_to: _Optional[int] = ..., how: _Optional[str] = ..., resume_token: _Optional[str] = ..., fail_at: _Optional[int] = ...) -> None: ...

class CountResponse(_message.Message):
    __slots__ = ("number", "token", "labels")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    number: int
    token: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, number: _Optional[int] = ..., token: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...
