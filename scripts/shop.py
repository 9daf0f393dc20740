"""The demo's shop: transactions made from a seed, and what must be in the tables once it is known which committed.

A transaction is kept as the JSON object that its line in a file holds (`troth submit --help`), so what is checked at
the end is computed from what was handed in, and from nothing that Troth made of it.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

Line = dict[str, Any]
"""One transaction as JSON."""
Row = tuple[str, str, tuple[Any, ...]]
"""Participant, table, key."""
Rows = dict[Row, dict[str, Any]]

KEYS = {"accounts": ["name"], "customers": ["name"], "orders": ["number"], "stock": ["warehouse", "item"]}
"""The tables of `demo-data/shop.sql`, with the columns of their primary keys."""
CENTS = {
    "basket": 1900,
    "blanket": 4900,
    "candle": 900,
    "chair": 8900,
    "clock": 3900,
    "lamp": 5900,
    "mirror": 7900,
    "pillow": 2900,
    "rug": 9900,
    "shelf": 6900,
    "table": 12900,
    "vase": 2400,
}
DOWNLOAD_CENTS = 1200
MISTAKE_EVERY = 40
"""Of so many transactions, one has its id used once more, for other content."""


def opening(path: Path) -> list[Line]:
    """The transactions that open the shop."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def transactions(opened: Iterable[Line], count: int, seed: int) -> list[Line]:
    """`count` transactions, the same for the same seed."""
    return list(_Maker(opened, random.Random(seed)).lines(count))


def mistakes(lines: Iterable[Line]) -> list[Line]:
    """Lines that use the id of an order for one more piece of it: each must be refused."""
    orders = [line for line in lines if line["id"].startswith("order-")]
    return [_with_one_more_piece(line) for line in orders[::MISTAKE_EVERY]]


def _with_one_more_piece(line: Line) -> Line:
    copy: Line = json.loads(json.dumps(line))
    for operation in copy["operations"]:
        if "insert" in operation:
            operation["insert"]["values"]["pieces"] += 1
    return copy


class _Order(NamedTuple):
    number: int
    customer: str
    item: str
    warehouse: str | None
    pieces: int
    cents: int


class _Maker:
    """Orders of four kinds, and cancellations of orders that came some hundreds of lines before."""

    def __init__(self, opened: Iterable[Line], random: random.Random) -> None:
        self._random = random
        rows = expected(opened)
        self._customers = sorted(key[0] for _, table, key in rows if table == "customers")
        self._warehouses = sorted({key[0] for _, table, key in rows if table == "stock"})
        self._shipped: list[_Order] = []
        self._cancelled: set[int] = set()

    def lines(self, count: int) -> Iterator[Line]:
        kinds: list[Callable[[int], Line]] = [self._sale, self._download, self._sample, self._cancellation]
        for number in range(1, count + 1):
            [kind] = self._random.choices(kinds, weights=[70, 10, 8, 12])
            yield kind(number)

    def _order(self, number: int, item: str, warehouse: str | None, pieces: int, cents: int) -> _Order:
        return _Order(number, self._random.choice(self._customers), item, warehouse, pieces, cents)

    def _goods(self) -> tuple[str, str, int]:
        return self._random.choice(sorted(CENTS)), self._random.choice(self._warehouses), self._random.randint(1, 4)

    def _sale(self, number: int) -> Line:
        """Paid at p1, taken from stock at p2, written down at p3."""
        item, warehouse, pieces = self._goods()
        order = self._order(number, item, warehouse, pieces, pieces * CENTS[item])
        self._shipped.append(order)
        return _line("order", order, *_payment(order, 1), _goods_moved(order, 1), _written(order))

    def _download(self, number: int) -> Line:
        """Nothing to ship: p1 and p3."""
        order = self._order(number, "catalogue", None, 1, DOWNLOAD_CENTS)
        return _line("order", order, *_payment(order, 1), _written(order))

    def _sample(self, number: int) -> Line:
        """Nothing to pay: p2 and p3."""
        item, warehouse, _ = self._goods()
        order = self._order(number, item, warehouse, 1, 0)
        return _line("order", order, _goods_moved(order, 1), _written(order))

    def _cancellation(self, number: int) -> Line:
        """Money and goods back, the order gone; NO when the order was never written."""
        open_ = [order for order in self._shipped[:-400] if order.number not in self._cancelled]
        if not open_:
            return self._sale(number)
        order = self._random.choice(open_[-400:])
        self._cancelled.add(order.number)
        gone = {"participant": "p3", "delete": {"table": "orders", "key": order.number}}
        return _line("cancel", order, *_payment(order, -1), _goods_moved(order, -1), gone)


def _line(what: str, order: _Order, *operations: Line) -> Line:
    return {"id": f"{what}-{order.number:05}", "operations": list(operations)}


def _payment(order: _Order, sign: int) -> list[Line]:
    """From the customer's account at p1 to the shop's at p3, or back."""
    return [
        _add("p1", "accounts", order.customer, "balance", -sign * order.cents),
        _add("p3", "accounts", "shop", "balance", sign * order.cents),
    ]


def _goods_moved(order: _Order, sign: int) -> Line:
    return _add("p2", "stock", [order.warehouse, order.item], "pieces", -sign * order.pieces)


def _written(order: _Order) -> Line:
    values = {key: value for key, value in order._asdict().items() if key != "number" and value is not None}
    return {"participant": "p3", "insert": {"table": "orders", "key": order.number, "values": values}}


def _add(participant: str, table: str, key: object, column: str, by: int) -> Line:
    add = {"table": table, "key": key, "column": column, "by": by}
    return {"participant": participant, "add": add if by > 0 else {**add, "min": 0}}


# What must be there, and what is.


def expected(committed: Iterable[Line]) -> Rows:
    """The rows that exactly these transactions make, whatever their order was."""
    rows: Rows = {}
    by_kind: dict[str, list[tuple[Row, Line]]] = {"insert": [], "add": [], "delete": []}
    for line in committed:
        for operation in line["operations"]:
            [(kind, body)] = ((kind, body) for kind, body in operation.items() if kind != "participant")
            key = body["key"] if isinstance(body["key"], list) else [body["key"]]
            by_kind[kind].append(((operation["participant"], body["table"], tuple(key)), body))
    for row, body in by_kind["insert"]:
        rows[row] = {"warehouse": None, **body["values"]} if row[1] == "orders" else dict(body["values"])
    for row, body in by_kind["add"]:
        rows[row][body["column"]] += body["by"]
    for row, _ in by_kind["delete"]:
        del rows[row]
    return rows


def branches(committed: Iterable[Line]) -> Counter[str]:
    """How many branches each participant must have applied."""
    return Counter(name for line in committed for name in {each["participant"] for each in line["operations"]})


def found(files: Mapping[str, Path]) -> Rows:
    """The rows that are in the participants' files."""
    rows: Rows = {}
    for participant, path in files.items():
        with closing(_open(path)) as connection:
            for table, key in KEYS.items():
                cursor = connection.execute(f"SELECT * FROM {table}")
                columns = [column[0] for column in cursor.description]
                for values in cursor:
                    row = dict(zip(columns, values, strict=True))
                    rows[participant, table, tuple(row.pop(name) for name in key)] = row
    return rows


def applied(files: Mapping[str, Path]) -> Counter[str]:
    """How many branches each participant has applied, by its history."""
    counts: Counter[str] = Counter()
    for participant, path in files.items():
        with closing(_open(path)) as connection:
            [counts[participant]] = connection.execute("SELECT count(*) FROM troth_history").fetchone()
    return counts


def _open(path: Path) -> sqlite3.Connection:
    """For reading: other tools may read a participant's file and never write."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)


class Totals(NamedTuple):
    """What can neither be made nor lost."""

    money: int
    """Cents on all accounts."""
    goods: int
    """Pieces in stock and on orders that ship."""
    till: int
    """Cents on the shop's own account."""
    sold: int
    """Cents of all orders."""
    orders: int

    @classmethod
    def of(cls, rows: Rows) -> Totals:
        by_table: dict[str, list[dict[str, Any]]] = {table: [] for table in KEYS}
        for (_, table, _), row in rows.items():
            by_table[table].append(row)
        orders = by_table["orders"]
        shipped = sum(order["pieces"] for order in orders if order["warehouse"] is not None)
        return cls(
            money=sum(row["balance"] for row in by_table["accounts"]),
            goods=sum(row["pieces"] for row in by_table["stock"]) + shipped,
            till=rows["p3", "accounts", ("shop",)]["balance"],
            sold=sum(order["cents"] for order in orders),
            orders=len(orders),
        )
