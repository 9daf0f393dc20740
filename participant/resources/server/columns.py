"""The columns of a server's tables, and values between them and the wire: converted without loss to the column's
declared type, or refused, before any lock is taken (DESIGN section 3). What the five kinds of SQLite take, the same
kinds take here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from uuid import UUID

from participant.resources import conversion
from participant.resources.conversion import Unfit
from troth.v1.types_pb2 import Value
from troth.words import Symbol

Number = int | float | Decimal

SqlValue = bool | int | float | Decimal | str | bytes | None
"""A value on its way to a server."""

EXACT = Context(prec=1200, traps=[Inexact, InvalidOperation])
"""Decimal arithmetic that never rounds."""

_DECIMAL = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d{1,3})?", re.ASCII)
_DECIMAL_CHARACTERS_MAX = 400
_REAL_DIGITS_MAX = 15
"""Every decimal of so many digits survives a double (DBL_DIG in C); of more it may be another one's neighbour."""
_UUID = re.compile(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(?P<offset>Z|[+-]\d\d(:?\d\d)?)?", re.ASCII)


class Kind(Symbol):
    """What a column holds, and how its values go over the wire (the `Value` of types.proto)."""

    INTEGER = "integer"
    """`integer`, within the bounds of the column's width."""
    REAL = "real"
    """`real`, in double precision."""
    SINGLE = "single"
    """`real`, in single precision: only what that holds exactly."""
    DECIMAL = "decimal"
    """`text`, such as "12.50": JSON and doubles have no decimals. Integers, and reals of at most 15 digits, are taken
    as the decimals that they print as."""
    TEXT = "text"
    """`text`, within the column's length, or one of its labels."""
    PADDED = "padded"
    """`text` without spaces at its end, which the server fills up and does not compare: char(n)."""
    BLOB = "blob"
    """`blob`."""
    BOOLEAN = "boolean"
    """`boolean`."""
    UUID = "uuid"
    """`text`, in lower case with hyphens."""
    DATE = "date"
    """`text`, "2026-11-26"."""
    TIMESTAMP = "timestamp"
    """`text`, "2026-11-26 18:17:10.5", without a zone."""
    MOMENT = "moment"
    """`text`, the same with an offset; UTC in what is read."""
    OTHER = "other"
    """Read as the server writes it, in `text`; not set, compared or added to but by `sql`, as what the text means
    (and whether anything is lost) is known to the server alone: JSON, arrays, intervals, ranges, addresses."""


NUMBERS = frozenset({Kind.INTEGER, Kind.REAL, Kind.SINGLE, Kind.DECIMAL})
"""Kinds that can be added to."""

KEYS = frozenset({Kind.INTEGER, Kind.TEXT, Kind.PADDED, Kind.BLOB, Kind.BOOLEAN, Kind.UUID, Kind.DATE})
"""Kinds that a key column may have: those whose equal values are written in one way only."""

_INTEGER = Kind.INTEGER  # before Python 3.12 a member is found by a slow path of the metaclass


@dataclass(frozen=True, slots=True)
class Column:
    """One column."""

    name: str
    kind: Kind
    declared: str
    """The type in the server's words."""
    nullable: bool
    generated: bool = False
    """Whether the server alone sets it."""
    low: Number | None = None
    """The least value of the type; None without a bound."""
    high: Number | None = None
    """The greatest."""
    scale: int | None = None
    """Digits after the point: of a decimal, or of a timestamp's seconds; None for any number (six, of a timestamp)."""
    characters: int | None = None
    """The greatest length of a text."""
    octets: int | None = None
    """The greatest length of a text (as UTF-8) or blob in bytes."""
    octets_min: int = 0
    """The least length of a blob."""
    labels: frozenset[str] | None = None
    """The only texts that there are, of an enumeration."""

    def to_sql(self, value: Value) -> SqlValue:
        """`value` as the column holds it, in the one way in which it is written (so that it can name a lock); None for
        NULL. Raises Unfit."""
        fitted = self.to_unbounded(value)
        if isinstance(fitted, int | float | Decimal) and (
            (self.low is not None and fitted < self.low) or (self.high is not None and fitted > self.high)
        ):
            raise _unfit(fitted, self)
        return fitted

    def to_unbounded(self, value: Value) -> SqlValue:
        """The same without regard to the bounds of numbers: what is added to the column, or what bounds a sum."""
        if self.kind is _INTEGER and value.integer:  # not the default, so it is what is set
            return value.integer
        which = value.WhichOneof("kind")
        if which is None:
            raise Unfit("no value")
        if which == "null":
            return None
        raw = getattr(value, which)
        fitted = _FITS[self.kind](raw, self)
        if fitted is None:
            raise _unfit(raw, self)
        return fitted

    def to_value(self, raw: SqlValue) -> Value:
        """What a dialect has read, as the wire has it: an int, float, bool or bytes for the kinds that are one,
        otherwise text. A number that no finite double is comes as text too."""
        if raw is None:
            return Value(null=True)
        if isinstance(raw, bool):
            return Value(boolean=raw)
        if isinstance(raw, int):
            return Value(integer=raw)
        if isinstance(raw, float):
            return Value(real=raw) if abs(raw) < float("inf") else Value(text=str(raw))
        if isinstance(raw, bytes):
            return Value(blob=raw)
        if isinstance(raw, Decimal):
            return Value(text=f"{raw:f}")
        return Value(text=raw.rstrip(" ") if self.kind is Kind.PADDED else raw)


def _unfit(raw: SqlValue, column: Column) -> Unfit:
    shown = f"{len(raw)} bytes" if isinstance(raw, bytes) else str(raw) if isinstance(raw, Decimal) else repr(raw)
    if column.kind is Kind.OTHER:
        return Unfit(f"{shown} cannot become type {column.declared} by an operation on a row: use sql")
    return Unfit(f"{shown} does not fit type {column.declared} without loss")


def _as(kind: conversion.Kind) -> Callable[[SqlValue], conversion.SqlValue]:
    """What SQLite's kind takes, None for what it does not."""

    def fit(raw: SqlValue) -> conversion.SqlValue:
        assert not isinstance(raw, Decimal)
        try:
            return conversion.fit(raw, kind)
        except Unfit:
            return None

    return fit


_integer, _real = _as(conversion.Kind.INTEGER), _as(conversion.Kind.REAL)
_text, _blob, _boolean = _as(conversion.Kind.TEXT), _as(conversion.Kind.BLOB), _as(conversion.Kind.BOOLEAN)


def _single(raw: SqlValue, column: Column) -> SqlValue:
    fitted = _real(raw)
    assert fitted is None or isinstance(fitted, float)
    try:
        return fitted if fitted is not None and struct.unpack("f", struct.pack("f", fitted))[0] == fitted else None
    except OverflowError:
        return None


def _decimal(raw: SqlValue, column: Column) -> Decimal | None:
    if isinstance(raw, bool | bytes):
        return None
    text = repr(raw) if isinstance(raw, float) else str(raw)
    if len(text) > _DECIMAL_CHARACTERS_MAX or not _DECIMAL.fullmatch(text):
        return None
    number = Decimal(text)
    if isinstance(raw, float) and len(number.normalize().as_tuple().digits) > _REAL_DIGITS_MAX:
        return None
    try:  # 12.5 and 12.50 are one number: where the type says how many digits, they are written so
        number = number if column.scale is None else number.quantize(Decimal(1).scaleb(-column.scale), context=EXACT)
    except (Inexact, InvalidOperation):
        return None
    return number if number else abs(number)


def _bounded_text(raw: SqlValue, column: Column) -> str | None:
    text = _text(raw)
    if not isinstance(text, str):
        return None
    too_long = (column.characters is not None and len(text) > column.characters) or (
        column.octets is not None and len(text.encode()) > column.octets
    )
    return None if too_long or (column.labels is not None and text not in column.labels) else text


def _padded(raw: SqlValue, column: Column) -> str | None:
    text = _bounded_text(raw, column)
    return None if text is None or text.endswith(" ") else text


def _bounded_blob(raw: SqlValue, column: Column) -> SqlValue:
    blob = _blob(raw)
    assert blob is None or isinstance(blob, bytes)
    if blob is None or len(blob) < column.octets_min or (column.octets is not None and len(blob) > column.octets):
        return None
    return blob


def _bool(raw: SqlValue, column: Column) -> bool | None:
    found = _boolean(raw)
    return None if found is None else bool(found)


def _uuid(raw: SqlValue, column: Column) -> str | None:
    if not isinstance(raw, str) or not _UUID.fullmatch(raw):
        return None
    return str(UUID(raw))


def _date(raw: SqlValue, column: Column) -> str | None:
    try:
        return date.fromisoformat(raw).isoformat() if isinstance(raw, str) and _DATE.fullmatch(raw) else None
    except ValueError:
        return None


def _time(raw: SqlValue, column: Column) -> str | None:
    matched = _TIME.fullmatch(raw) if isinstance(raw, str) else None
    if matched is None or (matched["offset"] is not None) is not (column.kind is Kind.MOMENT):
        return None
    try:
        found = datetime.fromisoformat(matched[0])
        found = found.astimezone(UTC) if found.tzinfo else found
    except (ValueError, OverflowError):
        return None
    if column.scale is not None and found.microsecond % 10 ** (6 - column.scale):
        return None
    return found.isoformat(sep=" ")


def _other(raw: SqlValue, column: Column) -> None:
    return None


_FITS: dict[Kind, Callable[[SqlValue, Column], SqlValue]] = {
    Kind.INTEGER: lambda raw, column: _integer(raw),
    Kind.REAL: lambda raw, column: _real(raw),
    Kind.SINGLE: _single,
    Kind.DECIMAL: _decimal,
    Kind.TEXT: _bounded_text,
    Kind.PADDED: _padded,
    Kind.BLOB: _bounded_blob,
    Kind.BOOLEAN: _bool,
    Kind.UUID: _uuid,
    Kind.DATE: _date,
    Kind.TIMESTAMP: _time,
    Kind.MOMENT: _time,
    Kind.OTHER: _other,
}


def minus(number: Number, by: Number) -> Number:
    """Exactly, for integers and decimals."""
    if isinstance(number, Decimal) or isinstance(by, Decimal):
        return EXACT.subtract(Decimal(number), Decimal(by))
    return number - by
