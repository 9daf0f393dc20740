"""MariaDB as a resource: the XA layer, and Troth's operations in MariaDB's SQL. `pip install troth[mariadb]`.

session     one connection, several statements in one packet
pool        the connections of one incarnation: for work, kept with what they prepared, for ends, the keeper
opening     what must be true of the server
catalog     which tables are served
statements  steps as SQL, and what is made of the answers
denials     the server's errors as reasons
resource    the contract
"""

from participant.resources.mariadb.resource import MariaDBResource

__all__ = ["MariaDBResource"]
