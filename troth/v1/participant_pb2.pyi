from troth.v1 import coordinator_pb2 as _coordinator_pb2
from troth.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CoordinatorHello(_message.Message):
    __slots__ = ("version", "log", "epoch", "participant", "address", "identity", "seen")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    version: int
    log: str
    epoch: int
    participant: str
    address: str
    identity: str
    seen: int
    def __init__(self, version: _Optional[int] = ..., log: _Optional[str] = ..., epoch: _Optional[int] = ..., participant: _Optional[str] = ..., address: _Optional[str] = ..., identity: _Optional[str] = ..., seen: _Optional[int] = ...) -> None: ...

class ParticipantHello(_message.Message):
    __slots__ = ("version", "participant", "identity", "incarnation", "address", "seen", "questions")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    version: int
    participant: str
    identity: str
    incarnation: int
    address: str
    seen: int
    questions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, version: _Optional[int] = ..., participant: _Optional[str] = ..., identity: _Optional[str] = ..., incarnation: _Optional[int] = ..., address: _Optional[str] = ..., seen: _Optional[int] = ..., questions: _Optional[_Iterable[int]] = ...) -> None: ...

class Peer(_message.Message):
    __slots__ = ("participant", "address", "identity")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    participant: str
    address: str
    identity: str
    def __init__(self, participant: _Optional[str] = ..., address: _Optional[str] = ..., identity: _Optional[str] = ...) -> None: ...

class Prepare(_message.Message):
    __slots__ = ("number", "operations", "read_only", "peers")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    number: int
    operations: bytes
    read_only: bool
    peers: _containers.RepeatedCompositeFieldContainer[Peer]
    def __init__(self, number: _Optional[int] = ..., operations: _Optional[bytes] = ..., read_only: _Optional[bool] = ..., peers: _Optional[_Iterable[_Union[Peer, _Mapping]]] = ...) -> None: ...

class OnePhase(_message.Message):
    __slots__ = ("number", "operations", "incarnation")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    number: int
    operations: bytes
    incarnation: int
    def __init__(self, number: _Optional[int] = ..., operations: _Optional[bytes] = ..., incarnation: _Optional[int] = ...) -> None: ...

class Question(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class Answered(_message.Message):
    __slots__ = ("number", "answer")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    number: int
    answer: _types_pb2.Answer
    def __init__(self, number: _Optional[int] = ..., answer: _Optional[_Union[_types_pb2.Answer, str]] = ...) -> None: ...

class Mark(_message.Message):
    __slots__ = ("low",)
    LOW_FIELD_NUMBER: _ClassVar[int]
    EXCEPT_FIELD_NUMBER: _ClassVar[int]
    low: int
    def __init__(self, low: _Optional[int] = ..., **kwargs) -> None: ...

class ToParticipant(_message.Message):
    __slots__ = ("hello", "durable", "mark", "answers", "commits", "aborts", "releases", "questions", "prepares", "one_phases")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    MARK_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    ABORTS_FIELD_NUMBER: _ClassVar[int]
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    PREPARES_FIELD_NUMBER: _ClassVar[int]
    ONE_PHASES_FIELD_NUMBER: _ClassVar[int]
    hello: CoordinatorHello
    durable: int
    mark: Mark
    answers: _containers.RepeatedCompositeFieldContainer[Answered]
    commits: _containers.RepeatedScalarFieldContainer[int]
    aborts: _containers.RepeatedScalarFieldContainer[int]
    releases: _containers.RepeatedScalarFieldContainer[int]
    questions: _containers.RepeatedCompositeFieldContainer[Question]
    prepares: _containers.RepeatedCompositeFieldContainer[Prepare]
    one_phases: _containers.RepeatedCompositeFieldContainer[OnePhase]
    def __init__(self, hello: _Optional[_Union[CoordinatorHello, _Mapping]] = ..., durable: _Optional[int] = ..., mark: _Optional[_Union[Mark, _Mapping]] = ..., answers: _Optional[_Iterable[_Union[Answered, _Mapping]]] = ..., commits: _Optional[_Iterable[int]] = ..., aborts: _Optional[_Iterable[int]] = ..., releases: _Optional[_Iterable[int]] = ..., questions: _Optional[_Iterable[_Union[Question, _Mapping]]] = ..., prepares: _Optional[_Iterable[_Union[Prepare, _Mapping]]] = ..., one_phases: _Optional[_Iterable[_Union[OnePhase, _Mapping]]] = ...) -> None: ...

class Voted(_message.Message):
    __slots__ = ("number", "vote", "incarnation", "rows", "reason")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    VOTE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    number: int
    vote: _types_pb2.Vote
    incarnation: int
    rows: bytes
    reason: _types_pb2.Reason
    def __init__(self, number: _Optional[int] = ..., vote: _Optional[_Union[_types_pb2.Vote, str]] = ..., incarnation: _Optional[int] = ..., rows: _Optional[bytes] = ..., reason: _Optional[_Union[_types_pb2.Reason, _Mapping]] = ...) -> None: ...

class OnePhaseEnded(_message.Message):
    __slots__ = ("number", "outcome", "rows", "reason")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    number: int
    outcome: _types_pb2.Outcome
    rows: bytes
    reason: _types_pb2.Reason
    def __init__(self, number: _Optional[int] = ..., outcome: _Optional[_Union[_types_pb2.Outcome, str]] = ..., rows: _Optional[bytes] = ..., reason: _Optional[_Union[_types_pb2.Reason, _Mapping]] = ...) -> None: ...

class Acknowledged(_message.Message):
    __slots__ = ("number", "heuristic")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    HEURISTIC_FIELD_NUMBER: _ClassVar[int]
    number: int
    heuristic: _types_pb2.Outcome
    def __init__(self, number: _Optional[int] = ..., heuristic: _Optional[_Union[_types_pb2.Outcome, str]] = ...) -> None: ...

class ToCoordinator(_message.Message):
    __slots__ = ("hello", "durable", "votes", "one_phases", "acknowledged", "questions", "answers")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    VOTES_FIELD_NUMBER: _ClassVar[int]
    ONE_PHASES_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    hello: ParticipantHello
    durable: int
    votes: _containers.RepeatedCompositeFieldContainer[Voted]
    one_phases: _containers.RepeatedCompositeFieldContainer[OnePhaseEnded]
    acknowledged: _containers.RepeatedCompositeFieldContainer[Acknowledged]
    questions: _containers.RepeatedCompositeFieldContainer[Question]
    answers: _containers.RepeatedCompositeFieldContainer[Answered]
    def __init__(self, hello: _Optional[_Union[ParticipantHello, _Mapping]] = ..., durable: _Optional[int] = ..., votes: _Optional[_Iterable[_Union[Voted, _Mapping]]] = ..., one_phases: _Optional[_Iterable[_Union[OnePhaseEnded, _Mapping]]] = ..., acknowledged: _Optional[_Iterable[_Union[Acknowledged, _Mapping]]] = ..., questions: _Optional[_Iterable[_Union[Question, _Mapping]]] = ..., answers: _Optional[_Iterable[_Union[Answered, _Mapping]]] = ...) -> None: ...

class PrepareRequest(_message.Message):
    __slots__ = ("attempt", "operations", "read_only", "peers")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    attempt: _types_pb2.Attempt
    operations: _types_pb2.Operations
    read_only: bool
    peers: _containers.RepeatedCompositeFieldContainer[Peer]
    def __init__(self, attempt: _Optional[_Union[_types_pb2.Attempt, _Mapping]] = ..., operations: _Optional[_Union[_types_pb2.Operations, _Mapping]] = ..., read_only: _Optional[bool] = ..., peers: _Optional[_Iterable[_Union[Peer, _Mapping]]] = ...) -> None: ...

class BranchRequest(_message.Message):
    __slots__ = ("attempt",)
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    attempt: _types_pb2.Attempt
    def __init__(self, attempt: _Optional[_Union[_types_pb2.Attempt, _Mapping]] = ...) -> None: ...

class ResolveBranchRequest(_message.Message):
    __slots__ = ("attempt", "outcome", "reason")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    attempt: _types_pb2.Attempt
    outcome: _types_pb2.Outcome
    reason: str
    def __init__(self, attempt: _Optional[_Union[_types_pb2.Attempt, _Mapping]] = ..., outcome: _Optional[_Union[_types_pb2.Outcome, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class CreateTableRequest(_message.Message):
    __slots__ = ("table", "key", "values")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    table: str
    key: _containers.RepeatedCompositeFieldContainer[_types_pb2.Column]
    values: _containers.RepeatedCompositeFieldContainer[_types_pb2.Column]
    def __init__(self, table: _Optional[str] = ..., key: _Optional[_Iterable[_Union[_types_pb2.Column, _Mapping]]] = ..., values: _Optional[_Iterable[_Union[_types_pb2.Column, _Mapping]]] = ...) -> None: ...

class CreateTableReply(_message.Message):
    __slots__ = ("created",)
    CREATED_FIELD_NUMBER: _ClassVar[int]
    created: bool
    def __init__(self, created: _Optional[bool] = ...) -> None: ...

class InDoubtRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class InDoubt(_message.Message):
    __slots__ = ("attempt", "age_s", "locked", "why", "waiting", "peers", "coordinator", "heuristic", "read_only")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    LOCKED_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_FIELD_NUMBER: _ClassVar[int]
    HEURISTIC_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    attempt: _types_pb2.Attempt
    age_s: float
    locked: _containers.RepeatedScalarFieldContainer[str]
    why: str
    waiting: _containers.RepeatedCompositeFieldContainer[_types_pb2.Attempt]
    peers: _containers.RepeatedCompositeFieldContainer[Peer]
    coordinator: str
    heuristic: _types_pb2.Outcome
    read_only: bool
    def __init__(self, attempt: _Optional[_Union[_types_pb2.Attempt, _Mapping]] = ..., age_s: _Optional[float] = ..., locked: _Optional[_Iterable[str]] = ..., why: _Optional[str] = ..., waiting: _Optional[_Iterable[_Union[_types_pb2.Attempt, _Mapping]]] = ..., peers: _Optional[_Iterable[_Union[Peer, _Mapping]]] = ..., coordinator: _Optional[str] = ..., heuristic: _Optional[_Union[_types_pb2.Outcome, str]] = ..., read_only: _Optional[bool] = ...) -> None: ...

class InDoubtReply(_message.Message):
    __slots__ = ("branches",)
    BRANCHES_FIELD_NUMBER: _ClassVar[int]
    branches: _containers.RepeatedCompositeFieldContainer[InDoubt]
    def __init__(self, branches: _Optional[_Iterable[_Union[InDoubt, _Mapping]]] = ...) -> None: ...

class LocksRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Lock(_message.Message):
    __slots__ = ("name", "mode", "held", "attempt")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    name: str
    mode: str
    held: bool
    attempt: _types_pb2.Attempt
    def __init__(self, name: _Optional[str] = ..., mode: _Optional[str] = ..., held: _Optional[bool] = ..., attempt: _Optional[_Union[_types_pb2.Attempt, _Mapping]] = ...) -> None: ...

class LocksReply(_message.Message):
    __slots__ = ("locks",)
    LOCKS_FIELD_NUMBER: _ClassVar[int]
    locks: _containers.RepeatedCompositeFieldContainer[Lock]
    def __init__(self, locks: _Optional[_Iterable[_Union[Lock, _Mapping]]] = ...) -> None: ...

class ReadRowRequest(_message.Message):
    __slots__ = ("table", "key")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    table: str
    key: _containers.RepeatedCompositeFieldContainer[_types_pb2.Value]
    def __init__(self, table: _Optional[str] = ..., key: _Optional[_Iterable[_Union[_types_pb2.Value, _Mapping]]] = ...) -> None: ...

class TablesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ColumnStatus(_message.Message):
    __slots__ = ("name", "type", "nullable")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    NULLABLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: str
    nullable: bool
    def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ..., nullable: _Optional[bool] = ...) -> None: ...

class TableStatus(_message.Message):
    __slots__ = ("name", "key", "columns", "not_served")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    NOT_SERVED_FIELD_NUMBER: _ClassVar[int]
    name: str
    key: _containers.RepeatedScalarFieldContainer[str]
    columns: _containers.RepeatedCompositeFieldContainer[ColumnStatus]
    not_served: str
    def __init__(self, name: _Optional[str] = ..., key: _Optional[_Iterable[str]] = ..., columns: _Optional[_Iterable[_Union[ColumnStatus, _Mapping]]] = ..., not_served: _Optional[str] = ...) -> None: ...

class TablesReply(_message.Message):
    __slots__ = ("tables",)
    TABLES_FIELD_NUMBER: _ClassVar[int]
    tables: _containers.RepeatedCompositeFieldContainer[TableStatus]
    def __init__(self, tables: _Optional[_Iterable[_Union[TableStatus, _Mapping]]] = ...) -> None: ...

class ParticipantStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ParticipantStatus(_message.Message):
    __slots__ = ("participant", "identity", "incarnation", "pid", "serving", "in_flight", "in_doubt", "oldest_s", "log_bytes", "finished", "counters", "alarms")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    IN_DOUBT_FIELD_NUMBER: _ClassVar[int]
    OLDEST_S_FIELD_NUMBER: _ClassVar[int]
    LOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    participant: str
    identity: str
    incarnation: int
    pid: int
    serving: bool
    in_flight: int
    in_doubt: int
    oldest_s: float
    log_bytes: int
    finished: int
    counters: _types_pb2.Counters
    alarms: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, participant: _Optional[str] = ..., identity: _Optional[str] = ..., incarnation: _Optional[int] = ..., pid: _Optional[int] = ..., serving: _Optional[bool] = ..., in_flight: _Optional[int] = ..., in_doubt: _Optional[int] = ..., oldest_s: _Optional[float] = ..., log_bytes: _Optional[int] = ..., finished: _Optional[int] = ..., counters: _Optional[_Union[_types_pb2.Counters, _Mapping]] = ..., alarms: _Optional[_Iterable[str]] = ...) -> None: ...
