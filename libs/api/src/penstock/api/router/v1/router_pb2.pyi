from penstock.api.common.v1 import common_pb2 as _common_pb2
from penstock.api.inference.v1 import inference_pb2 as _inference_pb2
from penstock.api.router.v1 import prefixes_pb2 as _prefixes_pb2
from penstock.api.router.v1 import runs_pb2 as _runs_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_QUEUED: _ClassVar[JobState]
    JOB_STATE_RUNNING: _ClassVar[JobState]
    JOB_STATE_SUCCEEDED: _ClassVar[JobState]
    JOB_STATE_FAILED: _ClassVar[JobState]
    JOB_STATE_CANCELLED: _ClassVar[JobState]

class InstanceState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INSTANCE_STATE_UNSPECIFIED: _ClassVar[InstanceState]
    INSTANCE_STATE_JOINING: _ClassVar[InstanceState]
    INSTANCE_STATE_READY: _ClassVar[InstanceState]
    INSTANCE_STATE_DRAINING: _ClassVar[InstanceState]
    INSTANCE_STATE_EJECTED: _ClassVar[InstanceState]
    INSTANCE_STATE_LOST: _ClassVar[InstanceState]

class Tenancy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TENANCY_UNSPECIFIED: _ClassVar[Tenancy]
    TENANCY_ON_DEMAND: _ClassVar[Tenancy]
    TENANCY_SPOT: _ClassVar[Tenancy]
    TENANCY_UPSTREAM: _ClassVar[Tenancy]
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_QUEUED: JobState
JOB_STATE_RUNNING: JobState
JOB_STATE_SUCCEEDED: JobState
JOB_STATE_FAILED: JobState
JOB_STATE_CANCELLED: JobState
INSTANCE_STATE_UNSPECIFIED: InstanceState
INSTANCE_STATE_JOINING: InstanceState
INSTANCE_STATE_READY: InstanceState
INSTANCE_STATE_DRAINING: InstanceState
INSTANCE_STATE_EJECTED: InstanceState
INSTANCE_STATE_LOST: InstanceState
TENANCY_UNSPECIFIED: Tenancy
TENANCY_ON_DEMAND: Tenancy
TENANCY_SPOT: Tenancy
TENANCY_UPSTREAM: Tenancy

class CachePolicy(_message.Message):
    __slots__ = ("bypass", "no_store", "max_age_ms", "max_error_rate", "tags", "namespace")
    BYPASS_FIELD_NUMBER: _ClassVar[int]
    NO_STORE_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_ERROR_RATE_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    bypass: bool
    no_store: bool
    max_age_ms: int
    max_error_rate: float
    tags: _containers.RepeatedScalarFieldContainer[str]
    namespace: str
    def __init__(self, bypass: _Optional[bool] = ..., no_store: _Optional[bool] = ..., max_age_ms: _Optional[int] = ..., max_error_rate: _Optional[float] = ..., tags: _Optional[_Iterable[str]] = ..., namespace: _Optional[str] = ...) -> None: ...

class CallOptions(_message.Message):
    __slots__ = ("model", "run_id", "step", "priority", "required_capabilities", "cache", "max_cost_microusd", "min_quality", "affinity_key", "fallback_models", "run_deadline_ms", "run_max_cost_microusd", "run_final")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    MAX_COST_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    MIN_QUALITY_FIELD_NUMBER: _ClassVar[int]
    AFFINITY_KEY_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_MODELS_FIELD_NUMBER: _ClassVar[int]
    RUN_DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    RUN_MAX_COST_MICROUSD_FIELD_NUMBER: _ClassVar[int]
    RUN_FINAL_FIELD_NUMBER: _ClassVar[int]
    model: str
    run_id: str
    step: str
    priority: _common_pb2.Priority
    required_capabilities: _containers.RepeatedScalarFieldContainer[str]
    cache: CachePolicy
    max_cost_microusd: int
    min_quality: float
    affinity_key: str
    fallback_models: _containers.RepeatedScalarFieldContainer[str]
    run_deadline_ms: int
    run_max_cost_microusd: int
    run_final: bool
    def __init__(self, model: _Optional[str] = ..., run_id: _Optional[str] = ..., step: _Optional[str] = ..., priority: _Optional[_Union[_common_pb2.Priority, str]] = ..., required_capabilities: _Optional[_Iterable[str]] = ..., cache: _Optional[_Union[CachePolicy, _Mapping]] = ..., max_cost_microusd: _Optional[int] = ..., min_quality: _Optional[float] = ..., affinity_key: _Optional[str] = ..., fallback_models: _Optional[_Iterable[str]] = ..., run_deadline_ms: _Optional[int] = ..., run_max_cost_microusd: _Optional[int] = ..., run_final: _Optional[bool] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("options", "texts")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    options: CallOptions
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, options: _Optional[_Union[CallOptions, _Mapping]] = ..., texts: _Optional[_Iterable[str]] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("embeddings", "receipt")
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    embeddings: _containers.RepeatedCompositeFieldContainer[_inference_pb2.Embedding]
    receipt: _common_pb2.Receipt
    def __init__(self, embeddings: _Optional[_Iterable[_Union[_inference_pb2.Embedding, _Mapping]]] = ..., receipt: _Optional[_Union[_common_pb2.Receipt, _Mapping]] = ...) -> None: ...

class ClassifyRequest(_message.Message):
    __slots__ = ("options", "texts", "examples", "top_k")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    options: CallOptions
    texts: _containers.RepeatedScalarFieldContainer[str]
    examples: _containers.RepeatedCompositeFieldContainer[_inference_pb2.LabelledExample]
    top_k: int
    def __init__(self, options: _Optional[_Union[CallOptions, _Mapping]] = ..., texts: _Optional[_Iterable[str]] = ..., examples: _Optional[_Iterable[_Union[_inference_pb2.LabelledExample, _Mapping]]] = ..., top_k: _Optional[int] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("classifications", "receipt")
    CLASSIFICATIONS_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    classifications: _containers.RepeatedCompositeFieldContainer[_inference_pb2.Classification]
    receipt: _common_pb2.Receipt
    def __init__(self, classifications: _Optional[_Iterable[_Union[_inference_pb2.Classification, _Mapping]]] = ..., receipt: _Optional[_Union[_common_pb2.Receipt, _Mapping]] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("options", "task")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    options: CallOptions
    task: _inference_pb2.GenerateTask
    def __init__(self, options: _Optional[_Union[CallOptions, _Mapping]] = ..., task: _Optional[_Union[_inference_pb2.GenerateTask, _Mapping]] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("result", "receipt")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    result: _inference_pb2.GenerateResult
    receipt: _common_pb2.Receipt
    def __init__(self, result: _Optional[_Union[_inference_pb2.GenerateResult, _Mapping]] = ..., receipt: _Optional[_Union[_common_pb2.Receipt, _Mapping]] = ...) -> None: ...

class GenerateStreamRequest(_message.Message):
    __slots__ = ("options", "task")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    options: CallOptions
    task: _inference_pb2.GenerateTask
    def __init__(self, options: _Optional[_Union[CallOptions, _Mapping]] = ..., task: _Optional[_Union[_inference_pb2.GenerateTask, _Mapping]] = ...) -> None: ...

class GenerateStreamResponse(_message.Message):
    __slots__ = ("chunk", "receipt")
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    chunk: _inference_pb2.GenerateChunk
    receipt: _common_pb2.Receipt
    def __init__(self, chunk: _Optional[_Union[_inference_pb2.GenerateChunk, _Mapping]] = ..., receipt: _Optional[_Union[_common_pb2.Receipt, _Mapping]] = ...) -> None: ...

class InferRequest(_message.Message):
    __slots__ = ("options", "task")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    options: CallOptions
    task: _inference_pb2.InferTask
    def __init__(self, options: _Optional[_Union[CallOptions, _Mapping]] = ..., task: _Optional[_Union[_inference_pb2.InferTask, _Mapping]] = ...) -> None: ...

class InferResponse(_message.Message):
    __slots__ = ("result", "receipt")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    result: _inference_pb2.InferResult
    receipt: _common_pb2.Receipt
    def __init__(self, result: _Optional[_Union[_inference_pb2.InferResult, _Mapping]] = ..., receipt: _Optional[_Union[_common_pb2.Receipt, _Mapping]] = ...) -> None: ...

class RerankRequest(_message.Message):
    __slots__ = ("options", "query", "documents", "top_n")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    TOP_N_FIELD_NUMBER: _ClassVar[int]
    options: CallOptions
    query: str
    documents: _containers.RepeatedScalarFieldContainer[str]
    top_n: int
    def __init__(self, options: _Optional[_Union[CallOptions, _Mapping]] = ..., query: _Optional[str] = ..., documents: _Optional[_Iterable[str]] = ..., top_n: _Optional[int] = ...) -> None: ...

class RerankResponse(_message.Message):
    __slots__ = ("ranking", "receipt")
    RANKING_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    ranking: _containers.RepeatedCompositeFieldContainer[_inference_pb2.RankedDocument]
    receipt: _common_pb2.Receipt
    def __init__(self, ranking: _Optional[_Iterable[_Union[_inference_pb2.RankedDocument, _Mapping]]] = ..., receipt: _Optional[_Union[_common_pb2.Receipt, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AvailableModel(_message.Message):
    __slots__ = ("name", "tasks", "ready_instances", "max_input_tokens", "input_microusd_per_mtok", "output_microusd_per_mtok", "priced")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    READY_INSTANCES_FIELD_NUMBER: _ClassVar[int]
    MAX_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    INPUT_MICROUSD_PER_MTOK_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_MICROUSD_PER_MTOK_FIELD_NUMBER: _ClassVar[int]
    PRICED_FIELD_NUMBER: _ClassVar[int]
    name: str
    tasks: _containers.RepeatedScalarFieldContainer[_inference_pb2.TaskKind]
    ready_instances: int
    max_input_tokens: int
    input_microusd_per_mtok: int
    output_microusd_per_mtok: int
    priced: bool
    def __init__(self, name: _Optional[str] = ..., tasks: _Optional[_Iterable[_Union[_inference_pb2.TaskKind, str]]] = ..., ready_instances: _Optional[int] = ..., max_input_tokens: _Optional[int] = ..., input_microusd_per_mtok: _Optional[int] = ..., output_microusd_per_mtok: _Optional[int] = ..., priced: _Optional[bool] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[AvailableModel]
    def __init__(self, models: _Optional[_Iterable[_Union[AvailableModel, _Mapping]]] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("id", "state", "submitted_unix_ms", "ended_unix_ms", "result", "status", "receipt", "attempts")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: JobState
    submitted_unix_ms: int
    ended_unix_ms: int
    result: _inference_pb2.TaskResult
    status: _common_pb2.ItemStatus
    receipt: _common_pb2.Receipt
    attempts: int
    def __init__(self, id: _Optional[str] = ..., state: _Optional[_Union[JobState, str]] = ..., submitted_unix_ms: _Optional[int] = ..., ended_unix_ms: _Optional[int] = ..., result: _Optional[_Union[_inference_pb2.TaskResult, _Mapping]] = ..., status: _Optional[_Union[_common_pb2.ItemStatus, _Mapping]] = ..., receipt: _Optional[_Union[_common_pb2.Receipt, _Mapping]] = ..., attempts: _Optional[int] = ...) -> None: ...

class SubmitJobRequest(_message.Message):
    __slots__ = ("options", "task", "deadline_ms", "callback_url", "idempotency_token")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    CALLBACK_URL_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    options: CallOptions
    task: _inference_pb2.Task
    deadline_ms: int
    callback_url: str
    idempotency_token: str
    def __init__(self, options: _Optional[_Union[CallOptions, _Mapping]] = ..., task: _Optional[_Union[_inference_pb2.Task, _Mapping]] = ..., deadline_ms: _Optional[int] = ..., callback_url: _Optional[str] = ..., idempotency_token: _Optional[str] = ...) -> None: ...

class SubmitJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class GetJobRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class GetJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class WatchJobRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class WatchJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class CancelJobRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class CancelJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class CancelRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class CancelRunResponse(_message.Message):
    __slots__ = ("cancelled_calls", "cancelled_jobs")
    CANCELLED_CALLS_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_JOBS_FIELD_NUMBER: _ClassVar[int]
    cancelled_calls: int
    cancelled_jobs: int
    def __init__(self, cancelled_calls: _Optional[int] = ..., cancelled_jobs: _Optional[int] = ...) -> None: ...

class SendFeedbackRequest(_message.Message):
    __slots__ = ("request_id", "correct", "note")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CORRECT_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    correct: bool
    note: str
    def __init__(self, request_id: _Optional[str] = ..., correct: _Optional[bool] = ..., note: _Optional[str] = ...) -> None: ...

class SendFeedbackResponse(_message.Message):
    __slots__ = ("quarantined",)
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    quarantined: bool
    def __init__(self, quarantined: _Optional[bool] = ...) -> None: ...

class Instance(_message.Message):
    __slots__ = ("id", "address", "batcher_address", "models", "capabilities", "concurrency", "microusd_per_hour", "tenancy", "zone", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    BATCHER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    MICROUSD_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    TENANCY_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    id: str
    address: str
    batcher_address: str
    models: _containers.RepeatedCompositeFieldContainer[_inference_pb2.Model]
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    concurrency: int
    microusd_per_hour: int
    tenancy: Tenancy
    zone: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, id: _Optional[str] = ..., address: _Optional[str] = ..., batcher_address: _Optional[str] = ..., models: _Optional[_Iterable[_Union[_inference_pb2.Model, _Mapping]]] = ..., capabilities: _Optional[_Iterable[str]] = ..., concurrency: _Optional[int] = ..., microusd_per_hour: _Optional[int] = ..., tenancy: _Optional[_Union[Tenancy, str]] = ..., zone: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("instance", "registration_secret")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    REGISTRATION_SECRET_FIELD_NUMBER: _ClassVar[int]
    instance: Instance
    registration_secret: bytes
    def __init__(self, instance: _Optional[_Union[Instance, _Mapping]] = ..., registration_secret: _Optional[bytes] = ...) -> None: ...

class RegisterResponse(_message.Message):
    __slots__ = ("heartbeat_interval_ms", "lease_ms")
    HEARTBEAT_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    heartbeat_interval_ms: int
    lease_ms: int
    def __init__(self, heartbeat_interval_ms: _Optional[int] = ..., lease_ms: _Optional[int] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("instance_id", "load", "models", "registration_secret")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    REGISTRATION_SECRET_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    load: _common_pb2.LoadReport
    models: _containers.RepeatedCompositeFieldContainer[_inference_pb2.Model]
    registration_secret: bytes
    def __init__(self, instance_id: _Optional[str] = ..., load: _Optional[_Union[_common_pb2.LoadReport, _Mapping]] = ..., models: _Optional[_Iterable[_Union[_inference_pb2.Model, _Mapping]]] = ..., registration_secret: _Optional[bytes] = ...) -> None: ...

class HeartbeatResponse(_message.Message):
    __slots__ = ("register_again", "state")
    REGISTER_AGAIN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    register_again: bool
    state: InstanceState
    def __init__(self, register_again: _Optional[bool] = ..., state: _Optional[_Union[InstanceState, str]] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("instance_id", "deregister", "reason", "registration_secret")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    DEREGISTER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REGISTRATION_SECRET_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    deregister: bool
    reason: str
    registration_secret: bytes
    def __init__(self, instance_id: _Optional[str] = ..., deregister: _Optional[bool] = ..., reason: _Optional[str] = ..., registration_secret: _Optional[bytes] = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ("in_flight", "state")
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    in_flight: int
    state: InstanceState
    def __init__(self, in_flight: _Optional[int] = ..., state: _Optional[_Union[InstanceState, str]] = ...) -> None: ...

class ListFleetsRequest(_message.Message):
    __slots__ = ("scaled",)
    SCALED_FIELD_NUMBER: _ClassVar[int]
    scaled: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, scaled: _Optional[_Iterable[str]] = ...) -> None: ...

class FleetState(_message.Message):
    __slots__ = ("model", "serving", "waiting")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    model: str
    serving: int
    waiting: int
    def __init__(self, model: _Optional[str] = ..., serving: _Optional[int] = ..., waiting: _Optional[int] = ...) -> None: ...

class ListFleetsResponse(_message.Message):
    __slots__ = ("fleets",)
    FLEETS_FIELD_NUMBER: _ClassVar[int]
    fleets: _containers.RepeatedCompositeFieldContainer[FleetState]
    def __init__(self, fleets: _Optional[_Iterable[_Union[FleetState, _Mapping]]] = ...) -> None: ...

class Signal(_message.Message):
    __slots__ = ("name", "value", "age_ms")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    age_ms: int
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., age_ms: _Optional[int] = ...) -> None: ...

class Candidate(_message.Message):
    __slots__ = ("instance_id", "score", "signals", "filtered_reason", "state")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    FILTERED_REASON_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    score: float
    signals: _containers.RepeatedCompositeFieldContainer[Signal]
    filtered_reason: str
    state: InstanceState
    def __init__(self, instance_id: _Optional[str] = ..., score: _Optional[float] = ..., signals: _Optional[_Iterable[_Union[Signal, _Mapping]]] = ..., filtered_reason: _Optional[str] = ..., state: _Optional[_Union[InstanceState, str]] = ...) -> None: ...

class GetScoreboardRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ScoreboardRow(_message.Message):
    __slots__ = ("instance", "candidate", "picks", "failures", "in_flight")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    PICKS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    instance: Instance
    candidate: Candidate
    picks: int
    failures: int
    in_flight: int
    def __init__(self, instance: _Optional[_Union[Instance, _Mapping]] = ..., candidate: _Optional[_Union[Candidate, _Mapping]] = ..., picks: _Optional[int] = ..., failures: _Optional[int] = ..., in_flight: _Optional[int] = ...) -> None: ...

class GetScoreboardResponse(_message.Message):
    __slots__ = ("rows", "strategy", "branches")
    class BranchesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ROWS_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    BRANCHES_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[ScoreboardRow]
    strategy: str
    branches: _containers.ScalarMap[str, int]
    def __init__(self, rows: _Optional[_Iterable[_Union[ScoreboardRow, _Mapping]]] = ..., strategy: _Optional[str] = ..., branches: _Optional[_Mapping[str, int]] = ...) -> None: ...

class ExplainRouteRequest(_message.Message):
    __slots__ = ("request_id", "options", "task")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    options: CallOptions
    task: _inference_pb2.Task
    def __init__(self, request_id: _Optional[str] = ..., options: _Optional[_Union[CallOptions, _Mapping]] = ..., task: _Optional[_Union[_inference_pb2.Task, _Mapping]] = ...) -> None: ...

class ExplainRouteResponse(_message.Message):
    __slots__ = ("instance_id", "strategy", "branch", "candidates", "estimated_tokens")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    strategy: str
    branch: str
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    estimated_tokens: int
    def __init__(self, instance_id: _Optional[str] = ..., strategy: _Optional[str] = ..., branch: _Optional[str] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., estimated_tokens: _Optional[int] = ...) -> None: ...

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
