"""Transactions as JSON Lines, one a line.

    {"id": "order-17", "timeout_s": 5, "operations": [
        {"participant": "p1", "add": {"table": "accounts", "key": "alice", "column": "balance", "by": -100, "min": 0}}]}

Everything is strict: an unknown or doubled key, a missing one and a wrong type are BadInput with line and column. Lines
are decoded by the standard library; only for the message of an error is a line walked again to find the column.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from troth import operations
from troth.errors import BadInput
from troth.operations import Transaction
from troth.v1.types_pb2 import Operation
from troth.values import BLOB_KEYS, Scalar, from_value, json_to_value

Path: TypeAlias = tuple[str | int, ...]
"""Where in a JSON document: object keys and list indexes from the root."""


T = TypeVar("T")


class _Wrong(Exception):
    """What is wrong, and where; `at_key` points to the key rather than to its value."""

    def __init__(self, path: Path, message: str, *, at_key: bool = False) -> None:
        super().__init__(message)
        self.path = path
        self.at_key = at_key


class _Doubled(Exception):
    """An object names a key twice."""


def read_transactions(lines: Iterable[bytes], name: str, timeout_s: float | None = None) -> list[Transaction]:
    """Every transaction of a file, each id once; blank lines are skipped. `timeout_s` is for lines without their own.

    Raises BadInput, with `name`, line and column (both from 1), for the first thing that is wrong; also when an id
    comes twice with other operations."""
    found: dict[str, tuple[int, Transaction]] = {}
    for number, raw in enumerate(lines, 1):
        if not raw.strip():
            continue
        transaction = _decoded(raw, f"{name}:{number}", timeout_s)
        first, earlier = found.setdefault(transaction.id, (number, transaction))
        if earlier is not transaction and earlier.operations != transaction.operations:
            raise BadInput(f"{name}:{number}: the id {transaction.id!r} is that of line {first}, with other operations")
    return [transaction for _, transaction in found.values()]


def _decoded(raw: bytes, place: str, timeout_s: float | None) -> Transaction:
    try:
        text = raw.rstrip(b"\r\n").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{place}:{error.start + 1}: not UTF-8") from error
    return parse_transaction(text, place, timeout_s)


def parse_transaction(text: str, place: str = "line 1", timeout_s: float | None = None) -> Transaction:
    """The transaction that one line says. Raises BadInput beginning with `place` and the column."""
    try:
        return _transaction(_DECODER.decode(text), timeout_s)
    except json.JSONDecodeError as error:
        raise BadInput(f"{place}:{error.pos + 1}: not JSON: {error.msg}") from error
    except _Doubled:
        path, column = _first_doubled(text)
        raise BadInput(f"{place}:{column + 1}: the key {path[-1]!r} comes twice") from None
    except _Wrong as error:
        raise BadInput(f"{place}:{_column(text, error) + 1}: {error}") from error
    except RecursionError:
        raise BadInput(f"{place}:1: nested too deeply") from None


def json_scalar(text: str) -> Scalar:
    """The Python object of one JSON value in text: a scalar, or a blob's object. Raises BadInput."""
    try:
        return from_value(json_to_value(_DECODER.decode(text)))
    except json.JSONDecodeError as error:
        raise BadInput(f"not JSON: {error.msg} at column {error.pos + 1} of {text!r}") from error
    except _Doubled as error:
        raise BadInput(f"the key {str(error)!r} comes twice in {text!r}") from None
    except RecursionError:
        raise BadInput("nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _Doubled(next(key for i, key in enumerate(keys) if key in keys[:i]))
    return found


_DIGITS_MAX = 40
"""JSON has no leading zeros, so a number with more digits is out of 64 bits, whatever the rest of them say; Python
would not convert some thousands of digits."""

_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_int=lambda digits: int(digits[:_DIGITS_MAX]))


# From decoded JSON to operations.


def _transaction(found: Any, timeout_s: float | None) -> Transaction:
    fields = _fields(found, (), required={"operations"}, optional={"id", "timeout_s"})
    if "timeout_s" in fields:
        timeout_s = _checked(("timeout_s",), operations.checked_timeout, fields["timeout_s"])
    id = _text(fields["id"], ("id",)) if "id" in fields else None
    transaction = _checked(("id",), Transaction, id, timeout_s)
    listed = fields["operations"]
    if not isinstance(listed, list) or not listed:
        raise _Wrong(("operations",), f"expected a list of at least one operation, found {_kind(listed)}")
    for index, item in enumerate(listed):
        transaction.append(*_operation(item, ("operations", index)))
    return transaction


def _operation(found: Any, path: Path) -> tuple[str, Operation]:
    fields = _fields(found, path, required={"participant"}, optional=_KINDS.keys())
    participant = _text(fields["participant"], (*path, "participant"))
    kinds = [key for key in fields if key in _KINDS]
    if len(kinds) != 1:
        raise _Wrong(path, f"expected exactly one of {', '.join(_KINDS)}, found {' and '.join(kinds) or 'none'}")
    return participant, _KINDS[kinds[0]](fields[kinds[0]], (*path, kinds[0]))


def _writes(make: Callable[..., Operation]) -> Callable[[Any, Path], Operation]:
    def parse(found: Any, path: Path) -> Operation:
        fields = _fields(found, path, required={"table", "key", "values"})
        return _checked(path, make, *_row(fields, path), _values(fields["values"], (*path, "values")))

    return parse


def _row_only(make: Callable[..., Operation]) -> Callable[[Any, Path], Operation]:
    def parse(found: Any, path: Path) -> Operation:
        return _checked(path, make, *_row(_fields(found, path, required={"table", "key"}), path))

    return parse


def _add(found: Any, path: Path) -> Operation:
    fields = _fields(found, path, required={"table", "key", "column", "by"}, optional={"min", "max"})
    numbers = {name: _number(fields[name], (*path, name)) for name in ("by", "min", "max") if name in fields}
    column = _text(fields["column"], (*path, "column"))
    return _checked(path, operations.add, *_row(fields, path), column, **numbers)


def _check(found: Any, path: Path) -> Operation:
    comparisons = ("equals", "at_least", "at_most")
    fields = _fields(found, path, required={"table", "key"}, optional={"column", "exists", *comparisons})
    wanted: dict[str, Any] = {name: _scalar(fields[name], (*path, name)) for name in comparisons if name in fields}
    if "exists" in fields:
        wanted["exists"] = _bool(fields["exists"], (*path, "exists"))
    column = _text(fields["column"], (*path, "column")) if "column" in fields else None
    return _checked(path, operations.check, *_row(fields, path), column, **wanted)


def _custom(found: Any, path: Path) -> Operation:
    fields = _fields(found, path, required={"name"}, optional={"body", "read_only"})
    read_only = _bool(fields.get("read_only", False), (*path, "read_only"))
    name = _text(fields["name"], (*path, "name"))
    return _checked(path, operations.custom, name, fields.get("body"), read_only=read_only)


def _sql(found: Any, path: Path) -> Operation:
    fields = _fields(found, path, required={"statement"}, optional={"parameters", "rows", "read_only"})
    listed = fields.get("parameters", [])
    if not isinstance(listed, list):
        raise _Wrong((*path, "parameters"), f"expected a list of values, found {_kind(listed)}")
    parameters = [_scalar(value, (*path, "parameters", i)) for i, value in enumerate(listed)]
    rows = _checked((*path, "rows"), operations.row_count, fields["rows"]) if "rows" in fields else None
    read_only = _bool(fields.get("read_only", False), (*path, "read_only"))
    statement = _text(fields["statement"], (*path, "statement"))
    return _checked(path, operations.sql, statement, parameters, rows=rows, read_only=read_only)


_KINDS: dict[str, Callable[[Any, Path], Operation]] = {
    "insert": _writes(operations.insert),
    "update": _writes(operations.update),
    "upsert": _writes(operations.upsert),
    "delete": _row_only(operations.delete),
    "add": _add,
    "check": _check,
    "read": _row_only(operations.read),
    "custom": _custom,
    "sql": _sql,
}


def _fields(found: Any, path: Path, required: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise _Wrong(path, f"expected an object, found {_kind(found)}")
    required = sorted(required)
    known = [*required, *sorted(optional)]
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise _Wrong((*path, key), f"unknown key {key!r}; {hint}", at_key=True)
    missing = [key for key in required if key not in found]
    if missing:
        raise _Wrong(path, f"the key {missing[0]!r} is missing")
    return found


def _row(fields: dict[str, Any], path: Path) -> tuple[str, list[Scalar]]:
    key, at = fields["key"], (*path, "key")
    parts = [_scalar(part, (*at, i)) for i, part in enumerate(key)] if isinstance(key, list) else [_scalar(key, at)]
    _checked(at, operations.key_values, parts)
    return _text(fields["table"], (*path, "table")), parts


def _values(found: Any, path: Path) -> dict[str, Scalar]:
    if not isinstance(found, dict):
        raise _Wrong(path, f"expected an object of columns, found {_kind(found)}")
    return {column: _scalar(value, (*path, column)) for column, value in found.items()}


def _scalar(found: Any, path: Path) -> Scalar:
    if isinstance(found, dict):  # Named here, so that a slip in a blob's object is found at its key.
        _fields(found, path, required=BLOB_KEYS)
    return _checked(path, lambda: from_value(json_to_value(found)))


def _number(found: Any, path: Path) -> int | float:
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise _Wrong(path, f"expected a number, found {_kind(found)}")
    _scalar(found, path)
    return found


def _text(found: Any, path: Path) -> str:
    if not isinstance(found, str) or not found:
        raise _Wrong(path, f"expected text, found {_kind(found)}")
    return found


def _bool(found: Any, path: Path) -> bool:
    if not isinstance(found, bool):
        raise _Wrong(path, f"expected true or false, found {_kind(found)}")
    return found


def _checked(path: Path, make: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """What `make` returns; its BadInput gets the place."""
    try:
        return make(*args, **kwargs)
    except BadInput as error:
        raise _Wrong(path, str(error)) from error


def _kind(found: Any) -> str:
    match found:
        case None:
            return "null"
        case bool():
            return str(found).lower()
        case dict():
            return "an object"
        case list():
            return "an empty list" if not found else "a list"
        case "":
            return "empty text"
        case str():
            return "text"
        case _:
            return "a number"


# The columns of a line, for messages.


def _column(text: str, wrong: _Wrong) -> int:
    """Where in `text` the wrong thing begins, from 0; the innermost part that is there when it is itself missing."""
    starts = {path: key if wrong.at_key and key is not None else value for path, key, value in _walk(text)}
    return next(starts[wrong.path[:end]] for end in range(len(wrong.path), -1, -1) if wrong.path[:end] in starts)


def _first_doubled(text: str) -> tuple[Path, int]:
    """The first key that comes twice in its object, and where it comes again."""
    seen: set[Path] = set()
    for path, key, _ in _walk(text):
        if path in seen and key is not None:
            return path, key
        seen.add(path)
    raise AssertionError(f"no key comes twice in {text!r}")


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


@dataclass
class _Open:
    """An object or list that is being walked."""

    path: Path
    index: int | None
    """Of the next element; None in an object."""
    key: str | None = None
    """Whose value comes next; None when a key comes next, and in a list."""
    key_at: int | None = None


def _walk(text: str) -> Iterator[tuple[Path, int | None, int]]:
    """For every value of valid JSON text: its path, where its key begins (None without one), where it begins itself."""
    stack: list[_Open] = []
    for token in _TOKEN.finditer(text):
        word, inner = token[0], stack[-1] if stack else None
        if word in ("}", "]"):
            stack.pop()
        elif word == ",":
            assert inner is not None
            inner.key = None
            inner.index = None if inner.index is None else inner.index + 1
        elif inner and inner.index is None and inner.key is None:
            inner.key, inner.key_at = json.loads(word), token.start()
        elif word != ":":
            path, key_at = _next(inner)
            yield path, key_at, token.start()
            if word in ("{", "["):
                stack.append(_Open(path, 0 if word == "[" else None))


def _next(inner: _Open | None) -> tuple[Path, int | None]:
    """The path of the value that comes next, and where its key begins."""
    if inner is None:
        return (), None
    if inner.index is not None:
        return (*inner.path, inner.index), None
    assert inner.key is not None
    return (*inner.path, inner.key), inner.key_at
