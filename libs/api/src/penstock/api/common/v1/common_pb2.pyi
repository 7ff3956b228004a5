from penstock.api.common.v1 import prefix_pb2 as _prefix_pb2
from penstock.api.common.v1 import run_pb2 as _run_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_LOW: _ClassVar[Priority]
    PRIORITY_NORMAL: _ClassVar[Priority]
    PRIORITY_HIGH: _ClassVar[Priority]
    PRIORITY_CRITICAL: _ClassVar[Priority]

class CacheOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CACHE_OUTCOME_UNSPECIFIED: _ClassVar[CacheOutcome]
    CACHE_OUTCOME_MISS: _ClassVar[CacheOutcome]
    CACHE_OUTCOME_EXACT_HIT: _ClassVar[CacheOutcome]
    CACHE_OUTCOME_SEMANTIC_HIT: _ClassVar[CacheOutcome]
    CACHE_OUTCOME_COALESCED: _ClassVar[CacheOutcome]
    CACHE_OUTCOME_BYPASSED: _ClassVar[CacheOutcome]
PRIORITY_UNSPECIFIED: Priority
PRIORITY_LOW: Priority
PRIORITY_NORMAL: Priority
PRIORITY_HIGH: Priority
PRIORITY_CRITICAL: Priority
CACHE_OUTCOME_UNSPECIFIED: CacheOutcome
CACHE_OUTCOME_MISS: CacheOutcome
CACHE_OUTCOME_EXACT_HIT: CacheOutcome
CACHE_OUTCOME_SEMANTIC_HIT: CacheOutcome
CACHE_OUTCOME_COALESCED: CacheOutcome
CACHE_OUTCOME_BYPASSED: CacheOutcome

class Principal(_message.Message):
    __slots__ = ("organisation", "team", "user", "key_id", "tags")
    ORGANISATION_FIELD_NUMBER: _ClassVar[int]
    TEAM_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    organisation: str
    team: str
    user: str
    key_id: str
    tags: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, organisation: _Optional[str] = ..., team: _Optional[str] = ..., user: _Optional[str] = ..., key_id: _Optional[str] = ..., tags: _Optional[_Iterable[str]] = ...) -> None: ...

class CallContext(_message.Message):
    __slots__ = ("principal", "traceparent", "tracestate", "remaining_ms", "priority", "run_id", "step")
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    REMAINING_MS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    principal: Principal
    traceparent: str
    tracestate: str
    remaining_ms: int
    priority: Priority
    run_id: str
    step: str
    def __init__(self, principal: _Optional[_Union[Principal, _Mapping]] = ..., traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ..., remaining_ms: _Optional[int] = ..., priority: _Optional[_Union[Priority, str]] = ..., run_id: _Optional[str] = ..., step: _Optional[str] = ...) -> None: ...

class ItemStatus(_message.Message):
    __slots__ = ("code", "message", "reason", "field", "retry_after_ms", "provider_error", "run")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_ERROR_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    reason: str
    field: str
    retry_after_ms: int
    provider_error: ProviderError
    run: _run_pb2.Run
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., reason: _Optional[str] = ..., field: _Optional[str] = ..., retry_after_ms: _Optional[int] = ..., provider_error: _Optional[_Union[ProviderError, _Mapping]] = ..., run: _Optional[_Union[_run_pb2.Run, _Mapping]] = ...) -> None: ...

class ProviderError(_message.Message):
    __slots__ = ("status", "body")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    status: int
    body: bytes
    def __init__(self, status: _Optional[int] = ..., body: _Optional[bytes] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("id", "method", "context", "payload", "remaining_bytes")
    ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    REMAINING_BYTES_FIELD_NUMBER: _ClassVar[int]
    id: int
    method: str
    context: CallContext
    payload: bytes
    remaining_bytes: int
    def __init__(self, id: _Optional[int] = ..., method: _Optional[str] = ..., context: _Optional[_Union[CallContext, _Mapping]] = ..., payload: _Optional[bytes] = ..., remaining_bytes: _Optional[int] = ...) -> None: ...

class ItemResult(_message.Message):
    __slots__ = ("id", "payload", "status")
    ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    id: int
    payload: bytes
    status: ItemStatus
    def __init__(self, id: _Optional[int] = ..., payload: _Optional[bytes] = ..., status: _Optional[_Union[ItemStatus, _Mapping]] = ...) -> None: ...

class LoadReport(_message.Message):
    __slots__ = ("in_flight", "queued", "concurrency", "utilization", "service_ms", "age_ms")
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    UTILIZATION_FIELD_NUMBER: _ClassVar[int]
    SERVICE_MS_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    in_flight: int
    queued: int
    concurrency: int
    utilization: float
    service_ms: float
    age_ms: int
    def __init__(self, in_flight: _Optional[int] = ..., queued: _Optional[int] = ..., concurrency: _Optional[int] = ..., utilization: _Optional[float] = ..., service_ms: _Optional[float] = ..., age_ms: _Optional[int] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("input_tokens", "output_tokens", "cached_input_tokens", "written_input_tokens", "reasoning_tokens", "estimated")
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REASONING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_FIELD_NUMBER: _ClassVar[int]
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    written_input_tokens: int
    reasoning_tokens: int
    estimated: bool
    def __init__(self, input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., cached_input_tokens: _Optional[int] = ..., written_input_tokens: _Optional[int] = ..., reasoning_tokens: _Optional[int] = ..., estimated: _Optional[bool] = ...) -> None: ...

class Cost(_message.Message):
    __slots__ = ("paid_microusd", "full_price_microusd", "saved_microusd", "estimated", "provider_saved_microusd")
    PAID_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    FULL_PRICE_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    SAVED_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_SAVED_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    paid_microusd: int
    full_price_microusd: int
    saved_microusd: int
    estimated: bool
    provider_saved_microusd: int
    def __init__(self, paid_microusd: _Optional[int] = ..., full_price_microusd: _Optional[int] = ..., saved_microusd: _Optional[int] = ..., estimated: _Optional[bool] = ..., provider_saved_microusd: _Optional[int] = ...) -> None: ...

class Saving(_message.Message):
    __slots__ = ("technique", "microusd", "saved_ms")
    TECHNIQUE_FIELD_NUMBER: _ClassVar[int]
    MICROUSD_FIELD_NUMBER: _ClassVar[int]
    SAVED_MS_FIELD_NUMBER: _ClassVar[int]
    technique: str
    microusd: int
    saved_ms: float
    def __init__(self, technique: _Optional[str] = ..., microusd: _Optional[int] = ..., saved_ms: _Optional[float] = ...) -> None: ...

class CacheReceipt(_message.Message):
    __slots__ = ("outcome", "rule", "similarity", "confidence", "age_ms", "lookup_ms", "embed_ms", "cost_microusd", "entry_id", "scope_id")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    LOOKUP_MS_FIELD_NUMBER: _ClassVar[int]
    EMBED_MS_FIELD_NUMBER: _ClassVar[int]
    COST_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    SCOPE_ID_FIELD_NUMBER: _ClassVar[int]
    outcome: CacheOutcome
    rule: str
    similarity: float
    confidence: float
    age_ms: int
    lookup_ms: float
    embed_ms: float
    cost_microusd: int
    entry_id: str
    scope_id: str
    def __init__(self, outcome: _Optional[_Union[CacheOutcome, str]] = ..., rule: _Optional[str] = ..., similarity: _Optional[float] = ..., confidence: _Optional[float] = ..., age_ms: _Optional[int] = ..., lookup_ms: _Optional[float] = ..., embed_ms: _Optional[float] = ..., cost_microusd: _Optional[int] = ..., entry_id: _Optional[str] = ..., scope_id: _Optional[str] = ...) -> None: ...

class RouteReceipt(_message.Message):
    __slots__ = ("instance_id", "reason", "score", "attempts", "hedged", "candidates")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    HEDGED_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    reason: str
    score: float
    attempts: int
    hedged: bool
    candidates: int
    def __init__(self, instance_id: _Optional[str] = ..., reason: _Optional[str] = ..., score: _Optional[float] = ..., attempts: _Optional[int] = ..., hedged: _Optional[bool] = ..., candidates: _Optional[int] = ...) -> None: ...

class BatchReceipt(_message.Message):
    __slots__ = ("queued_ms", "batch_size", "release_reason")
    QUEUED_MS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    RELEASE_REASON_FIELD_NUMBER: _ClassVar[int]
    queued_ms: float
    batch_size: int
    release_reason: str
    def __init__(self, queued_ms: _Optional[float] = ..., batch_size: _Optional[int] = ..., release_reason: _Optional[str] = ...) -> None: ...

class Escalation(_message.Message):
    __slots__ = ("request_id", "model", "confidence", "floor", "usage", "cost", "total_ms")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    confidence: float
    floor: float
    usage: Usage
    cost: Cost
    total_ms: float
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., confidence: _Optional[float] = ..., floor: _Optional[float] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., cost: _Optional[_Union[Cost, _Mapping]] = ..., total_ms: _Optional[float] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("request_id", "trace_id", "run_id", "model", "revision", "cache", "route", "batch", "compute_ms", "total_ms", "usage", "cost", "savings", "notes", "escalations", "prefix_loss")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    SAVINGS_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    ESCALATIONS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_LOSS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    trace_id: str
    run_id: str
    model: str
    revision: str
    cache: CacheReceipt
    route: RouteReceipt
    batch: BatchReceipt
    compute_ms: float
    total_ms: float
    usage: Usage
    cost: Cost
    savings: _containers.RepeatedCompositeFieldContainer[Saving]
    notes: _containers.RepeatedScalarFieldContainer[str]
    escalations: _containers.RepeatedCompositeFieldContainer[Escalation]
    prefix_loss: _prefix_pb2.PrefixLoss
    def __init__(self, request_id: _Optional[str] = ..., trace_id: _Optional[str] = ..., run_id: _Optional[str] = ..., model: _Optional[str] = ..., revision: _Optional[str] = ..., cache: _Optional[_Union[CacheReceipt, _Mapping]] = ..., route: _Optional[_Union[RouteReceipt, _Mapping]] = ..., batch: _Optional[_Union[BatchReceipt, _Mapping]] = ..., compute_ms: _Optional[float] = ..., total_ms: _Optional[float] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., cost: _Optional[_Union[Cost, _Mapping]] = ..., savings: _Optional[_Iterable[_Union[Saving, _Mapping]]] = ..., notes: _Optional[_Iterable[str]] = ..., escalations: _Optional[_Iterable[_Union[Escalation, _Mapping]]] = ..., prefix_loss: _Optional[_Union[_prefix_pb2.PrefixLoss, _Mapping]] = ...) -> None: ...
