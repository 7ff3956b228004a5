from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PrefixOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PREFIX_OUTCOME_UNSPECIFIED: _ClassVar[PrefixOutcome]
    PREFIX_OUTCOME_FIRST: _ClassVar[PrefixOutcome]
    PREFIX_OUTCOME_TOO_SHORT: _ClassVar[PrefixOutcome]
    PREFIX_OUTCOME_READ: _ClassVar[PrefixOutcome]
    PREFIX_OUTCOME_BROKEN: _ClassVar[PrefixOutcome]
    PREFIX_OUTCOME_MOVED: _ClassVar[PrefixOutcome]
    PREFIX_OUTCOME_EXPIRED: _ClassVar[PrefixOutcome]
    PREFIX_OUTCOME_EVICTED: _ClassVar[PrefixOutcome]
    PREFIX_OUTCOME_UNKNOWN: _ClassVar[PrefixOutcome]

class PrefixBreakKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PREFIX_BREAK_KIND_UNSPECIFIED: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_MODEL: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_PARAMETER: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_TOOLS_REORDERED: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_TOOL_ADDED: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_TOOL_REMOVED: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_TOOL_DESCRIPTION: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_TOOL_KEYS_REORDERED: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_TOOL_CHANGED: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_CLOCK: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_DATE: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_REQUEST_ID: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_SESSION_ID: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_COUNTER: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_WHITE_SPACE: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_LINE_ENDS: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_UNICODE_FORM: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_IMAGE: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_BREAKPOINT: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_HISTORY_TRUNCATED: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_HISTORY_SUMMARISED: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_TURNS_INSERTED: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_SYSTEM_INSERTED: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_TOOL_RESULT_SHORTENED: _ClassVar[PrefixBreakKind]
    PREFIX_BREAK_KIND_OLD_TURN_EDITED: _ClassVar[PrefixBreakKind]
PREFIX_OUTCOME_UNSPECIFIED: PrefixOutcome
PREFIX_OUTCOME_FIRST: PrefixOutcome
PREFIX_OUTCOME_TOO_SHORT: PrefixOutcome
PREFIX_OUTCOME_READ: PrefixOutcome
PREFIX_OUTCOME_BROKEN: PrefixOutcome
PREFIX_OUTCOME_MOVED: PrefixOutcome
PREFIX_OUTCOME_EXPIRED: PrefixOutcome
PREFIX_OUTCOME_EVICTED: PrefixOutcome
PREFIX_OUTCOME_UNKNOWN: PrefixOutcome
PREFIX_BREAK_KIND_UNSPECIFIED: PrefixBreakKind
PREFIX_BREAK_KIND_MODEL: PrefixBreakKind
PREFIX_BREAK_KIND_PARAMETER: PrefixBreakKind
PREFIX_BREAK_KIND_TOOLS_REORDERED: PrefixBreakKind
PREFIX_BREAK_KIND_TOOL_ADDED: PrefixBreakKind
PREFIX_BREAK_KIND_TOOL_REMOVED: PrefixBreakKind
PREFIX_BREAK_KIND_TOOL_DESCRIPTION: PrefixBreakKind
PREFIX_BREAK_KIND_TOOL_KEYS_REORDERED: PrefixBreakKind
PREFIX_BREAK_KIND_TOOL_CHANGED: PrefixBreakKind
PREFIX_BREAK_KIND_CLOCK: PrefixBreakKind
PREFIX_BREAK_KIND_DATE: PrefixBreakKind
PREFIX_BREAK_KIND_REQUEST_ID: PrefixBreakKind
PREFIX_BREAK_KIND_SESSION_ID: PrefixBreakKind
PREFIX_BREAK_KIND_COUNTER: PrefixBreakKind
PREFIX_BREAK_KIND_WHITE_SPACE: PrefixBreakKind
PREFIX_BREAK_KIND_LINE_ENDS: PrefixBreakKind
PREFIX_BREAK_KIND_UNICODE_FORM: PrefixBreakKind
PREFIX_BREAK_KIND_IMAGE: PrefixBreakKind
PREFIX_BREAK_KIND_BREAKPOINT: PrefixBreakKind
PREFIX_BREAK_KIND_HISTORY_TRUNCATED: PrefixBreakKind
PREFIX_BREAK_KIND_HISTORY_SUMMARISED: PrefixBreakKind
PREFIX_BREAK_KIND_TURNS_INSERTED: PrefixBreakKind
PREFIX_BREAK_KIND_SYSTEM_INSERTED: PrefixBreakKind
PREFIX_BREAK_KIND_TOOL_RESULT_SHORTENED: PrefixBreakKind
PREFIX_BREAK_KIND_OLD_TURN_EDITED: PrefixBreakKind

class PrefixBreak(_message.Message):
    __slots__ = ("kind", "place", "role", "line")
    KIND_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    kind: PrefixBreakKind
    place: str
    role: str
    line: int
    def __init__(self, kind: _Optional[_Union[PrefixBreakKind, str]] = ..., place: _Optional[str] = ..., role: _Optional[str] = ..., line: _Optional[int] = ...) -> None: ...

class PrefixLoss(_message.Message):
    __slots__ = ("outcome", "prefix_break", "lost_tokens", "lost_microusd")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    PREFIX_BREAK_FIELD_NUMBER: _ClassVar[int]
    LOST_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOST_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    outcome: PrefixOutcome
    prefix_break: PrefixBreak
    lost_tokens: int
    lost_microusd: int
    def __init__(self, outcome: _Optional[_Union[PrefixOutcome, str]] = ..., prefix_break: _Optional[_Union[PrefixBreak, _Mapping]] = ..., lost_tokens: _Optional[int] = ..., lost_microusd: _Optional[int] = ...) -> None: ...
