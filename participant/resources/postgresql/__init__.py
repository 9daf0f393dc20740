"""PostgreSQL as what a participant guards: PREPARE TRANSACTION on the user's own tables.

session.py     one connection, pipelined by libpq
pool.py        connections for work, a few for ends, one that keeps others of our identity away
opening.py     what must be true of a server before a vote of it can be believed
catalog.py     which tables are served, of which types
statements.py  steps in PostgreSQL's SQL, and what comes back
denials.py     what the server said, as reasons
resource.py    the contract
"""

from participant.resources.postgresql.resource import PostgreSQLResource

__all__ = ["PostgreSQLResource"]
