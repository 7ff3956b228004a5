from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DemandSample(_message.Message):
    __slots__ = ("start_unix_ms", "interval_ms", "work", "backlog")
    START_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    WORK_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_FIELD_NUMBER: _ClassVar[int]
    start_unix_ms: int
    interval_ms: int
    work: float
    backlog: float
    def __init__(self, start_unix_ms: _Optional[int] = ..., interval_ms: _Optional[int] = ..., work: _Optional[float] = ..., backlog: _Optional[float] = ...) -> None: ...

class ReportDemandRequest(_message.Message):
    __slots__ = ("pool", "samples")
    POOL_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    pool: str
    samples: _containers.RepeatedCompositeFieldContainer[DemandSample]
    def __init__(self, pool: _Optional[str] = ..., samples: _Optional[_Iterable[_Union[DemandSample, _Mapping]]] = ...) -> None: ...

class ReportDemandResponse(_message.Message):
    __slots__ = ("taken",)
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    taken: int
    def __init__(self, taken: _Optional[int] = ...) -> None: ...

class GetForecastRequest(_message.Message):
    __slots__ = ("pool", "horizon_ms")
    POOL_FIELD_NUMBER: _ClassVar[int]
    HORIZON_MS_FIELD_NUMBER: _ClassVar[int]
    pool: str
    horizon_ms: int
    def __init__(self, pool: _Optional[str] = ..., horizon_ms: _Optional[int] = ...) -> None: ...

class ForecastPoint(_message.Message):
    __slots__ = ("start_unix_ms", "median", "quantile")
    START_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_FIELD_NUMBER: _ClassVar[int]
    QUANTILE_FIELD_NUMBER: _ClassVar[int]
    start_unix_ms: int
    median: float
    quantile: float
    def __init__(self, start_unix_ms: _Optional[int] = ..., median: _Optional[float] = ..., quantile: _Optional[float] = ...) -> None: ...

class GetForecastResponse(_message.Message):
    __slots__ = ("points", "level", "experts", "fallen_back")
    class ExpertsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    POINTS_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    EXPERTS_FIELD_NUMBER: _ClassVar[int]
    FALLEN_BACK_FIELD_NUMBER: _ClassVar[int]
    points: _containers.RepeatedCompositeFieldContainer[ForecastPoint]
    level: float
    experts: _containers.ScalarMap[str, float]
    fallen_back: bool
    def __init__(self, points: _Optional[_Iterable[_Union[ForecastPoint, _Mapping]]] = ..., level: _Optional[float] = ..., experts: _Optional[_Mapping[str, float]] = ..., fallen_back: _Optional[bool] = ...) -> None: ...

class GetPlanRequest(_message.Message):
    __slots__ = ("pool",)
    POOL_FIELD_NUMBER: _ClassVar[int]
    pool: str
    def __init__(self, pool: _Optional[str] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("made_unix_ms", "pool", "current", "wanted", "on_demand", "forecast", "level", "horizon_ms", "reactive_floor", "reason")
    MADE_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    ON_DEMAND_FIELD_NUMBER: _ClassVar[int]
    FORECAST_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    HORIZON_MS_FIELD_NUMBER: _ClassVar[int]
    REACTIVE_FLOOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    made_unix_ms: int
    pool: str
    current: int
    wanted: int
    on_demand: int
    forecast: float
    level: float
    horizon_ms: int
    reactive_floor: int
    reason: str
    def __init__(self, made_unix_ms: _Optional[int] = ..., pool: _Optional[str] = ..., current: _Optional[int] = ..., wanted: _Optional[int] = ..., on_demand: _Optional[int] = ..., forecast: _Optional[float] = ..., level: _Optional[float] = ..., horizon_ms: _Optional[int] = ..., reactive_floor: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class GetPlanResponse(_message.Message):
    __slots__ = ("decision",)
    DECISION_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    def __init__(self, decision: _Optional[_Union[Decision, _Mapping]] = ...) -> None: ...

class ListDecisionsRequest(_message.Message):
    __slots__ = ("pool", "limit")
    POOL_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    pool: str
    limit: int
    def __init__(self, pool: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListDecisionsResponse(_message.Message):
    __slots__ = ("decisions",)
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    decisions: _containers.RepeatedCompositeFieldContainer[Decision]
    def __init__(self, decisions: _Optional[_Iterable[_Union[Decision, _Mapping]]] = ...) -> None: ...

class NotifyTerminationRequest(_message.Message):
    __slots__ = ("instance_id", "at_unix_ms", "source")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    at_unix_ms: int
    source: str
    def __init__(self, instance_id: _Optional[str] = ..., at_unix_ms: _Optional[int] = ..., source: _Optional[str] = ...) -> None: ...

class NotifyTerminationResponse(_message.Message):
    __slots__ = ("replaced", "draining")
    REPLACED_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    replaced: bool
    draining: bool
    def __init__(self, replaced: _Optional[bool] = ..., draining: _Optional[bool] = ...) -> None: ...
