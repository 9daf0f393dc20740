-- A shop whose money, goods and orders lie in three places. Every participant has all tables; the demo uses
-- `accounts` of customers at p1, `stock` at p2, and `customers`, `orders` and the shop's own account at p3.

CREATE TABLE accounts (
    name TEXT PRIMARY KEY NOT NULL,
    balance INTEGER NOT NULL CHECK (balance >= 0)       -- cents
) STRICT;

CREATE TABLE stock (
    warehouse TEXT NOT NULL,
    item TEXT NOT NULL,
    pieces INTEGER NOT NULL CHECK (pieces >= 0),
    PRIMARY KEY (warehouse, item)
) STRICT;

CREATE TABLE customers (
    name TEXT PRIMARY KEY NOT NULL,
    email TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE orders (
    number INTEGER PRIMARY KEY NOT NULL,
    customer TEXT NOT NULL REFERENCES customers (name),
    item TEXT NOT NULL,
    warehouse TEXT,                                     -- NULL: nothing to ship
    pieces INTEGER NOT NULL CHECK (pieces > 0),
    cents INTEGER NOT NULL CHECK (cents >= 0)
) STRICT;
