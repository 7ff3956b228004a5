from penstock.api.common.v1 import common_pb2 as _common_pb2
from penstock.api.inference.v1 import inference_pb2 as _inference_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class KeyScope(_message.Message):
    __slots__ = ("organisation", "team", "user", "tags", "models", "tasks", "priority_ceiling")
    ORGANISATION_FIELD_NUMBER: _ClassVar[int]
    TEAM_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_CEILING_FIELD_NUMBER: _ClassVar[int]
    organisation: str
    team: str
    user: str
    tags: _containers.RepeatedScalarFieldContainer[str]
    models: _containers.RepeatedScalarFieldContainer[str]
    tasks: _containers.RepeatedScalarFieldContainer[_inference_pb2.TaskKind]
    priority_ceiling: _common_pb2.Priority
    def __init__(self, organisation: _Optional[str] = ..., team: _Optional[str] = ..., user: _Optional[str] = ..., tags: _Optional[_Iterable[str]] = ..., models: _Optional[_Iterable[str]] = ..., tasks: _Optional[_Iterable[_Union[_inference_pb2.TaskKind, str]]] = ..., priority_ceiling: _Optional[_Union[_common_pb2.Priority, str]] = ...) -> None: ...

class Key(_message.Message):
    __slots__ = ("id", "scope", "note", "created_unix_ms", "expires_unix_ms", "revoked_unix_ms", "overlap_ends_unix_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    CREATED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    REVOKED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_ENDS_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    id: str
    scope: KeyScope
    note: str
    created_unix_ms: int
    expires_unix_ms: int
    revoked_unix_ms: int
    overlap_ends_unix_ms: int
    def __init__(self, id: _Optional[str] = ..., scope: _Optional[_Union[KeyScope, _Mapping]] = ..., note: _Optional[str] = ..., created_unix_ms: _Optional[int] = ..., expires_unix_ms: _Optional[int] = ..., revoked_unix_ms: _Optional[int] = ..., overlap_ends_unix_ms: _Optional[int] = ...) -> None: ...

class CreateKeyRequest(_message.Message):
    __slots__ = ("scope", "note", "ttl_ms")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    scope: KeyScope
    note: str
    ttl_ms: int
    def __init__(self, scope: _Optional[_Union[KeyScope, _Mapping]] = ..., note: _Optional[str] = ..., ttl_ms: _Optional[int] = ...) -> None: ...

class CreateKeyResponse(_message.Message):
    __slots__ = ("key", "secret")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    key: Key
    secret: str
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ..., secret: _Optional[str] = ...) -> None: ...

class ListKeysRequest(_message.Message):
    __slots__ = ("organisation", "include_ended")
    ORGANISATION_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_ENDED_FIELD_NUMBER: _ClassVar[int]
    organisation: str
    include_ended: bool
    def __init__(self, organisation: _Optional[str] = ..., include_ended: _Optional[bool] = ...) -> None: ...

class ListKeysResponse(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[Key]
    def __init__(self, keys: _Optional[_Iterable[_Union[Key, _Mapping]]] = ...) -> None: ...

class RotateKeyRequest(_message.Message):
    __slots__ = ("id", "overlap_ms", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    overlap_ms: int
    reason: str
    def __init__(self, id: _Optional[str] = ..., overlap_ms: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class RotateKeyResponse(_message.Message):
    __slots__ = ("key", "secret")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    key: Key
    secret: str
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ..., secret: _Optional[str] = ...) -> None: ...

class RevokeKeyRequest(_message.Message):
    __slots__ = ("id", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    reason: str
    def __init__(self, id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RevokeKeyResponse(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: Key
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ...) -> None: ...

class ListAuditRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class KeyChange(_message.Message):
    __slots__ = ("at_unix_ms", "operator", "action", "key_id", "organisation", "reason")
    AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    ORGANISATION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    at_unix_ms: int
    operator: str
    action: str
    key_id: str
    organisation: str
    reason: str
    def __init__(self, at_unix_ms: _Optional[int] = ..., operator: _Optional[str] = ..., action: _Optional[str] = ..., key_id: _Optional[str] = ..., organisation: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ListAuditResponse(_message.Message):
    __slots__ = ("changes",)
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[KeyChange]
    def __init__(self, changes: _Optional[_Iterable[_Union[KeyChange, _Mapping]]] = ...) -> None: ...
