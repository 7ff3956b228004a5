from penstock.api.common.v1 import prefix_pb2 as _prefix_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExplainPrefixRequest(_message.Message):
    __slots__ = ("request_id", "conversation")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    conversation: str
    def __init__(self, request_id: _Optional[str] = ..., conversation: _Optional[str] = ...) -> None: ...

class ExplainPrefixResponse(_message.Message):
    __slots__ = ("prompts",)
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    prompts: _containers.RepeatedCompositeFieldContainer[PromptPrefix]
    def __init__(self, prompts: _Optional[_Iterable[_Union[PromptPrefix, _Mapping]]] = ...) -> None: ...

class PromptPrefix(_message.Message):
    __slots__ = ("request_id", "run_id", "model", "instance_id", "sent_unix_ms", "outcome", "prefix_break", "breaks_in_row", "since_request_id", "since_unix_ms", "previous_request_id", "input_tokens", "cached_tokens", "readable_tokens", "lost_tokens", "lost_microusd", "repair", "repair_enabled", "repairs_applied", "text")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    SENT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    PREFIX_BREAK_FIELD_NUMBER: _ClassVar[int]
    BREAKS_IN_ROW_FIELD_NUMBER: _ClassVar[int]
    SINCE_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SINCE_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    READABLE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOST_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOST_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    REPAIR_FIELD_NUMBER: _ClassVar[int]
    REPAIR_ENABLED_FIELD_NUMBER: _ClassVar[int]
    REPAIRS_APPLIED_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    run_id: str
    model: str
    instance_id: str
    sent_unix_ms: int
    outcome: _prefix_pb2.PrefixOutcome
    prefix_break: _prefix_pb2.PrefixBreak
    breaks_in_row: int
    since_request_id: str
    since_unix_ms: int
    previous_request_id: str
    input_tokens: int
    cached_tokens: int
    readable_tokens: int
    lost_tokens: int
    lost_microusd: int
    repair: str
    repair_enabled: bool
    repairs_applied: _containers.RepeatedScalarFieldContainer[str]
    text: str
    def __init__(self, request_id: _Optional[str] = ..., run_id: _Optional[str] = ..., model: _Optional[str] = ..., instance_id: _Optional[str] = ..., sent_unix_ms: _Optional[int] = ..., outcome: _Optional[_Union[_prefix_pb2.PrefixOutcome, str]] = ..., prefix_break: _Optional[_Union[_prefix_pb2.PrefixBreak, _Mapping]] = ..., breaks_in_row: _Optional[int] = ..., since_request_id: _Optional[str] = ..., since_unix_ms: _Optional[int] = ..., previous_request_id: _Optional[str] = ..., input_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ..., readable_tokens: _Optional[int] = ..., lost_tokens: _Optional[int] = ..., lost_microusd: _Optional[int] = ..., repair: _Optional[str] = ..., repair_enabled: _Optional[bool] = ..., repairs_applied: _Optional[_Iterable[str]] = ..., text: _Optional[str] = ...) -> None: ...
