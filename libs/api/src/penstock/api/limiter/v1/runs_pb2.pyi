from penstock.api.common.v1 import run_pb2 as _run_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RunAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUN_ACTION_UNSPECIFIED: _ClassVar[RunAction]
    RUN_ACTION_RAISE: _ClassVar[RunAction]
    RUN_ACTION_PAUSE: _ClassVar[RunAction]
    RUN_ACTION_CANCEL: _ClassVar[RunAction]
    RUN_ACTION_END: _ClassVar[RunAction]
RUN_ACTION_UNSPECIFIED: RunAction
RUN_ACTION_RAISE: RunAction
RUN_ACTION_PAUSE: RunAction
RUN_ACTION_CANCEL: RunAction
RUN_ACTION_END: RunAction

class OpenRunRequest(_message.Message):
    __slots__ = ("run_id", "parent_id", "name", "limits", "reserve")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    RESERVE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    parent_id: str
    name: str
    limits: _run_pb2.RunLimits
    reserve: _run_pb2.RunAmount
    def __init__(self, run_id: _Optional[str] = ..., parent_id: _Optional[str] = ..., name: _Optional[str] = ..., limits: _Optional[_Union[_run_pb2.RunLimits, _Mapping]] = ..., reserve: _Optional[_Union[_run_pb2.RunAmount, _Mapping]] = ...) -> None: ...

class OpenRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: _run_pb2.Run
    def __init__(self, run: _Optional[_Union[_run_pb2.Run, _Mapping]] = ...) -> None: ...

class HoldRunRequest(_message.Message):
    __slots__ = ("run_id", "hold_id", "amount", "is_final", "is_unpriced", "step", "model")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    IS_FINAL_FIELD_NUMBER: _ClassVar[int]
    IS_UNPRICED_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    hold_id: str
    amount: _run_pb2.RunAmount
    is_final: bool
    is_unpriced: bool
    step: str
    model: str
    def __init__(self, run_id: _Optional[str] = ..., hold_id: _Optional[str] = ..., amount: _Optional[_Union[_run_pb2.RunAmount, _Mapping]] = ..., is_final: _Optional[bool] = ..., is_unpriced: _Optional[bool] = ..., step: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class HoldRunResponse(_message.Message):
    __slots__ = ("started",)
    STARTED_FIELD_NUMBER: _ClassVar[int]
    started: bool
    def __init__(self, started: _Optional[bool] = ...) -> None: ...

class SettleRunRequest(_message.Message):
    __slots__ = ("run_id", "hold_id", "costs")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    COSTS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    hold_id: str
    costs: _containers.RepeatedCompositeFieldContainer[_run_pb2.RunCost]
    def __init__(self, run_id: _Optional[str] = ..., hold_id: _Optional[str] = ..., costs: _Optional[_Iterable[_Union[_run_pb2.RunCost, _Mapping]]] = ...) -> None: ...

class SettleRunResponse(_message.Message):
    __slots__ = ("settled",)
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    settled: bool
    def __init__(self, settled: _Optional[bool] = ...) -> None: ...

class ChangeRunRequest(_message.Message):
    __slots__ = ("run_id", "action", "limits", "reason")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    action: RunAction
    limits: _run_pb2.RunLimits
    reason: str
    def __init__(self, run_id: _Optional[str] = ..., action: _Optional[_Union[RunAction, str]] = ..., limits: _Optional[_Union[_run_pb2.RunLimits, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class ChangeRunResponse(_message.Message):
    __slots__ = ("runs",)
    RUNS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[_run_pb2.Run]
    def __init__(self, runs: _Optional[_Iterable[_Union[_run_pb2.Run, _Mapping]]] = ...) -> None: ...

class ReadRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class ReadRunResponse(_message.Message):
    __slots__ = ("runs",)
    RUNS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[_run_pb2.Run]
    def __init__(self, runs: _Optional[_Iterable[_Union[_run_pb2.Run, _Mapping]]] = ...) -> None: ...

class ReadRunCostRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class ReadRunCostResponse(_message.Message):
    __slots__ = ("runs", "costs")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    COSTS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[_run_pb2.Run]
    costs: _containers.RepeatedCompositeFieldContainer[_run_pb2.RunCost]
    def __init__(self, runs: _Optional[_Iterable[_Union[_run_pb2.Run, _Mapping]]] = ..., costs: _Optional[_Iterable[_Union[_run_pb2.RunCost, _Mapping]]] = ...) -> None: ...

class LatestRunsRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class LatestRunsResponse(_message.Message):
    __slots__ = ("runs",)
    RUNS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[_run_pb2.Run]
    def __init__(self, runs: _Optional[_Iterable[_Union[_run_pb2.Run, _Mapping]]] = ...) -> None: ...
