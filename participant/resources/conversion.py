"""Values between the wire and SQLite: converted without loss to the column's declared type, or refused.

This happens before any lock is named, so that 17, "17" and 17.0 are one row of an INTEGER key (TRAPS, "SQLite": SQLite
itself would match all three, and two branches would hold different locks for one row).
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

from participant.resources import INTEGER_MAX, INTEGER_MIN
from troth.v1.types_pb2 import Value
from troth.words import Symbol

SqlValue = int | float | str | bytes | None
"""A value as SQLite stores it; a boolean is 0 or 1 there."""

_DECIMAL = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d{1,3})?", re.ASCII)
_SURROGATE = re.compile("[\ud800-\udfff]")
_BOOLEANS = {"true": 1, "1": 1, "false": 0, "0": 0}


class Kind(Symbol):
    """What a column holds."""

    INTEGER = "integer"
    REAL = "real"
    TEXT = "text"
    BLOB = "blob"
    BOOLEAN = "boolean"


_INTEGER = Kind.INTEGER  # before Python 3.12 a member is found by a slow path of the metaclass


class Unfit(ValueError):
    """The value does not fit the column's type without loss."""


def kind_of(declared: str) -> Kind | None:
    """The kind of a declared type, by SQLite's rules of affinity (datatype3, section 3.1), BOOL and BOOLEAN besides.
    None where the stored type would depend on the value: no type, ANY, NUMERIC, DATE and whatever else is NUMERIC."""
    name = declared.upper()
    if name in ("BOOLEAN", "BOOL"):
        return Kind.BOOLEAN
    if "INT" in name:
        return Kind.INTEGER
    if any(part in name for part in ("CHAR", "CLOB", "TEXT")):
        return Kind.TEXT
    if "BLOB" in name:
        return Kind.BLOB
    if any(part in name for part in ("REAL", "FLOA", "DOUB")):
        return Kind.REAL
    return None


def to_sql(value: Value, kind: Kind) -> SqlValue:
    """`value` as a column of `kind` stores it; None for NULL, which any kind takes. Raises Unfit."""
    if kind is _INTEGER and value.integer:  # not the default, so it is what is set; of 64 bits, as the wire has it
        return value.integer
    which = value.WhichOneof("kind")
    if which is None:
        raise Unfit("no value")
    return None if which == "null" else fit(getattr(value, which), kind)


def fit(raw: SqlValue, kind: Kind) -> SqlValue:
    """A Python value (a bool counts as a boolean, not as an integer) as a column of `kind` stores it. Raises Unfit."""
    fitted = _FITS[kind](raw)
    if fitted is None:
        raise Unfit(f"{_shown(raw)} does not fit type {kind.value} without loss")
    return fitted


def to_value(raw: SqlValue, kind: Kind) -> Value:
    """What SQLite gave back, in the column's declared type where it fits, otherwise as it is stored (a file that other
    tools have written may hold anything)."""
    if raw is None:
        return Value(null=True)
    if isinstance(raw, int):
        return Value(boolean=bool(raw)) if kind is Kind.BOOLEAN and raw in (0, 1) else Value(integer=raw)
    if isinstance(raw, float):
        return Value(real=raw)
    return Value(text=raw) if isinstance(raw, str) else Value(blob=raw)


def _shown(raw: SqlValue) -> str:
    return f"{len(raw)} bytes" if isinstance(raw, bytes) else repr(raw)


def _integer(raw: SqlValue) -> int | None:
    number: int | None = None
    if isinstance(raw, bool):
        return None
    if isinstance(raw, int):
        number = raw
    elif isinstance(raw, float) and raw.is_integer():
        number = int(raw)
    elif isinstance(raw, str) and len(raw) <= 20 and raw.removeprefix("-").isdecimal() and raw.isascii():
        number = int(raw) if str(int(raw)) == raw else None  # 007 and -0 would come back as something else
    return number if number is not None and INTEGER_MIN <= number <= INTEGER_MAX else None


def _real(raw: SqlValue) -> float | None:
    if isinstance(raw, bool) or raw is None or isinstance(raw, bytes):
        return None
    if isinstance(raw, float):
        return raw if math.isfinite(raw) else None
    if isinstance(raw, int):
        return float(raw) if int(float(raw)) == raw else None
    if len(raw) > 400 or not _DECIMAL.fullmatch(raw):
        return None
    number = float(raw)
    # 2.50 is 2.5; a number with more digits than a double holds is not the double next to it
    return number if math.isfinite(number) and Decimal(raw) == Decimal(repr(number)) else None


def _text(raw: SqlValue) -> str | None:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return str(raw)
    if not isinstance(raw, str) or "\0" in raw:
        return None
    return raw if raw.isascii() or not _SURROGATE.search(raw) else None


def _blob(raw: SqlValue) -> bytes | None:
    return raw if isinstance(raw, bytes) else None


def _boolean(raw: SqlValue) -> int | None:
    if isinstance(raw, str):
        return _BOOLEANS.get(raw)
    return int(raw) if isinstance(raw, int) and raw in (0, 1) else None


_FITS = {Kind.INTEGER: _integer, Kind.REAL: _real, Kind.TEXT: _text, Kind.BLOB: _blob, Kind.BOOLEAN: _boolean}
