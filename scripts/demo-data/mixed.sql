-- The second part of the demo: the same ordinary tables in a SQLite file, in PostgreSQL and in MariaDB. It uses
-- `accounts` at p1, `stock` at p2 and `orders` at p3.

CREATE TABLE accounts (
    name VARCHAR(40) PRIMARY KEY NOT NULL,
    balance BIGINT NOT NULL CHECK (balance >= 0)        -- cents
);

CREATE TABLE stock (
    item VARCHAR(40) PRIMARY KEY NOT NULL,
    pieces BIGINT NOT NULL CHECK (pieces >= 0)
);

CREATE TABLE orders (
    number BIGINT PRIMARY KEY NOT NULL,
    item VARCHAR(40) NOT NULL,
    pieces BIGINT NOT NULL
);
