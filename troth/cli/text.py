"""Operations as people type them: `p1: add accounts/alice balance -100 min=0`.

Tokens are split as a POSIX shell would. `column=text` sends text and `column:=json` sends a JSON value, as in HTTPie;
keys are sent as text. The participant converts what it gets to the column's declared type, without loss or not at all.
An empty key cannot be written here, for it would be a slip most of the time; JSON Lines can.

A statement is one token, in quotes, and its parameters are columns without a name:

    p1: sql 'UPDATE accounts SET note = %s WHERE balance < %s' =poor :=100 rows=1
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Iterable
from typing import NamedTuple, NoReturn

from troth import operations
from troth.cli.jsonlines import json_scalar
from troth.errors import BadInput
from troth.operations import Transaction, parse_row
from troth.v1.types_pb2 import Operation
from troth.values import Scalar

_ASSIGNMENT = re.compile(r"(?P<column>.+?)(?P<sign>:=|>=|<=|=)(?P<text>.*)", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_ROWS = re.compile(r"rows=\d{1,18}", re.ASCII)
_CHECKS = {"=": "equals", ":=": "equals", ">=": "at_least", "<=": "at_most"}
_PRESENCE = {"exists": True, "absent": False}


def transaction_of(texts: Iterable[str], id: str | None = None, timeout_s: float | None = None) -> Transaction:
    """A transaction of operations in text form, in their order. Raises BadInput naming operation and token."""
    transaction = Transaction(id, timeout_s)
    for text in texts:
        transaction.append(*parse_operation(text))
    return transaction


def parse_operation(text: str) -> tuple[str, Operation]:
    """The participant and the operation that `text` says. Raises BadInput naming the token and what was expected."""
    tokens = _Tokens(text)
    participant = tokens.take("a participant and a colon, as in p1:")
    if not participant.endswith(":") or participant == ":":
        tokens.fail("a participant and a colon, as in p1:")
    verb = tokens.take(f"one of {', '.join(_VERBS)}")
    parse = _VERBS.get(verb)
    if parse is None:
        near = difflib.get_close_matches(verb, _VERBS, n=1)
        tokens.fail(f"one of {', '.join(_VERBS)}" + (f"; did you mean {near[0]}?" if near else ""))
    try:
        operation = parse(tokens)
    except BadInput as error:
        if isinstance(error, _TokenError):
            raise
        tokens.fail_with(str(error))
    tokens.end()
    return participant[:-1], operation


class _TokenError(BadInput):
    """Already says which token."""


class _Tokens:
    """The tokens of one operation, taken one after the other."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.taken = 0
        lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
        lexer.whitespace_split = True
        lexer.commenters = ""
        try:
            self.tokens = list(lexer)
        except ValueError as error:
            raise _TokenError(f"operation {text!r}: {error}") from error

    def take(self, expected: str) -> str:
        """The next token; BadInput saying what was `expected` when there is none."""
        self.taken += 1
        if self.taken > len(self.tokens):
            self.fail(expected)
        return self.tokens[self.taken - 1]

    def more(self) -> bool:
        return self.taken < len(self.tokens)

    def end(self) -> None:
        if self.more():
            self.take("")
            self.fail("nothing more")

    def fail(self, expected: str) -> NoReturn:
        """The token taken last is not what was expected."""
        self.fail_with(f"expected {expected}, found {self._found()}")

    def fail_with(self, message: str) -> NoReturn:
        raise _TokenError(f"operation {self.text!r}: token {self.taken}: {message}")

    def _found(self) -> str:
        return repr(self.tokens[self.taken - 1]) if self.taken <= len(self.tokens) else "nothing"


class _Assignment(NamedTuple):
    column: str
    sign: str
    value: Scalar


def _row(tokens: _Tokens) -> tuple[str, list[Scalar]]:
    table, key = parse_row(tokens.take("a row as table/key"))
    return table, list(key)


def _assignment(tokens: _Tokens, word: str, expected: str, signs: Iterable[str]) -> _Assignment:
    match = _ASSIGNMENT.fullmatch(word)
    if match is None or match["sign"] not in signs:
        tokens.fail(expected)
    value = json_scalar(match["text"]) if match["sign"] == ":=" else match["text"]
    return _Assignment(match["column"], match["sign"], value)


def _values(tokens: _Tokens) -> dict[str, Scalar]:
    values: dict[str, Scalar] = {}
    while tokens.more():
        column, _, value = _assignment(tokens, tokens.take(""), "column=text or column:=json", ("=", ":="))
        if column in values:
            tokens.fail_with(f"column {column!r} is set twice")
        values[column] = value
    return values


def _insert(tokens: _Tokens) -> Operation:
    return operations.insert(*_row(tokens), _values(tokens))


def _update(tokens: _Tokens) -> Operation:
    return operations.update(*_row(tokens), _values(tokens))


def _upsert(tokens: _Tokens) -> Operation:
    return operations.upsert(*_row(tokens), _values(tokens))


def _delete(tokens: _Tokens) -> Operation:
    return operations.delete(*_row(tokens))


def _read(tokens: _Tokens) -> Operation:
    return operations.read(*_row(tokens))


def _add(tokens: _Tokens) -> Operation:
    table, key = _row(tokens)
    column = tokens.take("the column to add to")
    by = _number(tokens, tokens.take("the number to add"))
    bounds: dict[str, int | float] = {}
    while tokens.more():
        name, equals, text = tokens.take("").partition("=")
        if name not in ("min", "max") or not equals or name in bounds:
            tokens.fail("min=NUMBER or max=NUMBER, each once")
        bounds[name] = _number(tokens, text)
    return operations.add(table, key, column, by, min=bounds.get("min"), max=bounds.get("max"))


def _check(tokens: _Tokens) -> Operation:
    table, key = _row(tokens)
    expected = "column=value, column>=value, column<=value, column:=json, exists or absent"
    word = tokens.take(expected)
    if word in _PRESENCE:
        return operations.check(table, key, exists=_PRESENCE[word])
    column, sign, value = _assignment(tokens, word, expected, _CHECKS)
    return operations.check(table, key, column, **{_CHECKS[sign]: value})  # type: ignore[arg-type]


def _sql(tokens: _Tokens) -> Operation:
    statement = tokens.take("a statement, in quotes")
    parameters: list[Scalar] = []
    rows: int | None = None
    read_only = False
    while tokens.more():
        word = tokens.take("")
        if word.startswith((":=", "=")):
            parameters.append(json_scalar(word[2:]) if word.startswith(":=") else word[1:])
        elif rows is None and _ROWS.fullmatch(word):
            rows = int(word.removeprefix("rows="))
        elif word == "read-only" and not read_only:
            read_only = True
        else:
            tokens.fail("a parameter as =text or :=json, rows=COUNT or read-only")
    return operations.sql(statement, parameters, rows=rows, read_only=read_only)


def _number(tokens: _Tokens, text: str) -> int | float:
    if not _NUMBER.fullmatch(text):
        tokens.fail("a number")
    try:
        return int(text)
    except ValueError:  # A fraction, or more digits than Python converts: then it is infinite, and refused as that.
        return float(text)


_VERBS: dict[str, Callable[[_Tokens], Operation]] = {
    "insert": _insert,
    "update": _update,
    "upsert": _upsert,
    "delete": _delete,
    "add": _add,
    "check": _check,
    "read": _read,
    "sql": _sql,
}
