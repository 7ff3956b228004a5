from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CostBy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COST_BY_UNSPECIFIED: _ClassVar[CostBy]
    COST_BY_TENANT: _ClassVar[CostBy]
    COST_BY_RUN: _ClassVar[CostBy]
    COST_BY_STEP: _ClassVar[CostBy]
    COST_BY_MODEL: _ClassVar[CostBy]
    COST_BY_CACHE: _ClassVar[CostBy]
    COST_BY_TIER: _ClassVar[CostBy]

class IncidentState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INCIDENT_STATE_UNSPECIFIED: _ClassVar[IncidentState]
    INCIDENT_STATE_OPEN: _ClassVar[IncidentState]
    INCIDENT_STATE_CLOSED: _ClassVar[IncidentState]
COST_BY_UNSPECIFIED: CostBy
COST_BY_TENANT: CostBy
COST_BY_RUN: CostBy
COST_BY_STEP: CostBy
COST_BY_MODEL: CostBy
COST_BY_CACHE: CostBy
COST_BY_TIER: CostBy
INCIDENT_STATE_UNSPECIFIED: IncidentState
INCIDENT_STATE_OPEN: IncidentState
INCIDENT_STATE_CLOSED: IncidentState

class Window(_message.Message):
    __slots__ = ("from_unix_ms", "to_unix_ms")
    FROM_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    TO_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    from_unix_ms: int
    to_unix_ms: int
    def __init__(self, from_unix_ms: _Optional[int] = ..., to_unix_ms: _Optional[int] = ...) -> None: ...

class Span(_message.Message):
    __slots__ = ("span_id", "parent_id", "service", "instance", "name", "kind", "start_unix_ns", "duration_ns", "error", "waited_on", "attributes", "depth", "critical_ns")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    START_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    DURATION_NS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    WAITED_ON_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    CRITICAL_NS_FIELD_NUMBER: _ClassVar[int]
    span_id: str
    parent_id: str
    service: str
    instance: str
    name: str
    kind: str
    start_unix_ns: int
    duration_ns: int
    error: str
    waited_on: bool
    attributes: _containers.ScalarMap[str, str]
    depth: int
    critical_ns: int
    def __init__(self, span_id: _Optional[str] = ..., parent_id: _Optional[str] = ..., service: _Optional[str] = ..., instance: _Optional[str] = ..., name: _Optional[str] = ..., kind: _Optional[str] = ..., start_unix_ns: _Optional[int] = ..., duration_ns: _Optional[int] = ..., error: _Optional[str] = ..., waited_on: _Optional[bool] = ..., attributes: _Optional[_Mapping[str, str]] = ..., depth: _Optional[int] = ..., critical_ns: _Optional[int] = ...) -> None: ...

class Section(_message.Message):
    __slots__ = ("span_id", "offset_ns", "duration_ns")
    SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_NS_FIELD_NUMBER: _ClassVar[int]
    DURATION_NS_FIELD_NUMBER: _ClassVar[int]
    span_id: str
    offset_ns: int
    duration_ns: int
    def __init__(self, span_id: _Optional[str] = ..., offset_ns: _Optional[int] = ..., duration_ns: _Optional[int] = ...) -> None: ...

class TraceSummary(_message.Message):
    __slots__ = ("trace_id", "name", "service", "start_unix_ms", "duration_ms", "spans", "services", "error", "tenant", "run_id", "step", "model", "cache", "paid_microusd", "saved_microusd", "kept", "background")
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    START_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    DURATION_MS_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    PAID_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    SAVED_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    BACKGROUND_FIELD_NUMBER: _ClassVar[int]
    trace_id: str
    name: str
    service: str
    start_unix_ms: int
    duration_ms: float
    spans: int
    services: _containers.RepeatedScalarFieldContainer[str]
    error: str
    tenant: str
    run_id: str
    step: str
    model: str
    cache: str
    paid_microusd: int
    saved_microusd: int
    kept: str
    background: str
    def __init__(self, trace_id: _Optional[str] = ..., name: _Optional[str] = ..., service: _Optional[str] = ..., start_unix_ms: _Optional[int] = ..., duration_ms: _Optional[float] = ..., spans: _Optional[int] = ..., services: _Optional[_Iterable[str]] = ..., error: _Optional[str] = ..., tenant: _Optional[str] = ..., run_id: _Optional[str] = ..., step: _Optional[str] = ..., model: _Optional[str] = ..., cache: _Optional[str] = ..., paid_microusd: _Optional[int] = ..., saved_microusd: _Optional[int] = ..., kept: _Optional[str] = ..., background: _Optional[str] = ...) -> None: ...

class GetTraceRequest(_message.Message):
    __slots__ = ("trace_id",)
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    trace_id: str
    def __init__(self, trace_id: _Optional[str] = ...) -> None: ...

class GetTraceResponse(_message.Message):
    __slots__ = ("summary", "spans", "critical_path", "error_origin_span_id")
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    CRITICAL_PATH_FIELD_NUMBER: _ClassVar[int]
    ERROR_ORIGIN_SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    summary: TraceSummary
    spans: _containers.RepeatedCompositeFieldContainer[Span]
    critical_path: _containers.RepeatedCompositeFieldContainer[Section]
    error_origin_span_id: str
    def __init__(self, summary: _Optional[_Union[TraceSummary, _Mapping]] = ..., spans: _Optional[_Iterable[_Union[Span, _Mapping]]] = ..., critical_path: _Optional[_Iterable[_Union[Section, _Mapping]]] = ..., error_origin_span_id: _Optional[str] = ...) -> None: ...

class GetRunTimelineRequest(_message.Message):
    __slots__ = ("run_id", "limit")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    limit: int
    def __init__(self, run_id: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class RunCall(_message.Message):
    __slots__ = ("run_id", "step", "trace_id", "span_id", "name", "offset_ns", "duration_ns", "error", "model", "cache", "paid_microusd", "saved_microusd", "critical_ns", "overlap_ns", "gap_ns")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_NS_FIELD_NUMBER: _ClassVar[int]
    DURATION_NS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    PAID_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    SAVED_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    CRITICAL_NS_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_NS_FIELD_NUMBER: _ClassVar[int]
    GAP_NS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    step: str
    trace_id: str
    span_id: str
    name: str
    offset_ns: int
    duration_ns: int
    error: str
    model: str
    cache: str
    paid_microusd: int
    saved_microusd: int
    critical_ns: int
    overlap_ns: int
    gap_ns: int
    def __init__(self, run_id: _Optional[str] = ..., step: _Optional[str] = ..., trace_id: _Optional[str] = ..., span_id: _Optional[str] = ..., name: _Optional[str] = ..., offset_ns: _Optional[int] = ..., duration_ns: _Optional[int] = ..., error: _Optional[str] = ..., model: _Optional[str] = ..., cache: _Optional[str] = ..., paid_microusd: _Optional[int] = ..., saved_microusd: _Optional[int] = ..., critical_ns: _Optional[int] = ..., overlap_ns: _Optional[int] = ..., gap_ns: _Optional[int] = ...) -> None: ...

class GetRunTimelineResponse(_message.Message):
    __slots__ = ("calls", "start_unix_ns", "duration_ns", "agent_ns", "paid_microusd", "saved_microusd", "omitted_traces")
    CALLS_FIELD_NUMBER: _ClassVar[int]
    START_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    DURATION_NS_FIELD_NUMBER: _ClassVar[int]
    AGENT_NS_FIELD_NUMBER: _ClassVar[int]
    PAID_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    SAVED_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    OMITTED_TRACES_FIELD_NUMBER: _ClassVar[int]
    calls: _containers.RepeatedCompositeFieldContainer[RunCall]
    start_unix_ns: int
    duration_ns: int
    agent_ns: int
    paid_microusd: int
    saved_microusd: int
    omitted_traces: int
    def __init__(self, calls: _Optional[_Iterable[_Union[RunCall, _Mapping]]] = ..., start_unix_ns: _Optional[int] = ..., duration_ns: _Optional[int] = ..., agent_ns: _Optional[int] = ..., paid_microusd: _Optional[int] = ..., saved_microusd: _Optional[int] = ..., omitted_traces: _Optional[int] = ...) -> None: ...

class SearchTracesRequest(_message.Message):
    __slots__ = ("window", "service", "name", "tenant", "run_id", "errors_only", "min_duration_ms", "limit", "include_background")
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ERRORS_ONLY_FIELD_NUMBER: _ClassVar[int]
    MIN_DURATION_MS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_BACKGROUND_FIELD_NUMBER: _ClassVar[int]
    window: Window
    service: str
    name: str
    tenant: str
    run_id: str
    errors_only: bool
    min_duration_ms: float
    limit: int
    include_background: bool
    def __init__(self, window: _Optional[_Union[Window, _Mapping]] = ..., service: _Optional[str] = ..., name: _Optional[str] = ..., tenant: _Optional[str] = ..., run_id: _Optional[str] = ..., errors_only: _Optional[bool] = ..., min_duration_ms: _Optional[float] = ..., limit: _Optional[int] = ..., include_background: _Optional[bool] = ...) -> None: ...

class SearchTracesResponse(_message.Message):
    __slots__ = ("traces",)
    TRACES_FIELD_NUMBER: _ClassVar[int]
    traces: _containers.RepeatedCompositeFieldContainer[TraceSummary]
    def __init__(self, traces: _Optional[_Iterable[_Union[TraceSummary, _Mapping]]] = ...) -> None: ...

class GetCriticalPathRequest(_message.Message):
    __slots__ = ("window", "name", "from_percentile", "to_percentile", "include_background")
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FROM_PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    TO_PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_BACKGROUND_FIELD_NUMBER: _ClassVar[int]
    window: Window
    name: str
    from_percentile: float
    to_percentile: float
    include_background: bool
    def __init__(self, window: _Optional[_Union[Window, _Mapping]] = ..., name: _Optional[str] = ..., from_percentile: _Optional[float] = ..., to_percentile: _Optional[float] = ..., include_background: _Optional[bool] = ...) -> None: ...

class CriticalPathRow(_message.Message):
    __slots__ = ("service", "name", "total_ms", "share", "traces")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    TRACES_FIELD_NUMBER: _ClassVar[int]
    service: str
    name: str
    total_ms: float
    share: float
    traces: int
    def __init__(self, service: _Optional[str] = ..., name: _Optional[str] = ..., total_ms: _Optional[float] = ..., share: _Optional[float] = ..., traces: _Optional[int] = ...) -> None: ...

class GetCriticalPathResponse(_message.Message):
    __slots__ = ("rows", "traces")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    TRACES_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[CriticalPathRow]
    traces: int
    def __init__(self, rows: _Optional[_Iterable[_Union[CriticalPathRow, _Mapping]]] = ..., traces: _Optional[int] = ...) -> None: ...

class GetServiceGraphRequest(_message.Message):
    __slots__ = ("window", "include_background")
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_BACKGROUND_FIELD_NUMBER: _ClassVar[int]
    window: Window
    include_background: bool
    def __init__(self, window: _Optional[_Union[Window, _Mapping]] = ..., include_background: _Optional[bool] = ...) -> None: ...

class Edge(_message.Message):
    __slots__ = ("client", "server", "calls", "errors", "p50_ms", "p99_ms", "hop_p50_ms")
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    P50_MS_FIELD_NUMBER: _ClassVar[int]
    P99_MS_FIELD_NUMBER: _ClassVar[int]
    HOP_P50_MS_FIELD_NUMBER: _ClassVar[int]
    client: str
    server: str
    calls: int
    errors: int
    p50_ms: float
    p99_ms: float
    hop_p50_ms: float
    def __init__(self, client: _Optional[str] = ..., server: _Optional[str] = ..., calls: _Optional[int] = ..., errors: _Optional[int] = ..., p50_ms: _Optional[float] = ..., p99_ms: _Optional[float] = ..., hop_p50_ms: _Optional[float] = ...) -> None: ...

class GetServiceGraphResponse(_message.Message):
    __slots__ = ("edges",)
    EDGES_FIELD_NUMBER: _ClassVar[int]
    edges: _containers.RepeatedCompositeFieldContainer[Edge]
    def __init__(self, edges: _Optional[_Iterable[_Union[Edge, _Mapping]]] = ...) -> None: ...

class GetSavingsRequest(_message.Message):
    __slots__ = ("window", "tenant")
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    window: Window
    tenant: str
    def __init__(self, window: _Optional[_Union[Window, _Mapping]] = ..., tenant: _Optional[str] = ...) -> None: ...

class SavingsRow(_message.Message):
    __slots__ = ("technique", "microusd", "saved_ms")
    TECHNIQUE_FIELD_NUMBER: _ClassVar[int]
    MICROUSD_FIELD_NUMBER: _ClassVar[int]
    SAVED_MS_FIELD_NUMBER: _ClassVar[int]
    technique: str
    microusd: int
    saved_ms: float
    def __init__(self, technique: _Optional[str] = ..., microusd: _Optional[int] = ..., saved_ms: _Optional[float] = ...) -> None: ...

class SavingsPoint(_message.Message):
    __slots__ = ("unix_ms", "paid_microusd", "full_price_microusd", "calls", "rows")
    UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    PAID_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    FULL_PRICE_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    unix_ms: int
    paid_microusd: int
    full_price_microusd: int
    calls: int
    rows: _containers.RepeatedCompositeFieldContainer[SavingsRow]
    def __init__(self, unix_ms: _Optional[int] = ..., paid_microusd: _Optional[int] = ..., full_price_microusd: _Optional[int] = ..., calls: _Optional[int] = ..., rows: _Optional[_Iterable[_Union[SavingsRow, _Mapping]]] = ...) -> None: ...

class GetSavingsResponse(_message.Message):
    __slots__ = ("calls", "paid_microusd", "full_price_microusd", "rows", "unattributed_microusd", "points", "unbalanced")
    CALLS_FIELD_NUMBER: _ClassVar[int]
    PAID_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    FULL_PRICE_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    UNATTRIBUTED_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    UNBALANCED_FIELD_NUMBER: _ClassVar[int]
    calls: int
    paid_microusd: int
    full_price_microusd: int
    rows: _containers.RepeatedCompositeFieldContainer[SavingsRow]
    unattributed_microusd: int
    points: _containers.RepeatedCompositeFieldContainer[SavingsPoint]
    unbalanced: int
    def __init__(self, calls: _Optional[int] = ..., paid_microusd: _Optional[int] = ..., full_price_microusd: _Optional[int] = ..., rows: _Optional[_Iterable[_Union[SavingsRow, _Mapping]]] = ..., unattributed_microusd: _Optional[int] = ..., points: _Optional[_Iterable[_Union[SavingsPoint, _Mapping]]] = ..., unbalanced: _Optional[int] = ...) -> None: ...

class GetCostsRequest(_message.Message):
    __slots__ = ("by", "tenant", "run_id", "limit")
    BY_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    by: CostBy
    tenant: str
    run_id: str
    limit: int
    def __init__(self, by: _Optional[_Union[CostBy, str]] = ..., tenant: _Optional[str] = ..., run_id: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class CostRow(_message.Message):
    __slots__ = ("key", "calls", "paid_microusd", "full_price_microusd", "input_tokens", "output_tokens", "mean_ms", "savings")
    KEY_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    PAID_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    FULL_PRICE_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MEAN_MS_FIELD_NUMBER: _ClassVar[int]
    SAVINGS_FIELD_NUMBER: _ClassVar[int]
    key: str
    calls: int
    paid_microusd: int
    full_price_microusd: int
    input_tokens: int
    output_tokens: int
    mean_ms: float
    savings: _containers.RepeatedCompositeFieldContainer[SavingsRow]
    def __init__(self, key: _Optional[str] = ..., calls: _Optional[int] = ..., paid_microusd: _Optional[int] = ..., full_price_microusd: _Optional[int] = ..., input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., mean_ms: _Optional[float] = ..., savings: _Optional[_Iterable[_Union[SavingsRow, _Mapping]]] = ...) -> None: ...

class GetCostsResponse(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[CostRow]
    def __init__(self, rows: _Optional[_Iterable[_Union[CostRow, _Mapping]]] = ...) -> None: ...

class GetLatenciesRequest(_message.Message):
    __slots__ = ("window",)
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    window: Window
    def __init__(self, window: _Optional[_Union[Window, _Mapping]] = ...) -> None: ...

class LatencyRow(_message.Message):
    __slots__ = ("name", "tier", "requests", "errors", "p50_ms", "p99_ms")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    P50_MS_FIELD_NUMBER: _ClassVar[int]
    P99_MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    tier: str
    requests: int
    errors: int
    p50_ms: float
    p99_ms: float
    def __init__(self, name: _Optional[str] = ..., tier: _Optional[str] = ..., requests: _Optional[int] = ..., errors: _Optional[int] = ..., p50_ms: _Optional[float] = ..., p99_ms: _Optional[float] = ...) -> None: ...

class GetLatenciesResponse(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[LatencyRow]
    def __init__(self, rows: _Optional[_Iterable[_Union[LatencyRow, _Mapping]]] = ...) -> None: ...

class GetOverviewRequest(_message.Message):
    __slots__ = ("window",)
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    window: Window
    def __init__(self, window: _Optional[_Union[Window, _Mapping]] = ...) -> None: ...

class ServiceRow(_message.Message):
    __slots__ = ("service", "instances", "calls_per_s", "success", "p50_ms", "p99_ms", "spark")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    CALLS_PER_S_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    P50_MS_FIELD_NUMBER: _ClassVar[int]
    P99_MS_FIELD_NUMBER: _ClassVar[int]
    SPARK_FIELD_NUMBER: _ClassVar[int]
    service: str
    instances: int
    calls_per_s: float
    success: float
    p50_ms: float
    p99_ms: float
    spark: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, service: _Optional[str] = ..., instances: _Optional[int] = ..., calls_per_s: _Optional[float] = ..., success: _Optional[float] = ..., p50_ms: _Optional[float] = ..., p99_ms: _Optional[float] = ..., spark: _Optional[_Iterable[float]] = ...) -> None: ...

class GetOverviewResponse(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[ServiceRow]
    def __init__(self, rows: _Optional[_Iterable[_Union[ServiceRow, _Mapping]]] = ...) -> None: ...

class GetMetricsRequest(_message.Message):
    __slots__ = ("name", "service", "window")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    name: str
    service: str
    window: Window
    def __init__(self, name: _Optional[str] = ..., service: _Optional[str] = ..., window: _Optional[_Union[Window, _Mapping]] = ...) -> None: ...

class Point(_message.Message):
    __slots__ = ("unix_ms", "value", "count", "p50", "p99")
    UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    P50_FIELD_NUMBER: _ClassVar[int]
    P99_FIELD_NUMBER: _ClassVar[int]
    unix_ms: int
    value: float
    count: int
    p50: float
    p99: float
    def __init__(self, unix_ms: _Optional[int] = ..., value: _Optional[float] = ..., count: _Optional[int] = ..., p50: _Optional[float] = ..., p99: _Optional[float] = ...) -> None: ...

class Series(_message.Message):
    __slots__ = ("name", "unit", "kind", "labels", "points")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    unit: str
    kind: str
    labels: _containers.ScalarMap[str, str]
    points: _containers.RepeatedCompositeFieldContainer[Point]
    def __init__(self, name: _Optional[str] = ..., unit: _Optional[str] = ..., kind: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., points: _Optional[_Iterable[_Union[Point, _Mapping]]] = ...) -> None: ...

class GetMetricsResponse(_message.Message):
    __slots__ = ("names", "series")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    SERIES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    series: _containers.RepeatedCompositeFieldContainer[Series]
    def __init__(self, names: _Optional[_Iterable[str]] = ..., series: _Optional[_Iterable[_Union[Series, _Mapping]]] = ...) -> None: ...

class GetQualityRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class QualityRow(_message.Message):
    __slots__ = ("model", "measure", "reference", "now", "observations", "drifted")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MEASURE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    OBSERVATIONS_FIELD_NUMBER: _ClassVar[int]
    DRIFTED_FIELD_NUMBER: _ClassVar[int]
    model: str
    measure: str
    reference: float
    now: float
    observations: int
    drifted: bool
    def __init__(self, model: _Optional[str] = ..., measure: _Optional[str] = ..., reference: _Optional[float] = ..., now: _Optional[float] = ..., observations: _Optional[int] = ..., drifted: _Optional[bool] = ...) -> None: ...

class GetQualityResponse(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[QualityRow]
    def __init__(self, rows: _Optional[_Iterable[_Union[QualityRow, _Mapping]]] = ...) -> None: ...

class Contribution(_message.Message):
    __slots__ = ("feature", "share", "value", "expected", "subject")
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    feature: str
    share: float
    value: float
    expected: float
    subject: str
    def __init__(self, feature: _Optional[str] = ..., share: _Optional[float] = ..., value: _Optional[float] = ..., expected: _Optional[float] = ..., subject: _Optional[str] = ...) -> None: ...

class Incident(_message.Message):
    __slots__ = ("id", "service", "subject", "detector", "opened_unix_ms", "last_unix_ms", "state", "severity", "summary", "contributions", "critical_section", "trace_ids", "alerts")
    ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    OPENED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    CRITICAL_SECTION_FIELD_NUMBER: _ClassVar[int]
    TRACE_IDS_FIELD_NUMBER: _ClassVar[int]
    ALERTS_FIELD_NUMBER: _ClassVar[int]
    id: str
    service: str
    subject: str
    detector: str
    opened_unix_ms: int
    last_unix_ms: int
    state: IncidentState
    severity: float
    summary: str
    contributions: _containers.RepeatedCompositeFieldContainer[Contribution]
    critical_section: str
    trace_ids: _containers.RepeatedScalarFieldContainer[str]
    alerts: int
    def __init__(self, id: _Optional[str] = ..., service: _Optional[str] = ..., subject: _Optional[str] = ..., detector: _Optional[str] = ..., opened_unix_ms: _Optional[int] = ..., last_unix_ms: _Optional[int] = ..., state: _Optional[_Union[IncidentState, str]] = ..., severity: _Optional[float] = ..., summary: _Optional[str] = ..., contributions: _Optional[_Iterable[_Union[Contribution, _Mapping]]] = ..., critical_section: _Optional[str] = ..., trace_ids: _Optional[_Iterable[str]] = ..., alerts: _Optional[int] = ...) -> None: ...

class ListIncidentsRequest(_message.Message):
    __slots__ = ("window", "service", "open_only")
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    OPEN_ONLY_FIELD_NUMBER: _ClassVar[int]
    window: Window
    service: str
    open_only: bool
    def __init__(self, window: _Optional[_Union[Window, _Mapping]] = ..., service: _Optional[str] = ..., open_only: _Optional[bool] = ...) -> None: ...

class ListIncidentsResponse(_message.Message):
    __slots__ = ("incidents",)
    INCIDENTS_FIELD_NUMBER: _ClassVar[int]
    incidents: _containers.RepeatedCompositeFieldContainer[Incident]
    def __init__(self, incidents: _Optional[_Iterable[_Union[Incident, _Mapping]]] = ...) -> None: ...

class WatchIncidentsRequest(_message.Message):
    __slots__ = ("service",)
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    service: str
    def __init__(self, service: _Optional[str] = ...) -> None: ...

class WatchIncidentsResponse(_message.Message):
    __slots__ = ("incident",)
    INCIDENT_FIELD_NUMBER: _ClassVar[int]
    incident: Incident
    def __init__(self, incident: _Optional[_Union[Incident, _Mapping]] = ...) -> None: ...

class WatchRequestsRequest(_message.Message):
    __slots__ = ("tenant", "errors_only", "max_per_s", "include_background")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ERRORS_ONLY_FIELD_NUMBER: _ClassVar[int]
    MAX_PER_S_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_BACKGROUND_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    errors_only: bool
    max_per_s: float
    include_background: bool
    def __init__(self, tenant: _Optional[str] = ..., errors_only: _Optional[bool] = ..., max_per_s: _Optional[float] = ..., include_background: _Optional[bool] = ...) -> None: ...

class WatchRequestsResponse(_message.Message):
    __slots__ = ("trace", "skipped")
    TRACE_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    trace: TraceSummary
    skipped: int
    def __init__(self, trace: _Optional[_Union[TraceSummary, _Mapping]] = ..., skipped: _Optional[int] = ...) -> None: ...

class GetIntakeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetIntakeResponse(_message.Message):
    __slots__ = ("spans", "rejected_spans", "duplicate_spans", "held_spans", "held_traces", "released_traces", "metric_points", "log_records", "refused_exports", "held_bytes", "forward_queue", "forwarded", "forward_dropped", "lost_by_senders")
    SPANS_FIELD_NUMBER: _ClassVar[int]
    REJECTED_SPANS_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_SPANS_FIELD_NUMBER: _ClassVar[int]
    HELD_SPANS_FIELD_NUMBER: _ClassVar[int]
    HELD_TRACES_FIELD_NUMBER: _ClassVar[int]
    RELEASED_TRACES_FIELD_NUMBER: _ClassVar[int]
    METRIC_POINTS_FIELD_NUMBER: _ClassVar[int]
    LOG_RECORDS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_EXPORTS_FIELD_NUMBER: _ClassVar[int]
    HELD_BYTES_FIELD_NUMBER: _ClassVar[int]
    FORWARD_QUEUE_FIELD_NUMBER: _ClassVar[int]
    FORWARDED_FIELD_NUMBER: _ClassVar[int]
    FORWARD_DROPPED_FIELD_NUMBER: _ClassVar[int]
    LOST_BY_SENDERS_FIELD_NUMBER: _ClassVar[int]
    spans: int
    rejected_spans: int
    duplicate_spans: int
    held_spans: int
    held_traces: int
    released_traces: int
    metric_points: int
    log_records: int
    refused_exports: int
    held_bytes: int
    forward_queue: int
    forwarded: int
    forward_dropped: int
    lost_by_senders: int
    def __init__(self, spans: _Optional[int] = ..., rejected_spans: _Optional[int] = ..., duplicate_spans: _Optional[int] = ..., held_spans: _Optional[int] = ..., held_traces: _Optional[int] = ..., released_traces: _Optional[int] = ..., metric_points: _Optional[int] = ..., log_records: _Optional[int] = ..., refused_exports: _Optional[int] = ..., held_bytes: _Optional[int] = ..., forward_queue: _Optional[int] = ..., forwarded: _Optional[int] = ..., forward_dropped: _Optional[int] = ..., lost_by_senders: _Optional[int] = ...) -> None: ...
