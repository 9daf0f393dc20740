from troth.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    STATE_NOT_FOUND: _ClassVar[State]
    STATE_PENDING: _ClassVar[State]
    STATE_COMMITTING: _ClassVar[State]
    STATE_COMMITTED: _ClassVar[State]
    STATE_ABORTED: _ClassVar[State]
    STATE_REFUSED: _ClassVar[State]
STATE_UNSPECIFIED: State
STATE_NOT_FOUND: State
STATE_PENDING: State
STATE_COMMITTING: State
STATE_COMMITTED: State
STATE_ABORTED: State
STATE_REFUSED: State

class SubmitRequest(_message.Message):
    __slots__ = ("id", "timeout_s", "branches", "wait_applied", "tag")
    ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    BRANCHES_FIELD_NUMBER: _ClassVar[int]
    WAIT_APPLIED_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    id: str
    timeout_s: float
    branches: _containers.RepeatedCompositeFieldContainer[_types_pb2.Branch]
    wait_applied: bool
    tag: int
    def __init__(self, id: _Optional[str] = ..., timeout_s: _Optional[float] = ..., branches: _Optional[_Iterable[_Union[_types_pb2.Branch, _Mapping]]] = ..., wait_applied: _Optional[bool] = ..., tag: _Optional[int] = ...) -> None: ...

class SubmitBatch(_message.Message):
    __slots__ = ("submissions",)
    SUBMISSIONS_FIELD_NUMBER: _ClassVar[int]
    submissions: _containers.RepeatedCompositeFieldContainer[SubmitRequest]
    def __init__(self, submissions: _Optional[_Iterable[_Union[SubmitRequest, _Mapping]]] = ...) -> None: ...

class SubmitResult(_message.Message):
    __slots__ = ("id", "outcome", "reason", "rows", "rows_not_kept", "applied", "tag", "attempts")
    ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ROWS_NOT_KEPT_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    id: str
    outcome: _types_pb2.Outcome
    reason: _types_pb2.Reason
    rows: _containers.RepeatedCompositeFieldContainer[_types_pb2.Row]
    rows_not_kept: bool
    applied: bool
    tag: int
    attempts: int
    def __init__(self, id: _Optional[str] = ..., outcome: _Optional[_Union[_types_pb2.Outcome, str]] = ..., reason: _Optional[_Union[_types_pb2.Reason, _Mapping]] = ..., rows: _Optional[_Iterable[_Union[_types_pb2.Row, _Mapping]]] = ..., rows_not_kept: _Optional[bool] = ..., applied: _Optional[bool] = ..., tag: _Optional[int] = ..., attempts: _Optional[int] = ...) -> None: ...

class SubmitResults(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SubmitResult]
    def __init__(self, results: _Optional[_Iterable[_Union[SubmitResult, _Mapping]]] = ...) -> None: ...

class AbortRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class ResolveRequest(_message.Message):
    __slots__ = ("id", "participant", "outcome", "reason", "clear")
    ID_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CLEAR_FIELD_NUMBER: _ClassVar[int]
    id: str
    participant: str
    outcome: _types_pb2.Outcome
    reason: str
    clear: bool
    def __init__(self, id: _Optional[str] = ..., participant: _Optional[str] = ..., outcome: _Optional[_Union[_types_pb2.Outcome, str]] = ..., reason: _Optional[str] = ..., clear: _Optional[bool] = ...) -> None: ...

class ResolveReply(_message.Message):
    __slots__ = ("message",)
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    message: str
    def __init__(self, message: _Optional[str] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class Transaction(_message.Message):
    __slots__ = ("id", "state", "reason", "attempt", "participants", "waiting_for", "submitted_at", "ended_at", "steps", "heuristics")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANTS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    HEURISTICS_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: State
    reason: _types_pb2.Reason
    attempt: _types_pb2.Attempt
    participants: _containers.RepeatedScalarFieldContainer[str]
    waiting_for: _containers.RepeatedScalarFieldContainer[str]
    submitted_at: float
    ended_at: float
    steps: _containers.RepeatedCompositeFieldContainer[_types_pb2.Step]
    heuristics: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., state: _Optional[_Union[State, str]] = ..., reason: _Optional[_Union[_types_pb2.Reason, _Mapping]] = ..., attempt: _Optional[_Union[_types_pb2.Attempt, _Mapping]] = ..., participants: _Optional[_Iterable[str]] = ..., waiting_for: _Optional[_Iterable[str]] = ..., submitted_at: _Optional[float] = ..., ended_at: _Optional[float] = ..., steps: _Optional[_Iterable[_Union[_types_pb2.Step, _Mapping]]] = ..., heuristics: _Optional[_Iterable[str]] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("limit", "in_flight")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    in_flight: bool
    def __init__(self, limit: _Optional[int] = ..., in_flight: _Optional[bool] = ...) -> None: ...

class ListReply(_message.Message):
    __slots__ = ("transactions",)
    TRANSACTIONS_FIELD_NUMBER: _ClassVar[int]
    transactions: _containers.RepeatedCompositeFieldContainer[Transaction]
    def __init__(self, transactions: _Optional[_Iterable[_Union[Transaction, _Mapping]]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnresolvedRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Unresolved(_message.Message):
    __slots__ = ("id", "attempt", "participant", "age_s", "kind", "why")
    ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    id: str
    attempt: _types_pb2.Attempt
    participant: str
    age_s: float
    kind: str
    why: str
    def __init__(self, id: _Optional[str] = ..., attempt: _Optional[_Union[_types_pb2.Attempt, _Mapping]] = ..., participant: _Optional[str] = ..., age_s: _Optional[float] = ..., kind: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class UnresolvedReply(_message.Message):
    __slots__ = ("unresolved",)
    UNRESOLVED_FIELD_NUMBER: _ClassVar[int]
    unresolved: _containers.RepeatedCompositeFieldContainer[Unresolved]
    def __init__(self, unresolved: _Optional[_Iterable[_Union[Unresolved, _Mapping]]] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LaneStatus(_message.Message):
    __slots__ = ("participant", "address", "open", "identity", "error", "owed")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    OWED_FIELD_NUMBER: _ClassVar[int]
    participant: str
    address: str
    open: bool
    identity: str
    error: str
    owed: int
    def __init__(self, participant: _Optional[str] = ..., address: _Optional[str] = ..., open: _Optional[bool] = ..., identity: _Optional[str] = ..., error: _Optional[str] = ..., owed: _Optional[int] = ...) -> None: ...

class CoordinatorStatus(_message.Message):
    __slots__ = ("log", "epoch", "pid", "serving", "in_flight", "unresolved", "oldest_s", "log_bytes", "committed", "aborted", "refused", "lanes", "counters", "alarms")
    LOG_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    UNRESOLVED_FIELD_NUMBER: _ClassVar[int]
    OLDEST_S_FIELD_NUMBER: _ClassVar[int]
    LOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    ABORTED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    log: str
    epoch: int
    pid: int
    serving: bool
    in_flight: int
    unresolved: int
    oldest_s: float
    log_bytes: int
    committed: int
    aborted: int
    refused: int
    lanes: _containers.RepeatedCompositeFieldContainer[LaneStatus]
    counters: _types_pb2.Counters
    alarms: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, log: _Optional[str] = ..., epoch: _Optional[int] = ..., pid: _Optional[int] = ..., serving: _Optional[bool] = ..., in_flight: _Optional[int] = ..., unresolved: _Optional[int] = ..., oldest_s: _Optional[float] = ..., log_bytes: _Optional[int] = ..., committed: _Optional[int] = ..., aborted: _Optional[int] = ..., refused: _Optional[int] = ..., lanes: _Optional[_Iterable[_Union[LaneStatus, _Mapping]]] = ..., counters: _Optional[_Union[_types_pb2.Counters, _Mapping]] = ..., alarms: _Optional[_Iterable[str]] = ...) -> None: ...

class OutcomeRequest(_message.Message):
    __slots__ = ("attempt", "identity", "asker")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    ASKER_FIELD_NUMBER: _ClassVar[int]
    attempt: _types_pb2.Attempt
    identity: str
    asker: str
    def __init__(self, attempt: _Optional[_Union[_types_pb2.Attempt, _Mapping]] = ..., identity: _Optional[str] = ..., asker: _Optional[str] = ...) -> None: ...

class OutcomeReply(_message.Message):
    __slots__ = ("answer",)
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    answer: _types_pb2.Answer
    def __init__(self, answer: _Optional[_Union[_types_pb2.Answer, str]] = ...) -> None: ...
