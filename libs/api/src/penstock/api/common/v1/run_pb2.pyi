from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RunState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUN_STATE_UNSPECIFIED: _ClassVar[RunState]
    RUN_STATE_RUNNING: _ClassVar[RunState]
    RUN_STATE_PAUSED: _ClassVar[RunState]
    RUN_STATE_CANCELLED: _ClassVar[RunState]
    RUN_STATE_ENDED: _ClassVar[RunState]

class RunCostKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUN_COST_KIND_UNSPECIFIED: _ClassVar[RunCostKind]
    RUN_COST_KIND_ANSWER: _ClassVar[RunCostKind]
    RUN_COST_KIND_REUSED: _ClassVar[RunCostKind]
    RUN_COST_KIND_LOOK_UP: _ClassVar[RunCostKind]
    RUN_COST_KIND_ESCALATION: _ClassVar[RunCostKind]
    RUN_COST_KIND_HEDGE: _ClassVar[RunCostKind]
    RUN_COST_KIND_FAILED_TRY: _ClassVar[RunCostKind]
    RUN_COST_KIND_JOB: _ClassVar[RunCostKind]
    RUN_COST_KIND_UNSETTLED: _ClassVar[RunCostKind]
RUN_STATE_UNSPECIFIED: RunState
RUN_STATE_RUNNING: RunState
RUN_STATE_PAUSED: RunState
RUN_STATE_CANCELLED: RunState
RUN_STATE_ENDED: RunState
RUN_COST_KIND_UNSPECIFIED: RunCostKind
RUN_COST_KIND_ANSWER: RunCostKind
RUN_COST_KIND_REUSED: RunCostKind
RUN_COST_KIND_LOOK_UP: RunCostKind
RUN_COST_KIND_ESCALATION: RunCostKind
RUN_COST_KIND_HEDGE: RunCostKind
RUN_COST_KIND_FAILED_TRY: RunCostKind
RUN_COST_KIND_JOB: RunCostKind
RUN_COST_KIND_UNSETTLED: RunCostKind

class RunAmount(_message.Message):
    __slots__ = ("calls", "tokens", "microusd")
    CALLS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    MICROUSD_FIELD_NUMBER: _ClassVar[int]
    calls: int
    tokens: int
    microusd: int
    def __init__(self, calls: _Optional[int] = ..., tokens: _Optional[int] = ..., microusd: _Optional[int] = ...) -> None: ...

class RunLimits(_message.Message):
    __slots__ = ("calls", "tokens", "microusd", "time_ms")
    CALLS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    MICROUSD_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    calls: int
    tokens: int
    microusd: int
    time_ms: int
    def __init__(self, calls: _Optional[int] = ..., tokens: _Optional[int] = ..., microusd: _Optional[int] = ..., time_ms: _Optional[int] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("id", "parent_id", "name", "state", "changed_by", "reason", "paused_at", "wanted", "limits", "reserve", "spent", "held", "shared", "started_unix_ms", "ends_unix_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CHANGED_BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PAUSED_AT_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    RESERVE_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    STARTED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    ENDS_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    id: str
    parent_id: str
    name: str
    state: RunState
    changed_by: str
    reason: str
    paused_at: str
    wanted: RunAmount
    limits: RunLimits
    reserve: RunAmount
    spent: RunAmount
    held: RunAmount
    shared: RunAmount
    started_unix_ms: int
    ends_unix_ms: int
    def __init__(self, id: _Optional[str] = ..., parent_id: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[_Union[RunState, str]] = ..., changed_by: _Optional[str] = ..., reason: _Optional[str] = ..., paused_at: _Optional[str] = ..., wanted: _Optional[_Union[RunAmount, _Mapping]] = ..., limits: _Optional[_Union[RunLimits, _Mapping]] = ..., reserve: _Optional[_Union[RunAmount, _Mapping]] = ..., spent: _Optional[_Union[RunAmount, _Mapping]] = ..., held: _Optional[_Union[RunAmount, _Mapping]] = ..., shared: _Optional[_Union[RunAmount, _Mapping]] = ..., started_unix_ms: _Optional[int] = ..., ends_unix_ms: _Optional[int] = ...) -> None: ...

class RunCost(_message.Message):
    __slots__ = ("run_id", "step", "kind", "model", "estimated", "amount", "rounding_picousd")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    ROUNDING_PICOUSD_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    step: str
    kind: RunCostKind
    model: str
    estimated: bool
    amount: RunAmount
    rounding_picousd: int
    def __init__(self, run_id: _Optional[str] = ..., step: _Optional[str] = ..., kind: _Optional[_Union[RunCostKind, str]] = ..., model: _Optional[str] = ..., estimated: _Optional[bool] = ..., amount: _Optional[_Union[RunAmount, _Mapping]] = ..., rounding_picousd: _Optional[int] = ...) -> None: ...
