"""Values are converted without loss to the column's declared type, or refused, before a lock is named."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from participant.resources import INTEGER_MAX, INTEGER_MIN
from participant.resources.conversion import Kind, Unfit, fit, kind_of, to_sql, to_value
from tests.sqlite_tools import open_like_the_log, raw_of, value
from troth.v1.types_pb2 import Value

FITS = [
    (Kind.INTEGER, 17, 17),
    (Kind.INTEGER, "17", 17),
    (Kind.INTEGER, 17.0, 17),
    (Kind.INTEGER, "-9223372036854775808", INTEGER_MIN),
    (Kind.REAL, 17, 17.0),
    (Kind.REAL, "2.50", 2.5),
    (Kind.REAL, "1e3", 1000.0),
    (Kind.TEXT, 17, "17"),
    (Kind.TEXT, "é", "é"),
    (Kind.BLOB, b"\0", b"\0"),
    (Kind.BOOLEAN, True, 1),
    (Kind.BOOLEAN, 0, 0),
    (Kind.BOOLEAN, "false", 0),
]
REFUSED = [
    (Kind.INTEGER, raw)
    for raw in ("007", "-0", " 17", "+1", "1.0", "", "9223372036854775808", 1.5, 2.0**63, True, b"1", "١")
]
REFUSED += [
    (Kind.REAL, raw)
    for raw in (
        math.nan,
        math.inf,
        "nan",
        "1e999",
        "0e99999999999999999999",
        "",
        " 1",
        True,
        2**53 + 1,
        "0.10000000000000000555",
    )
]
REFUSED += [(Kind.TEXT, raw) for raw in (1.0, True, b"x", "a\0b", "\ud800")]
REFUSED += [(Kind.BLOB, raw) for raw in ("x", 1)]
REFUSED += [(Kind.BOOLEAN, raw) for raw in (2, "True", "yes", 1.0)]


@pytest.mark.parametrize(("kind", "raw", "stored"), FITS)
def test_fits(kind: Kind, raw: Any, stored: Any) -> None:
    assert to_sql(value(raw), kind) == stored
    assert type(fit(raw, kind)) is type(stored)


@pytest.mark.parametrize(("kind", "raw"), REFUSED)
def test_refused(kind: Kind, raw: Any) -> None:
    with pytest.raises(Unfit):
        fit(raw, kind)


def test_null_fits_any_kind_and_no_value_fits_none() -> None:
    assert to_sql(value(None), Kind.INTEGER) is None
    with pytest.raises(Unfit):
        to_sql(Value(), Kind.TEXT)


@pytest.mark.parametrize(
    ("declared", "kind"),
    [
        ("INTEGER", Kind.INTEGER),
        ("bigint", Kind.INTEGER),
        ("FLOATING POINT", Kind.INTEGER),
        ("VARCHAR(9)", Kind.TEXT),
        ("DOUBLE PRECISION", Kind.REAL),
        ("BLOB", Kind.BLOB),
        ("bool", Kind.BOOLEAN),
        ("NUMERIC", None),
        ("DATETIME", None),
        ("", None),
    ],
)
def test_kinds_follow_sqlites_affinity(declared: str, kind: Kind | None) -> None:
    assert kind_of(declared) is kind


values = st.one_of(
    st.integers(INTEGER_MIN, INTEGER_MAX),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.binary(),
    st.booleans(),
    st.integers(INTEGER_MIN, INTEGER_MAX).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)


@given(values, st.sampled_from(Kind))
def test_what_fits_is_stored_as_it_was_named(raw: Any, kind: Kind) -> None:
    """The lock is named by the converted value, so SQLite must store that value and no other."""
    try:
        stored = to_sql(value(raw), kind)
    except Unfit:
        return
    connection = open_like_the_log(f"CREATE TABLE t(c {kind.name});")
    connection.execute("INSERT INTO t VALUES(?)", (stored,))
    (found,) = connection.execute("SELECT c FROM t").fetchone()
    connection.close()
    assert (found, type(found)) == (stored, type(stored))
    shown = to_value(found, kind)
    assert shown.WhichOneof("kind") == kind.value
    assert to_sql(shown, kind) == stored
    assert raw_of(shown) == stored
