from penstock.api.common.v1 import common_pb2 as _common_pb2
from penstock.api.inference.v1 import inference_pb2 as _inference_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Scope(_message.Message):
    __slots__ = ("namespace", "model", "context_sha256")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_SHA256_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    model: str
    context_sha256: bytes
    def __init__(self, namespace: _Optional[str] = ..., model: _Optional[str] = ..., context_sha256: _Optional[bytes] = ...) -> None: ...

class LookUpRequest(_message.Message):
    __slots__ = ("scope", "task", "max_age_ms", "max_error_rate", "full_price_microusd", "request_id", "asked_for", "token")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_ERROR_RATE_FIELD_NUMBER: _ClassVar[int]
    FULL_PRICE_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ASKED_FOR_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    scope: Scope
    task: _inference_pb2.Task
    max_age_ms: int
    max_error_rate: float
    full_price_microusd: int
    request_id: str
    asked_for: bool
    token: bytes
    def __init__(self, scope: _Optional[_Union[Scope, _Mapping]] = ..., task: _Optional[_Union[_inference_pb2.Task, _Mapping]] = ..., max_age_ms: _Optional[int] = ..., max_error_rate: _Optional[float] = ..., full_price_microusd: _Optional[int] = ..., request_id: _Optional[str] = ..., asked_for: _Optional[bool] = ..., token: _Optional[bytes] = ...) -> None: ...

class LookUpResponse(_message.Message):
    __slots__ = ("result", "receipt", "savings", "token", "stale")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    SAVINGS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    result: _inference_pb2.TaskResult
    receipt: _common_pb2.CacheReceipt
    savings: _containers.RepeatedCompositeFieldContainer[_common_pb2.Saving]
    token: bytes
    stale: bool
    def __init__(self, result: _Optional[_Union[_inference_pb2.TaskResult, _Mapping]] = ..., receipt: _Optional[_Union[_common_pb2.CacheReceipt, _Mapping]] = ..., savings: _Optional[_Iterable[_Union[_common_pb2.Saving, _Mapping]]] = ..., token: _Optional[bytes] = ..., stale: _Optional[bool] = ...) -> None: ...

class StoreRequest(_message.Message):
    __slots__ = ("token", "result", "paid_microusd", "tags")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    PAID_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    result: _inference_pb2.TaskResult
    paid_microusd: int
    tags: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, token: _Optional[bytes] = ..., result: _Optional[_Union[_inference_pb2.TaskResult, _Mapping]] = ..., paid_microusd: _Optional[int] = ..., tags: _Optional[_Iterable[str]] = ...) -> None: ...

class StoreResponse(_message.Message):
    __slots__ = ("stored", "reason")
    STORED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    stored: bool
    reason: str
    def __init__(self, stored: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("scope", "task", "result", "paid_microusd", "tags", "asked_for")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    PAID_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    ASKED_FOR_FIELD_NUMBER: _ClassVar[int]
    scope: Scope
    task: _inference_pb2.Task
    result: _inference_pb2.TaskResult
    paid_microusd: int
    tags: _containers.RepeatedScalarFieldContainer[str]
    asked_for: bool
    def __init__(self, scope: _Optional[_Union[Scope, _Mapping]] = ..., task: _Optional[_Union[_inference_pb2.Task, _Mapping]] = ..., result: _Optional[_Union[_inference_pb2.TaskResult, _Mapping]] = ..., paid_microusd: _Optional[int] = ..., tags: _Optional[_Iterable[str]] = ..., asked_for: _Optional[bool] = ...) -> None: ...

class StoreAllRequest(_message.Message):
    __slots__ = ("answers",)
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[Answer]
    def __init__(self, answers: _Optional[_Iterable[_Union[Answer, _Mapping]]] = ...) -> None: ...

class StoreAllResponse(_message.Message):
    __slots__ = ("stored",)
    STORED_FIELD_NUMBER: _ClassVar[int]
    stored: int
    def __init__(self, stored: _Optional[int] = ...) -> None: ...

class ListKeysRequest(_message.Message):
    __slots__ = ("cursor",)
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    def __init__(self, cursor: _Optional[str] = ...) -> None: ...

class ListKeysResponse(_message.Message):
    __slots__ = ("salt", "fingerprints", "cursor", "complete")
    SALT_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINTS_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    salt: bytes
    fingerprints: bytes
    cursor: str
    complete: bool
    def __init__(self, salt: _Optional[bytes] = ..., fingerprints: _Optional[bytes] = ..., cursor: _Optional[str] = ..., complete: _Optional[bool] = ...) -> None: ...

class SendFeedbackRequest(_message.Message):
    __slots__ = ("request_id", "correct")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CORRECT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    correct: bool
    def __init__(self, request_id: _Optional[str] = ..., correct: _Optional[bool] = ...) -> None: ...

class SendFeedbackResponse(_message.Message):
    __slots__ = ("quarantined",)
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    quarantined: bool
    def __init__(self, quarantined: _Optional[bool] = ...) -> None: ...

class InvalidateRequest(_message.Message):
    __slots__ = ("entry_ids", "tags", "scope", "model", "scope_id")
    ENTRY_IDS_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SCOPE_ID_FIELD_NUMBER: _ClassVar[int]
    entry_ids: _containers.RepeatedScalarFieldContainer[str]
    tags: _containers.RepeatedScalarFieldContainer[str]
    scope: Scope
    model: str
    scope_id: str
    def __init__(self, entry_ids: _Optional[_Iterable[str]] = ..., tags: _Optional[_Iterable[str]] = ..., scope: _Optional[_Union[Scope, _Mapping]] = ..., model: _Optional[str] = ..., scope_id: _Optional[str] = ...) -> None: ...

class InvalidateResponse(_message.Message):
    __slots__ = ("removed",)
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    removed: int
    def __init__(self, removed: _Optional[int] = ...) -> None: ...

class GetStatsRequest(_message.Message):
    __slots__ = ("namespace",)
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    def __init__(self, namespace: _Optional[str] = ...) -> None: ...

class GetStatsResponse(_message.Message):
    __slots__ = ("lookups", "audited_precision", "audited_precision_low", "audits", "bytes", "entries", "saved_microusd", "saved_ms", "refused", "hits")
    class LookupsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class RefusedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    LOOKUPS_FIELD_NUMBER: _ClassVar[int]
    AUDITED_PRECISION_FIELD_NUMBER: _ClassVar[int]
    AUDITED_PRECISION_LOW_FIELD_NUMBER: _ClassVar[int]
    AUDITS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    SAVED_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    SAVED_MS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    lookups: _containers.ScalarMap[str, int]
    audited_precision: float
    audited_precision_low: float
    audits: int
    bytes: int
    entries: int
    saved_microusd: int
    saved_ms: float
    refused: _containers.ScalarMap[str, int]
    hits: int
    def __init__(self, lookups: _Optional[_Mapping[str, int]] = ..., audited_precision: _Optional[float] = ..., audited_precision_low: _Optional[float] = ..., audits: _Optional[int] = ..., bytes: _Optional[int] = ..., entries: _Optional[int] = ..., saved_microusd: _Optional[int] = ..., saved_ms: _Optional[float] = ..., refused: _Optional[_Mapping[str, int]] = ..., hits: _Optional[int] = ...) -> None: ...

class GetTradeOffRequest(_message.Message):
    __slots__ = ("scope",)
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    scope: Scope
    def __init__(self, scope: _Optional[_Union[Scope, _Mapping]] = ...) -> None: ...

class TradeOffPoint(_message.Message):
    __slots__ = ("threshold", "hit_rate", "error_rate")
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    HIT_RATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_RATE_FIELD_NUMBER: _ClassVar[int]
    threshold: float
    hit_rate: float
    error_rate: float
    def __init__(self, threshold: _Optional[float] = ..., hit_rate: _Optional[float] = ..., error_rate: _Optional[float] = ...) -> None: ...

class GetTradeOffResponse(_message.Message):
    __slots__ = ("points", "threshold")
    POINTS_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    points: _containers.RepeatedCompositeFieldContainer[TradeOffPoint]
    threshold: float
    def __init__(self, points: _Optional[_Iterable[_Union[TradeOffPoint, _Mapping]]] = ..., threshold: _Optional[float] = ...) -> None: ...

class ExchangeRequest(_message.Message):
    __slots__ = ("items", "cancelled_ids", "credits", "ping")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_IDS_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[_common_pb2.Item]
    cancelled_ids: _containers.RepeatedScalarFieldContainer[int]
    credits: int
    ping: int
    def __init__(self, items: _Optional[_Iterable[_Union[_common_pb2.Item, _Mapping]]] = ..., cancelled_ids: _Optional[_Iterable[int]] = ..., credits: _Optional[int] = ..., ping: _Optional[int] = ...) -> None: ...

class ExchangeResponse(_message.Message):
    __slots__ = ("results", "credits", "pong", "draining", "answers_pings")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_PINGS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[_common_pb2.ItemResult]
    credits: int
    pong: int
    draining: bool
    answers_pings: bool
    def __init__(self, results: _Optional[_Iterable[_Union[_common_pb2.ItemResult, _Mapping]]] = ..., credits: _Optional[int] = ..., pong: _Optional[int] = ..., draining: _Optional[bool] = ..., answers_pings: _Optional[bool] = ...) -> None: ...
