from penstock.api.common.v1 import common_pb2 as _common_pb2
from penstock.api.inference.v1 import inference_pb2 as _inference_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TimeoutAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TIMEOUT_ACTION_UNSPECIFIED: _ClassVar[TimeoutAction]
    TIMEOUT_ACTION_REJECT: _ClassVar[TimeoutAction]
    TIMEOUT_ACTION_DELAY: _ClassVar[TimeoutAction]
TIMEOUT_ACTION_UNSPECIFIED: TimeoutAction
TIMEOUT_ACTION_REJECT: TimeoutAction
TIMEOUT_ACTION_DELAY: TimeoutAction

class ComputeRequest(_message.Message):
    __slots__ = ("instance_id", "model", "task", "estimated_tokens")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    model: str
    task: _inference_pb2.Task
    estimated_tokens: int
    def __init__(self, instance_id: _Optional[str] = ..., model: _Optional[str] = ..., task: _Optional[_Union[_inference_pb2.Task, _Mapping]] = ..., estimated_tokens: _Optional[int] = ...) -> None: ...

class ComputeResponse(_message.Message):
    __slots__ = ("result", "batch", "load")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    result: _inference_pb2.TaskResult
    batch: _common_pb2.BatchReceipt
    load: _common_pb2.LoadReport
    def __init__(self, result: _Optional[_Union[_inference_pb2.TaskResult, _Mapping]] = ..., batch: _Optional[_Union[_common_pb2.BatchReceipt, _Mapping]] = ..., load: _Optional[_Union[_common_pb2.LoadReport, _Mapping]] = ...) -> None: ...

class ComputeStreamRequest(_message.Message):
    __slots__ = ("instance_id", "model", "task", "estimated_tokens")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    model: str
    task: _inference_pb2.Task
    estimated_tokens: int
    def __init__(self, instance_id: _Optional[str] = ..., model: _Optional[str] = ..., task: _Optional[_Union[_inference_pb2.Task, _Mapping]] = ..., estimated_tokens: _Optional[int] = ...) -> None: ...

class ComputeStreamResponse(_message.Message):
    __slots__ = ("chunk", "result", "batch", "load")
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    chunk: _inference_pb2.GenerateChunk
    result: _inference_pb2.TaskResult
    batch: _common_pb2.BatchReceipt
    load: _common_pb2.LoadReport
    def __init__(self, chunk: _Optional[_Union[_inference_pb2.GenerateChunk, _Mapping]] = ..., result: _Optional[_Union[_inference_pb2.TaskResult, _Mapping]] = ..., batch: _Optional[_Union[_common_pb2.BatchReceipt, _Mapping]] = ..., load: _Optional[_Union[_common_pb2.LoadReport, _Mapping]] = ...) -> None: ...

class AttachInstanceRequest(_message.Message):
    __slots__ = ("instance_id", "address", "concurrency", "adaptive_concurrency")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    ADAPTIVE_CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    address: str
    concurrency: int
    adaptive_concurrency: bool
    def __init__(self, instance_id: _Optional[str] = ..., address: _Optional[str] = ..., concurrency: _Optional[int] = ..., adaptive_concurrency: _Optional[bool] = ...) -> None: ...

class AttachInstanceResponse(_message.Message):
    __slots__ = ("queue",)
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: Queue
    def __init__(self, queue: _Optional[_Union[Queue, _Mapping]] = ...) -> None: ...

class DetachInstanceRequest(_message.Message):
    __slots__ = ("instance_id",)
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    def __init__(self, instance_id: _Optional[str] = ...) -> None: ...

class DetachInstanceResponse(_message.Message):
    __slots__ = ("returned",)
    RETURNED_FIELD_NUMBER: _ClassVar[int]
    returned: int
    def __init__(self, returned: _Optional[int] = ...) -> None: ...

class QueueClass(_message.Message):
    __slots__ = ("priority", "depth", "oldest_age_ms")
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    OLDEST_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    priority: _common_pb2.Priority
    depth: int
    oldest_age_ms: int
    def __init__(self, priority: _Optional[_Union[_common_pb2.Priority, str]] = ..., depth: _Optional[int] = ..., oldest_age_ms: _Optional[int] = ...) -> None: ...

class CostModel(_message.Message):
    __slots__ = ("base_ms", "per_token_ms", "samples")
    BASE_MS_FIELD_NUMBER: _ClassVar[int]
    PER_TOKEN_MS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    base_ms: float
    per_token_ms: float
    samples: int
    def __init__(self, base_ms: _Optional[float] = ..., per_token_ms: _Optional[float] = ..., samples: _Optional[int] = ...) -> None: ...

class Queue(_message.Message):
    __slots__ = ("instance_id", "address", "classes", "costs", "concurrency", "running")
    class CostsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: CostModel
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[CostModel, _Mapping]] = ...) -> None: ...
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    COSTS_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    address: str
    classes: _containers.RepeatedCompositeFieldContainer[QueueClass]
    costs: _containers.MessageMap[str, CostModel]
    concurrency: int
    running: int
    def __init__(self, instance_id: _Optional[str] = ..., address: _Optional[str] = ..., classes: _Optional[_Iterable[_Union[QueueClass, _Mapping]]] = ..., costs: _Optional[_Mapping[str, CostModel]] = ..., concurrency: _Optional[int] = ..., running: _Optional[int] = ...) -> None: ...

class ListQueuesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListQueuesResponse(_message.Message):
    __slots__ = ("queues", "knobs")
    class KnobsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Knobs
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Knobs, _Mapping]] = ...) -> None: ...
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    KNOBS_FIELD_NUMBER: _ClassVar[int]
    queues: _containers.RepeatedCompositeFieldContainer[Queue]
    knobs: _containers.MessageMap[str, Knobs]
    def __init__(self, queues: _Optional[_Iterable[_Union[Queue, _Mapping]]] = ..., knobs: _Optional[_Mapping[str, Knobs]] = ...) -> None: ...

class QueuePolicy(_message.Message):
    __slots__ = ("priority", "max_queue_size", "default_timeout_microseconds", "timeout_action", "weight")
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_SIZE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_TIMEOUT_MICROSECONDS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_ACTION_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    priority: _common_pb2.Priority
    max_queue_size: int
    default_timeout_microseconds: int
    timeout_action: TimeoutAction
    weight: float
    def __init__(self, priority: _Optional[_Union[_common_pb2.Priority, str]] = ..., max_queue_size: _Optional[int] = ..., default_timeout_microseconds: _Optional[int] = ..., timeout_action: _Optional[_Union[TimeoutAction, str]] = ..., weight: _Optional[float] = ...) -> None: ...

class Knobs(_message.Message):
    __slots__ = ("max_batch_size", "max_batch_tokens", "preferred_batch_size", "max_queue_delay_microseconds", "max_batch_ms", "look_ahead", "strict_priority", "queue_policies")
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREFERRED_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_DELAY_MICROSECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_MS_FIELD_NUMBER: _ClassVar[int]
    LOOK_AHEAD_FIELD_NUMBER: _ClassVar[int]
    STRICT_PRIORITY_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POLICIES_FIELD_NUMBER: _ClassVar[int]
    max_batch_size: int
    max_batch_tokens: int
    preferred_batch_size: _containers.RepeatedScalarFieldContainer[int]
    max_queue_delay_microseconds: int
    max_batch_ms: float
    look_ahead: int
    strict_priority: bool
    queue_policies: _containers.RepeatedCompositeFieldContainer[QueuePolicy]
    def __init__(self, max_batch_size: _Optional[int] = ..., max_batch_tokens: _Optional[int] = ..., preferred_batch_size: _Optional[_Iterable[int]] = ..., max_queue_delay_microseconds: _Optional[int] = ..., max_batch_ms: _Optional[float] = ..., look_ahead: _Optional[int] = ..., strict_priority: _Optional[bool] = ..., queue_policies: _Optional[_Iterable[_Union[QueuePolicy, _Mapping]]] = ...) -> None: ...

class ConfigureRequest(_message.Message):
    __slots__ = ("model", "knobs")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    KNOBS_FIELD_NUMBER: _ClassVar[int]
    model: str
    knobs: Knobs
    def __init__(self, model: _Optional[str] = ..., knobs: _Optional[_Union[Knobs, _Mapping]] = ...) -> None: ...

class ConfigureResponse(_message.Message):
    __slots__ = ("knobs",)
    KNOBS_FIELD_NUMBER: _ClassVar[int]
    knobs: Knobs
    def __init__(self, knobs: _Optional[_Union[Knobs, _Mapping]] = ...) -> None: ...

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
