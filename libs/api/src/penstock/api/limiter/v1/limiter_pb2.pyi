from penstock.api.common.v1 import common_pb2 as _common_pb2
from penstock.api.limiter.v1 import runs_pb2 as _runs_pb2
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
    VERDICT_UNPRICED: _ClassVar[Verdict]
    VERDICT_DRAINED: _ClassVar[Verdict]
    VERDICT_SUPERSEDED: _ClassVar[Verdict]
VERDICT_UNSPECIFIED: Verdict
VERDICT_ALLOWED: Verdict
VERDICT_RATE_LIMITED: Verdict
VERDICT_BUDGET_EXHAUSTED: Verdict
VERDICT_NEVER: Verdict
VERDICT_SHED: Verdict
VERDICT_STORE_UNAVAILABLE: Verdict
VERDICT_UNPRICED: Verdict
VERDICT_DRAINED: Verdict
VERDICT_SUPERSEDED: Verdict

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
    __slots__ = ("hold_id", "model", "amount", "least", "output_tokens", "unpriced", "route", "fence")
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    LEAST_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    UNPRICED_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    hold_id: str
    model: str
    amount: Amount
    least: Amount
    output_tokens: int
    unpriced: bool
    route: str
    fence: int
    def __init__(self, hold_id: _Optional[str] = ..., model: _Optional[str] = ..., amount: _Optional[_Union[Amount, _Mapping]] = ..., least: _Optional[_Union[Amount, _Mapping]] = ..., output_tokens: _Optional[int] = ..., unpriced: _Optional[bool] = ..., route: _Optional[str] = ..., fence: _Optional[int] = ...) -> None: ...

class ReserveResponse(_message.Message):
    __slots__ = ("decision",)
    DECISION_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    def __init__(self, decision: _Optional[_Union[Decision, _Mapping]] = ...) -> None: ...

class ExtendRequest(_message.Message):
    __slots__ = ("hold_id", "amount", "fence")
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    hold_id: str
    amount: Amount
    fence: int
    def __init__(self, hold_id: _Optional[str] = ..., amount: _Optional[_Union[Amount, _Mapping]] = ..., fence: _Optional[int] = ...) -> None: ...

class ExtendResponse(_message.Message):
    __slots__ = ("decision",)
    DECISION_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    def __init__(self, decision: _Optional[_Union[Decision, _Mapping]] = ...) -> None: ...

class CommitRequest(_message.Message):
    __slots__ = ("hold_id", "spent", "fence", "model")
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    hold_id: str
    spent: Amount
    fence: int
    model: str
    def __init__(self, hold_id: _Optional[str] = ..., spent: _Optional[_Union[Amount, _Mapping]] = ..., fence: _Optional[int] = ..., model: _Optional[str] = ...) -> None: ...

class CommitResponse(_message.Message):
    __slots__ = ("settled",)
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    settled: bool
    def __init__(self, settled: _Optional[bool] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("hold_id", "fence")
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    hold_id: str
    fence: int
    def __init__(self, hold_id: _Optional[str] = ..., fence: _Optional[int] = ...) -> None: ...

class ReleaseResponse(_message.Message):
    __slots__ = ("released",)
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    released: bool
    def __init__(self, released: _Optional[bool] = ...) -> None: ...

class GrantLeaseRequest(_message.Message):
    __slots__ = ("lease_id", "model", "wanted", "least", "unpriced")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    LEAST_FIELD_NUMBER: _ClassVar[int]
    UNPRICED_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    model: str
    wanted: Amount
    least: Amount
    unpriced: bool
    def __init__(self, lease_id: _Optional[str] = ..., model: _Optional[str] = ..., wanted: _Optional[_Union[Amount, _Mapping]] = ..., least: _Optional[_Union[Amount, _Mapping]] = ..., unpriced: _Optional[bool] = ...) -> None: ...

class GrantLeaseResponse(_message.Message):
    __slots__ = ("decision", "granted", "ttl_ms", "reserve_each", "holds_expected")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    RESERVE_EACH_FIELD_NUMBER: _ClassVar[int]
    HOLDS_EXPECTED_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    granted: Amount
    ttl_ms: int
    reserve_each: bool
    holds_expected: bool
    def __init__(self, decision: _Optional[_Union[Decision, _Mapping]] = ..., granted: _Optional[_Union[Amount, _Mapping]] = ..., ttl_ms: _Optional[int] = ..., reserve_each: _Optional[bool] = ..., holds_expected: _Optional[bool] = ...) -> None: ...

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
    __slots__ = ("lease_id", "spent", "model")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    spent: Amount
    model: str
    def __init__(self, lease_id: _Optional[str] = ..., spent: _Optional[_Union[Amount, _Mapping]] = ..., model: _Optional[str] = ...) -> None: ...

class ReturnLeaseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

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

class Path(_message.Message):
    __slots__ = ("organisation", "team", "user", "key_id", "model", "tags")
    ORGANISATION_FIELD_NUMBER: _ClassVar[int]
    TEAM_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    organisation: str
    team: str
    user: str
    key_id: str
    model: str
    tags: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, organisation: _Optional[str] = ..., team: _Optional[str] = ..., user: _Optional[str] = ..., key_id: _Optional[str] = ..., model: _Optional[str] = ..., tags: _Optional[_Iterable[str]] = ...) -> None: ...

class Subject(_message.Message):
    __slots__ = ("rule", "organisation", "value")
    RULE_FIELD_NUMBER: _ClassVar[int]
    ORGANISATION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    rule: str
    organisation: str
    value: str
    def __init__(self, rule: _Optional[str] = ..., organisation: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class RuleInForce(_message.Message):
    __slots__ = ("name", "kind", "level", "counts", "limit", "window", "holds", "store_loss", "shadow")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    STORE_LOSS_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    level: str
    counts: str
    limit: int
    window: str
    holds: str
    store_loss: str
    shadow: bool
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., level: _Optional[str] = ..., counts: _Optional[str] = ..., limit: _Optional[int] = ..., window: _Optional[str] = ..., holds: _Optional[str] = ..., store_loss: _Optional[str] = ..., shadow: _Optional[bool] = ...) -> None: ...

class ListRulesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRulesResponse(_message.Message):
    __slots__ = ("rules",)
    RULES_FIELD_NUMBER: _ClassVar[int]
    rules: _containers.RepeatedCompositeFieldContainer[RuleInForce]
    def __init__(self, rules: _Optional[_Iterable[_Union[RuleInForce, _Mapping]]] = ...) -> None: ...

class ShowUsageRequest(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: Path
    def __init__(self, path: _Optional[_Union[Path, _Mapping]] = ...) -> None: ...

class ShowUsageResponse(_message.Message):
    __slots__ = ("rules",)
    RULES_FIELD_NUMBER: _ClassVar[int]
    rules: _containers.RepeatedCompositeFieldContainer[RuleUsage]
    def __init__(self, rules: _Optional[_Iterable[_Union[RuleUsage, _Mapping]]] = ...) -> None: ...

class SetLimitRequest(_message.Message):
    __slots__ = ("subject", "limit", "reason")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    subject: Subject
    limit: int
    reason: str
    def __init__(self, subject: _Optional[_Union[Subject, _Mapping]] = ..., limit: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class SetLimitResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResetUsageRequest(_message.Message):
    __slots__ = ("subject", "reason")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    subject: Subject
    reason: str
    def __init__(self, subject: _Optional[_Union[Subject, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class ResetUsageResponse(_message.Message):
    __slots__ = ("committed",)
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    committed: int
    def __init__(self, committed: _Optional[int] = ...) -> None: ...

class AdjustUsageRequest(_message.Message):
    __slots__ = ("subject", "amount", "reason")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    subject: Subject
    amount: int
    reason: str
    def __init__(self, subject: _Optional[_Union[Subject, _Mapping]] = ..., amount: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class AdjustUsageResponse(_message.Message):
    __slots__ = ("committed",)
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    committed: int
    def __init__(self, committed: _Optional[int] = ...) -> None: ...

class DrainOrganisationRequest(_message.Message):
    __slots__ = ("organisation", "drain", "reason")
    ORGANISATION_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    organisation: str
    drain: bool
    reason: str
    def __init__(self, organisation: _Optional[str] = ..., drain: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class DrainOrganisationResponse(_message.Message):
    __slots__ = ("open_holds",)
    OPEN_HOLDS_FIELD_NUMBER: _ClassVar[int]
    open_holds: int
    def __init__(self, open_holds: _Optional[int] = ...) -> None: ...

class VerifyLedgerRequest(_message.Message):
    __slots__ = ("organisation",)
    ORGANISATION_FIELD_NUMBER: _ClassVar[int]
    organisation: str
    def __init__(self, organisation: _Optional[str] = ...) -> None: ...

class VerifyLedgerResponse(_message.Message):
    __slots__ = ("entries", "differing")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    DIFFERING_FIELD_NUMBER: _ClassVar[int]
    entries: int
    differing: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, entries: _Optional[int] = ..., differing: _Optional[_Iterable[str]] = ...) -> None: ...

class ListChangesRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class Change(_message.Message):
    __slots__ = ("at_unix_ms", "operator", "action", "target", "reason")
    AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    at_unix_ms: int
    operator: str
    action: str
    target: str
    reason: str
    def __init__(self, at_unix_ms: _Optional[int] = ..., operator: _Optional[str] = ..., action: _Optional[str] = ..., target: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ListChangesResponse(_message.Message):
    __slots__ = ("changes",)
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    def __init__(self, changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ...) -> None: ...

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
