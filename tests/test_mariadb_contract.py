"""The contract of a resource with a server, on MariaDB."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from faults.conformance.outside import OutsideSubject, ServerContract
from faults.servers import Database
from tests.mariadb_tools import MariaDBSubject


class TestMariaDB(ServerContract):
    @pytest.fixture
    def subject(self, mariadb_databases: Callable[[], Database]) -> OutsideSubject:
        return MariaDBSubject(mariadb_databases)
