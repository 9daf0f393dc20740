"""What the server said of a branch, as a reason: one table of its error codes (MariaDB's documentation, "Error Codes").

Every one of them is a NO, and a safe one: the branch is rolled back whatever it was, also when the server has taken
back only the statement (a lock timeout). Whether the same work may succeed later is the code's to say
(`troth.reasons.RETRYABLE`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from participant.resources import No
from participant.resources.mariadb.catalog import Database, Rule
from participant.resources.mariadb.session import Failure
from participant.resources.mariadb.statements import inserted_meanwhile
from participant.resources.server import steps
from participant.resources.server.steps import Insert, Sql, Step, Upsert
from troth import reasons
from troth.v1.types_pb2 import Code

UNKNOWN_XID = 1397
ROLLED_BACK = frozenset({1402, 1613, 1614})
"""XA_RBROLLBACK, XA_RBTIMEOUT, XA_RBDEADLOCK: the server has rolled the branch back by itself."""
_READ_ONLY = 1792
_DUPLICATE, _NO_PARENT, _HAS_CHILDREN, _CHECK, _NULL, _NO_DEFAULT = 1062, 1452, 1451, 4025, 1048, 1364
STALE = frozenset({1054, 1146})
"""No such column, or table: the catalog is to be read again."""
_PASSING = frozenset({1020, 1021, 1037, 1038, 1040, 1041, 1114, 1203, 1205, 1206, 1213, 1226, 1290, 1317, 1836, 1969})

_CODES: tuple[tuple[Code, str, tuple[int, ...]], ...] = (
    (Code.CODE_LOCK_TIMEOUT, "a lock at the server was waited for longer than lock_timeout_s", (1205,)),
    (Code.CODE_LOCK_TIMEOUT, "the server ended a deadlock by giving up this branch", (1213, 1614)),
    (Code.CODE_LOCK_TIMEOUT, "the server rolled the branch back", (1020, 1402, 1613)),
    (Code.CODE_TIMEOUT, "the server cancelled a statement of the branch", (1317, 1969)),
    (Code.CODE_OVERLOADED, "the server takes no more connections", (1040, 1203, 1226)),
    (Code.CODE_OVERLOADED, "the server is out of disk or memory", (1021, 1037, 1038, 1041, 1114, 1206)),
    (Code.CODE_NOT_SERVING, "the server takes no writes", (1290, 1836)),
    (Code.CODE_BAD_OPERATION, "the server cannot do this in a branch", (1295, 1399, 1400, _READ_ONLY)),
    (
        Code.CODE_BAD_OPERATION,
        "the user that the participant connects as may not do this",
        (1044, 1142, 1143, 1227, 1370),
    ),
    (Code.CODE_BAD_OPERATION, "the server does not take the statement", (1064, 1210)),
    (Code.CODE_NO_SUCH_TABLE, "the server has no such table", (1146,)),
    (Code.CODE_NO_SUCH_COLUMN, "the server has no such column", (1054,)),
    (Code.CODE_WRONG_TYPE, "a value does not fit", (1264, 1265, 1292, 1366, 1406, 1411, 1690)),
    (Code.CODE_NOT_NULL, "a column may not be NULL", (_NULL, _NO_DEFAULT)),
    (Code.CODE_UNIQUE, "another row holds a value that must be unique", (_DUPLICATE, 1586)),
    (Code.CODE_FOREIGN_KEY, "a foreign key does not hold", (_HAS_CHILDREN, _NO_PARENT)),
    (Code.CODE_CONSTRAINT, "a constraint does not hold", (_CHECK, 1644)),
)
_WORDS = {number: (code, words) for code, words, numbers in _CODES for number in numbers}
_KEY = re.compile(r"for key '(?P<name>.*)'$", re.DOTALL)
_CONSTRAINT = re.compile(r"CONSTRAINT `(?P<name>(?:[^`]|``)*)` FOREIGN KEY")
_COLUMN = re.compile(r"(?:Column|Field) '(?P<name>.*)' ")


def denial(step: Step | None, failure: Failure, database: Database) -> No:
    """The NO to a branch whose `step` failed; None when it was none of them (XA PREPARE, for example)."""
    if step is not None and not isinstance(step, Sql) and (no := _constraint(step, failure, database.rules)):
        return no
    code, words = _WORDS.get(failure.number, (Code.CODE_RESOURCE, "the server refused"))
    if failure.number == _READ_ONLY and isinstance(step, Sql):
        words = "the statement writes, but is said to be read-only"
    message = f"{words}: {failure.message}"
    if step is None:
        return No(reasons.reason(code, message))
    return step.no(code, message) if isinstance(step, Sql) else step.target.no(code, message)


def is_passing(failure: Failure) -> bool:
    """Whether the same question may be answered otherwise a little later."""
    return failure.number in _PASSING


def _constraint(step: steps.OnRow, failure: Failure, rules: Mapping[tuple[str, str], Rule]) -> No | None:
    """What a constraint of the step's own table says in Troth's words; None for any other."""
    table = step.target.table

    def rule_named(pattern: re.Pattern[str]) -> Rule | None:
        matched = pattern.search(failure.message)
        return rules.get((table.name, matched["name"].replace("``", "`"))) if matched else None

    if failure.number == _DUPLICATE and (rule := rule_named(_KEY)):
        if rule.columns != tuple(column.name for column in table.key):
            return steps.not_unique(step, rule.columns)
        if isinstance(step, Insert):
            return step.target.there()
        if isinstance(step, Upsert):
            return inserted_meanwhile(step)
    if failure.number == _NO_PARENT and (rule := rule_named(_CONSTRAINT)):
        return steps.no_parent(step, rule.columns, rule.parent)
    if failure.number == _HAS_CHILDREN:
        return steps.referred_to(step)
    if failure.number == _CHECK:
        return steps.constraint(step)
    if failure.number in (_NULL, _NO_DEFAULT) and (matched := _COLUMN.search(failure.message)):
        return steps.is_null(step, matched["name"])
    return None
