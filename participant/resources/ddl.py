"""Reads what SQLite keeps only as text: the CREATE statements in its schema table.

PRAGMAs tell columns, keys and indexes; CHECKs, collations of columns, ON CONFLICT clauses, deferrable keys and
generating expressions are known from the text alone. This is a reader of statements that SQLite has accepted, not a
parser of SQL: what it does not recognise is left to `schema.py`, which then refuses rather than guesses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from participant.resources import INTEGER_MAX, INTEGER_MIN

_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*|/\*.*?(?:\*/|\Z))
      |(?P<blob>[xX]'[^']*')
      |(?P<string>'(?:[^']|'')*')
      |(?P<name>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])
      |(?P<number>0[xX][0-9a-fA-F]+|(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
      |(?P<word>[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*)
      |(?P<sign>->>|->|<=|>=|<>|!=|==|\|\||.)""",
    re.VERBOSE | re.DOTALL,
)
_UPPER_TO_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
_TABLE_CONSTRAINTS = frozenset({"CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"})

STEADY_FUNCTIONS = frozenset(
    [
        "coalesce",
        "hex",
        "ifnull",
        "iif",
        "instr",
        "json_valid",
        "length",
        "lower",
        "ltrim",
        "max",
        "min",
        "nullif",
        "quote",
        "round",
        "rtrim",
        "sign",
        "substr",
        "substring",
        "trim",
        "typeof",
        "unicode",
        "upper",
    ]
)
"""Functions that give the same answer at any time and never raise. A CHECK that calls another one could pass the trial
and fail the apply (SQLite lets CURRENT_TIMESTAMP and random() into a CHECK), or raise for one row's data (abs of the
least integer, json of what is none), which would stop the process again and again."""

_BEFORE_PATTERN = frozenset({"LIKE", "GLOB", "ESCAPE"})
"""What must have a literal behind it: SQLite raises for a pattern that is too long (50000 bytes) and for an ESCAPE that
is not one character, so one taken from the row could stop the process."""

_WORDS_BEFORE_PARENTHESIS = frozenset(
    [
        "AND",
        "OR",
        "NOT",
        "IN",
        "IS",
        "CHECK",
        "BETWEEN",
        "LIKE",
        "GLOB",
        "CASE",
        "WHEN",
        "THEN",
        "ELSE",
        "CAST",
        "COLLATE",
        "ESCAPE",
        "ISNULL",
        "NOTNULL",
        "NULL",
        "AS",
    ]
)


class Token(NamedTuple):
    """One token; `kind` is the name of its group in the pattern above."""

    kind: str
    text: str

    @property
    def word(self) -> str:
        """The keyword in upper case, or the sign; empty for what is quoted or a literal."""
        return self.text.upper() if self.kind in ("word", "sign") else ""

    @property
    def identifier(self) -> str:
        """The name that this token would be, without its quotes; empty when it can be none."""
        if self.kind == "word":
            return self.text
        if self.kind != "name":
            return ""
        quote = "]" if self.text[0] == "[" else self.text[0]
        return self.text[1:-1].replace(quote * 2, quote)


@dataclass
class ColumnText:
    """What only the text says of one column."""

    collation: str = "BINARY"
    generating: list[Token] = field(default_factory=list)


@dataclass
class TableText:
    """What only the text says of one table. `columns` is by folded name."""

    columns: dict[str, ColumnText] = field(default_factory=dict)
    checks: list[list[Token]] = field(default_factory=list)
    on_conflict: bool = False
    deferrable: bool = False


class Bound(NamedTuple):
    """What a CHECK allows an integer column (by folded name) to hold, both ends included."""

    column: str
    low: int
    high: int


def fold(name: str) -> str:
    """A name as SQLite compares it: without the case of ASCII letters, and of no others."""
    return name.translate(_UPPER_TO_LOWER)


def tokens_of(sql: str) -> list[Token]:
    """The tokens of `sql`, without white space and comments."""
    return [Token(match.lastgroup or "", match.group()) for match in _TOKEN.finditer(sql) if match.lastgroup != "space"]


def normal(tokens: Sequence[Token]) -> str:
    """Tokens as text that does not depend on white space, comments and the case of keywords."""
    return " ".join(token.text.lower() if token.kind == "word" else token.text for token in tokens)


def read_table(sql: str) -> TableText:
    """Reads a CREATE TABLE statement that SQLite has accepted."""
    text = TableText()
    for piece in _pieces(_body(tokens_of(sql))):
        column = None
        if piece[0].word not in _TABLE_CONSTRAINTS:
            column = text.columns.setdefault(fold(piece[0].identifier or piece[0].text.strip("'")), ColumnText())
        _read_piece(piece, column, text)
    return text


def read_bounds(check: Sequence[Token], integers: frozenset[str]) -> list[Bound] | None:
    """The bounds that a CHECK says, when it says nothing else: `column >= N`, `<=`, `>`, `<`, BETWEEN, joined by AND,
    on columns of `integers` (folded). None for any other CHECK."""
    tokens = _without_parentheses(list(check))
    parts = _split_and(tokens)
    if len(parts) > 1:
        bounds: list[Bound] = []
        for part in parts:
            inner = read_bounds(part, integers)
            if inner is None:
                return None
            bounds += inner
        return bounds
    bound = _comparison(_join_signs(tokens), integers)
    return None if bound is None else [bound]


def unsteady(tokens: Sequence[Token]) -> str:
    """What in an expression may answer otherwise later or raise (see STEADY_FUNCTIONS); empty when nothing does."""
    for index, token in enumerate(tokens):
        if token.word in _BEFORE_PATTERN and not _is_literal(tokens[index + 1 : index + 3]):
            return token.text
    previous = Token("", "")
    for token, following in pairwise([*tokens, Token("", "")]):
        if token.word.startswith("CURRENT_") or token.text in ("->", "->>"):
            return token.text
        is_call = following.text == "(" and token.kind in ("word", "name") and previous.word != "AS"
        previous = token
        if is_call and token.word not in _WORDS_BEFORE_PARENTHESIS and fold(token.identifier) not in STEADY_FUNCTIONS:
            return token.identifier + "()"
    return ""


def _is_literal(tokens: Sequence[Token]) -> bool:
    """Whether what begins here is a string, and not only the first part of a longer one."""
    return bool(tokens) and tokens[0].kind == "string" and tokens[-1].text != "||"


def _body(tokens: list[Token]) -> list[Token]:
    """What stands between the first parenthesis and its partner."""
    start = next((i for i, token in enumerate(tokens) if token.text == "("), len(tokens))
    return _group(tokens, start) if start < len(tokens) else []


def _group(tokens: Sequence[Token], start: int) -> list[Token]:
    """The tokens inside the parenthesis that opens at `start`."""
    depth = 0
    for end in range(start, len(tokens)):
        depth += (tokens[end].text == "(") - (tokens[end].text == ")")
        if depth == 0:
            return list(tokens[start + 1 : end])
    return list(tokens[start + 1 :])


def _at_top(tokens: Sequence[Token]) -> Iterator[tuple[int, Token]]:
    """Index and token of what is not inside parentheses; the parentheses themselves are left out."""
    depth = 0
    for index, token in enumerate(tokens):
        depth -= token.text == ")"
        if depth == 0 and token.text != ")" and token.text != "(":
            yield index, token
        depth += token.text == "("


def _pieces(body: list[Token]) -> Iterator[list[Token]]:
    commas = [index for index, token in _at_top(body) if token.text == ","]
    for start, end in zip([-1, *commas], [*commas, len(body)], strict=True):
        if end > start + 1:
            yield body[start + 1 : end]


def _read_piece(piece: list[Token], column: ColumnText | None, text: TableText) -> None:
    """One column's definition, or table constraints."""
    for index, token in _at_top(piece):
        if index == 0 and column is not None:
            continue  # the column's name, which may be any word
        following = piece[index + 1] if index + 1 < len(piece) else Token("", "")
        if token.word == "CHECK":
            text.checks.append(_group(piece, index + 1))
        elif token.word == "ON" and following.word == "CONFLICT":
            text.on_conflict = True
        elif token.word == "DEFERRABLE" and piece[index - 1].word != "NOT":
            text.deferrable = True
        elif token.word == "COLLATE" and column is not None:
            column.collation = following.identifier.upper()
        elif token.word == "AS" and following.text == "(" and column is not None:
            column.generating = _group(piece, index + 1)


def _without_parentheses(tokens: list[Token]) -> list[Token]:
    while tokens and tokens[0].text == "(" and len(_group(tokens, 0)) == len(tokens) - 2:
        tokens = tokens[1:-1]
    return tokens


def _split_and(tokens: list[Token]) -> list[list[Token]]:
    """Splits at the ANDs of the top level, but not at the AND of a BETWEEN."""
    parts, start, between = [], 0, False
    for index, token in _at_top(tokens):
        if token.word == "BETWEEN":
            between = True
        elif token.word == "AND" and between:
            between = False
        elif token.word == "AND":
            parts.append(tokens[start:index])
            start = index + 1
    return [*parts, tokens[start:]]


def _join_signs(tokens: list[Token]) -> list[Token]:
    """Joins a sign and the number after it when the sign follows no operand."""
    joined: list[Token] = []
    for index, token in enumerate(tokens):
        is_signed = bool(joined) and joined[-1].text in ("-", "+") and token.kind == "number"
        if is_signed and (index == 1 or joined[-2].kind == "sign" or joined[-2].word in ("BETWEEN", "AND")):
            joined[-1] = Token("number", joined[-1].text + token.text)
        else:
            joined.append(token)
    return joined


def _comparison(tokens: list[Token], integers: frozenset[str]) -> Bound | None:
    if len(tokens) == 5 and tokens[1].word == "BETWEEN" and tokens[3].word == "AND":
        return _bound(tokens[0], _integer(tokens[2]), _integer(tokens[4]), integers)
    if len(tokens) != 3:
        return None
    left, sign, right = tokens
    if left.kind == "number":
        left, right = right, left
        sign = Token("sign", {"<=": ">=", ">=": "<=", "<": ">", ">": "<"}.get(sign.text, ""))
    number = _integer(right)
    if number is None or sign.text not in (">=", ">", "<=", "<"):
        return None
    low, high = {
        ">=": (number, INTEGER_MAX),
        ">": (number + 1, INTEGER_MAX),
        "<=": (INTEGER_MIN, number),
        "<": (INTEGER_MIN, number - 1),
    }[sign.text]
    return _bound(left, low, high, integers)


def _integer(token: Token) -> int | None:
    """A decimal integer of 64 bits; SQLite reads a longer one as a real number."""
    if token.kind != "number" or not re.fullmatch(r"[+-]?\d+", token.text):
        return None
    number = int(token.text)
    return number if INTEGER_MIN <= number <= INTEGER_MAX else None


def _bound(column: Token, low: int | None, high: int | None, integers: frozenset[str]) -> Bound | None:
    name = fold(column.identifier)
    if name not in integers or low is None or high is None or low > INTEGER_MAX or high < INTEGER_MIN:
        return None
    return Bound(name, low, high)
