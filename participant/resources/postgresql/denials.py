"""What the server said of a branch, as a reason: one table of SQLSTATEs (PostgreSQL's manual, appendix A).

Every one of them is a NO, and a safe one: after an error the server carries out nothing more of the unit. Whether the
same work may succeed later is the code's to say (`troth.reasons.RETRYABLE`).
"""

from __future__ import annotations

from collections.abc import Mapping

from participant.resources import No
from participant.resources.postgresql.catalog import Database, Rule, quote
from participant.resources.postgresql.session import Failure
from participant.resources.postgresql.statements import found_in
from participant.resources.server import steps
from participant.resources.server.steps import Delete, Insert, Sql, Step, Upsert
from troth import reasons
from troth.v1.types_pb2 import Code

READ_ONLY = "25006"
UNKNOWN_GID = "42704"
BUSY_GID = "55000"
NOT_THERE = frozenset({"42P01", "42703"})
"""A table or column that the catalog was read with, perhaps."""

_WORDS: Mapping[str, tuple[Code, str]] = {
    "55P03": (Code.CODE_LOCK_TIMEOUT, "a lock at the server was waited for longer than lock_timeout_s"),
    "40P01": (Code.CODE_LOCK_TIMEOUT, "the server ended a deadlock by giving up this branch"),
    "40001": (Code.CODE_LOCK_TIMEOUT, "the server could not serialise the branch with others"),
    "57014": (Code.CODE_TIMEOUT, "the server cancelled a statement of the branch"),
    "53100": (Code.CODE_OVERLOADED, "the server's disk is full"),
    "53200": (Code.CODE_OVERLOADED, "the server is out of memory, of locks or of places for prepared transactions"),
    "53300": (Code.CODE_OVERLOADED, "the server takes no more connections"),
    "57P01": (Code.CODE_NOT_SERVING, "the server, or this connection, is shutting down"),
    "57P03": (Code.CODE_NOT_SERVING, "the server does not serve yet"),
    READ_ONLY: (Code.CODE_NOT_SERVING, "the server takes no writes (a standby, or default_transaction_read_only)"),
    "0A000": (Code.CODE_BAD_OPERATION, "the server cannot do this in a branch"),
    "25001": (Code.CODE_BAD_OPERATION, "the server cannot do this in a transaction"),
    "2D000": (Code.CODE_BAD_OPERATION, "a procedure may not end the branch's transaction"),
    "42501": (Code.CODE_BAD_OPERATION, "the role that the participant connects as may not do this"),
    "42P01": (Code.CODE_NO_SUCH_TABLE, "the server has no such table"),
    "42703": (Code.CODE_NO_SUCH_COLUMN, "the server has no such column"),
}
_UNPARSED = "26000"
"""On a connection that several use: the unit before, which was to have the statement parsed, has failed."""
_CLASSES: Mapping[str, tuple[Code, str]] = {
    "08": (Code.CODE_UNREACHABLE, "the connection to the server broke"),
    "22": (Code.CODE_WRONG_TYPE, "a value does not fit"),
    "23": (Code.CODE_CONSTRAINT, "a constraint does not hold"),
    "40": (Code.CODE_LOCK_TIMEOUT, "the server rolled the branch back"),
    "42": (Code.CODE_BAD_OPERATION, "the server does not take the statement"),
    "53": (Code.CODE_OVERLOADED, "the server is out of something"),
    "57": (Code.CODE_NOT_SERVING, "the server does not serve"),
}
_CONSTRAINTS = {"23502": Code.CODE_NOT_NULL, "23503": Code.CODE_FOREIGN_KEY, "23505": Code.CODE_UNIQUE}


def denial(step: Step | None, failure: Failure, database: Database) -> No:
    """The NO to a branch; `step` is the one that failed, None when it was none (the PREPARE itself, for example)."""
    if no := found_in(step, failure):
        return no
    if failure.sqlstate.startswith("23") and step is not None and not isinstance(step, Sql):
        rule = database.rules.get((failure.schema, failure.table, failure.constraint))
        if no := _constraint(step, failure, rule):
            return no
    if failure.sqlstate == READ_ONLY and isinstance(step, Sql) and step.read_only:
        return step.no(Code.CODE_BAD_OPERATION, f"the statement writes, but is said to be read-only: {failure.words()}")
    code, words = _WORDS.get(failure.sqlstate) or _CLASSES.get(
        failure.sqlstate[:2], (Code.CODE_RESOURCE, "the server refused")
    )
    if is_stale(step, failure):
        code, words = Code.CODE_NOT_SERVING, steps.CHANGED
    message = f"{words}: {failure.words()}"
    code = _CONSTRAINTS.get(failure.sqlstate, code)
    if step is None:
        return No(reasons.reason(code, message, table=failure.table, column=failure.column))
    return step.no(code, message) if isinstance(step, Sql) else step.target.no(code, message, failure.column)


def is_stale(step: Step | None, failure: Failure) -> bool:
    """Whether a statement that was kept parsed no longer fits its table: nothing else of ours is not supported."""
    return failure.sqlstate == "0A000" and step is not None and not isinstance(step, Sql)


def is_passing(failure: Failure) -> bool:
    """Whether the same request may be answered otherwise a little later."""
    passing = (BUSY_GID, "55P03", READ_ONLY, _UNPARSED)
    return failure.sqlstate[:2] in ("08", "40", "53", "57") or failure.sqlstate in passing


def _constraint(step: steps.OnRow, failure: Failure, rule: Rule | None) -> No | None:
    """What a constraint of the step's own table says in Troth's words; None for any other."""
    table = step.target.table
    is_own = f"{quote(failure.schema)}.{quote(failure.table)}" == table.sql
    if failure.sqlstate == "23502" and is_own:
        return steps.is_null(step, failure.column)
    if failure.sqlstate == "23514" and is_own:
        return steps.constraint(step)
    if rule is None:
        return None
    if failure.sqlstate == "23505" and rule.table == table.sql:
        if rule.kind == "p" and isinstance(step, Insert | Upsert):
            return step.target.there()
        return steps.not_unique(step, rule.columns)
    if failure.sqlstate == "23503":
        is_child = rule.table == table.sql and not isinstance(step, Delete)
        return steps.no_parent(step, rule.columns, rule.parent) if is_child else steps.referred_to(step)
    return None
