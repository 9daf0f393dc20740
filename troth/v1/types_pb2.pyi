from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_COMMITTED: _ClassVar[Outcome]
    OUTCOME_ABORTED: _ClassVar[Outcome]
    OUTCOME_REFUSED: _ClassVar[Outcome]
    OUTCOME_UNKNOWN: _ClassVar[Outcome]

class Vote(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VOTE_UNSPECIFIED: _ClassVar[Vote]
    VOTE_YES: _ClassVar[Vote]
    VOTE_NO: _ClassVar[Vote]
    VOTE_READ_ONLY: _ClassVar[Vote]

class Answer(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ANSWER_UNSPECIFIED: _ClassVar[Answer]
    ANSWER_PENDING: _ClassVar[Answer]
    ANSWER_COMMITTED: _ClassVar[Answer]
    ANSWER_ABORTED: _ClassVar[Answer]
    ANSWER_NONE: _ClassVar[Answer]

class Code(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODE_UNSPECIFIED: _ClassVar[Code]
    CODE_BELOW_MIN: _ClassVar[Code]
    CODE_ABOVE_MAX: _ClassVar[Code]
    CODE_ROW_MISSING: _ClassVar[Code]
    CODE_ROW_EXISTS: _ClassVar[Code]
    CODE_ADD_ON_NULL: _ClassVar[Code]
    CODE_CHECK_FAILED: _ClassVar[Code]
    CODE_UNIQUE: _ClassVar[Code]
    CODE_CONSTRAINT: _ClassVar[Code]
    CODE_NOT_NULL: _ClassVar[Code]
    CODE_FOREIGN_KEY: _ClassVar[Code]
    CODE_NO_SUCH_TABLE: _ClassVar[Code]
    CODE_NO_SUCH_COLUMN: _ClassVar[Code]
    CODE_TABLE_NOT_SERVED: _ClassVar[Code]
    CODE_WRONG_TYPE: _ClassVar[Code]
    CODE_BAD_KEY: _ClassVar[Code]
    CODE_BAD_OPERATION: _ClassVar[Code]
    CODE_LOCK_TIMEOUT: _ClassVar[Code]
    CODE_TIMEOUT: _ClassVar[Code]
    CODE_UNREACHABLE: _ClassVar[Code]
    CODE_LANE_LOST: _ClassVar[Code]
    CODE_ABORTED_BY_REQUEST: _ClassVar[Code]
    CODE_REFUSED_FOR_PEER: _ClassVar[Code]
    CODE_UNKNOWN_PARTICIPANT: _ClassVar[Code]
    CODE_ID_TAKEN: _ClassVar[Code]
    CODE_ID_EXPIRED: _ClassVar[Code]
    CODE_BAD_ID: _ClassVar[Code]
    CODE_OVERLOADED: _ClassVar[Code]
    CODE_TOO_LARGE: _ClassVar[Code]
    CODE_BAD_REQUEST: _ClassVar[Code]
    CODE_ENDED: _ClassVar[Code]
    CODE_RESOURCE: _ClassVar[Code]
    CODE_NOT_SERVING: _ClassVar[Code]
    CODE_RESOLVED_BY_HAND: _ClassVar[Code]
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_COMMITTED: Outcome
OUTCOME_ABORTED: Outcome
OUTCOME_REFUSED: Outcome
OUTCOME_UNKNOWN: Outcome
VOTE_UNSPECIFIED: Vote
VOTE_YES: Vote
VOTE_NO: Vote
VOTE_READ_ONLY: Vote
ANSWER_UNSPECIFIED: Answer
ANSWER_PENDING: Answer
ANSWER_COMMITTED: Answer
ANSWER_ABORTED: Answer
ANSWER_NONE: Answer
CODE_UNSPECIFIED: Code
CODE_BELOW_MIN: Code
CODE_ABOVE_MAX: Code
CODE_ROW_MISSING: Code
CODE_ROW_EXISTS: Code
CODE_ADD_ON_NULL: Code
CODE_CHECK_FAILED: Code
CODE_UNIQUE: Code
CODE_CONSTRAINT: Code
CODE_NOT_NULL: Code
CODE_FOREIGN_KEY: Code
CODE_NO_SUCH_TABLE: Code
CODE_NO_SUCH_COLUMN: Code
CODE_TABLE_NOT_SERVED: Code
CODE_WRONG_TYPE: Code
CODE_BAD_KEY: Code
CODE_BAD_OPERATION: Code
CODE_LOCK_TIMEOUT: Code
CODE_TIMEOUT: Code
CODE_UNREACHABLE: Code
CODE_LANE_LOST: Code
CODE_ABORTED_BY_REQUEST: Code
CODE_REFUSED_FOR_PEER: Code
CODE_UNKNOWN_PARTICIPANT: Code
CODE_ID_TAKEN: Code
CODE_ID_EXPIRED: Code
CODE_BAD_ID: Code
CODE_OVERLOADED: Code
CODE_TOO_LARGE: Code
CODE_BAD_REQUEST: Code
CODE_ENDED: Code
CODE_RESOURCE: Code
CODE_NOT_SERVING: Code
CODE_RESOLVED_BY_HAND: Code

class Value(_message.Message):
    __slots__ = ("null", "integer", "real", "text", "blob", "boolean")
    NULL_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    REAL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    BOOLEAN_FIELD_NUMBER: _ClassVar[int]
    null: bool
    integer: int
    real: float
    text: str
    blob: bytes
    boolean: bool
    def __init__(self, null: _Optional[bool] = ..., integer: _Optional[int] = ..., real: _Optional[float] = ..., text: _Optional[str] = ..., blob: _Optional[bytes] = ..., boolean: _Optional[bool] = ...) -> None: ...

class Column(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: Value
    def __init__(self, name: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class Operation(_message.Message):
    __slots__ = ("position", "table", "key", "insert", "update", "upsert", "delete", "add", "check", "read", "custom", "sql")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    INSERT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    UPSERT_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    ADD_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    CUSTOM_FIELD_NUMBER: _ClassVar[int]
    SQL_FIELD_NUMBER: _ClassVar[int]
    position: int
    table: str
    key: _containers.RepeatedCompositeFieldContainer[Value]
    insert: Insert
    update: Update
    upsert: Upsert
    delete: Delete
    add: Add
    check: Check
    read: Read
    custom: Custom
    sql: Sql
    def __init__(self, position: _Optional[int] = ..., table: _Optional[str] = ..., key: _Optional[_Iterable[_Union[Value, _Mapping]]] = ..., insert: _Optional[_Union[Insert, _Mapping]] = ..., update: _Optional[_Union[Update, _Mapping]] = ..., upsert: _Optional[_Union[Upsert, _Mapping]] = ..., delete: _Optional[_Union[Delete, _Mapping]] = ..., add: _Optional[_Union[Add, _Mapping]] = ..., check: _Optional[_Union[Check, _Mapping]] = ..., read: _Optional[_Union[Read, _Mapping]] = ..., custom: _Optional[_Union[Custom, _Mapping]] = ..., sql: _Optional[_Union[Sql, _Mapping]] = ...) -> None: ...

class Insert(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[Column]
    def __init__(self, values: _Optional[_Iterable[_Union[Column, _Mapping]]] = ...) -> None: ...

class Update(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[Column]
    def __init__(self, values: _Optional[_Iterable[_Union[Column, _Mapping]]] = ...) -> None: ...

class Upsert(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[Column]
    def __init__(self, values: _Optional[_Iterable[_Union[Column, _Mapping]]] = ...) -> None: ...

class Delete(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Add(_message.Message):
    __slots__ = ("column", "by", "min", "max")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    column: str
    by: Value
    min: Value
    max: Value
    def __init__(self, column: _Optional[str] = ..., by: _Optional[_Union[Value, _Mapping]] = ..., min: _Optional[_Union[Value, _Mapping]] = ..., max: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class Check(_message.Message):
    __slots__ = ("column", "equals", "at_least", "at_most", "exists")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    EQUALS_FIELD_NUMBER: _ClassVar[int]
    AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    AT_MOST_FIELD_NUMBER: _ClassVar[int]
    EXISTS_FIELD_NUMBER: _ClassVar[int]
    column: str
    equals: Value
    at_least: Value
    at_most: Value
    exists: bool
    def __init__(self, column: _Optional[str] = ..., equals: _Optional[_Union[Value, _Mapping]] = ..., at_least: _Optional[_Union[Value, _Mapping]] = ..., at_most: _Optional[_Union[Value, _Mapping]] = ..., exists: _Optional[bool] = ...) -> None: ...

class Read(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Custom(_message.Message):
    __slots__ = ("name", "body", "read_only")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    name: str
    body: str
    read_only: bool
    def __init__(self, name: _Optional[str] = ..., body: _Optional[str] = ..., read_only: _Optional[bool] = ...) -> None: ...

class Sql(_message.Message):
    __slots__ = ("statement", "parameters", "rows", "read_only")
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    statement: str
    parameters: _containers.RepeatedCompositeFieldContainer[Value]
    rows: int
    read_only: bool
    def __init__(self, statement: _Optional[str] = ..., parameters: _Optional[_Iterable[_Union[Value, _Mapping]]] = ..., rows: _Optional[int] = ..., read_only: _Optional[bool] = ...) -> None: ...

class Operations(_message.Message):
    __slots__ = ("operations",)
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    operations: _containers.RepeatedCompositeFieldContainer[Operation]
    def __init__(self, operations: _Optional[_Iterable[_Union[Operation, _Mapping]]] = ...) -> None: ...

class Branch(_message.Message):
    __slots__ = ("participant", "operations")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    participant: str
    operations: Operations
    def __init__(self, participant: _Optional[str] = ..., operations: _Optional[_Union[Operations, _Mapping]] = ...) -> None: ...

class Row(_message.Message):
    __slots__ = ("position", "participant", "table", "key", "present", "values")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    position: int
    participant: str
    table: str
    key: _containers.RepeatedCompositeFieldContainer[Value]
    present: bool
    values: _containers.RepeatedCompositeFieldContainer[Column]
    def __init__(self, position: _Optional[int] = ..., participant: _Optional[str] = ..., table: _Optional[str] = ..., key: _Optional[_Iterable[_Union[Value, _Mapping]]] = ..., present: _Optional[bool] = ..., values: _Optional[_Iterable[_Union[Column, _Mapping]]] = ...) -> None: ...

class Rows(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[Row]
    def __init__(self, rows: _Optional[_Iterable[_Union[Row, _Mapping]]] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("code", "participant", "operation", "table", "key", "column", "required", "found", "retryable", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: Code
    participant: str
    operation: int
    table: str
    key: _containers.RepeatedCompositeFieldContainer[Value]
    column: str
    required: Value
    found: Value
    retryable: bool
    message: str
    def __init__(self, code: _Optional[_Union[Code, str]] = ..., participant: _Optional[str] = ..., operation: _Optional[int] = ..., table: _Optional[str] = ..., key: _Optional[_Iterable[_Union[Value, _Mapping]]] = ..., column: _Optional[str] = ..., required: _Optional[_Union[Value, _Mapping]] = ..., found: _Optional[_Union[Value, _Mapping]] = ..., retryable: _Optional[bool] = ..., message: _Optional[str] = ...) -> None: ...

class Attempt(_message.Message):
    __slots__ = ("log", "number")
    LOG_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    log: str
    number: int
    def __init__(self, log: _Optional[str] = ..., number: _Optional[int] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("at", "what", "participant")
    AT_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    at: float
    what: str
    participant: str
    def __init__(self, at: _Optional[float] = ..., what: _Optional[str] = ..., participant: _Optional[str] = ...) -> None: ...

class Counters(_message.Message):
    __slots__ = ("forced", "lazy", "flushes", "sent", "received", "alarms")
    class SentEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class ReceivedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    FORCED_FIELD_NUMBER: _ClassVar[int]
    LAZY_FIELD_NUMBER: _ClassVar[int]
    FLUSHES_FIELD_NUMBER: _ClassVar[int]
    SENT_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    forced: int
    lazy: int
    flushes: int
    sent: _containers.ScalarMap[str, int]
    received: _containers.ScalarMap[str, int]
    alarms: int
    def __init__(self, forced: _Optional[int] = ..., lazy: _Optional[int] = ..., flushes: _Optional[int] = ..., sent: _Optional[_Mapping[str, int]] = ..., received: _Optional[_Mapping[str, int]] = ..., alarms: _Optional[int] = ...) -> None: ...
