"""Which tables are served, what is known of them, and what is refused by name (DESIGN section 3, "A YES is always
applicable")."""

from __future__ import annotations

import pytest

from participant.resources import INTEGER_MAX, INTEGER_MIN
from participant.resources.conversion import Kind
from participant.resources.ddl import Bound, read_bounds, read_table, tokens_of
from participant.resources.schema import load
from tests.sqlite_tools import open_like_the_log

REFUSED = [
    ("t(a INTEGER)", "it has no primary key"),
    ("t(a TEXT PRIMARY KEY)", "may be NULL"),
    ("t(a INTEGER PRIMARY KEY DESC)", "may be NULL"),
    ("t(a REAL NOT NULL PRIMARY KEY)", "key column a is real"),
    ("t(a BLOB NOT NULL PRIMARY KEY)", "key column a is blob"),
    ("t(a BOOLEAN NOT NULL PRIMARY KEY)", "key column a is boolean"),
    ("t(a INTEGER PRIMARY KEY, b NUMERIC)", "column b has type NUMERIC"),
    ("t(a INTEGER PRIMARY KEY, b DATE)", "column b has type DATE"),
    ("t(a INTEGER PRIMARY KEY, b)", "column b has type none"),
    ("t(a INTEGER PRIMARY KEY, b ANY) STRICT", "column b has type ANY"),
    ("t(a TEXT COLLATE NOCASE NOT NULL PRIMARY KEY)", "collation other than BINARY"),
    ("t(a TEXT NOT NULL, PRIMARY KEY (a COLLATE NOCASE))", "collation other than BINARY"),
    ("t(a TEXT COLLATE NOCASE NOT NULL, PRIMARY KEY (a COLLATE BINARY))", "collation other than BINARY"),
    ("t(a INTEGER PRIMARY KEY, b TEXT COLLATE RTRIM UNIQUE)", "collation other than BINARY"),
    ("t(a INTEGER PRIMARY KEY ON CONFLICT REPLACE)", "ON CONFLICT"),
    ("t(a INTEGER PRIMARY KEY, b TEXT NOT NULL ON CONFLICT IGNORE)", "ON CONFLICT"),
    ("t(a INTEGER PRIMARY KEY, b TEXT, UNIQUE (b) ON CONFLICT ROLLBACK)", "ON CONFLICT"),
    ("t(a INTEGER PRIMARY KEY, b TEXT DEFAULT CURRENT_TIMESTAMP)", "default of column b is not a constant"),
    ("t(a INTEGER PRIMARY KEY, b INTEGER DEFAULT (abs(-1)))", "default of column b is not a constant"),
    ("t(a INTEGER PRIMARY KEY, b INTEGER DEFAULT 'x')", "default of column b does not fit"),
    ("t(a INTEGER PRIMARY KEY, b INTEGER, c INTEGER AS (b + 1) UNIQUE)", "holds the generated column c"),
    ("t(a INTEGER PRIMARY KEY, b TEXT CHECK (b <= CURRENT_TIMESTAMP))", "uses CURRENT_TIMESTAMP"),
    ("t(a INTEGER PRIMARY KEY, b INTEGER CHECK (b < random()))", "uses random()"),
    ("t(a INTEGER PRIMARY KEY, b TEXT CHECK (json_extract(b, '$.x') = 1))", "uses json_extract()"),
    ("t(a INTEGER PRIMARY KEY, b TEXT CHECK (b -> 'x' = 1))", "uses ->"),
    ("t(a INTEGER PRIMARY KEY, b TEXT CHECK ('x' NOT LIKE b))", "uses LIKE"),
    ("t(a INTEGER PRIMARY KEY, b TEXT CHECK (b GLOB '*' || b))", "uses GLOB"),
    ("t(a INTEGER PRIMARY KEY, b TEXT CHECK (like(b, 'x')))", "uses like"),
    ("t(a INTEGER PRIMARY KEY, b TEXT CHECK (\"glob\"(b, 'x')))", "uses glob()"),
    ("t(a INTEGER PRIMARY KEY, b TEXT CHECK (b LIKE 'x' ESCAPE b))", "uses ESCAPE"),
    ("t(a INTEGER PRIMARY KEY, b INTEGER, c INTEGER AS (abs(b)))", "the generated column c uses abs()"),
    ("t(a INTEGER PRIMARY KEY, b REFERENCES nowhere)", "is not a table here"),
    (
        "t(a INTEGER PRIMARY KEY, b INTEGER REFERENCES t(c), c INTEGER UNIQUE)",
        "other columns of t than its primary key",
    ),
    ("t(a INTEGER PRIMARY KEY, b INTEGER REFERENCES t ON DELETE CASCADE)", "has CASCADE"),
    ("t(a INTEGER PRIMARY KEY, b INTEGER REFERENCES t ON UPDATE SET NULL)", "has SET NULL"),
    ("t(a INTEGER PRIMARY KEY, b INTEGER REFERENCES t DEFERRABLE INITIALLY DEFERRED)", "deferrable"),
]


@pytest.mark.parametrize(("table", "why"), REFUSED)
def test_refused_by_name(table: str, why: str) -> None:
    catalog = load(open_like_the_log(f"CREATE TABLE {table};"))
    assert not catalog.served
    assert why in catalog.refused["t"].why


@pytest.mark.parametrize(
    ("index", "why"),
    [
        ("CREATE UNIQUE INDEX i ON t(b) WHERE b > 0", "unique index i is partial"),
        ("CREATE UNIQUE INDEX i ON t(b + 1)", "unique index i is on an expression"),
        ("CREATE INDEX i ON t(abs(b))", "index i uses abs()"),
        ("CREATE TRIGGER i AFTER INSERT ON T BEGIN DELETE FROM t; END", "it has the trigger i"),
    ],
)
def test_refused_for_what_was_added_to_a_table(index: str, why: str) -> None:
    catalog = load(open_like_the_log(f"CREATE TABLE t(a INTEGER PRIMARY KEY, b INTEGER); {index};"))
    assert why in catalog.refused["t"].why


@pytest.mark.parametrize(
    "table",
    [
        "t(a INTEGER PRIMARY KEY, b INTEGER REFERENCES t NOT DEFERRABLE INITIALLY DEFERRED)",
        "t(a TEXT, PRIMARY KEY (a)) WITHOUT ROWID",
        "t(a INT NOT NULL PRIMARY KEY, b TEXT COLLATE NOCASE)",
        "t(a INTEGER PRIMARY KEY, \"on conflict\" TEXT, [check] TEXT CHECK ([check] <> 'DEFERRABLE ON CONFLICT'))",
        "t(a INTEGER PRIMARY KEY, b VARCHAR(9) DEFAULT 'it''s', c INT DEFAULT -5, d BLOB DEFAULT x'00ff')",
        "t(a INTEGER PRIMARY KEY /* , UNIQUE (b) ON CONFLICT FAIL */, b INTEGER -- REFERENCES x\n)",
        "t(a INTEGER PRIMARY KEY, b TEXT CHECK (length(b) BETWEEN 1 AND 9 AND b IN ('x', upper('y'))))",
        "t(a INTEGER PRIMARY KEY, b TEXT CHECK (CAST(b AS VARCHAR(9)) = b))",
        "t(a INTEGER PRIMARY KEY, b TEXT CHECK (b LIKE '%_@_%' ESCAPE '!' AND b NOT GLOB '*[^a-z]*'))",
    ],
)
def test_served(table: str) -> None:
    catalog = load(open_like_the_log(f"CREATE TABLE {table};"))
    assert catalog.served.keys() == {"t"}, catalog.refused


def test_a_refusal_spreads_to_children_and_to_the_parents_of_cascades() -> None:
    catalog = load(
        open_like_the_log(
            """CREATE TABLE bare(a INTEGER); CREATE TABLE child(a INTEGER PRIMARY KEY, b INTEGER REFERENCES parent);
            CREATE TABLE parent(a INTEGER PRIMARY KEY, b INTEGER DEFAULT (1 + 1));
            CREATE TABLE grand(a INTEGER PRIMARY KEY, b INTEGER REFERENCES child);
            CREATE TABLE owner(a INTEGER PRIMARY KEY);
            CREATE TABLE owned(a INTEGER PRIMARY KEY, b INTEGER REFERENCES owner ON DELETE CASCADE);
            CREATE TABLE apart(a INTEGER PRIMARY KEY); CREATE VIEW v AS SELECT 1;"""
        )
    )
    assert catalog.served.keys() == {"apart"}
    why = {name: refused.why for name, refused in catalog.refused.items()}
    assert why["child"] == "its parent parent cannot be served"
    assert why["grand"] == "its parent child cannot be served"
    assert why["owner"] == "table owned refers to it with CASCADE"
    assert why["v"] == "it is a view"


def test_own_tables_are_not_shown() -> None:
    catalog = load(open_like_the_log("CREATE TABLE troth_x(a INTEGER PRIMARY KEY); CREATE TABLE Troth_Y(a INTEGER);"))
    assert not catalog.served
    assert not catalog.refused


def test_columns_keys_and_foreign_keys_as_declared() -> None:
    catalog = load(
        open_like_the_log(
            """CREATE TABLE Places(Town TEXT NOT NULL, shelf INT NOT NULL, PRIMARY KEY (shelf, Town));
            CREATE TABLE child(id INTEGER PRIMARY KEY, x TEXT, y TEXT, n INTEGER DEFAULT 7 NOT NULL,
                FOREIGN KEY (x, y) REFERENCES places(town, SHELF), UNIQUE (y, n));"""
        )
    )
    places, child = catalog.served["places"], catalog.served["child"]
    assert [column.name for column in places.key] == ["shelf", "Town"]
    assert child.foreign_keys[0].columns == ("y", "x"), "in the order of the parent's key"
    assert child.foreign_keys[0].parent == "Places"
    assert child.uniques[0].columns == ("y", "n")
    column = child.column("N")
    assert column is not None
    assert (column.kind, column.nullable, column.default) == (Kind.INTEGER, False, 7)


@pytest.mark.parametrize(
    ("check", "bounds"),
    [
        ("n >= 0", [Bound("n", 0, INTEGER_MAX)]),
        ("(N > -5)", [Bound("n", -4, INTEGER_MAX)]),
        ('10 >= "n"', [Bound("n", INTEGER_MIN, 10)]),
        ("[n] < +7", [Bound("n", INTEGER_MIN, 6)]),
        ("n BETWEEN -1 AND 5 AND m >= 2", [Bound("n", -1, 5), Bound("m", 2, INTEGER_MAX)]),
        ("((n >= 0) AND (n <= 9))", [Bound("n", 0, INTEGER_MAX), Bound("n", INTEGER_MIN, 9)]),
        ("n >= 0 OR m >= 0", None),
        ("n >= m", None),
        ("n >= 1.5", None),
        ("n >= 0x10", None),
        ("n >= 9223372036854775808", None),
        ("n <> 4", None),
        ("n + 1 >= 0", None),
        ("n >= 5 - 1", None),
        ("other >= 0", None),
        ("NOT n >= 0", None),
        ("n NOT BETWEEN 1 AND 2", None),
        ("n >= 'a'", None),
    ],
)
def test_bounds_are_read_from_checks_that_say_nothing_else(check: str, bounds: list[Bound] | None) -> None:
    assert read_bounds(tokens_of(check), frozenset({"n", "m"})) == bounds


def test_bounds_stand_at_the_column_and_other_checks_make_add_exclusive() -> None:
    catalog = load(
        open_like_the_log(
            """CREATE TABLE a(id INTEGER PRIMARY KEY, n INTEGER CHECK (n >= 0) CHECK (n <= 9), CHECK (n < 8));
            CREATE TABLE b(id INTEGER PRIMARY KEY, n INTEGER, m INTEGER, CHECK (m <> n));
            CREATE TABLE c(id INTEGER PRIMARY KEY, n INTEGER, m INTEGER AS (n * 2));
            CREATE TABLE d(id INTEGER PRIMARY KEY, n INTEGER); CREATE INDEX d_some ON d(n) WHERE n > 3;"""
        )
    )
    column = catalog.served["a"].columns["n"]
    assert (column.low, column.high) == (0, 7)
    assert {name: table.add_exclusive for name, table in catalog.served.items()} == {
        "a": False,
        "b": True,
        "c": True,
        "d": True,
    }


def test_checks_of_a_table_that_was_altered_are_read() -> None:
    connection = open_like_the_log("CREATE TABLE t(id INTEGER PRIMARY KEY);")
    connection.execute("ALTER TABLE t ADD COLUMN n INTEGER DEFAULT 1 CHECK (n > 0)")
    connection.execute('ALTER TABLE t RENAME COLUMN n TO "n n"')
    assert load(connection).served["t"].columns["n n"].low == 1


def test_a_definition_is_read_past_comments_strings_and_quotes() -> None:
    text = read_table(
        "CREATE TABLE t(\"a(b\" TEXT DEFAULT ')', -- CHECK (1)\n b TEXT CHECK (b <> ',)('), CHECK (b <> '''))"
        " COLLATE NOCASE'))"
    )
    assert list(text.columns) == ["a(b", "b"]
    assert len(text.checks) == 2
    assert text.columns["b"].collation == "BINARY"
