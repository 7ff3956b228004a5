from penstock.api.common.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_ALLOWED: _ClassVar[Verdict]
    VERDICT_RATE_LIMITED: _ClassVar[Verdict]
    VERDICT_BUDGET_EXHAUSTED: _ClassVar[Verdict]
    VERDICT_NEVER: _ClassVar[Verdict]
    VERDICT_SHED: _ClassVar[Verdict]
    VERDICT_STORE_UNAVAILABLE: _ClassVar[Verdict]
VERDICT_UNSPECIFIED: Verdict
VERDICT_ALLOWED: Verdict
VERDICT_RATE_LIMITED: Verdict
VERDICT_BUDGET_EXHAUSTED: Verdict
VERDICT_NEVER: Verdict
VERDICT_SHED: Verdict
VERDICT_STORE_UNAVAILABLE: Verdict

class Amount(_message.Message):
    __slots__ = ("requests", "tokens", "microusd")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    MICROUSD_FIELD_NUMBER: _ClassVar[int]
    requests: int
    tokens: int
    microusd: int
    def __init__(self, requests: _Optional[int] = ..., tokens: _Optional[int] = ..., microusd: _Optional[int] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("verdict", "rule", "retry_after_ms", "max_tokens_hint", "cheaper_model_hint")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_HINT_FIELD_NUMBER: _ClassVar[int]
    CHEAPER_MODEL_HINT_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    rule: str
    retry_after_ms: int
    max_tokens_hint: int
    cheaper_model_hint: str
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ..., rule: _Optional[str] = ..., retry_after_ms: _Optional[int] = ..., max_tokens_hint: _Optional[int] = ..., cheaper_model_hint: _Optional[str] = ...) -> None: ...

class ReserveRequest(_message.Message):
    __slots__ = ("hold_id", "model", "amount", "least", "ttl_ms")
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    LEAST_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    hold_id: str
    model: str
    amount: Amount
    least: Amount
    ttl_ms: int
    def __init__(self, hold_id: _Optional[str] = ..., model: _Optional[str] = ..., amount: _Optional[_Union[Amount, _Mapping]] = ..., least: _Optional[_Union[Amount, _Mapping]] = ..., ttl_ms: _Optional[int] = ...) -> None: ...

class ReserveResponse(_message.Message):
    __slots__ = ("decision",)
    DECISION_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    def __init__(self, decision: _Optional[_Union[Decision, _Mapping]] = ...) -> None: ...

class ExtendRequest(_message.Message):
    __slots__ = ("hold_id", "amount")
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    hold_id: str
    amount: Amount
    def __init__(self, hold_id: _Optional[str] = ..., amount: _Optional[_Union[Amount, _Mapping]] = ...) -> None: ...

class ExtendResponse(_message.Message):
    __slots__ = ("decision",)
    DECISION_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    def __init__(self, decision: _Optional[_Union[Decision, _Mapping]] = ...) -> None: ...

class CommitRequest(_message.Message):
    __slots__ = ("hold_id", "spent")
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    hold_id: str
    spent: Amount
    def __init__(self, hold_id: _Optional[str] = ..., spent: _Optional[_Union[Amount, _Mapping]] = ...) -> None: ...

class CommitResponse(_message.Message):
    __slots__ = ("settled",)
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    settled: bool
    def __init__(self, settled: _Optional[bool] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("hold_id",)
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    hold_id: str
    def __init__(self, hold_id: _Optional[str] = ...) -> None: ...

class ReleaseResponse(_message.Message):
    __slots__ = ("released",)
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    released: bool
    def __init__(self, released: _Optional[bool] = ...) -> None: ...

class GrantLeaseRequest(_message.Message):
    __slots__ = ("lease_id", "model", "wanted")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    model: str
    wanted: Amount
    def __init__(self, lease_id: _Optional[str] = ..., model: _Optional[str] = ..., wanted: _Optional[_Union[Amount, _Mapping]] = ...) -> None: ...

class GrantLeaseResponse(_message.Message):
    __slots__ = ("decision", "granted", "ttl_ms", "reserve_each")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    RESERVE_EACH_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    granted: Amount
    ttl_ms: int
    reserve_each: bool
    def __init__(self, decision: _Optional[_Union[Decision, _Mapping]] = ..., granted: _Optional[_Union[Amount, _Mapping]] = ..., ttl_ms: _Optional[int] = ..., reserve_each: _Optional[bool] = ...) -> None: ...

class RenewLeaseRequest(_message.Message):
    __slots__ = ("lease_id", "spent", "wanted")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    spent: Amount
    wanted: Amount
    def __init__(self, lease_id: _Optional[str] = ..., spent: _Optional[_Union[Amount, _Mapping]] = ..., wanted: _Optional[_Union[Amount, _Mapping]] = ...) -> None: ...

class RenewLeaseResponse(_message.Message):
    __slots__ = ("decision", "granted", "ttl_ms")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    granted: Amount
    ttl_ms: int
    def __init__(self, decision: _Optional[_Union[Decision, _Mapping]] = ..., granted: _Optional[_Union[Amount, _Mapping]] = ..., ttl_ms: _Optional[int] = ...) -> None: ...

class ReturnLeaseRequest(_message.Message):
    __slots__ = ("lease_id", "spent")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    spent: Amount
    def __init__(self, lease_id: _Optional[str] = ..., spent: _Optional[_Union[Amount, _Mapping]] = ...) -> None: ...

class ReturnLeaseResponse(_message.Message):
    __slots__ = ("returned",)
    RETURNED_FIELD_NUMBER: _ClassVar[int]
    returned: Amount
    def __init__(self, returned: _Optional[_Union[Amount, _Mapping]] = ...) -> None: ...

class GetUsageRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class RuleUsage(_message.Message):
    __slots__ = ("rule", "limit", "committed", "held", "window_ends_unix_ms")
    RULE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    WINDOW_ENDS_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    rule: str
    limit: Amount
    committed: Amount
    held: Amount
    window_ends_unix_ms: int
    def __init__(self, rule: _Optional[str] = ..., limit: _Optional[_Union[Amount, _Mapping]] = ..., committed: _Optional[_Union[Amount, _Mapping]] = ..., held: _Optional[_Union[Amount, _Mapping]] = ..., window_ends_unix_ms: _Optional[int] = ...) -> None: ...

class GetUsageResponse(_message.Message):
    __slots__ = ("rules",)
    RULES_FIELD_NUMBER: _ClassVar[int]
    rules: _containers.RepeatedCompositeFieldContainer[RuleUsage]
    def __init__(self, rules: _Optional[_Iterable[_Union[RuleUsage, _Mapping]]] = ...) -> None: ...

class ExchangeRequest(_message.Message):
    __slots__ = ("items", "cancelled_ids", "credits")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_IDS_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[_common_pb2.Item]
    cancelled_ids: _containers.RepeatedScalarFieldContainer[int]
    credits: int
    def __init__(self, items: _Optional[_Iterable[_Union[_common_pb2.Item, _Mapping]]] = ..., cancelled_ids: _Optional[_Iterable[int]] = ..., credits: _Optional[int] = ...) -> None: ...

class ExchangeResponse(_message.Message):
    __slots__ = ("results", "credits")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[_common_pb2.ItemResult]
    credits: int
    def __init__(self, results: _Optional[_Iterable[_Union[_common_pb2.ItemResult, _Mapping]]] = ..., credits: _Optional[int] = ...) -> None: ...
